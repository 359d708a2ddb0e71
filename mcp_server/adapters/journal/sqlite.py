"""The journal in one SQLite file, WAL mode.

`synchronous=NORMAL`: an appended fact survives a kill -9 of this process; only a power cut can drop the last ones, and
the file is never corrupt. Every job is idempotent against git, so a dropped fact is found again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from mcp_server.adapters.journal.codec import decode, encode
from mcp_server.core.events import Event
from mcp_server.errors import Code, JournalError, Refused

BUSY_S = 30.0
"""How long a write waits for another connection, in seconds; readers never block a writer in WAL mode."""


class SqliteJournal:
    """Appends facts and replays them. One writer at a time: whoever holds the repository's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(files("mcp_server.adapters.journal").joinpath("schema.sql").read_text("utf-8"))
        except sqlite3.Error as error:
            raise _unreadable(path, error) from error

    def append(self, events: Sequence[Event]) -> None:
        """Store the facts in one transaction. Raises `JournalError`; then none of them is stored."""
        rows = [encode(event) for event in events]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO event (at_s, kind, version, body) VALUES (?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # a closed or broken file has nothing to roll back
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise JournalError(f"{self._path}: {error}") from error

    def replay(self, after: int = 0) -> list[Event]:
        """All facts behind number `after`, in order. Raises `Refused(journal_unreadable)`."""
        try:
            rows = self._db.execute(
                "SELECT seq, kind, version, body FROM event WHERE seq > ? ORDER BY seq", (after,)
            ).fetchall()
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error
        return [decode(*row) for row in rows]

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._db.close()


def _unreadable(path: Path, error: sqlite3.Error) -> Refused:
    return Refused(
        Code.JOURNAL_UNREADABLE,
        f"The journal {path} cannot be read: {error}.",
        "Nothing was changed. Check the disk and the file's permissions; if the file is damaged, move it away "
        "(merged work is on the epic's branch, saved work under refs/epicwave/rescue/).",
    )
