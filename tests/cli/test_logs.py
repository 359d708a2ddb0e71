"""`epicwave logs`: which log it shows, and how far it follows."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from mcp_server.cli.logs import Asked, Printed
from mcp_server.server.world import World
from tests.cli.shell import epicwave, refused
from tests.journeys.programs import Process, finish, start, wait_until
from tests.server.scene import PYTHON, Scene, Step, commit, epic_text, exit_with, python_check, story, write


def say(*lines: str) -> Step:
    """The agent prints."""
    return {"run": [*PYTHON, "-c", "import sys; print(*sys.argv[1:], sep=chr(10))", *lines]}


def started(scene: Scene) -> Process:
    """`logs -f` of S1, as soon as it shows the first attempt's."""
    following = start(scene.repo, "logs", "S1", "-f")
    assert following.stderr is not None
    assert "attempt 1" in following.stderr.readline()
    return following


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def ran(scene: Scene) -> Scene:
    """S1 merged in its second attempt."""
    scene.configure({"attempts": 2})
    scene.play("S1", say("the first try"), exit_with(9), attempt=1)
    scene.play("S1", say("the second", "\x1b[31mred\x1b[0m"), write("S1.md"), commit(), attempt=2)
    scene.epic(story("S1"), story("S2", "S1"), checks=[python_check("print('green')")])
    assert epicwave(scene, "run", str(scene.repo / "epic.yaml")).exit_code in {0, 1}
    return scene


def test_the_log_of_the_last_attempt_is_shown_as_plain_text(ran: Scene) -> None:
    said = epicwave(ran, "logs", "S1")
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert {"the second", "red"} <= set(lines)
    assert "the first try" not in lines
    assert "\x1b" not in said.stdout


def test_an_earlier_attempt_and_the_checks_can_be_named(ran: Scene) -> None:
    first = epicwave(ran, "logs", "S1", "--attempt", "1").stdout.splitlines()
    assert "the first try" in first
    assert "the second" not in first
    checked = epicwave(ran, "logs", "S1", "--checks")
    assert "green" in checked.stdout.splitlines()
    head, tip = ran.git("rev-parse", "main")[:10], ran.git("rev-parse", "epicwave/notes~1")[:10]
    assert f"== on {head} + {tip}: `{sys.executable[:60]}" in checked.stderr
    assert "` exit 0 in " in checked.stderr
    assert "== on" not in epicwave(ran, "logs", "S1", "--checks", "--json").stderr


def test_with_json_each_line_is_an_object(ran: Scene) -> None:
    said = [json.loads(line) for line in epicwave(ran, "logs", "S1", "--json").stdout.splitlines()]
    assert {"epic": "notes", "story": "S1", "attempt": 2, "line": "red"} in said


def test_what_there_is_not_is_refused_with_what_there_is(ran: Scene) -> None:
    unknown = refused(epicwave(ran, "logs", "S9"))
    assert unknown.code == "unknown_story"
    assert "notes/S1" in unknown.remedy
    assert refused(epicwave(ran, "logs", "S1", "--epic", "nots")).code == "unknown_epic"
    assert refused(epicwave(ran, "logs", "S1", "--attempt", "3")).why.startswith("Story 'S1' has had 2 attempts, ")
    assert refused(epicwave(ran, "logs", "S1", "--attempt", "0")).code == "bad_argument"
    assert "no check of it has run" in refused(epicwave(ran, "logs", "S1", "--attempt", "1", "--checks")).why


def test_before_its_first_attempt_a_story_has_no_log(scene: Scene) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", exit_with(9))
    scene.epic(story("S1"), story("S2", "S1"))
    epicwave(scene, "run", str(scene.repo / "epic.yaml"))
    assert refused(epicwave(scene, "logs", "S2")).why == "Story 'S2' has had no attempt, so there is no log."
    assert epicwave(scene, "logs", "S2", "-f").exit_code == 0, "it rests, so there is nothing to wait for"


def test_a_story_of_two_epics_is_refused_until_one_is_named(ran: Scene) -> None:
    path = ran.repo / "other.yaml"
    path.write_text(epic_text(story("S1"), id="other"), "utf-8")
    assert epicwave(ran, "run", str(path), "--agent", "scripted").exit_code == 0
    no = refused(epicwave(ran, "logs", "S1"))
    assert "notes, other" in no.why
    assert no.remedy == "Name one: `epicwave logs S1 --epic notes`."
    assert "the second" in epicwave(ran, "logs", "S1", "--epic", "notes").stdout.splitlines()
    assert "the second" not in epicwave(ran, "logs", "S1", "--epic", "other").stdout.splitlines()


@pytest.mark.journey
def test_following_shows_what_comes_over_to_the_next_attempt_until_the_story_rests(scene: Scene) -> None:
    scene.configure({"attempts": 2})
    scene.play("S1", say("one"), scene.gate("first"), exit_with(9), attempt=1)
    scene.play("S1", say("two"), scene.gate("second"), write("S1.md"), say("three"), commit(), attempt=2)
    scene.epic(story("S1"))
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: scene.starts("S1") == 1)
    following = started(scene)
    scene.open("first")
    wait_until(lambda: scene.starts("S1") == 2)
    assert following.poll() is None
    scene.open("second")
    said = finish(following)
    assert finish(running).code == 0
    assert said.code == 0, said
    lines = [line for line in said.out.splitlines() if line in {"one", "two", "three"}]
    assert lines == ["one", "two", "three"], "each once, in order"
    assert said.err.splitlines()[-1] == "== notes/S1 is merged (attempt 2)"


@pytest.mark.journey
def test_following_an_engine_that_is_killed_comes_to_an_end(scene: Scene) -> None:
    scene.play("S1", say("one"), scene.gate("never"))
    scene.epic(story("S1"))
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: scene.starts("S1") == 1)
    following = started(scene)
    running.kill()
    finish(running)
    said = finish(following)
    assert said.code == 0
    assert "is running" in said.err


@pytest.mark.journey
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_following_with_130(scene: Scene) -> None:
    scene.play("S1", say("one"), scene.gate("open"), write("S1.md"), commit())
    scene.epic(story("S1"))
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: scene.starts("S1") == 1)
    following = started(scene)
    following.send_signal(signal.SIGINT)
    said = finish(following)
    assert said.code == 130
    assert "Traceback" not in said.err
    scene.open("open")
    assert finish(running).code == 0


@pytest.mark.anyio
async def test_half_a_line_is_kept_until_its_other_half_is_there(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent writes whenever it likes, and within a character too."""
    printed = Printed(await World.open(scene.repo), Asked("S1"), "notes")
    log = scene.repo / ".git/epicwave/logs/notes/S1/attempt-1.log"
    log.parent.mkdir(parents=True)
    whole = "first\ngrün\nlast".encode()
    log.write_bytes(whole[:9])
    assert await printed.show(1, last=False)
    assert capsys.readouterr().out == "first\n"
    log.write_bytes(whole)
    assert await printed.show(1, last=False)
    assert capsys.readouterr().out == "grün\n"
    assert not await printed.show(1, last=True), "nothing new has come"
    assert capsys.readouterr().out == "last\n"
