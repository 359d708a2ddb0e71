"""Where stories begin and end in a Markdown document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcp_server.adapters.formats.lines import Kind, Line

_LEAD = re.compile(r"[^\w]*")
_STORY = re.compile(r"(?:user\s+)?story\s+([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)", re.IGNORECASE)
_STORY_WITHOUT_ID = re.compile(r"(?:user\s+)?story\s*:\s*\S", re.IGNORECASE)
_AFTER_ID = re.compile(r"(?P<close>[\s*~]*)(?P<mark>[:\uff1a.\u2013\u2014-]*)[\s*~]*")
_FINISHED = re.compile(
    r"✅|\((?:completed?|done|merged|finished)\b|[-\u2013\u2014:] ?(?:done|completed?) ?$", re.IGNORECASE
)
_NOTE = re.compile(
    r" ?(?:[✅☑✔⏳⏸❌🚧🔄]\ufe0f?(?: [A-Z_ ]+)?|[-\u2013\u2014]"
    r"|\((?:completed?|done|merged|finished|in progress)\b[^()]*\))$",
    re.IGNORECASE,
)
_RULE = 3
_SUMMARY = re.compile(
    r"\b(?:status|summary|progress|order|overview|complet\w+|timeline|map|schedule|checklist|verification|deliver\w+|"
    r"sprint|roadmap|next steps|retrospective|metrics|dependenc\w+|sequence)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Head:
    """The line that opens a story, and how far the story goes."""

    id: str
    title: str
    line: Line
    body: tuple[Line, ...]
    finished: bool
    """A tick or "(Completed ...)" stands beside it."""
    struck: bool
    """The author crossed it out."""
    in_summary: bool
    """It stands below a heading such as "Implementation Status", where stories are listed again."""


def find_heads(lines: Sequence[Line]) -> list[Head]:
    """All lines that may open a story, each with the lines up to where it ends."""
    starts = [(index, found) for index, line in enumerate(lines) if (found := _opening(line)) is not None]
    ends = [*(index for index, _ in starts), len(lines)][1:]
    summaries = _in_summary(lines)
    return [
        Head(
            id=found.id,
            title=found.title,
            line=lines[index],
            body=tuple(_body(lines, index, end)),
            finished=found.finished,
            struck=found.struck,
            in_summary=summaries[index],
        )
        for (index, found), end in zip(starts, ends, strict=True)
    ]


def lacks_id(line: Line) -> bool:
    """True for a line that opens a story without saying which: `### Story: Login`."""
    if line.kind is not Kind.TEXT or not (line.level or "**" in line.body[:8]):
        return False
    return _STORY_WITHOUT_ID.match(_LEAD.sub("", line.body, count=1)) is not None


@dataclass(frozen=True, slots=True)
class _Opening:
    id: str
    title: str
    finished: bool
    struck: bool


def _opening(line: Line) -> _Opening | None:
    """Read `### Story 1.1: Title`, `1. ✅ **Story 1.1: Title** (Completed)`, `**Story 1.1**: Title`; else None."""
    if line.kind is not Kind.TEXT or not ("story" in line.body.lower() and (line.level or "**" in line.body)):
        return None
    text = line.body
    lead = _LEAD.match(text)
    start = lead.end() if lead else 0
    if not line.level and "**" not in text[:start]:
        return None
    found = _STORY.match(text, start)
    if found is None or not any(char.isdigit() for char in found[1]):
        return None
    after_id = _AFTER_ID.match(text, found.end())
    inside, beside = text[after_id.end() if after_id else len(text) :], ""
    marked = after_id is not None and bool(after_id["mark"])
    if not (marked or (line.level and (not inside or inside[0] == "("))):
        return None
    if not line.level and after_id is not None and "**" not in after_id["close"]:
        inside, _, beside = inside.partition("**")
    title = _clean(inside)
    if not title and not line.level:
        return None
    finished = line.ticked or "✅" in text[:start] or _FINISHED.search(beside or inside) is not None
    crossed = "~~" in text[:start] or inside.startswith("~~")
    return _Opening(found[1], title, finished, struck=crossed or (after_id is not None and "~~" in after_id[0]))


def _clean(title: str) -> str:
    """The title without emphasis and without the notes on its state that some authors put behind it."""
    text = " ".join(title.replace("**", "").replace("~~", "").split())
    while (note := _NOTE.search(text)) is not None:
        text = text[: note.start()]
    return text


def _body(lines: Sequence[Line], start: int, end: int) -> Iterator[Line]:
    """The lines of a story: to a rule, or to a heading no deeper than its own (for a list item, to any heading)."""
    level = lines[start].level
    for line in lines[start + 1 : end]:
        if line.kind is Kind.TEXT and ((line.level and (not level or line.level <= level)) or is_rule(line)):
            return
        yield line


def is_rule(line: Line) -> bool:
    """True for `---` at the margin."""
    text = line.text.replace(" ", "")
    return len(text) >= _RULE and line.kind is Kind.TEXT and not line.indent and set(text) in ({"-"}, {"*"}, {"_"})


def _in_summary(lines: Sequence[Line]) -> list[bool]:
    path: dict[int, bool] = {}
    marks: list[bool] = []
    for line in lines:
        if line.level:
            path = {level: mark for level, mark in path.items() if level < line.level}
        marks.append(any(path.values()))
        if line.level:
            path[line.level] = line.level > 1 and _SUMMARY.search(line.body) is not None
    return marks
