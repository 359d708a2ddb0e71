"""Engine processes come when they are needed, one a repository, and make way for newer ones."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from mcp_server.front.place import DOOR_FILE
from tests.journeys.fronts import Engines, call, greet
from tests.journeys.programs import wait_until
from tests.server.scene import Scene, commit, story, write

pytestmark = [pytest.mark.journey, pytest.mark.skipif(os.name != "posix", reason="Windows has no front yet")]

ROUNDS = 5
"""20 take a minute or two."""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _work(engines: Engines, scene: Scene) -> None:
    """A story that runs until the test lets it go on, planned and started by a front that has left again."""
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"))
    with engines.front("1.0.0") as editor:
        greet(editor)
        assert not call(editor, "plan_epic", epic_file="epic.yaml").get("isError")
        assert not call(editor, "start_wave", epic="notes").get("isError")
        wait_until(lambda: scene.starts("S1") == 1)


# --- versions ---------------------------------------------------------------------------------------------------------


def test_an_idle_older_engine_leaves_and_the_newer_front_starts_its_own(engines: Engines) -> None:
    """The older front, which is still there, goes on with the newer engine."""
    with engines.front("1.0.0") as older:
        assert greet(older)["serverInfo"]["version"] == "1.0.0"
        first = engines.met()
        with engines.front("1.1.0") as newer:
            assert greet(newer)["serverInfo"]["version"] == "1.1.0"
            second = engines.met()
            assert (first.version, second.version) == ("1.0.0", "1.1.0")
            wait_until(lambda: not psutil.pid_exists(first.pid))
            assert call(older, "story_status")["content"]
            assert engines.met().pid == second.pid
            newer.to.close()
            assert newer.ends() == 0
            assert newer.err.read() == b""
    assert len(engines.living()) == 1


def test_a_busy_older_engine_stays_and_the_newer_front_says_so_and_works_through_it(
    engines: Engines, scene: Scene
) -> None:
    _work(engines, scene)
    pid = engines.met().pid
    with engines.front("1.1.0") as newer:
        assert greet(newer)["serverInfo"]["version"] == "1.0.0"
        status = call(newer, "story_status", epic="notes")["structuredContent"]
        assert status["epics"][0]["state"] == "active"
        assert engines.met().pid == pid
        scene.open("go")
        wait_until(lambda: "S1.md" in scene.tree("epicwave/notes"))
        newer.to.close()
        assert newer.ends() == 0
        said = newer.err.read().decode()
        assert f"engine process {pid} (epicwave 1.0.0) stays: stories are under way in it" in said
        assert said.count("\n") == 1
    assert scene.starts("S1") == 1


def test_an_older_front_uses_a_newer_engine(engines: Engines) -> None:
    with engines.front("1.1.0") as newer, engines.front("1.0.0") as older:
        greet(newer)
        pid = engines.met().pid
        assert greet(older)["serverInfo"]["version"] == "1.1.0"
        assert engines.living() == [pid]


def test_the_journal_of_a_newer_engine_is_refused_by_an_older_one(engines: Engines, scene: Scene) -> None:
    """As by the command line; the engine process itself lives, and says so to whoever calls."""
    with engines.front("1.1.0") as editor:
        greet(editor)
        scene.epic(story("S1"))
        assert not call(editor, "plan_epic", epic_file="epic.yaml").get("isError")
    engines.end()
    with closing(sqlite3.connect(engines.state / "journal.db")) as db:
        db.execute("PRAGMA user_version = 9")
    with engines.front("1.0.0") as editor:
        greet(editor)
        for tool in ("story_status", "start_wave"):
            result = call(editor, tool, epic="notes")
            assert result["isError"]
            assert result["content"][0]["text"].startswith("journal_newer: ")
        assert engines.living() == [engines.met().pid]


# --- one a repository -------------------------------------------------------------------------------------------------


def test_fronts_that_start_at_the_same_moment_get_one_engine(engines: Engines) -> None:
    """Each round is ended by a kill, so that all but the first begin with what a dead engine leaves."""
    met: set[int] = set()
    for _ in range(ROUNDS):
        with engines.front() as one, engines.front() as other:
            greet(one)
            greet(other)
            pid = engines.met().pid
            assert pid not in met
            met.add(pid)
            wait_until(lambda: len(engines.living()) == 1)
            assert engines.living() == [pid]
        engines.end()


def test_an_engine_that_is_killed_is_replaced_and_nobody_is_disturbed(engines: Engines) -> None:
    with engines.front() as editor:
        greet(editor)
        first = engines.met()
        os.kill(first.pid, signal.SIGKILL)
        assert call(editor, "story_status")["content"]
        second = engines.met()
        assert second.pid != first.pid
        assert second.token != first.token
        assert engines.living() == [second.pid]


def test_an_engine_that_ends_leaves_nothing_and_what_one_that_died_left_is_cleaned(engines: Engines) -> None:
    """Its file, its socket, and the folder that this one has where the repository's path is too long for a socket."""
    left: list[Path] = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        with engines.front() as editor:
            greet(editor)
            door = engines.met()
        path = Path(door.address)
        assert not any(place.exists() for place in left[1:] if place not in {path, path.parent})
        left = [engines.state / DOOR_FILE, path] + ([path.parent] if path.parent != engines.state else [])
        os.kill(door.pid, number)
        wait_until(lambda: not engines.living())
        assert [place.exists() for place in left] == [number == signal.SIGKILL] * len(left)
    assert not list(engines.state.glob(f"{DOOR_FILE}.*"))


def test_an_engine_that_nobody_needs_ends(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICWAVE_IDLE_S", "1")
    with engines.front() as editor:
        greet(editor)
        pid = engines.met().pid
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(pid).wait(2.5)
    wait_until(lambda: not engines.living())
    assert engines.door() is None
