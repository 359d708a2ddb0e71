"""The harness itself: the real client talks to the scripted model, and to nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.claude.box import NEEDS_CLIENT, UNSHARE, run_in_box
from tests.journeys.claude.conftest import ROOT
from tests.journeys.claude.session import excused

pytestmark = NEEDS_CLIENT


def test_the_real_client_does_what_the_script_says(scratch_repository: Path, tmp_path: Path) -> None:
    command = ["claude", "-p", "Look around.", "--allowedTools", "Bash(git log:*)"]
    ran = run_in_box("greeter", command, cwd=scratch_repository, scratch=tmp_path, timeout_s=120)
    assert ran.exit_code == 0, ran.stderr
    assert "SEEN" in ran.stdout
    assert "Begin" in ran.stdout
    assert any("Look around." in str(request["messages"]) for request in ran.requests)


def test_the_box_has_no_way_out(scratch_repository: Path, tmp_path: Path) -> None:
    """An address of the documentation range is unreachable at once, not after a timeout."""
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    ran = run_in_box("greeter", ["python", "-c", connect], cwd=scratch_repository, scratch=tmp_path, timeout_s=30)
    assert "Network is unreachable" in ran.stderr


def test_what_takes_too_long_is_ended_with_all_it_started(scratch_repository: Path, tmp_path: Path) -> None:
    """A child in its own session would survive a kill of its parent; it cannot leave the box."""
    lock = tmp_path / "lock"
    take = f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, 2)"
    child = f"{take}; print('held', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    (scratch := tmp_path / "box").mkdir()
    with pytest.raises(subprocess.TimeoutExpired) as late:
        run_in_box("greeter", ["python", "-c", parent], cwd=scratch_repository, scratch=scratch, timeout_s=5)
    assert "held" in str(late.value.stdout)
    free = subprocess.run(["flock", "--timeout", "5", str(lock), "true"], check=False)
    assert free.returncode == 0


def test_what_outlives_its_command_is_named() -> None:
    """The first process of a box sees all others; who has ended by itself is none of them."""
    start = "import subprocess; [subprocess.Popen(['sleep', s], start_new_session=True) for s in ('0', '61')]"
    look = "from tests.journeys.claude.inside import left_after; print(left_after(1))"
    box = [*UNSHARE, sys.executable, "-c", f"{start}; {look}"]
    seen = subprocess.run(box, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(r"\{\d+: 'sleep 61 '\}\n", seen), seen


@pytest.mark.parametrize(
    ("line", "unstarted", "is_excused"),
    [
        ("sub-agent, turn 2: 2 of 3 came to a meeting", 1, True),
        ("sub-agent, turn 2: 2 of 3 came to a meeting", 0, False),
        ("sub-agent, turn 2: 1 of 3 came to a meeting", 1, False),
        ("lead, turn 2: LookupError", 3, False),
    ],
)
def test_at_a_meeting_nobody_may_be_missing_whom_the_client_has_started(
    line: str, unstarted: int, is_excused: bool
) -> None:
    assert excused(line, unstarted) is is_excused
