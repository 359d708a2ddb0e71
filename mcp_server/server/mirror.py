"""The state as the journal tells it, for whoever does not have the engine: another window, a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import Event
from mcp_server.core.evolve import evolve
from mcp_server.core.model import Ledger


class Mirror:
    """Stores the ledger as of the last look, and folds in only what is new."""

    def __init__(self, path: Path, note: Callable[[Event], None] | None = None) -> None:
        """`note` is told of each fact, in order; of all of them again when another file is in its place."""
        self._path = path
        self._note = note
        self._file: tuple[int, int] | None = None
        """Device and number of the file that it was read from."""
        self._journal = SqliteJournal(path)
        self._seen = Ledger()

    def ledger(self) -> Ledger:
        """The state now; an empty one when nothing was ever planned.

        Raises `Refused`: `journal_unreadable`, `journal_newer`.
        """
        if (file := self._present()) != self._file:  # moved away, or another one put in its place
            self._journal.close()
            self._file, self._journal, self._seen = file, SqliteJournal(self._path), Ledger()
        for event in self._journal.replay(after=self._seen.seq):
            self._seen = evolve(self._seen, event)
            if self._note is not None:
                self._note(event)
        return self._seen

    def _present(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino
