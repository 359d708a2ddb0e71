"""Programs for the tests to run, written as Python source, and the truth about which processes are alive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import psutil

from mcp_server.adapters.agents.output import Output
from mcp_server.adapters.agents.process import LEASH_FILE, Command, Ending, Limits, run
from mcp_server.core.model import Process

BOUND_S = 20.0
"""After so long a process that should be there or gone is taken to be neither."""

STUBBORN = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
FAMILY = """\
import os, signal, subprocess, sys, time
from pathlib import Path
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(300)"
DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
child.stdout.read(1)
daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE)
detached = int(daemon.stdout.readline())
daemon.wait()
Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid} {detached}\\n")
"""
"""An agent with a child that ignores TERM and a daemonised grandchild in a session of its own; it writes their pids."""


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """The argv of a program."""
    return sys.executable, "-c", code, *arguments


def alive(pids: Iterable[int]) -> list[int]:
    """The pids that are more than a name in the process table."""
    found: list[int] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def pids_in(path: Path) -> list[int]:
    """What a family wrote; empty as long as it has not."""
    text = path.read_text() if path.exists() else ""
    return [int(pid) for pid in text.split()] if text.endswith("\n") else []


async def family(path: Path) -> list[int]:
    """The pids of a family, as soon as all are there."""
    until_s = time.monotonic() + BOUND_S
    while not (pids := pids_in(path)):
        assert time.monotonic() < until_s, "the family never came up"
        await anyio.sleep(0.01)
    return pids


def spawn(
    argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A process that nobody supervises, stdin and stdout piped."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=null, cwd=cwd, env=env)


def close(process: subprocess.Popen[bytes]) -> None:
    """Kill it when it lives, collect it, close its streams."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def spawn_leash(grace_s: float, *argv: str) -> subprocess.Popen[bytes]:
    """A leash whose engine is the test."""
    return spawn([sys.executable, "-I", "-S", str(LEASH_FILE), str(grace_s), os.devnull, *argv])


def says(process: subprocess.Popen[bytes]) -> bytes:
    """The next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def gone(pids: Iterable[int], within_s: float) -> bool:
    """True when none is left after the time at most."""
    pids, until_s = list(pids), time.monotonic() + within_s
    while alive(pids):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True


async def run_python(
    folder: Path,
    code: str,
    *arguments: str,
    limits: Limits | None = None,
    claimed: Callable[[Process], None] = lambda _: None,
    leashed: bool = True,
) -> tuple[Ending, str]:
    """Run a Python program in an empty environment. Returns its ending and the tail of its output."""
    with Output(folder / "log") as output:
        command = Command(python(code, *arguments), folder, {})
        ending = await run(command, limits or Limits(BOUND_S, grace_s=0.2), output, claimed, leashed=leashed)
        output.end("over")
        return ending, output.tail()
