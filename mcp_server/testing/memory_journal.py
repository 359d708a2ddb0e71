"""A journal in memory that is as strict as the real one: every fact goes through the codec, there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcp_server.adapters.journal.codec import decode, encode
from mcp_server.core.events import Event
from mcp_server.errors import JournalError


class MemoryJournal:
    """Stores rows as the real one does, and each fact as its row tells it. `before_append` may stand in the way."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, str, int, str]] = []
        self._told: dict[tuple[float, str, int, str], Event] = {}
        self.before_append: Callable[[Sequence[Event]], None] = _nothing

    def append(self, events: Sequence[Event]) -> None:
        """See `Journal`."""
        rows = [encode(event) for event in events]
        self.before_append(events)
        self._told |= {row: decode(seq, *row[1:]) for seq, row in enumerate(rows, len(self.rows) + 1)}
        self.rows += rows

    def replay(self) -> list[Event]:
        """See `Journal`."""
        return [self._told[row] for row in self.rows]


def full_disk(events: Sequence[Event]) -> None:
    """A `before_append` that lets nothing be stored. Raises `JournalError`."""
    raise JournalError(f"no space for {len(events)} facts")


def _nothing(_events: Sequence[Event]) -> None:
    """Nothing stands in the way."""
