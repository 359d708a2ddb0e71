"""The state as the journal tells it, for whoever does not have the engine: another window, a terminal."""

from __future__ import annotations

from pathlib import Path

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.evolve import evolve
from mcp_server.core.model import Ledger


class Mirror:
    """Stores the ledger as of the last look, and folds in only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal: SqliteJournal | None = None
        self._seen = Ledger()

    def ledger(self) -> Ledger:
        """The state now; an empty one when nothing was ever planned. Raises `Refused(journal_unreadable)`."""
        if self._journal is None:
            if not self._path.exists():
                return self._seen
            self._journal = SqliteJournal(self._path)
        for event in self._journal.replay(after=self._seen.seq):
            self._seen = evolve(self._seen, event)
        return self._seen
