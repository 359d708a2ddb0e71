"""Our own epic format: YAML (and so JSON) with `epic:` and `stories:`.

Every error is kept with its line, and none is guessed away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TypeVar

from mcp_server.adapters.formats.reading import SHAPES, Reading, unreadable
from mcp_server.adapters.formats.yaml_nodes import Map, Node, Scalar, Seq, compose
from mcp_server.core.argv import split
from mcp_server.core.checks import MAX_CHECK_S, Timed, commands, limits
from mcp_server.core.draft import DraftStory, EpicDraft, Mention, PlanError
from mcp_server.core.spec import Argv, Sharing

FORMAT = "epicwave-yaml"
EPIC_KEYS = ("id", "title", "goal", "checks", "agent", "fallback_agent", "overlap")
STORY_KEYS = (
    "id",
    "title",
    "description",
    "acceptance",
    "depends_on",
    "files",
    "critical",
    "minutes",
    "points",
    "checks",
    "guards",
    "agent",
    "overlap",
    "status",
)
TIMED_KEYS = ("run", "timeout_s")
_COMMANDS = "a list of commands, each a string, a list of arguments, or `{run: COMMAND, timeout_s: SECONDS}`"
_ALIASES = {"acceptance_criteria": "acceptance"}
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,12})?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_STATUSES = {"todo": False, "done": True}
_SHARING = {str(each): each for each in Sharing}
_NOTHING = {"", "~", "null", "Null", "NULL"}
_T = TypeVar("_T")
_Fields = dict[str, Node]


def read_native(text: str, source: str) -> Reading:
    """Read an epic in our own format. Raises `Refused` (unreadable_epic) for what is no YAML or has no stories."""
    root = compose(text)
    if not isinstance(root, Map):
        what = "nothing" if root is None else _spoken(root)
        raise unreadable(f"The YAML holds {what} where a mapping is needed.", "Begin it with `epic:` and `stories:`.")
    draft = _Reader().epic(root, source)
    if not draft.stories and not draft.errors:
        raise unreadable("The epic has no stories: its `stories:` is empty.", SHAPES)
    return Reading(draft, format=FORMAT)


class _Reader:
    """Typed conversion of nodes; stores the errors it meets and goes on."""

    def __init__(self) -> None:
        self._errors: list[PlanError] = []

    def epic(self, root: Map, source: str) -> EpicDraft:
        top = self._fields(root, ("epic", "stories", *EPIC_KEYS), "at the top")
        about = self._get(top, "epic", self._mapping)
        told = top if about is None else self._fields(about, EPIC_KEYS, "in `epic`")
        if about is not None:
            for key in [key for key in EPIC_KEYS if key in top]:
                self._error(top[key].line, f"`{key}` stands at the top although there is `epic:`; move it there.")
        identity = told.get("id")
        checks = self._get(told, "checks", self._commands) or ()
        draft = EpicDraft(
            stories=self._stories(top),
            id=self._get(told, "id", self._text),
            title=self._get(told, "title", self._text) or "",
            goal=self._get(told, "goal", self._text) or "",
            checks=commands(checks),
            check_limits=limits(checks),
            agent=self._get(told, "agent", self._text),
            fallback_agent=self._get(told, "fallback_agent", self._text),
            source=source,
            line=identity.line if identity else None,
            overlap=self._get(told, "overlap", self._choice(_SHARING)),
        )
        return replace(draft, errors=tuple(self._errors))

    def _stories(self, top: _Fields) -> tuple[DraftStory, ...]:
        listed = self._get(top, "stories", self._sequence)
        if listed is None:
            if "stories" not in top:
                self._error(None, "`stories` is missing: a list of mappings with `id`, `title`, `depends_on`, `files`.")
            return ()
        found: list[DraftStory] = []
        for node in listed.items:
            if isinstance(node, Map):
                found.append(self._story(node))
            else:
                self._error(node.line, "a story must be a mapping with `id`, `title`, `depends_on`, `files`.")
        return tuple(found)

    def _story(self, node: Map) -> DraftStory:
        fields = self._fields(node, STORY_KEYS, "in a story")
        identity = self._get(fields, "id", self._text)
        if identity is None and "id" not in fields:
            self._error(node.line, "the story has no `id`; give it one.")
        checks = self._get(fields, "checks", self._commands) or ()
        guards = self._get(fields, "guards", self._commands) or ()
        return DraftStory(
            id=identity or f"story-on-line-{node.line}",
            title=self._get(fields, "title", self._text) or identity or "",
            line=node.line,
            description=self._get(fields, "description", self._text) or "",
            acceptance=tuple(text for text, _ in self._get(fields, "acceptance", self._texts) or ()),
            depends_on=self._get(fields, "depends_on", self._texts) or (),
            files=self._get(fields, "files", self._texts) or (),
            critical=self._get(fields, "critical", self._choice(_BOOLEANS)) or False,
            minutes=self._get(fields, "minutes", self._number),
            points=self._get(fields, "points", self._number),
            checks=commands(checks),
            guards=commands(guards),
            check_limits=limits((*checks, *guards)),
            agent=self._get(fields, "agent", self._text),
            done=self._get(fields, "status", self._choice(_STATUSES)) or False,
            overlap=self._get(fields, "overlap", self._choice(_SHARING)),
        )

    def _error(self, line: int | None, message: str, code: str = "bad_value") -> None:
        self._errors.append(PlanError(line, code, message))

    def _wrong(self, key: str, node: Node, allowed: str) -> None:
        self._error(node.line, f"`{key}` must be {allowed}, not {_spoken(node)}.")

    def _fields(self, node: Map, allowed: Sequence[str], where: str) -> _Fields:
        """The fields of a mapping by their names; unknown and repeated ones are errors."""
        fields: _Fields = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                self._error(key.line, f"a key {where} must be a word, not {_spoken(key)}.", "unknown_key")
                continue
            name = _ALIASES.get(key.text, key.text) if _ALIASES.get(key.text) in allowed else key.text
            if name in fields:
                said = f"`{key.text}` is given twice {where}, first on line {fields[name].line}; keep one."
                self._error(key.line, said, "duplicate_key")
            elif name in allowed:
                fields[name] = value
            else:
                near = get_close_matches(key.text[:40], allowed, n=1, cutoff=0.5)
                hint = f"the nearest is `{near[0]}`; " if near else ""
                said = f"`{key.text[:40]}` is no key {where}; {hint}allowed are {', '.join(allowed)}."
                self._error(key.line, said, "unknown_key")
        return fields

    def _get(self, fields: _Fields, key: str, convert: Callable[[str, Node], _T | None]) -> _T | None:
        node = fields.get(key)
        return None if node is None or _is_nothing(node) else convert(key, node)

    def _mapping(self, key: str, node: Node) -> Map | None:
        return node if isinstance(node, Map) else self._wrong(key, node, f"a mapping with {', '.join(EPIC_KEYS)}")

    def _sequence(self, key: str, node: Node) -> Seq | None:
        return node if isinstance(node, Seq) else self._wrong(key, node, "a list")

    def _text(self, key: str, node: Node) -> str | None:
        return node.text.strip() if isinstance(node, Scalar) else self._wrong(key, node, "a text")

    def _number(self, key: str, node: Node) -> float | None:
        if isinstance(node, Scalar) and _NUMBER.fullmatch(node.text.strip()):
            return float(node.text)
        return self._wrong(key, node, "a number such as 3 or 1.5")

    def _choice(self, choices: Mapping[str, _T]) -> Callable[[str, Node], _T | None]:
        def convert(key: str, node: Node) -> _T | None:
            if isinstance(node, Scalar) and node.text.strip().lower() in choices:
                return choices[node.text.strip().lower()]
            return self._wrong(key, node, f"one of {', '.join(choices)}")

        return convert

    def _texts(self, key: str, node: Node) -> tuple[Mention, ...] | None:
        """A list of texts; one text stands for a list of one."""
        if isinstance(node, Map):
            return self._wrong(key, node, "a list of texts")
        found: list[Mention] = []
        for item in node.items if isinstance(node, Seq) else [node]:
            if isinstance(item, Scalar):
                found.append(Mention(item.text.strip(), item.line))
            else:
                hint = " (a text with `: ` in it needs quotes)" if isinstance(item, Map) else ""
                self._wrong(key, item, f"a list of texts{hint}")
        return tuple(found)

    def _commands(self, key: str, node: Node) -> tuple[Timed, ...] | None:
        """A list of commands, each a string, a list of arguments, or either with a time limit of its own."""
        if not isinstance(node, Seq):
            return self._wrong(key, node, _COMMANDS)
        found: list[Timed] = []
        for item in node.items:
            if isinstance(item, Map):
                fields = self._fields(item, TIMED_KEYS, f"in an entry of `{key}`")
                command = self._command(key, fields.get("run", item))
                limit_s = self._get(fields, "timeout_s", self._seconds)
            else:
                command, limit_s = self._command(key, item), None
            if command is not None:
                found.append(Timed(command, limit_s))
        return tuple(found)

    def _command(self, key: str, item: Node) -> Argv | None:
        if isinstance(item, Scalar):
            try:
                return split(item.text)
            except ValueError as error:
                return self._error(item.line, f"`{key}`: {error}.", "bad_command")
        if isinstance(item, Seq) and item.items and all(isinstance(word, Scalar) for word in item.items):
            return tuple(word.text for word in item.items if isinstance(word, Scalar))
        return self._wrong(key, item, _COMMANDS)

    def _seconds(self, key: str, node: Node) -> float | None:
        limit_s = self._number(key, node)
        if limit_s is not None and not 0 < limit_s <= MAX_CHECK_S:
            return self._wrong(key, node, f"more than 0 and at most {MAX_CHECK_S} seconds")
        return limit_s


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in _NOTHING


def _spoken(node: Node) -> str:
    match node:
        case Scalar():
            return repr(node.text[:40])
        case Seq():
            return "a list"
        case Map():
            return "a mapping"
