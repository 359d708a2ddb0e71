"""Hosting: who has the engine of a repository, for how long, and how its state is seen from outside."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

import anyio
import anyio.abc
from filelock import FileLock, SoftFileLock, Timeout

from mcp_server.adapters.agents.tree import identity
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.model import Ledger, is_alive, is_team
from mcp_server.core.policy import jitter, poll_after_s
from mcp_server.engine.engine import Engine
from mcp_server.engine.lifecycle import running
from mcp_server.errors import Code, Fault, FaultCause, JournalError, Refused
from mcp_server.server.holder import HOLDER_FILE, holder_of, write_holder
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

LOOK_S, LOOK_MAX_S = 0.2, 2.0
"""Another process's journal cannot push: how soon it is looked at after a change, and at the latest, in seconds."""

PUT_AWAY_S = 3.0
"""How long the end of an engine waits until what it had thrown away is deleted. The rest is deleted meanwhile."""


@dataclass(slots=True)
class _Held:
    """What all views of one host share."""

    mirror: Mirror
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    engine: Engine | None = None
    closed: anyio.Event | None = None
    """Set when an engine that is being closed has given the lock back."""
    users: int = 0


class Host:
    """The engine of one repository, opened when it is first needed and closed when nothing is left for it to do.

    There is one engine a repository at a time. While another process has it, this one still shows its state, read from
    the journal, and refuses to change anything (`engine_elsewhere`).
    """

    def __init__(
        self,
        world: World,
        group: anyio.abc.TaskGroup,
        name: str,
        broken: Callable[[JournalError], None] | None = None,
        *,
        goes_on: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`broken` is told when the journal cannot be written and the engine has ended; without it, that is raised.

        `goes_on` and `tell` are as in `lifecycle.running`: waves outlive an engine, and what one has found is told.
        """
        self.world = world
        """The repository as whoever asks sees it; the engine itself works in the first one's."""
        self._home = world
        self._broken = broken
        self._goes_on = goes_on
        self._tell = tell
        self._group = group
        self._name = name
        self._held = _Held(Mirror(world.journal_path))

    def seen_from(self, world: World) -> Self:
        """The same engine, for somebody in another worktree of the repository."""
        view = copy(self)
        view.world = replace(world, agents=self._home.agents)
        return view

    @property
    def is_open(self) -> bool:
        """True while the engine is alive here."""
        return self._held.engine is not None

    @property
    def is_idle(self) -> bool:
        """True when nothing is alive: no wave, and no job that ends one."""
        engine = self._held.engine
        return engine is None or (engine.alive == 0 and not is_busy(engine.ledger))

    @asynccontextmanager
    async def engine(self) -> AsyncGenerator[Engine]:
        """The engine, to give commands to. It stays alive afterwards as long as it has work. Raises `Refused`."""
        async with self._held.lock:
            self._held.users += 1
            try:
                if self._held.closed is not None:
                    await self._held.closed.wait()
                engine = self._held.engine or await self._group.start(self._keep)
                self._held.engine = engine
            except BaseException:
                self._held.users -= 1
                raise
        try:
            yield engine
        finally:
            self._held.users -= 1
            engine.nudge()

    def aside(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let something be done that no call waits for to its end; it ends with this process."""
        self._group.start_soon(work)

    async def wake(self) -> None:
        """Take up a wave of the editor's sub-agents that a server which is gone has left: its leases have to run out.

        Nothing happens when there is none, or when another process has the engine.
        """
        if self._held.engine is None and any(is_team(e) and is_alive(e.wave) for e in self.ledger().epics.values()):
            with suppress(Refused):
                async with self.engine():
                    pass

    def ledger(self) -> Ledger:
        """The state now: our engine's, or what the journal tells of another one's."""
        if self._held.engine is not None:
            return self._held.engine.ledger
        return self._held.mirror.ledger()

    async def wait_for(self, condition: Callable[[Ledger], bool], timeout_s: float) -> Ledger:
        """The state as soon as the condition holds, or when the time is up."""
        with anyio.move_on_after(timeout_s):
            while not condition(self.ledger()):
                if self._held.engine is not None:
                    await self._held.engine.wait_for(condition, math.inf)
                else:
                    await self._look_until(condition)
        return self.ledger()

    async def _look_until(self, condition: Callable[[Ledger], bool]) -> None:
        """Look at another engine's journal until the condition holds, or until we have the engine ourselves."""
        seen, since_s = self.ledger().seq, anyio.current_time()
        while self._held.engine is None and not condition(now := self.ledger()):
            if now.seq != seen:
                seen, since_s = now.seq, anyio.current_time()
            share = jitter(os.getpid(), anyio.current_time())
            quiet_s = anyio.current_time() - since_s
            await anyio.sleep(poll_after_s(quiet_s, first_s=LOOK_S, cap_s=LOOK_MAX_S, share=share))

    async def _keep(self, *, task_status: anyio.abc.TaskStatus[Engine]) -> None:
        """Hold the lock and the engine until nobody uses it and nothing is alive."""
        closed, began = anyio.Event(), False
        try:
            with holding(self._home.state_dir, self._name), closing(SqliteJournal(self._home.journal_path)) as journal:
                async with self._engine(journal) as engine:
                    task_status.started(engine)
                    began = True
                    await engine.wait_for(lambda now: self._held.users == 0 and engine.alive == 0 and not is_busy(now))
                    self._held.engine, self._held.closed = None, closed  # from here on a new user waits for the next
        except (JournalError, ExceptionGroup) as error:
            broken = journal_error(error)
            if not began or broken is None or self._broken is None:
                raise
            self._broken(broken)
        finally:
            self._held.engine = self._held.closed = None
            closed.set()

    @asynccontextmanager
    async def _engine(self, journal: SqliteJournal) -> AsyncGenerator[Engine]:
        """An engine that leaves no worktree behind it; but where a wave goes on, those that wait for its attempts."""
        engine: Engine | None = None
        try:
            async with running(self._home.ports(journal), goes_on=self._goes_on, tell=self._tell) as engine:
                yield engine
        finally:
            if engine is not None and not (self._goes_on and is_busy(engine.ledger)):
                with anyio.CancelScope(shield=True):
                    await self._home.put_away(PUT_AWAY_S)


def journal_error(error: Exception) -> JournalError | None:
    """The error when it is one, or a group of nothing else; None for anything else."""
    if isinstance(error, JournalError):
        return error
    found = (
        [journal_error(e) for e in cast("ExceptionGroup[Exception]", error).exceptions]
        if isinstance(error, ExceptionGroup)
        else [None]
    )
    return found[0] if all(found) else None


def is_busy(ledger: Ledger) -> bool:
    """True while a wave is alive: there is something to do, or to wait for."""
    return any(is_alive(epic.wave) for epic in ledger.epics.values())


class holding:  # noqa: N801 - it is used as a verb: `with holding(...)`
    """The repository's lock, for a block. The operating system gives it back when the process dies, kill -9 included.

    Raises `Refused(engine_elsewhere)` that names the holder, and `Fault(disk)`.
    """

    def __init__(self, state_dir: Path, name: str) -> None:
        self._state = state_dir
        self._name = name
        self._lock = FileLock(state_dir / "engine.guard", timeout=0)  # the file stays, the lock on it does not

    def __enter__(self) -> None:
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            _must_be_real(self._lock)
            write_holder(self._state, self._name, identity(os.getpid()))
        except Timeout as error:
            raise Refused(
                Code.ENGINE_ELSEWHERE,
                f"Another process runs this repository's engine ({self._who()}).",
                "Its progress is in story_status here too. To change anything, use that process, or end it first.",
            ) from error
        except NotImplementedError as error:
            self._lock.release()
            why = f"{self._state} lies on a file system without locks: two engines could not be kept apart."
            raise Fault(FaultCause.DISK, f"{why} Work in a clone on a local disk.") from error
        except OSError as error:
            self._lock.release()
            raise Fault(FaultCause.DISK, f"The folder {self._state} cannot be used: {error}.") from error

    def __exit__(self, *_: object) -> None:
        (self._state / HOLDER_FILE).unlink(missing_ok=True)
        self._lock.release()

    def _who(self) -> str:
        holder = holder_of(self._state)
        return "it has just started" if holder is None else str(holder)


def _must_be_real(lock: object) -> None:
    """Where the system has no locks for a file, filelock makes do with the file's existence, which outlives a kill."""
    if isinstance(lock, SoftFileLock):
        raise NotImplementedError
