"""Journals on disk, as they are and as they should not be."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mcp_server.adapters.journal.codec import encode
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import AttemptClaimed, AttemptSucceeded, BranchMerged, Event
from mcp_server.core.model import Process
from mcp_server.core.spec import AttemptId

V1 = """
CREATE TABLE event (seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL,
                    body TEXT NOT NULL) STRICT;
"""


def facts(count: int = 60) -> list[Event]:
    """Three kinds in turn, no two alike; enough for more than one page of a file."""
    made: list[Event] = []
    for number in range(count):
        attempt, at_s = AttemptId("e", f"S{number}", 1), 1_000.0 + number
        match number % 3:
            case 0:
                made.append(AttemptClaimed(attempt, Process(number, at_s), "b" * 40, at_s))
            case 1:
                made.append(AttemptSucceeded(attempt, "b" * 40, "c" * 40, (f"src/{number}.py",), at_s))
            case _:
                made.append(BranchMerged(attempt, "d" * 40, ("README.md", f"src/{number}.py"), at_s))
    return made


def filled(path: Path, events: list[Event]) -> Path:
    """A journal with these facts, one transaction each, closed in order."""
    journal = SqliteJournal(path)
    for event in events:
        journal.append([event])
    journal.close()
    return path


def old(path: Path, events: list[Event]) -> Path:
    """The same as an epicwave wrote it that knew no sums."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(V1)
        rows = [encode(event) for event in events]
        db.executemany("INSERT INTO event (at_s, kind, version, body) VALUES (?, ?, ?, ?)", rows)
    return path


def doctored(path: Path, *statements: str) -> None:
    """What a careless hand with an SQLite browser does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def read(path: Path) -> list[Event]:
    """All facts, by a reader that is new."""
    journal = SqliteJournal(path)
    try:
        return journal.replay()
    finally:
        journal.close()


def contents(path: Path) -> dict[str, bytes]:
    """Every byte of the file and of its write-ahead log. The index to the log is no content: SQLite makes it anew."""
    found = (path, path.with_name(f"{path.name}-wal"))
    return {file.name: file.read_bytes() for file in found if file.exists() and file.stat().st_size}
