"""Process trees by identity: pid and start time together, so that no stranger who got the pid is ever touched.

Linux counts start times from the boot, and psutil adds a time of the boot that moves when the clock is set. We take it
off again: a process stays who it is through every jump of the clock, for the next engine too.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread
import psutil

from mcp_server.core.model import Process

if TYPE_CHECKING:
    from collections.abc import Iterable

COOKIE = "EPICWAVE_LEASH"
"""Environment variable that a leash gives to all below it: `<its pid>:<its start>`.

The start is in seconds since the boot, which no setting of the clock moves; elsewhere than on Linux since the epoch."""
SAME_START_S = 2.0
"""The two times that make a start are read one after the other, and the clock may be set between them."""
SAME_COOKIE_S = 60.0
"""From the start of a leash to its writing the cookie, on a very busy machine."""
KILL_BOUND_S = 10.0


def boot_s() -> float:
    """The time of the boot as it is now, in seconds since the epoch; 0 where start times do not hang on it."""
    return psutil.boot_time() if sys.platform == "linux" else 0.0


def start_of_s(pid: int) -> float:
    """When the process started: on Linux since the boot, else since the epoch. Raises `psutil.Error` when it is gone.

    By a new object, since psutil keeps those that it lists, and each keeps the first answer.
    """
    return psutil.Process(pid).create_time() - boot_s()


def identity(pid: int) -> Process:
    """Who this pid is now. A process that is gone already gets the present as its start."""
    with suppress(psutil.Error):
        return Process(pid, start_of_s(pid))
    return Process(pid, time.time() - boot_s())


def root_of(who: Process) -> psutil.Process | None:
    """The process, when it lives and is the one that was who."""
    with suppress(psutil.Error):
        process = psutil.Process(who.pid)
        if abs(start_of_s(who.pid) - who.started_s) <= SAME_START_S and _alive(process):
            return process
    return None


def strays(who: Process) -> list[psutil.Process]:
    """Living processes that carry the cookie of this leash, wherever they have gone."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, ValueError):  # ValueError: a cookie that somebody else wrote
            if start_of_s(process.pid) < who.started_s - SAME_START_S:
                continue
            pid, _, since_s = process.environ().get(COOKIE, "").partition(":")
            leash_s = float(since_s) if pid else 0.0
            if pid and int(pid) == who.pid and abs(leash_s - who.started_s) <= SAME_COOKIE_S:
                found.append(process)
    return found


class Tree:
    """A process and its descendants as they were at one moment."""

    def __init__(self, members: Iterable[psutil.Process] = ()) -> None:
        self.members = list(members)

    @classmethod
    def of(cls, who: Process) -> Tree:
        """The tree now, the root first; empty when the root is gone."""
        root = root_of(who)
        if root is None:
            return cls()
        with suppress(psutil.Error):
            return cls([root, *root.children(recursive=True)])
        return cls([root])

    def terminate(self) -> None:
        """Ask all to end (on Windows they end at once)."""
        for process in self.members:
            with suppress(psutil.Error):  # psutil itself refuses a pid that has changed hands
                process.terminate()

    def end(self, who: Process) -> list[int]:
        """KILL what is left of it, its newer descendants and strays. Returns the pids that were not gone in time."""
        deadline_s = time.monotonic() + KILL_BOUND_S
        while True:
            alive = [p for p in self.members if _alive(p)]
            for process in alive:
                with suppress(psutil.Error):
                    self.members.extend(c for c in process.children() if c not in self.members)
            self.members.extend(p for p in strays(who) if p not in self.members)
            alive = [p for p in self.members if _alive(p)]
            if not alive or time.monotonic() > deadline_s:
                return [p.pid for p in alive]
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
            _wait(alive, 0.2)


async def end_group(pid: int, started_s: float, grace_s: float = 5.0) -> bool:
    """End what a former engine left running under this pid and start time. True when there was anything.

    For recovery: a leash ends itself when its engine dies, so mostly this waits for it. A process that merely has the
    same pid, or whose leash had, is left alone. Blocks the caller, not the loop, for the grace and a bound at most.
    """
    return await anyio.to_thread.run_sync(_end_group, Process(pid, started_s), grace_s)


def wait_for_end(who: Process, at_most_s: float) -> None:
    """Until the very process is gone. Blocks the caller."""
    root = root_of(who)
    _wait([root] if root is not None else [], at_most_s)


def _end_group(who: Process, grace_s: float) -> bool:
    tree = Tree.of(who)
    tree.members.extend(p for p in strays(who) if p not in tree.members)
    if not tree.members:
        return False
    tree.terminate()
    _wait(tree.members, grace_s)
    tree.end(who)
    return True


def _wait(processes: Iterable[psutil.Process], at_most_s: float) -> None:
    """Until all are gone. Not `psutil.wait_procs`: that collects children of ours, whose exit code others wait for."""
    until_s = time.monotonic() + at_most_s
    while any(map(_alive, processes)) and time.monotonic() < until_s:
        time.sleep(0.01)


def _alive(process: psutil.Process) -> bool:
    """True for the same process as ever, unless it only waits to be collected."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
