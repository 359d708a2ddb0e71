"""A Markdown document as lines that know what they are: text, code, or hidden from readers of the rendered page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from mcp_server.adapters.formats.reading import unreadable

MAX_LINE = 8_000
MAX_LINES = 100_000
_FENCE = re.compile(r"\s*(?:(?:[-*+]|\d{1,4}[.)])\s+)?(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_BULLET = re.compile(r"(\s*)([-*+•]|\d{1,4}[.)])\s+(\S.*)$")
_BOX = re.compile(r"\\?\[([ xX~✓✔-])\\?\]\s+")
_FRONT_MATTER_LINES = 200


class Kind(Enum):
    """What a line is for a reader of the page."""

    TEXT = auto()
    FENCE = auto()  # opens or closes a code block
    CODE = auto()
    HIDDEN = auto()  # front matter, comment, or too long to be meant for people


@dataclass(frozen=True, slots=True)
class Line:
    """One line: where it stands, what it is, and how it begins."""

    number: int
    text: str
    kind: Kind
    indent: int = 0
    level: int = 0
    """1 to 6 for a heading."""
    bullet: str = ""
    """The marker of a list item, such as `-` or `3.`."""
    ticked: bool = False
    """A checkbox that is ticked."""
    body: str = ""
    """The text without the heading's or the item's marker and without a checkbox."""


def cut(text: str) -> tuple[list[Line], tuple[str, ...]]:
    """The lines of a document and what a reader should be told about them. Raises `Refused` for too many lines."""
    if text.count("\n") > MAX_LINES:
        raise unreadable(f"The epic has more than {MAX_LINES} lines.", "Split it.")
    lines: list[Line] = []
    notes: list[str] = []
    opened = 0
    for line in _lines(text.split("\n")):
        lines.append(line)
        if line.kind is Kind.FENCE:
            opened = 0 if opened else line.number
        if line.kind is Kind.HIDDEN and len(line.text) > MAX_LINE:
            notes.append(f"Line {line.number} is longer than {MAX_LINE} characters and was not read.")
    if opened:
        notes.append(f"The code block that begins on line {opened} is never closed: all after it is taken as code.")
    return lines, tuple(notes)


def _lines(texts: list[str]) -> Iterator[Line]:
    fence, comment = "", False
    front_matter = _front_matter_end(texts)
    for number, text in enumerate(texts, start=1):
        if number <= front_matter or len(text) > MAX_LINE:
            yield Line(number, text, Kind.HIDDEN)
        elif fence:
            closes = text.strip().startswith(fence) and not text.strip().strip(fence[0])
            yield Line(number, text, Kind.FENCE if closes else Kind.CODE)
            fence = "" if closes else fence
        elif comment or text.lstrip().startswith("<!--"):
            comment = "-->" not in text
            yield Line(number, text, Kind.HIDDEN)
        elif (found := _FENCE.match(text)) is not None and not (found[1][0] == "`" and "`" in found[2]):
            fence = found[1]
            yield Line(number, text, Kind.FENCE)
        else:
            yield _text_line(number, text.expandtabs(4).rstrip())


def _text_line(number: int, text: str) -> Line:
    indent = len(text) - len(text.lstrip())
    if (heading := _HEADING.match(text)) is not None:
        body = (heading[2] or "").strip().rstrip("#").rstrip()
        return Line(number, text, Kind.TEXT, indent, level=len(heading[1]), body=body)
    if (bullet := _BULLET.match(text)) is not None:
        box = _BOX.match(bullet[3])
        body = bullet[3][box.end() :] if box else bullet[3]
        ticked = box is not None and box[1] in "xX✓✔"
        return Line(number, text, Kind.TEXT, indent, bullet=bullet[2], ticked=ticked, body=body)
    return Line(number, text, Kind.TEXT, indent, body=text.strip())


def _front_matter_end(texts: list[str]) -> int:
    """Number of the line that closes the front matter; 0 when there is none."""
    if texts[0].rstrip() != "---":
        return 0
    for number, text in enumerate(texts[1 : _FRONT_MATTER_LINES + 1], start=2):
        if text.rstrip() == "---":
            return number
    return 0
