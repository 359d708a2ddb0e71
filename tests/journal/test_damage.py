"""Whatever was done to the file: a beginning of what was written is read, or nothing is read and it says why."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import Event
from mcp_server.errors import Code, JournalError, Refused
from tests.journal.files import contents, doctored, facts, filled, read

FACTS = facts()


def refused(path: Path) -> Refused:
    """The refusal, which leaves every byte where it is."""
    before = contents(path)
    with pytest.raises(Refused) as caught:
        read(path)
    assert contents(path) == before
    return caught.value


def damaged(path: Path) -> str:
    found = refused(path)
    assert found.code is Code.JOURNAL_UNREADABLE
    assert "damaged" in found.why
    assert "Nothing was changed" in found.why
    assert "journal.db-wal" in found.remedy
    assert "found in git and not run again" in found.remedy
    return found.why


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "journal.db", FACTS)


def test_what_is_written_is_what_is_read(path: Path) -> None:
    assert read(path) == FACTS
    journal = SqliteJournal(path)
    assert journal.replay(after=57) == FACTS[57:]
    journal.append(FACTS[:2])
    assert journal.replay(after=57) == FACTS[57:] + FACTS[:2]
    journal.close()


def test_a_journal_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    assert read(tmp_path / "none" / "journal.db") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "journal.db").touch()
    assert read(tmp_path / "journal.db") == []
    assert filled(tmp_path / "journal.db", FACTS)
    assert read(tmp_path / "journal.db") == FACTS


def test_another_value_that_is_just_as_valid_is_noticed(path: Path) -> None:
    """`S1` became `S2` in a fact that a reader without sums would believe."""
    doctored(path, "UPDATE event SET body = replace(body, '\"S1\"', '\"S2\"') WHERE seq = 2")
    assert "record 2 (AttemptSucceeded) is not what was written" in damaged(path)


@pytest.mark.parametrize("field", ["at_s = at_s + 1", "kind = 'BranchMerged'", "version = 0", "sum = sum + 1"])
def test_every_field_counts(path: Path, field: str) -> None:
    doctored(path, f"UPDATE event SET {field} WHERE seq = 5")  # noqa: S608 - ours
    assert "record 5 (" in damaged(path)


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["DELETE FROM event WHERE seq = 7"], "record 7 is missing, record 8 (AttemptSucceeded) is in its place"),
        (["DELETE FROM event WHERE seq < 3"], "record 1 is missing, record 3 (BranchMerged) is in its place"),
        (
            [
                "UPDATE event SET seq = -1 WHERE seq = 4",
                "UPDATE event SET seq = 4 WHERE seq = 5",
                "UPDATE event SET seq = 5 WHERE seq = -1",
            ],
            "record 4 (AttemptSucceeded) is not what was written",
        ),
        (
            ["DELETE FROM event WHERE seq = 7", "UPDATE event SET seq = seq - 1 WHERE seq > 7"],
            "record 7 (AttemptSucceeded) is not what was written",
        ),
        (
            ["INSERT INTO event SELECT 61, at_s, kind, version, body, sum FROM event WHERE seq = 3"],
            "record 61 (BranchMerged)",
        ),
    ],
    ids=["taken out", "the first ones", "swapped", "taken out and closed up", "copied"],
)
def test_a_record_that_is_missing_or_in_another_place_is_noticed(path: Path, statements: list[str], words: str) -> None:
    doctored(path, *statements)
    assert words in damaged(path)


def test_records_of_another_life_are_noticed_where_they_begin(tmp_path: Path, path: Path) -> None:
    """A copy was put back and worked on; then the end of the first life came back."""
    other = filled(tmp_path / "other.db", [*FACTS[:30], *reversed(FACTS[30:])])
    doctored(
        path,
        f"ATTACH '{other}' AS other",
        "DELETE FROM event WHERE seq BETWEEN 31 AND 40",
        "INSERT INTO event SELECT * FROM other.event WHERE seq BETWEEN 31 AND 40",
    )
    assert "record 41 (" in damaged(path)


def test_the_last_records_are_missed_by_nobody_here(path: Path) -> None:
    """That is as after a power cut: going on is right, and what has landed is found in git."""
    doctored(path, "DELETE FROM event WHERE seq > 50")
    assert read(path) == FACTS[:50]
    filled(path, FACTS[:1])
    assert read(path) == [*FACTS[:50], FACTS[0]]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_byte_is_flipped_what_is_read_is_a_beginning_of_what_was_written(path: Path, seed: int) -> None:
    dice, whole = random.Random(seed), path.read_bytes()  # noqa: S311 - any byte will do
    noticed = 0
    for _ in range(60):
        place, mask = dice.randrange(len(whole)), dice.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        try:
            found = read(path)
        except Refused:
            noticed += 1
            refused(path)
        else:
            assert found == FACTS[: len(found)], f"byte {place} by {mask:#x}"
    assert noticed > 15, "the rest is empty space"


@pytest.mark.parametrize("size", [600, 4_095, 4_096, 8_192, 12_000])
def test_a_file_that_was_cut_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert refused(path).code is Code.JOURNAL_UNREADABLE


@pytest.mark.parametrize("size", [0, 1])
def test_a_file_of_which_nothing_is_left_is_a_journal_that_has_not_begun(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert read(path) == []
    filled(path, FACTS)
    assert read(path) == FACTS


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"Dear diary, " * 500)
    assert "file is not a database" in damaged(path)


def test_a_log_that_is_torn_gives_all_that_was_whole(tmp_path: Path) -> None:
    """The write-ahead log of a killed process, cut and flipped at any place."""
    live = SqliteJournal(tmp_path / "live.db")
    for fact in FACTS:
        live.append([fact])
    main, log = (tmp_path / "live.db").read_bytes(), (tmp_path / "live.db-wal").read_bytes()
    live.close()
    dice, path, lengths = random.Random(4), tmp_path / "journal.db", set[int]()  # noqa: S311 - any place will do
    for cut in (True, False) * 20:
        place = dice.randrange(len(log))
        path.write_bytes(main)
        torn = log[:place] if cut else log[:place] + bytes([log[place] ^ 0x40]) + log[place + 1 :]
        path.with_name("journal.db-wal").write_bytes(torn)
        path.with_name("journal.db-shm").unlink(missing_ok=True)
        found = read(path)
        lengths.add(len(found))
        assert found == FACTS[: len(found)]
        filled(path, FACTS[:1])
        assert read(path) == [*FACTS[: len(found)], FACTS[0]], "going on is right"
    assert len(lengths) > 10


def test_a_newer_file_is_for_a_newer_epicwave(path: Path) -> None:
    doctored(path, "PRAGMA user_version = 3")
    found = refused(path)
    assert found.code is Code.JOURNAL_NEWER
    assert "has format 3; this epicwave knows up to 2" in found.why
    assert "run that one" in found.remedy
    before = contents(path)
    with pytest.raises(Refused):
        SqliteJournal(path).append(FACTS[:1])
    assert contents(path) == before


def _encoded(kind: str, version: int) -> Callable[[Event], tuple[float, str, int, str]]:
    """A codec of days to come, or of bad ones."""

    def encode(_event: Event) -> tuple[float, str, int, str]:
        return 2_000.0, kind, version, "{}"

    return encode


@pytest.mark.parametrize(("kind", "version"), [("StoryTeleported", 1), ("BranchMerged", 2)])
def test_a_record_of_a_kind_or_version_to_come_is_newer_and_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, version: int
) -> None:
    """It has its sum: nobody flipped it."""
    path = filled(tmp_path / "journal.db", FACTS[:4])
    with monkeypatch.context() as patch:
        patch.setattr("mcp_server.adapters.journal.sqlite.encode", _encoded(kind, version))
        filled(path, FACTS[4:5])
    found = refused(path)
    assert found.code is Code.JOURNAL_NEWER
    assert f"Record 5 of the journal is a '{kind}' of version {version}" in found.why
    assert "run that one" in found.remedy


def test_a_body_that_is_whole_and_makes_no_sense_is_not_called_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_server.adapters.journal.sqlite.encode", _encoded("BranchMerged", 1))
    found = refused(filled(tmp_path / "journal.db", FACTS[:1]))
    assert found.code is Code.JOURNAL_UNREADABLE
    assert "Record 1 of the journal (BranchMerged) cannot be read" in found.why


def test_a_file_that_may_not_be_opened_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(Refused) as caught:
        read(tmp_path / "journal.db")
    assert caught.value.code is Code.JOURNAL_UNREADABLE
    assert "permissions" in caught.value.remedy
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "journal.db").append(FACTS[:1])


def test_what_cannot_be_stored_is_stored_not_at_all(path: Path) -> None:
    journal = SqliteJournal(path)
    doctored(
        path, "CREATE TRIGGER full BEFORE INSERT ON event WHEN NEW.seq = 62 BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(JournalError, match="full"):
        journal.append(FACTS[:3])
    assert journal.replay() == FACTS
    doctored(path, "DROP TRIGGER full")
    journal.append(FACTS[:3])
    assert journal.replay(after=60) == FACTS[:3]
    journal.close()


def test_a_journal_without_its_table_is_refused_by_whoever_writes(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.append(FACTS[:1])
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE event")
    with pytest.raises(JournalError):
        journal.append(FACTS[:1])
    journal.close()
