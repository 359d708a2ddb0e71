"""The journal is damaged between two runs of the program: each damage has its outcome, no story is paid for twice."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files import contents, old, read
from tests.journeys.programs import epicwave, finish, start, wait_until
from tests.server.scene import Scene, child, commit, story, write

pytestmark = pytest.mark.journey

AN_HOUR = 3_600.0
DONE = {"S1": 1, "S2": 1, "S3": 1}
posix = pytest.mark.skipif(sys.platform == "win32", reason="kill -9")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """S1, then S2, then S3; agents are counted."""
    made = Scene(tmp_path)
    for name in DONE:
        made.play(name, write(f"{name}.md"), commit())
    made.epic(story("S1"), story("S2", "S1"), story("S3", "S2"))
    return made


def journal_of(scene: Scene) -> Path:
    return scene.repo / ".git" / "epicwave" / "journal.db"


def starts(scene: Scene) -> dict[str, int]:
    return {name: scene.starts(name) for name in DONE}


def move_away(scene: Scene) -> None:
    """What the remedy says, to the letter."""
    path = journal_of(scene)
    for file in (path, path.with_name("journal.db-wal"), path.with_name("journal.db-shm")):
        if file.exists():
            file.rename(scene.outside / file.name)


def run_to_the_end(scene: Scene) -> None:
    before = scene.git("rev-parse", "epicwave/notes")
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 0, said
    assert {"S1.md", "S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    assert scene.git("merge-base", "--is-ancestor", before, "epicwave/notes") == ""
    assert scene.leftovers() == []


def run_and_finish(scene: Scene) -> None:
    run_to_the_end_first = epicwave(scene.repo, "run", "epic.yaml")
    assert run_to_the_end_first.code == 0, run_to_the_end_first
    assert starts(scene) == DONE


def run_and_kill(scene: Scene) -> None:
    """S1 has landed, S2 has work that is not committed when the engine is killed."""
    scene.play("S2", write("S2.md"), commit(), write("loose.md"), child(AN_HOUR, deaf=False))
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: scene.starts("S2") == 1 and len(scene.children()) == 1)
    running.kill()
    finish(running)
    wait_until(lambda: not scene.processes())
    scene.play("S2", write("S2.md"), commit())


def records(path: Path) -> int:
    return len(read(path))


def cut(path: Path, kept: int) -> None:
    """The last records are gone, as after a power cut or when an older copy was put back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM event WHERE seq > ?", (kept,))


def flip(path: Path) -> None:
    """One bit in the middle of a body; it is JSON as before."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    place = whole.index(b'"title":"Note S2"') + len(b'"title":"Note ')
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_last_records_that_are_lost_cost_nothing_that_was_finished(scene: Scene, share: float) -> None:
    run_and_finish(scene)
    path = journal_of(scene)
    cut(path, int(records(path) * share))
    run_to_the_end(scene)
    assert starts(scene) == DONE


def test_a_journal_that_is_gone_costs_nothing_that_was_finished(scene: Scene) -> None:
    run_and_finish(scene)
    tip = scene.git("rev-parse", "epicwave/notes")
    move_away(scene)
    run_to_the_end(scene)
    assert (starts(scene), scene.git("rev-parse", "epicwave/notes")) == (DONE, tip)
    assert "3" in epicwave(scene.repo, "status").out
    assert not scene.refs("refs/epicwave/rescue/")


@posix
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_a_log_that_was_torn_when_the_engine_was_killed_costs_nothing_that_was_finished(
    scene: Scene, kept: float
) -> None:
    run_and_kill(scene)
    log = journal_of(scene).with_name("journal.db-wal")
    whole = log.read_bytes()
    log.write_bytes(whole[: int(len(whole) * kept)])
    run_to_the_end(scene)
    assert starts(scene) == {**DONE, "S2": 2}
    assert {"S2.md", "loose.md"} <= scene.tree("refs/epicwave/rescue/notes/S2/1").keys()


@posix
def test_a_journal_that_is_gone_in_the_middle_costs_what_was_not_finished_and_saves_it(scene: Scene) -> None:
    run_and_kill(scene)
    move_away(scene)
    run_to_the_end(scene)
    assert starts(scene) == {**DONE, "S2": 2}
    assert {"S2.md", "loose.md"} <= scene.tree("refs/epicwave/rescue/notes/S2/1").keys()


@posix
@pytest.mark.parametrize("play", [run_and_finish, run_and_kill])
def test_a_flipped_bit_is_refused_by_every_command_and_the_remedy_goes_on(
    scene: Scene, play: Callable[[Scene], None]
) -> None:
    play(scene)
    path, done = journal_of(scene), starts(scene)
    flip(path)
    before, refs = contents(path), scene.refs()
    for words in (["run", "epic.yaml"], ["status"], ["cancel", "notes"]):
        said = epicwave(scene.repo, *words).refused()
        assert said.startswith("journal_unreadable: ")
        assert "record 1 (EpicPlanned) is not what was written" in said
        assert "move journal.db, journal.db-wal and journal.db-shm away" in said
    assert (contents(path), scene.refs(), starts(scene)) == (before, refs, done)
    move_away(scene)
    run_to_the_end(scene)
    assert starts(scene)["S1"] == starts(scene)["S3"] == 1
    assert starts(scene)["S2"] == (1 if play is run_and_finish else 2)


def test_a_journal_of_a_newer_epicwave_is_refused_with_other_words(scene: Scene) -> None:
    run_and_finish(scene)
    path = journal_of(scene)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 9")
    before = contents(path)
    for words in (["run", "epic.yaml"], ["status"]):
        said = epicwave(scene.repo, *words).refused()
        assert said.startswith("journal_newer: ")
        assert "run that one" in said
    assert (contents(path), starts(scene)) == (before, DONE)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    run_to_the_end(scene)
    assert starts(scene) == DONE


def test_a_journal_of_an_older_epicwave_is_brought_up_with_a_copy_and_a_word(scene: Scene) -> None:
    run_and_finish(scene)
    path, facts = journal_of(scene), read(journal_of(scene))
    path.unlink()
    old(path, facts)
    assert "merged" in epicwave(scene.repo, "status").out
    scene.epic(story("S1"), story("S2", "S1"), story("S3", "S2"), story("S4", agent="scripted"))
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 0, said
    assert "journal.db.v1-backup" in "".join(said.out.split())
    assert starts(scene) == DONE
    assert "S4.md" in scene.tree("epicwave/notes")
    assert read(path.with_name("journal.db.v1-backup")) == facts
    assert read(path)[: len(facts)] == facts
