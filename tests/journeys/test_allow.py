"""A stranger's epic in a terminal: its commands run once somebody who has seen them says yes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.programs import PATIENCE_S, epicwave
from tests.journeys.test_cli import ENV
from tests.server.scene import Scene, environment, python_check, story

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")]

AT_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes from there
from mcp_server.cli.main import main
main()
"""


@pytest.fixture
def strange(tmp_path: Path) -> Scene:
    """A repository with an epic whose check leaves a trace, and which nobody has allowed."""
    scene = Scene(tmp_path)
    scene.epic(story("S1"), checks=[python_check(f"open({str(scene.outside / 'ran')!r}, 'w')")], allowed=False)
    return scene


def _merged(scene: Scene) -> bool:
    return (scene.outside / "ran").exists() and bool(scene.refs("refs/epicwave/landed/"))


def test_without_a_terminal_it_is_refused_until_the_flag_says_yes(strange: Scene) -> None:
    before = strange.everything()
    words = ("run", "epic.yaml", "--agent", "scripted")
    for more in ([], ["--json", "--attach"]):
        said = epicwave(strange.repo, *words, *more, env=environment(**ENV))
        refusal = "\n".join(line for line in said.err.splitlines() if not line.startswith("note: "))
        assert said.code == 2, said
        assert refusal.startswith("checks_not_allowed: ")
        assert "--allow-checks" in refusal
    assert strange.everything() == before
    assert not (strange.outside / "ran").exists()
    assert epicwave(strange.repo, *words, "--allow-checks").code == 0
    assert _merged(strange)
    again = epicwave(strange.repo, *words)
    assert again.code == 0, "what was allowed once is not asked again"


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2), (b"\x03", 130)], ids=["yes", "no", "ctrl-c"])
def test_at_a_terminal_it_is_asked_once(strange: Scene, answer: bytes, code: int) -> None:
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", AT_A_TERMINAL, "run", "epic.yaml", "--agent", "scripted"],
            cwd=strange.repo,
            env=environment(TERM="xterm", COLUMNS="200"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 4096)
        assert b"brings commands that run here, as you" in shown
        assert b"outside/ran" in shown
        os.write(ours, answer)
        while True:
            try:
                if not os.read(ours, 4096):
                    break
            except OSError:  # nobody has the other end any more
                break
        assert process.wait(PATIENCE_S) == code
    finally:
        os.close(ours)
    assert _merged(strange) == (code == 0)
