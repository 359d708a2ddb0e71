"""A journal of an earlier format is read, and brought to the present one once, with a copy beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mcp_server.adapters.journal import sqlite
from mcp_server.adapters.journal.sqlite import SqliteJournal, backup_of, notices
from mcp_server.errors import JournalError, Refused
from tests.journal.files import contents, doctored, facts, filled, old, read

FACTS = facts(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return old(tmp_path / "journal.db", FACTS)


def test_looking_at_an_old_journal_changes_nothing(path: Path) -> None:
    before = contents(path)
    assert read(path) == FACTS
    assert contents(path) == before
    assert not backup_of(path).exists()
    (notice,) = notices(path)
    assert "old format" in notice
    assert str(backup_of(path)) in notice


def test_the_first_fact_brings_it_up_and_leaves_a_copy_as_it_was(path: Path) -> None:
    filled(path, FACTS[:1])
    assert read(path) == [*FACTS, FACTS[0]]
    assert read(backup_of(path)) == FACTS
    (notice,) = notices(path)
    assert "was brought to a new format" in notice
    doctored(path, "UPDATE event SET at_s = 0 WHERE seq = 3")
    with pytest.raises(Refused, match="record 3"):
        read(path)


def test_it_is_brought_up_once(path: Path) -> None:
    filled(path, FACTS[:1])
    before = backup_of(path).read_bytes()
    filled(path, FACTS[:1])
    assert backup_of(path).read_bytes() == before
    assert len(read(path)) == 22
    backup_of(path).unlink()
    assert notices(path) == ()


def test_a_reader_that_is_there_goes_on_reading(path: Path) -> None:
    reader = SqliteJournal(path)
    assert reader.replay() == FACTS
    filled(path, FACTS[:2])
    assert reader.replay(after=20) == FACTS[:2]
    reader.close()


def test_an_old_journal_with_a_gap_is_refused_and_not_brought_up(path: Path) -> None:
    doctored(path, "DELETE FROM event WHERE seq = 5")
    before = contents(path)
    with pytest.raises(Refused, match="record 5 is missing"):
        read(path)
    assert contents(path) == before


def test_when_it_cannot_be_brought_up_it_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up half way."""
    insert = sqlite._insert  # pyright: ignore[reportPrivateUsage] - the moment in which the disk is full

    def full(db: sqlite3.Connection, seq: int, *more: object) -> int:
        if seq == 7:
            raise sqlite3.OperationalError("database or disk is full")
        return insert(db, seq, *more)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_insert", full)
        journal = SqliteJournal(path)
        with pytest.raises(JournalError, match="full"):
            journal.append(FACTS[:1])
        journal.close()
    assert read(path) == FACTS
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
    filled(path, FACTS[:1])
    assert read(path) == [*FACTS, FACTS[0]]


def test_sums_are_looked_at_even_where_the_number_of_the_format_is_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal.db", FACTS)
    doctored(path, "PRAGMA user_version = 0", "UPDATE event SET at_s = 0 WHERE seq = 3")
    with pytest.raises(Refused, match="record 3"):
        read(path)


def test_there_is_nothing_to_say_about_a_journal_of_today(tmp_path: Path) -> None:
    assert notices(tmp_path / "journal.db") == ()
    assert notices(filled(tmp_path / "journal.db", FACTS)) == ()
