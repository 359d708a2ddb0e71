"""One process under supervision: started on a leash, listened to, and ended with everything it had started.

On POSIX systems `leash.py` stands between us and the process, so that even our own death by SIGKILL ends the tree. On
Windows there is no leash: the tree is found and ended with psutil from here, and a killed engine leaves it running
until the next one ends it by its record. That path is run by the tests (on Linux, `leashed=False`), never on Windows.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from mcp_server.adapters.agents.berth import ADOPT_S, SAY_CLAIMED, SAY_STOP
from mcp_server.adapters.agents.leash import KILL_BOUND_S
from mcp_server.adapters.agents.tree import Tree, identity
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import ByteReceiveStream
    from anyio.abc import Process as Child

    from mcp_server.adapters.agents.berth import Berth
    from mcp_server.adapters.agents.output import Output
    from mcp_server.core.model import Process

GRACE_S = 5.0
"""From TERM to KILL."""
LEASH_FILE = Path(__file__).with_name("leash.py")
START_BOUND_S = 60.0
"""A leash that has not started its command by then never will; 20 ms is usual."""
LOOK_S = 1.0
"""How often a silent process is looked at: its output stays open when a stray holds it."""
POSIX = os.name == "posix"


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, and where."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    stdin: Path = Path(os.devnull)
    """A file: nobody has to write it, and a process that never reads it blocks nobody."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; `stall_s` is the longest silence."""

    timeout_s: float
    stall_s: float = float("inf")
    grace_s: float = GRACE_S


@dataclass(frozen=True, slots=True)
class Afloat:
    """How a leash outlives its engine: where it is spoken to, where it writes, how long it waits for another one."""

    berth: Berth
    log: Path
    room: int
    """Bytes that the log still takes."""
    window_s: float = ADOPT_S

    @property
    def words(self) -> tuple[str, ...]:
        """What the leash is started with."""
        return "--adoptable", str(self.berth.folder), str(self.window_s), str(self.log), str(self.room)


@dataclass(frozen=True, slots=True)
class Ending:
    """How it came to its end. The exit code is None when we ended it, 128 + n for a signal from elsewhere."""

    how: Ended
    exit_code: int | None
    seconds: float


async def run(
    command: Command,
    limits: Limits,
    output: Output,
    claimed: Callable[[Process], None],
    *,
    leashed: bool = POSIX,
    afloat: Afloat | None = None,
) -> Ending:
    """Run to the end. Raises `Fault(spawn)` when it cannot be started.

    On every way out, cancellation too, the process and all it had started are gone; that takes the grace at most, if
    the kernel does its part. `claimed` is called once, when the process runs. Only by our own death with a kill -9
    does one that is `afloat` (and leashed) stay, from the claim on.
    """
    began_s = anyio.current_time()
    child = await _open(command, limits, afloat, leashed=leashed)
    running = _Running(child, output, limits, afloat, leashed=leashed)
    try:
        if leashed:
            await _wait_for_start(child, command)
        claimed(running.who)
        if afloat is not None:
            afloat.berth.say(SAY_CLAIMED)
        how = await running.follow(began_s)
    finally:
        with anyio.CancelScope(shield=True):
            await running.end()
    seconds = anyio.current_time() - began_s
    if how is not Ended.EXITED or child.returncode is None:
        return Ending(how, None, seconds)
    return Ending(how, child.returncode if child.returncode >= 0 else 128 - child.returncode, seconds)


async def _open(command: Command, limits: Limits, afloat: Afloat | None, *, leashed: bool) -> Child:
    child: Child | None = None
    try:
        with anyio.CancelScope(shield=True):  # a start cut short would leave a process that nobody knows
            child = await (_open_leashed(command, limits, afloat) if leashed else _open_bare(command))
    except (OSError, ValueError) as error:  # ValueError: a NUL in a word
        raise _not_started(command, str(error)) from error
    assert child is not None  # noqa: S101 - nothing cancels a shield of our own
    return child


async def _open_leashed(command: Command, limits: Limits, afloat: Afloat | None) -> Child:
    words = afloat.words if afloat is not None else ()
    leash = (sys.executable, "-I", "-S", str(LEASH_FILE), *words, str(limits.grace_s), str(command.stdin))
    return await anyio.open_process(
        [*leash, *command.argv],
        stdin=subprocess.DEVNULL if afloat is not None else subprocess.PIPE,
        cwd=command.cwd,
        env=command.environment,
        start_new_session=True,
    )


