"""A box for the real client: namespaces of its own with only a loopback, the scripted model in it, an empty home.

Nothing in it can reach a network, and nothing outlives it: when its first process ends, the kernel ends the rest.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.journeys.claude.fake_api import LEFT, LOST
from tests.journeys.claude.request import Json

_ROOT = Path(__file__).parents[3]
UNSHARE = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Ran:
    """How the command in the box ended."""

    exit_code: int
    stdout: str
    stderr: str
    requests: list[Json]
    """Bodies of all requests for a message, in order."""
    left: list[str]
    """Processes that the command had started and that still lived long after its end."""
    lost: list[str]
    """Where a script did not find in what it was told what to do next."""
    seconds: float
    """From the start of the command to the end of the last process."""


@cache
def why_no_box() -> str:
    """Why a box cannot be made on this machine; empty when it can."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return "needs Linux and unshare(1)"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine does not allow user namespaces"


def client() -> str:
    """Path of the real client, from `EPICWAVE_CLAUDE`; empty when the caller named none."""
    return os.environ.get("EPICWAVE_CLAUDE", "")


def _why_not() -> str:
    """Why the client cannot be run here; empty when it can. Raises when the caller insists on it."""
    why = why_no_box() if client() else "EPICWAVE_CLAUDE names no client"
    if why and os.environ.get("EPICWAVE_CLIENT_REQUIRED"):
        raise RuntimeError(f"EPICWAVE_CLIENT_REQUIRED is set, but the journeys of the client cannot be run: {why}.")
    return why


NEEDS_CLIENT = [
    pytest.mark.journey,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "it can be run"),
]
"""Marks of a module whose tests run the real client."""


def run_in_box(
    script: str,
    command: Sequence[str],
    *,
    cwd: Path,
    scratch: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run the command with that script of `scripts.py` as the model, and what `_programs` makes on its PATH.

    `scratch` is a folder for its home and the log. Raises `TimeoutExpired` when it takes longer; all is ended then.
    """
    log = scratch / "requests.jsonl"
    log.touch()
    began = time.monotonic()
    inside = [sys.executable, "-m", "tests.journeys.claude.inside", script, str(log), str(cwd), *command]
    with subprocess.Popen(
        [*UNSHARE, *inside],
        cwd=_ROOT,
        env=_environment(scratch) | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as late:
            process.kill()
            stdout, stderr = process.communicate()
            error = subprocess.TimeoutExpired(late.cmd, timeout_s, stdout, stderr)
            error.add_note("\n".join(dict.fromkeys(_lines(scratch / LOST))) or "No script was lost.")
            raise error from None
    requests: list[Json] = [json.loads(line) for line in _lines(log)]
    return Ran(
        process.returncode,
        stdout,
        stderr,
        requests,
        left=_lines(scratch / LEFT),
        lost=_lines(scratch / LOST),
        seconds=time.monotonic() - began,
    )


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _environment(scratch: Path) -> dict[str, str]:
    """A client's whole environment: an empty home, no telemetry, a key that is none, and our programs on the PATH."""
    home = scratch / "home"
    home.mkdir()
    git = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
    return git | {
        "PATH": os.pathsep.join([str(_programs(scratch)), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": "not-a-key",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
        "EPICWAVE_IDLE_S": "1",  # its engine process outlives the client; not for long, or nothing could be counted
    }


def _programs(scratch: Path) -> Path:
    """A folder with the real `claude`, this checkout's `epicwave`, and a `uvx` that installs nothing.

    That `uvx` writes the folder it is asked to run from to `uvx.log`, and runs what is on the PATH instead.
    """
    folder = scratch / "bin"
    folder.mkdir()
    (folder / "claude").symlink_to(client())
    start = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from mcp_server.cli.entry import main; main()"
    for name, line in {
        "epicwave": f'exec {shlex.quote(sys.executable)} -c {shlex.quote(start)} "$@"',
        "uvx": f'echo "$2" >> {shlex.quote(str(scratch / "uvx.log"))}; shift 2; exec "$@"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (folder / name).chmod(0o755)
    return folder
