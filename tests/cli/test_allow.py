"""`epicwave allow`, and the question before a run."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mcp_server.adapters.formats.detect import read_epic, read_text
from mcp_server.cli import allow as command
from mcp_server.cli.allow import must_be_allowed
from mcp_server.core.checks import digest
from mcp_server.core.planning import plan
from mcp_server.core.spec import EpicSpec
from mcp_server.errors import Code, Refused
from mcp_server.server.allowed import Allowed
from mcp_server.server.world import World
from tests.cli.shell import epicwave, refused
from tests.server.scene import Scene, epic_text, story

CHECK, GUARD, ODD = ("git", "--version"), ("sh", "-c", "exit 0"), ("sh", "-c", "exit 0 # \x1b[2K\n")


@pytest.fixture
def listed(scene: Scene) -> Allowed:
    """An epic file that brings three commands, and the list of what is allowed in its repository."""
    scene.epic(story("S1", guards=[GUARD], checks=[ODD]), checks=[CHECK], allowed=False)
    return Allowed(scene.repo / ".git" / "epicwave")


def _file(scene: Scene) -> str:
    return str(scene.repo / "epic.yaml")


def test_all_commands_of_a_file_are_shown_and_allowed_once(scene: Scene, listed: Allowed) -> None:
    done = epicwave(scene, "allow", _file(scene), "--yes")
    assert done.exit_code == 0
    for each in (CHECK, GUARD):
        assert f"{digest(each)[:8]}  {' '.join(each[:2])}" in done.stdout
    assert r"sh -c $'exit 0 # \x1b[2K\n'" in done.stdout, "nothing of a command is hidden"
    assert "\x1b" not in done.stdout
    assert "Allowed: 3 commands." in done.stdout
    assert listed.missing([CHECK, GUARD, ODD]) == ()
    assert epicwave(scene, "allow", _file(scene)).stdout == "Nothing is left to allow.\n"


def test_where_nobody_can_be_asked_it_is_refused(scene: Scene, listed: Allowed) -> None:
    said = refused(epicwave(scene, "allow", _file(scene)))
    assert said.code is Code.CHECKS_NOT_ALLOWED
    assert r"(1) `git --version` (2) `sh -c $'exit 0 # \x1b[2K\n'` (3) `sh -c 'exit 0'`." in said.why
    assert listed.read() == {}


def test_the_list_shows_what_is_allowed_of_an_epic_and_in_all(scene: Scene, listed: Allowed) -> None:
    assert "Nothing is allowed here" in epicwave(scene, "allow", "--list").stdout
    listed.allow([GUARD, ("of", "another")])
    lines = epicwave(scene, "allow", _file(scene), "--list").stdout.splitlines()
    assert lines == [
        "not allowed: git --version",
        r"not allowed: sh -c $'exit 0 # \x1b[2K\n'",
        "allowed: sh -c 'exit 0'",
    ]
    assert "of another" in epicwave(scene, "allow", "--list").stdout
    assert listed.missing([CHECK]) == (CHECK,), "to look changes nothing"


def test_what_is_forgotten_of_an_epic_leaves_the_others(scene: Scene, listed: Allowed) -> None:
    listed.allow([CHECK, GUARD, ("of", "another")])
    assert "Not allowed any more: 2 commands." in epicwave(scene, "allow", _file(scene), "--forget").stdout
    assert list(listed.read().values()) == [("of", "another")]
    assert "Not allowed any more: 1 command." in epicwave(scene, "allow", "--forget").stdout
    assert listed.read() == {}


def test_without_an_epic_there_is_nothing_to_say_yes_to(scene: Scene) -> None:
    assert refused(epicwave(scene, "allow", "--yes")).code is Code.BAD_ARGUMENT
    assert refused(epicwave(scene, "allow", "nobody")).code is Code.UNKNOWN_EPIC


def test_an_epic_without_commands_says_so(scene: Scene) -> None:
    scene.epic(story("S1"))
    assert "brings no commands" in epicwave(scene, "allow", _file(scene)).stdout
    assert "brings no commands" in epicwave(scene, "allow", _file(scene), "--list").stdout


def test_a_planned_epic_is_named_by_its_id(scene: Scene, listed: Allowed) -> None:
    with_agent = ("run", _file(scene), "--agent", "actor")
    assert refused(epicwave(scene, *with_agent)).code is Code.CHECKS_NOT_ALLOWED
    assert refused(epicwave(scene, "allow", "notes")).code is Code.UNKNOWN_EPIC, "a refused run has planned nothing"
    done = epicwave(scene, *with_agent, "--allow-checks")
    assert done.exit_code == 0, done.output
    assert "Allowed: 3 commands." in done.stdout
    assert epicwave(scene, "allow", "notes", "--list").stdout.count("allowed: ") == 3
    assert listed.missing([CHECK, GUARD, ODD]) == ()


# --- the question -----------------------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _spec(scene: Scene) -> EpicSpec:
    return plan(read_epic(Path(_file(scene))).draft).spec


async def _ask(scene: Scene, answer: str, monkeypatch: pytest.MonkeyPatch, spec: EpicSpec | None = None) -> str:
    """What somebody is shown who sits at a terminal and types this. Raises `Refused`."""
    world, shown = await World.open(scene.repo), io.StringIO()
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    console = Console(file=shown, force_terminal=True, no_color=True, soft_wrap=True, markup=False, highlight=False)
    must_be_allowed(world, spec or _spec(scene), console, yes=False)
    return shown.getvalue()


@pytest.mark.anyio
@pytest.mark.parametrize("answer", ["y\n", "YES \n"])
async def test_a_yes_at_the_terminal_allows_them_for_good(
    scene: Scene, listed: Allowed, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    shown = await _ask(scene, answer, monkeypatch)
    assert "Allow them from now on? [y/N]" in shown
    assert "sh -c 'exit 0'" in shown
    assert listed.missing([CHECK, GUARD, ODD]) == ()
    assert await _ask(scene, "", monkeypatch) == "", "nobody is asked twice"


@pytest.mark.anyio
@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yesterday\n"])
async def test_anything_else_is_a_no(
    scene: Scene, listed: Allowed, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with pytest.raises(Refused) as said:
        await _ask(scene, answer, monkeypatch)
    assert said.value.code is Code.CHECKS_NOT_ALLOWED
    assert listed.read() == {}


@pytest.mark.anyio
async def test_ctrl_c_at_the_question_ends_it_at_once(
    scene: Scene, listed: Allowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under an event loop too, which would keep the signal to itself until the answer has come."""

    class Pressed(_Terminal):
        def readline(self, size: int = -1, /) -> str:
            os.kill(os.getpid(), 2)
            return "y\n"

    monkeypatch.setattr(command, "sys", type("S", (), {"stdin": Pressed()}))
    world = await World.open(scene.repo)
    with pytest.raises(KeyboardInterrupt):
        must_be_allowed(world, _spec(scene), Console(file=io.StringIO(), force_terminal=True), yes=False)
    assert listed.read() == {}


@pytest.mark.anyio
async def test_an_epic_that_an_editor_handed_over_asks_nothing(
    scene: Scene, listed: Allowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan(read_text(epic_text(story("S1", checks=[ODD]))).draft).spec
    assert await _ask(scene, "n\n", monkeypatch, spec) == ""
    assert listed.read() == {}
