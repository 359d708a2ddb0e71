"""What a reader hands back: the draft, and which lines it could not use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mcp_server.core.draft import EpicDraft
from mcp_server.errors import Code, Refused

SHAPES = (
    "Read are: YAML or JSON with a `stories:` list (keys id, title, depends_on, files, acceptance, ...), and Markdown "
    "with `### Story 1.1: Title` headings or `1. **Story 1.1: Title**` list items, outside of code fences."
)


class UnusedLine(NamedTuple):
    """A line of a story, or where a story was expected, that nothing could be made of."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """An epic file as it was read; nothing in the draft is checked yet but what only the reader could see."""

    draft: EpicDraft
    unused: tuple[UnusedLine, ...] = ()
    format: str = "markdown"
    notes: tuple[str, ...] = ()


def unreadable(why: str, remedy: str) -> Refused:
    """The refusal of a file in which no epic can be found."""
    return Refused(Code.UNREADABLE_EPIC, why, remedy)
