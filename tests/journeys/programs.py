"""`epicwave` on the command line, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.server.scene import environment

PROGRAM = (sys.executable, "-c", "from mcp_server.cli.main import main; main()")
PATIENCE_S = 60.0

Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The refusal, as it should be: exit code 2, what and why in a line, the next move in another."""
        assert self.code == 2, self
        code, _, why = self.err.partition(": ")
        assert code.replace("_", "").isalpha(), self.err
        assert why
        assert "Traceback" not in self.err
        lines = self.err.rstrip("\n").splitlines()
        assert len(lines) == 2 or (len(lines) > 2 and code == "bad_epic"), self.err  # one a line when there are many
        return self.err


def start(cwd: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> Process:
    """Start a command; in a session of its own, so that a signal is for it alone."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=os.name == "posix",
    )


def finish(process: Process) -> Said:
    """Wait for its end."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return Said(process.returncode, out, err)


def epicwave(cwd: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> Said:
    """Run a command to its end."""
    return finish(start(cwd, *words, env=env))


def wait_until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    """Look at real processes and files until they are so."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)
