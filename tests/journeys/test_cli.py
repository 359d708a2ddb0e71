"""The command line as several people have it: each in a terminal of its own, all on one repository."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.programs import Said, epicwave, finish, start, wait_until
from tests.server.engines import IDLE_S, end_engine, ended_engines, engine_process
from tests.server.scene import Scene, child, commit, environment, exit_with, story, write

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform == "win32", reason="no engine process there yet")]

AN_HOUR = 3_600.0
ENV = {"EPICWAVE_IDLE_S": IDLE_S}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    with ended_engines(found.repo):
        yield found


def _say(scene: Scene, *words: str) -> Said:
    return epicwave(scene.repo, *words, env=environment(**ENV))


def _begin(scene: Scene, *words: str) -> Any:
    return start(scene.repo, *words, env=environment(**ENV))


def _done(said: Said) -> Said:
    assert said.code == 0, said
    return said


def _states(scene: Scene) -> dict[str, str]:
    [epic] = json.loads(_done(_say(scene, "status", "notes", "--json")).out)["epics"]
    return {each["story"]: each["state"] for each in epic["stories"]}


def _lines(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.out.splitlines()]


def _waiting(scene: Scene) -> Path:
    """S1 waits for a gate, S2 for S1, S3 for nobody."""
    scene.play("S1", write("S1.md"), scene.gate("go"), commit())
    scene.play("S2", write("S2.md"), commit())
    scene.play("S3", write("S3.md"), commit())
    return scene.epic(story("S1"), story("S2", "S1"), story("S3"))


def _at_the_gate(scene: Scene) -> None:
    wait_until(lambda: scene.starts("S1") == 1 and len(scene.children()) == 1)


def test_an_attached_run_may_leave_and_the_epic_ends_merged_without_it(scene: Scene) -> None:
    _waiting(scene)
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio")
    _at_the_gate(scene)
    running.send_signal(signal.SIGINT)
    said = finish(running)
    assert said.code == 130, said
    assert "epicwave watch notes" in said.out
    assert "Traceback" not in said.err
    assert len(scene.children()) == 1, "the agent works on"
    watching = _begin(scene, "watch")
    scene.open("go")
    seen = _done(finish(watching))
    assert "epicwave land notes" in seen.out
    assert _states(scene) == {"S1": "merged", "S2": "merged", "S3": "merged"}
    assert {name: scene.starts(name) for name in ("S1", "S2", "S3")} == {"S1": 1, "S2": 1, "S3": 1}


def test_an_attached_run_ends_as_a_run_does(scene: Scene) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", exit_with(9))
    scene.play("S2", write("S2.md"), commit())
    scene.epic(story("S1"), story("S2"))
    said = _say(scene, "run", "epic.yaml", "--attach")
    assert said.code == 1, said
    assert "exited with code 9" in " ".join(said.out.split())
    scene.play("S1", write("S1.md"), commit())
    again = _done(_say(scene, "run", "epic.yaml", "--attach", "--json"))
    assert _lines(again)[-1]["epics"][0]["state"] == "done"
    assert "note: " in again.err, "what is for a user is not among what is for a program"
    bad = _say(scene, "run", "missing.yaml", "--attach")
    assert bad.refused().startswith("unreadable_epic: ")
    team = _say(scene, "run", "epic.yaml", "--attach", "--strategy", "agent-teams")
    assert team.refused().startswith("strategy_unavailable: ")


def test_a_second_attached_run_joins_the_first(scene: Scene) -> None:
    _waiting(scene)
    first = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio")
    _at_the_gate(scene)
    scene.epic(story("S1"), story("S2", "S1"), story("S3"), story("S4"))
    second = _begin(scene, "run", "epic.yaml", "--attach")
    while "goes on as it was planned" not in second.stdout.readline():
        assert second.poll() is None, second.communicate()
    other = _say(scene, "run", "epic.yaml").refused()
    assert other.startswith("engine_elsewhere: ")
    assert "--attach" in other
    scene.open("go")
    assert finish(first).code == 0
    assert finish(second).code == 0
    assert scene.starts("S1") == 1
    assert _states(scene).keys() == {"S1", "S2", "S3"}, "a file that was edited meanwhile is not taken on the way"


def test_a_cancel_from_a_second_terminal_stops_a_run_in_the_first(scene: Scene) -> None:
    scene.play("S1", write("S1.md"), commit(), child(AN_HOUR))
    scene.epic(story("S1"), story("S2", "S1"))
    running = _begin(scene, "run", "epic.yaml")
    wait_until(lambda: len(scene.children()) == 1)
    said = _done(_say(scene, "cancel", "notes"))
    assert scene.processes() == []
    assert "S1 was alive and is cancelled: its processes are gone" in said.out
    assert "refs/epicwave/rescue/notes/S1/1" in said.out
    assert "Never started: S2." in said.out
    ended = finish(running)
    assert ended.code == 1, ended
    assert "cancelled" in ended.out
    assert engine_process(scene.repo) is None, "the foreground was the engine process, and no other was started"
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    assert _say(scene, "cancel", "notes").refused().startswith("too_late: ")


def test_a_story_that_is_cancelled_leaves_the_others_alone(scene: Scene) -> None:
    _waiting(scene)
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio", "--json")
    _at_the_gate(scene)
    [reply] = _lines(_done(_say(scene, "cancel", "notes", "S1", "--json")))
    assert [(s["story"], s["state"], s["processes_gone"]) for s in reply["stopped"]] == [("S1", "cancelled", True)]
    ended = finish(running)
    assert ended.code == 1
    assert _states(scene) == {"S1": "cancelled", "S2": "blocked", "S3": "merged"}


def test_an_epic_is_paused_resumed_drained_and_its_stories_retried_and_skipped(scene: Scene) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", write("S1.md"), scene.gate("go"), commit())
    scene.play("S2", write("S2.md"), commit())
    scene.play("S3", exit_with(7))
    scene.epic(story("S1"), story("S2", "S1"), story("S3"))
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio", "--slots", "1")
    _at_the_gate(scene)
    paused = _done(_say(scene, "pause", "notes", "--note", "lunch"))
    assert "In flight, to be finished and merged: S1." in paused.out
    assert "epicwave resume notes" in paused.out
    assert "lunch" in _say(scene, "status").out
    scene.open("go")
    assert finish(running).code == 1, "a paused epic is at rest"
    assert _states(scene)["S1"] == "merged"
    [resumed] = _lines(_done(_say(scene, "resume", "notes", "--json")))
    assert resumed["state"] == "active"
    assert _say(scene, "watch", "notes").code == 1
    assert _states(scene) == {"S1": "merged", "S2": "merged", "S3": "failed"}
    retried = _done(_say(scene, "retry", "notes", "S3", "--note", "mind the gap"))
    assert "--attach" in retried.out
    skipped = _done(_say(scene, "skip", "notes", "S3"))
    assert "done" in skipped.out
    assert _say(scene, "drain", "notes").refused().startswith("too_late: ")
    assert _say(scene, "watch").code == 0, "skipped is as good as merged"


def test_what_is_not_planned_is_refused_before_an_engine_is_started_for_it(scene: Scene) -> None:
    before = scene.everything()
    for words in (["cancel", "notes"], ["pause", "notes"], ["retry", "notes", "S1"], ["watch", "notes"]):
        refused = _say(scene, *words).refused()
        assert refused.startswith("unknown_epic: ")
        assert "epicwave status" in refused
    assert "No epic is planned" in _done(_say(scene, "watch")).out
    assert json.loads(_done(_say(scene, "status", "--json")).out)["cursor"] == 0
    assert engine_process(scene.repo) is None
    assert scene.everything() == before


def test_a_watch_outlives_the_engine_and_its_lines_add_up_to_the_status(scene: Scene) -> None:
    """kill -9 of the engine process while agents work; the next one is followed to the end."""
    _waiting(scene)
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio")
    _at_the_gate(scene)
    watching = _begin(scene, "watch", "notes", "--json")
    first = json.loads(watching.stdout.readline())
    assert {s["story"] for s in first["epics"][0]["stories"]} == {"S1", "S2", "S3"}
    end_engine(scene.repo, signal.SIGKILL)
    wait_until(lambda: engine_process(scene.repo) is not None)
    scene.open("go")
    finish(running)
    said = finish(watching)
    assert "Traceback" not in said.err
    told = {s["story"]: s["state"] for line in [first, *_lines(said)] for s in _stories(line)}
    assert told == _states(scene), "what was killed is at rest as soon as the next engine has said what became of it"
    assert said.code == (0 if set(told.values()) == {"merged"} else 1)
    _done(_say(scene, "run", "epic.yaml", "--attach"))
    assert set(_states(scene).values()) == {"merged"}
    assert scene.starts("S3") == 1, "merged stories are not run again"


def _stories(line: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for epic in line.get("epics", []) for each in epic.get("stories", [])]


def test_a_watch_that_is_interrupted_changes_nothing(scene: Scene) -> None:
    _waiting(scene)
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio")
    _at_the_gate(scene)
    watching = _begin(scene, "watch", "--forever")
    assert "notes" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    said = finish(watching)
    assert said.code == 130, said
    assert said.err == ""
    assert len(scene.children()) == 1
    scene.open("go")
    assert finish(running).code == 0


def test_a_reader_who_has_had_enough_is_no_accident(scene: Scene) -> None:
    """`epicwave watch --json | head -1`."""
    _waiting(scene)
    running = _begin(scene, "run", "epic.yaml", "--attach", "--strategy", "asyncio")
    _at_the_gate(scene)
    watching = _begin(scene, "watch", "--json")
    watching.stdout.readline()
    os.close(watching.stdout.fileno())
    scene.open("go")
    assert finish(running).code == 0
    assert watching.wait(30) == 1
    assert "Traceback" not in watching.stderr.read()
