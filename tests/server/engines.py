"""Engine processes that tests start: on hand, and gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

IDLE_S = "20"
"""What a test has left behind by mistake ends by itself."""


def engine_process(repo: Path) -> psutil.Process | None:
    """The repository's engine process, if one is there."""
    try:
        door = json.loads((repo / ".git" / "epicwave" / "door.json").read_text("utf-8"))
        return psutil.Process(door["pid"])
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def start_engine(repo: Path) -> psutil.Process:
    """Start one, and wait until it listens."""
    command = [sys.executable, "-m", "mcp_server.cli", "engine", "--detach", "--repo", str(repo)]
    subprocess.run(command, check=True, env={**os.environ, "EPICWAVE_IDLE_S": IDLE_S}, stdin=subprocess.DEVNULL)
    found = engine_process(repo)
    assert found is not None
    return found


def end_engine(repo: Path, number: int = signal.SIGTERM) -> None:
    """End it, and wait until it is gone."""
    found = engine_process(repo)
    if found is None or found.pid == os.getpid():
        return
    with suppress(psutil.NoSuchProcess):
        found.send_signal(number)
        with suppress(psutil.TimeoutExpired):
            found.wait(20)
        if found.is_running():
            found.kill()


@contextmanager
def ended_engines(*repos: Path) -> Generator[None]:
    """Whatever engine process the repositories have after the block is ended."""
    try:
        yield
    finally:
        for repo in repos:
            end_engine(repo)