async def _open_bare(command: Command) -> Child:
    found = shutil.which(command.argv[0], path=command.environment.get("PATH"))  # CreateProcess finds no .cmd by itself
    with command.stdin.open("rb") as file:
        return await anyio.open_process(
            [found or command.argv[0], *command.argv[1:]],
            stdin=file,
            stderr=subprocess.STDOUT,
            cwd=command.cwd,
            env=command.environment,
            start_new_session=POSIX,
        )


def _not_started(command: Command, reason: str) -> Fault:
    return Fault(FaultCause.SPAWN, f"{command.argv[0]!r} could not be started in {command.cwd}: {reason}")


async def _wait_for_start(child: Child, command: Command) -> None:
    """The leash's first line. What else it may print (a traceback) is the reason of the fault."""
    told = b""
    with anyio.move_on_after(START_BOUND_S):
        while not (told.startswith((b"started ", b"failed ")) and told.endswith(b"\n")):
            try:
                told += await _pipe(child.stderr).receive()
            except anyio.EndOfStream:
                break
    if not told.startswith(b"started "):
        text = told.decode(errors="replace").strip() or "its supervisor said nothing"
        raise _not_started(command, text.removeprefix("failed "))


def _pipe(stream: ByteReceiveStream | None) -> ByteReceiveStream:
    assert stream is not None  # noqa: S101 - opened with PIPE
    return stream


class _Running:
    """Stores the process, who it is, when it was last heard, and whether its output is still open."""

    def __init__(self, child: Child, output: Output, limits: Limits, afloat: Afloat | None, *, leashed: bool) -> None:
        self.child = child
        self.who = identity(child.pid)
        self.output = output
        self.limits = limits
        self.afloat = afloat
        self.leashed = leashed
        self.heard_s = anyio.current_time()
        self.open = True

    def over(self) -> bool:
        return not self.open and self.child.returncode is not None

    async def follow(self, began_s: float) -> Ended:
        """Listen until it ends or a limit is over."""
        deadline_s = began_s + self.limits.timeout_s
        while not self.over():
            stall_s = self.heard_s + self.limits.stall_s
            due_s = min(deadline_s, stall_s)
            if anyio.current_time() >= due_s:
                return Ended.TIMEOUT if deadline_s <= stall_s else Ended.STALL
            await self.listen(due_s)
        return Ended.EXITED

    async def listen(self, until_s: float) -> None:
        """Keep what it prints next, or notice its end, until the moment at most."""
        with anyio.CancelScope(deadline=min(until_s, anyio.current_time() + LOOK_S)):
            if not self.open:
                await self.child.wait()
                return
            try:
                chunk = await _pipe(self.child.stdout).receive()
            except anyio.EndOfStream:
                self.open = False
                return
            self.heard_s = anyio.current_time()
            self.output.write(chunk)
            return
        if self.child.returncode is not None:  # a stray holds the pipe
            self.open = False

    async def end(self) -> None:
        """Have the whole tree ended, and see that it is."""
        tree = None
        if self.child.returncode is None:
            tree = await anyio.to_thread.run_sync(Tree.of, self.who)
            await self._ask(tree)
            until_s = anyio.current_time() + self.limits.grace_s + (KILL_BOUND_S + 2.0 if self.leashed else 0.0)
            while not self.over() and anyio.current_time() < until_s:
                await self.listen(until_s)
        if self.child.returncode is None:
            self.child.kill()
            with anyio.move_on_after(LOOK_S):
                await self.child.wait()
        code = self.child.returncode
        if tree is not None or code is None or code < 0 or not self.leashed or sys.platform != "linux":
            left = await anyio.to_thread.run_sync((tree or Tree()).end, self.who)
            if left:
                self.output.note(f"could not be ended: {left}")
        await self.child.aclose()

    async def _ask(self, tree: Tree) -> None:
        if not self.leashed:
            tree.terminate()
            return
        try:
            if self.afloat is not None:
                self.afloat.berth.say(SAY_STOP)
            elif self.child.stdin is not None:
                await self.child.stdin.send(SAY_STOP)
            os.kill(self.child.pid, signal.SIGCONT)  # somebody may have stopped the leash; else it does nothing
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ProcessLookupError):
            return  # the leash has ended by itself
