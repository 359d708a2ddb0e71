"""The fields of one story, read line by line from the lines between its head and the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcp_server.adapters.formats.labels import VALUES, Field, Label, heading_label, label_of
from mcp_server.adapters.formats.lines import Kind, Line
from mcp_server.adapters.formats.reading import UnusedLine
from mcp_server.adapters.formats.values import dependencies, files, is_done, minutes, number
from mcp_server.core.argv import split
from mcp_server.core.checks import MAX_CHECK_S, Timed
from mcp_server.core.draft import Mention, PlanError
from mcp_server.core.spec import Sharing

SHARING = {str(each): each for each in Sharing}
NO_SHARING = f"overlap is one of {', '.join(SHARING)}"
_STEP = re.compile(r"\W*(given|when|then|and|but)\b", re.IGNORECASE)
_MARKS = " \t✅☑✔⏳⏸❌☐🔲\ufe0f"
_LISTS = frozenset({Field.ACCEPTANCE, Field.DEPENDS, Field.FILES, Field.CHECKS, Field.GUARDS, Field.DEPENDENTS})
_COMMANDS = frozenset({Field.CHECKS, Field.GUARDS})
_COMMAND = re.compile(r"`([^`]+)`(?:\s*\((?:at most\s+)?(\d{1,6}(?:\.\d{1,3})?)\s*(s|sec|seconds?|min|minutes?)\))?")
"""In backticks, and behind it perhaps a time limit of its own: `pytest -q` (120 s)."""
_SOLO = re.compile(r"\s+[|·]\s+(?=\*\*)")


@dataclass(slots=True)
class Fields:
    """What one story says of itself, as it was read so far."""

    id: Mention | None = None
    aliases: list[str] = field(default_factory=list[str])
    description: list[str] = field(default_factory=list[str])
    acceptance: list[str] = field(default_factory=list[str])
    depends_on: list[Mention] = field(default_factory=list[Mention])
    files: list[Mention] = field(default_factory=list[Mention])
    points: float | None = None
    minutes: float | None = None
    critical: bool = False
    done: bool | None = None
    checks: list[Timed] = field(default_factory=list[Timed])
    guards: list[Timed] = field(default_factory=list[Timed])
    agent: str | None = None
    overlap: Sharing | None = None
    unused: list[UnusedLine] = field(default_factory=list[UnusedLine])
    errors: list[PlanError] = field(default_factory=list[PlanError])
    labelled: bool = False
    """It has any field at all: it is the story itself and not a mention of it in some list."""


def read_fields(lines: Sequence[Line]) -> Fields:
    """Read the lines of one story."""
    reader = _Reader()
    for line in lines:
        reader.take(line)
    return reader.fields


class _Reader:
    """Stores which field the next line belongs to, and where its list stands."""

    def __init__(self) -> None:
        self.fields = Fields()
        self._field: Field | None = None
        self._owner: Line | None = None
        """The line that announced the field."""
        self._item_indent: int | None = None
        """Where the items of the present list begin."""
        self._blank = False

    def take(self, line: Line) -> None:
        match line.kind:
            case Kind.HIDDEN:
                return
            case Kind.CODE | Kind.FENCE:
                if self._field is None or self._field not in _COMMANDS:
                    self.fields.description.append(line.text)
                elif line.kind is Kind.CODE and line.text.strip() and not line.text.lstrip().startswith("#"):
                    self._check(self._field, line.text.strip().removeprefix("$ "), line)
                return
            case Kind.TEXT:
                pass
        if not line.text.strip():
            self._blank = True
            self._prose("")
            return
        if line.level:
            self._announce(heading_label(line.body), line)
        elif self._field not in _LISTS or not self._in_list(line):
            self._line(line)
        self._blank = False

    def _line(self, line: Line) -> None:
        """A line that belongs to no list: one or more labels, or prose."""
        if self._field in VALUES and label_of(line.body) is None:
            waiting, self._field = self._field, None
            self._value(waiting, line.body, line)
            return
        pieces = _SOLO.split(line.body)
        labels = [label for piece in pieces if (label := label_of(piece)) is not None]
        if labels and len(labels) == len(pieces):
            for label in labels:
                self._announce(label, line)
        else:
            self._field = None
            self._prose(line.text)
            if line.body.lower().startswith("depends on "):
                why = "it does not name stories only; write `Depends on: Story 1.1, Story 1.2`"
                self._unused(line, line.body, why)

    def _announce(self, label: Label, line: Line) -> None:
        """A label opens its field; what is behind it is the field's value or its first item."""
        self._field, self._owner, self._item_indent = label.field, line, None
        match label.field:
            case None | Field.OTHER | Field.DESCRIPTION:
                self._prose(label.value if label.field is Field.DESCRIPTION and not line.bullet else line.text)
                return
            case Field.DEPENDENTS:
                if label.value:
                    self._unused(line, line.body, "it says what waits for this story; say it there, with `Depends on:`")
            case Field.ACCEPTANCE:
                self.fields.acceptance += [_item(part) for part in re.split(r";\s", label.value) if _item(part)]
            case Field.DEPENDS | Field.FILES | Field.CHECKS | Field.GUARDS:
                if label.value and self._list_item(label.field, label.value, line):
                    self._field = label.field if label.value.endswith(",") else None
            case _:
                if label.value:
                    self._field = None
                    self._value(label.field, label.value, line)
        self.fields.labelled = True

    def _in_list(self, line: Line) -> bool:
        """Take a line as part of the present list; False when the list is over."""
        owner = self._owner
        if owner is None or (owner.bullet and line.indent <= owner.indent):
            self._field = None
            return False
        label = label_of(line.body)
        if self._field is Field.ACCEPTANCE:
            return self._in_acceptance(line, label)
        if not line.bullet:
            if label is not None or self._blank:
                self._field = None
                return False
        elif label is not None and label.field is not None and label.value:
            present = self._field, owner, self._item_indent
            self._announce(label, line)
            self._field, self._owner, self._item_indent = present
            return True
        if self._item_indent is None:
            self._item_indent = line.indent
        if line.indent > self._item_indent + 1:
            self._prose(line.text)
        elif self._field in {Field.DEPENDS, Field.FILES, *_COMMANDS}:
            self._list_item(self._field, line.body, line)
        else:
            self._unused(line, line.body, "it says what waits for this story; say it there, with `Depends on:`")
        return True

    def _in_acceptance(self, line: Line, label: Label | None) -> bool:
        items = self.fields.acceptance
        if line.bullet:
            if label is not None and (label.bold or self._blank) and _is_sure(label):
                return False
            if self._item_indent is None:
                self._item_indent = line.indent
            if items and line.indent > self._item_indent + 1:
                items[-1] += f"{'' if items[-1].endswith(':') else ';'} {_item(line.body)}"
            else:
                items.append(_item(line.body))
            return True
        if label is not None and (label.field is not None or not _STEP.match(line.body)):
            self._field = None
            return False
        step = _STEP.match(line.body)
        given = step is not None and step[1].lower() == "given"
        follows = step is not None and bool(items) and _STEP.match(items[-1]) is not None
        if not items or given:
            items.append(_item(line.body))
        elif follows or not self._blank or line.indent > (self._item_indent or 0):
            items[-1] += " " + _item(line.body)
        else:
            self._field = None
            return False
        return True

    def _list_item(self, kind: Field, text: str, line: Line) -> bool:
        """Take a value of a list; False when nothing of it could be used."""
        if kind in _COMMANDS:
            commands = _COMMAND.findall(text)
            for command, number_, unit in commands:
                self._check(kind, command, line, float(number_ or 0) * (60 if unit.startswith("m") else 1))
            if not commands:
                self._unused(line, text, "a check is a command; write it in backticks or in a code block")
            return bool(commands)
        found = dependencies(text) if kind is Field.DEPENDS else files(text)
        target = self.fields.depends_on if kind is Field.DEPENDS else self.fields.files
        target += [Mention(name, line.number) for name in found.used]
        why = "it names no story" if kind is Field.DEPENDS else "it is not a path, a folder or a glob in the repository"
        for piece in found.left:
            self._unused(line, piece, why)
        return bool(found.used) or found.none

    def _value(self, kind: Field | None, text: str, line: Line) -> None:
        fields = self.fields
        plain = text.strip().strip("*`_ ")
        match kind:
            case Field.ID:
                fields.id = Mention(plain, line.number)
            case Field.ALIAS:
                fields.aliases.append(plain)
            case Field.PRIORITY | Field.CRITICAL:
                wanted = r"\bcritical\b" if kind is Field.PRIORITY else r"\b(?:yes|true|critical)\b"
                denied = re.search(r"\b(?:non|not|un)[- ]?critical\b", plain, re.IGNORECASE)
                fields.critical |= denied is None and re.search(wanted, plain, re.IGNORECASE) is not None
            case Field.STATUS | Field.OVERLAP:
                self._known_word(kind, plain, line)
            case Field.AGENT:
                fields.agent = plain
            case Field.POINTS | Field.EFFORT:
                fields.minutes = minutes(plain) if fields.minutes is None else fields.minutes
                points = number(plain) if kind is Field.POINTS or "point" in plain.lower() else None
                fields.points = points if points is not None else fields.points
                if kind is Field.POINTS and points is None:
                    self._unused(line, plain, "it is not a number")
            case _:
                self._prose(line.text)

    def _known_word(self, kind: Literal[Field.STATUS, Field.OVERLAP], plain: str, line: Line) -> None:
        fields = self.fields
        if kind is Field.OVERLAP:
            fields.overlap = SHARING.get(plain.lower())
            if fields.overlap is None:
                self._unused(line, plain, NO_SHARING)
            return
        fields.done = is_done(plain)
        if fields.done is None:
            self._unused(line, plain, "this status is not known; the story is taken as not done")

    def _check(self, kind: Field, command: str, line: Line, limit_s: float = 0.0) -> None:
        if limit_s > MAX_CHECK_S:
            self._unused(line, line.body, f"a check's time limit is at most {MAX_CHECK_S} s")
            limit_s = 0.0
        try:
            target = self.fields.guards if kind is Field.GUARDS else self.fields.checks
            target.append(Timed(split(command), limit_s or None))
        except ValueError as error:
            self.fields.errors.append(PlanError(line.number, "bad_command", f"checks: {error}."))

    def _prose(self, text: str) -> None:
        if text or self.fields.description[-1:] != [""]:
            self.fields.description.append(text)

    def _unused(self, line: Line, text: str, why: str) -> None:
        self.fields.unused.append(UnusedLine(line.number, text, why))


def _item(text: str) -> str:
    return text.strip().lstrip(_MARKS).strip()


def _is_sure(label: Label) -> bool:
    """True for a label in a list of criteria that cannot be a criterion: its whole value makes sense for its field."""
    match label.field:
        case Field.DEPENDS:
            return dependencies(label.value).whole
        case Field.FILES:
            return files(label.value).whole
        case Field.POINTS:
            return number(label.value) is not None
        case _:
            return False
