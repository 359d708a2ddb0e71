"""YAML as nodes with lines, built from PyYAML's events: every scalar a string, nothing expanded, everything bounded.

`[010]` stays "010", a billion laughs or a hundred thousand brackets are refused before they cost anything, and libyaml
is used where PyYAML has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from mcp_server.adapters.formats.reading import unreadable

MAX_DEPTH = 16
MAX_VALUES = 150_000
LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, as text."""

    line: int
    text: str
    plain: bool = True
    """Written without quotes, so that an empty one, `~` or `null` means nothing is there."""


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list["Node"])


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping as its pairs: a key may occur twice."""

    line: int
    pairs: list[tuple[Node, Node]] = field(default_factory=list[tuple["Node", "Node"]])


Node = Scalar | Seq | Map


def compose(text: str) -> Node | None:
    """The one document in `text`, None when there is none. Raises `Refused` (unreadable_epic) with the line."""
    try:
        return _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown line"
        why = " ".join(str(error.problem or error.context or "it is not YAML").split())
        remedy = "Mend that line; a value with `: `, `#`, `@` or a quote in it has to be in quotes."
        raise unreadable(f"The YAML cannot be read at {where}: {why}.", remedy) from None
    except (yaml.YAMLError, UnicodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise unreadable(f"The YAML cannot be read: {why}.", "Write the epic as plain UTF-8 text.") from None


def _compose(text: str) -> Node | None:
    root: list[Node] = []
    open_: list[Seq | Map] = []
    keys: list[Node | None] = []
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        if count > MAX_VALUES:
            raise unreadable(f"The YAML has more than {MAX_VALUES} values.", "Split the epic.")
        node = _node(event)
        if node is not None:
            _place(node, root, open_, keys)
        if isinstance(node, Seq | Map):
            if len(open_) == MAX_DEPTH:
                raise unreadable(
                    f"The YAML is nested deeper than {MAX_DEPTH} levels at line {node.line}.", "Flatten it."
                )
            open_.append(node)
            keys.append(None)
        elif isinstance(event, yaml.CollectionEndEvent):
            open_.pop()
            keys.pop()
    return root[0] if root else None


def _node(event: yaml.Event) -> Node | None:
    line = event.start_mark.line + 1 if event.start_mark else 0
    match event:
        case yaml.ScalarEvent():
            return Scalar(line, event.value, plain=not event.style)
        case yaml.SequenceStartEvent():
            return Seq(line)
        case yaml.MappingStartEvent():
            return Map(line)
        case yaml.AliasEvent():
            raise unreadable(f"The YAML uses an alias (*{event.anchor}) at line {line}.", "Write the value out there.")
        case _:
            return None


def _place(node: Node, root: list[Node], open_: list[Seq | Map], keys: list[Node | None]) -> None:
    """Put a node where it belongs: into the innermost open list or mapping, or at the root."""
    if not open_:
        if root:
            why = f"The YAML has a second document at line {node.line}."
            raise unreadable(why, "Keep one epic a file; a line `---` begins a new document.")
        root.append(node)
        return
    holder, key = open_[-1], keys[-1]
    if isinstance(holder, Seq):
        holder.items.append(node)
    elif key is None:
        keys[-1] = node
    else:
        holder.pairs.append((key, node))
        keys[-1] = None
