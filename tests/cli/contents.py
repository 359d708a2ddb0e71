"""Contents that files of a user's project may have: hypothesis strategies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from hypothesis import strategies as st

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_SPACE = st.sampled_from(["", "", " ", "\n", "\r\n", "\n  ", "\n\n\t", " \t"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_NAMES = st.sampled_from(["mcpServers", "permissions", "allow", "hooks", "Start", "version", "é", ""])
_EVENTS = st.sampled_from(["Start", "End", "PreToolUse", "preToolUse", "SubagentStop", "Other"])


def _inner(values: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.lists(values, max_size=3) | st.dictionaries(_NAMES, values, max_size=3)


VALUES: st.SearchStrategy[Json] = st.recursive(_LEAVES, _inner, max_leaves=6)
_LISTS = st.lists(VALUES, max_size=3)
_FOREIGN = st.dictionaries(st.text(max_size=3).filter(lambda name: name not in {"e", "epicwave"}), VALUES, max_size=3)


def _shuffled(members: Mapping[str, Json]) -> st.SearchStrategy[dict[str, Json]]:
    return st.permutations(list(members.items())).map(dict)


OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "$schema": _LEAVES,
        "permissions": st.fixed_dictionaries({}, optional={"deny": VALUES, "allow": _LISTS}),
        "hooks": st.dictionaries(_EVENTS, _LISTS, max_size=3),
        "mcpServers": _FOREIGN,
        "version": st.just(1) | VALUES,
    },
).flatmap(lambda members: _shuffled(cast("dict[str, Json]", members)))
"""What a settings file, or a file of servers or hooks, may be, with nothing of ours in it."""


@st.composite
def _wild(draw: st.DrawFn, value: Json) -> str:
    """The value as JSON, with space where nobody would put it, too."""
    match value:
        case dict():
            inside = [
                f"{draw(_SPACE)}{json.dumps(name)}{draw(_SPACE)}:{draw(_SPACE)}{draw(_wild(member))}{draw(_SPACE)}"
                for name, member in value.items()
            ]
            return "{" + (",".join(inside) or draw(_SPACE)) + "}"
        case list():
            inside = [f"{draw(_SPACE)}{draw(_wild(element))}{draw(_SPACE)}" for element in value]
            return "[" + (",".join(inside) or draw(_SPACE)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    """As tools lay an object out, or as nobody would."""
    if draw(st.booleans()):
        text = json.dumps(draw(OBJECTS), indent=draw(st.sampled_from([None, 2, 4, "\t"])))
        text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))) + draw(st.sampled_from(["", "\n"]))
    else:
        text = draw(_SPACE) + draw(OBJECTS.flatmap(_wild)) + draw(_SPACE)
    return (draw(st.sampled_from(["", "\ufeff"])) + text).encode()


@st.composite
def ignore_files(draw: st.DrawFn) -> bytes:
    """Any bytes at all, or lines."""
    lines = st.lists(st.sampled_from([b"*.log", b".claude/", b"!x", b"\xff", b"", b"# c", b"a\r", b"!.claude/"]))
    if draw(st.booleans()):
        return draw(st.binary(max_size=8))
    newline = draw(st.sampled_from([b"\n", b"\r\n"]))
    return newline.join(draw(lines)) + draw(st.sampled_from([b"", b"\n", b"\r\n", b"\r"]))
