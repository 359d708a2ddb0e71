"""The journal in one SQLite file, WAL mode.

`synchronous=NORMAL`: an appended fact survives a kill -9 of this process; only a power cut can drop the last ones, and
the file is never corrupt. Every job is idempotent against git, and git knows what has landed, so nothing that is
finished is done again for a dropped fact. Reading never writes: what is refused stays as it is, byte for byte.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from mcp_server.adapters.journal.chain import FIRST, Record, chained, damaged, in_order, unbroken
from mcp_server.adapters.journal.codec import decode, encode
from mcp_server.core.events import Event
from mcp_server.errors import Code, JournalError, Refused

BUSY_S = 30.0
"""How long a write waits for another connection, in seconds; readers never block a writer in WAL mode."""
FORMAT = 2
"""Of the file, in `PRAGMA user_version`. Format 1 had no sums and said 0, as a file does that has no table yet."""
_COLUMNS = "seq, at_s, kind, version, body"


class SqliteJournal:
    """Appends facts and replays them. One writer at a time: whoever holds the repository's lock."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened, made or changed yet: reading does the first, appending all three."""
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None

    def append(self, events: Sequence[Event]) -> None:
        """Store the facts in one transaction. Raises `JournalError`; then none of them is stored.

        The first one makes the file, or brings it from format 1 to the present one, with a copy beside it as it was.
        """
        try:
            db = self._writing()
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{self._path}: {error}") from error
        try:
            db.execute("BEGIN IMMEDIATE")
            seq, before = db.execute("SELECT seq, sum FROM event ORDER BY seq DESC LIMIT 1").fetchone() or (0, FIRST)
            for event in events:
                seq, before = seq + 1, _insert(db, seq + 1, before, *encode(event))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # a closed or broken file has nothing to roll back
                if db.in_transaction:
                    db.execute("ROLLBACK")
            raise JournalError(f"{self._path}: {error}") from error

    def replay(self, after: int = 0) -> list[Event]:
        """All facts behind number `after`, in order.

        Raises `Refused`: `journal_unreadable` when a record is damaged or missing, `journal_newer` when a newer
        epicwave wrote it.
        """
        try:
            db = self._reading()
            if db is None:
                return []
            match written := _format(db):
                case 0:
                    return []
                case 1:
                    return [decode(r[0], r[2].decode(), *r[3:]) for r in in_order(self._path, _rows(db, after), after)]
                case 2:
                    before = _sum_of(db, self._path, after)
                    records = list(unbroken(self._path, _records(db, after), after, before))
                    if after == 0:
                        _look_over(db, self._path)
                    return [decode(r[0], r[2].decode(), *r[3:5]) for r in records]
                case _:
                    raise _newer(self._path, written)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _unreadable(self._path, error) from error

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()

    def _reading(self) -> sqlite3.Connection | None:
        """A connection that cannot write; None while there is no file."""
        if self._reader is None and self._path.exists():
            self._reader = _read_only(self._path)
        return self._reader

    def _writing(self) -> sqlite3.Connection:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                _bring_up(db, self._path)
            except BaseException:
                db.close()
                raise
            self._writer = db
        return self._writer


def notices(path: Path) -> tuple[str, ...]:
    """What the user should know about the file: that it is, or will be, brought to the present format."""
    backup = backup_of(path)
    if backup.exists():
        return (f"The journal was brought to a new format; {backup} is a copy as it was. Remove it when all is well.",)
    if path.exists():
        with suppress(sqlite3.Error), closing(_read_only(path)) as db:
            if _format(db) == 1:
                return (
                    f"The journal has an old format. The next change brings it to the new one; a copy stays: {backup}.",
                )
    return ()


def backup_of(path: Path) -> Path:
    """Where the journal is kept as it was in format 1."""
    return path.with_name(f"{path.name}.v1-backup")


def backups_of(path: Path) -> list[Path]:
    """The copies that were made of a journal before it was brought to a new format."""
    return sorted(path.parent.glob(f"{path.name}.v*-backup"))


def _read_only(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
    db.text_factory = bytes  # damage need not be text
    return db


def _format(db: sqlite3.Connection) -> int:
    """Format of the file; 0 when it has no table yet."""
    (said,) = db.execute("PRAGMA user_version").fetchone()
    if said:
        return said
    columns = {bytes(name) for (name,) in db.execute("SELECT CAST(name AS BLOB) FROM pragma_table_info('event')")}
    return 2 if b"sum" in columns else 1 if columns else 0  # sums are looked at, even where the number is damaged


def _rows(db: sqlite3.Connection, after: int) -> list[Any]:
    return db.execute(f"SELECT {_COLUMNS} FROM event WHERE seq > ? ORDER BY seq", (after,)).fetchall()  # noqa: S608 - ours


def _records(db: sqlite3.Connection, after: int) -> list[Record]:
    return db.execute(f"SELECT {_COLUMNS}, sum FROM event WHERE seq > ? ORDER BY seq", (after,)).fetchall()  # noqa: S608 - ours


def _look_over(db: sqlite3.Connection, path: Path) -> None:
    """What the sums do not cover: pages of the file that lead nowhere. 0.1 s for 100,000 records."""
    (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if said != b"ok":
        raise damaged(path, said.decode("utf-8", "backslashreplace"))


def _sum_of(db: sqlite3.Connection, path: Path, seq: int) -> int:
    if seq == 0:
        return FIRST
    found = db.execute("SELECT sum FROM event WHERE seq = ?", (seq,)).fetchone()
    if found is None:
        raise damaged(path, f"record {seq} is missing, and it was there a moment ago")
    return found[0]


def _insert(db: sqlite3.Connection, seq: int, before: int, at_s: float, kind: str, version: int, body: str) -> int:
    """Store a record behind the one whose sum is `before`. Returns its own sum."""
    mine = chained(before, seq, at_s, kind.encode(), version, body.encode())
    db.execute(f"INSERT INTO event ({_COLUMNS}, sum) VALUES (?, ?, ?, ?, ?, ?)", (seq, at_s, kind, version, body, mine))  # noqa: S608 - ours
    return mine


def _bring_up(db: sqlite3.Connection, path: Path) -> None:
    """Make the table, or bring that of format 1 to the present format: all in one transaction, the copy before it."""
    written = _format(db)
    if written == FORMAT:
        return
    if written > FORMAT:
        raise _newer(path, written)
    schema = files("mcp_server.adapters.journal").joinpath("schema.sql").read_text("utf-8")
    if written == 1 and not backup_of(path).exists():
        half = path.with_name(f"{path.name}.half-a-copy")
        half.unlink(missing_ok=True)
        with closing(sqlite3.connect(half)) as copy:
            db.backup(copy)
        half.replace(backup_of(path))
    db.execute("BEGIN IMMEDIATE")
    try:
        rows = _rows(db, 0) if written == 1 else []
        db.execute("DROP TABLE IF EXISTS event")
        db.execute(schema)
        before = FIRST
        for row in rows:
            before = _insert(db, row[0], before, *row[1:])
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _newer(path: Path, written: int) -> Refused:
    return Refused(
        Code.JOURNAL_NEWER,
        f"The journal {path} has format {written}; this epicwave knows up to {FORMAT}. Nothing was changed.",
        "A newer epicwave wrote it: run that one (for example `uvx epicwave@latest`).",
    )


def _unreadable(path: Path, error: Exception) -> Refused:
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
        return Refused(
            Code.JOURNAL_UNREADABLE,
            f"The journal {path} cannot be read: {error}. Nothing was changed.",
            "Check the disk and the permissions of the file and of its folder, then do the same again.",
        )
    return damaged(path, str(error))
