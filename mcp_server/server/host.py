"""Hosting: who has the engine of a repository, for how long, and how its state is seen from outside."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
from filelock import FileLock, Timeout

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.model import Ledger, is_alive
from mcp_server.engine.engine import Engine
from mcp_server.engine.lifecycle import running
from mcp_server.errors import Code, Refused
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

LOOK_S = 0.2
"""How often another process's journal is looked at while somebody waits for a change, in seconds."""


class Host:
    """The engine of one repository, opened when it is first needed and closed when nothing is left for it to do.

    There is one engine a repository at a time. While another process has it, this one still shows its state, read from
    the journal, and refuses to change anything (`engine_elsewhere`).
    """

    def __init__(self, world: World, group: anyio.abc.TaskGroup, name: str) -> None:
        self.world = world
        self._group = group
        self._name = name
        self._lock = anyio.Lock()
        self._engine: Engine | None = None
        self._closed: anyio.Event | None = None
        """Set when an engine that is being closed has given the lock back."""
        self._users = 0
        self._mirror = Mirror(world.journal_path)

    @asynccontextmanager
    async def engine(self) -> AsyncGenerator[Engine]:
        """The engine, to give commands to. It stays alive afterwards as long as it has work. Raises `Refused`."""
        async with self._lock:
            self._users += 1
            try:
                if self._closed is not None:
                    await self._closed.wait()
                engine = self._engine or await self._group.start(self._keep)
                self._engine = engine
            except BaseException:
                self._users -= 1
                raise
        try:
            yield engine
        finally:
            self._users -= 1
            engine.nudge()

    def ledger(self) -> Ledger:
        """The state now: our engine's, or what the journal tells of another one's."""
        if self._engine is not None:
            return self._engine.ledger
        return self._mirror.ledger()

    async def wait_for(self, condition: Callable[[Ledger], bool], timeout_s: float) -> Ledger:
        """The state as soon as the condition holds, or when the time is up."""
        with anyio.move_on_after(timeout_s):
            while not condition(self.ledger()):
                if self._engine is not None:
                    await self._engine.wait_for(condition, math.inf)
                else:
                    await anyio.sleep(LOOK_S)
        return self.ledger()

    async def _keep(self, *, task_status: anyio.abc.TaskStatus[Engine]) -> None:
        """Hold the lock and the engine until nobody uses it and nothing is alive."""
        closed = anyio.Event()
        try:
            with holding(self.world.state_dir, self._name):
                journal = SqliteJournal(self.world.journal_path)
                try:
                    async with running(self.world.ports(journal)) as engine:
                        task_status.started(engine)
                        await engine.wait_for(
                            lambda ledger: self._users == 0 and engine.alive == 0 and not _busy(ledger)
                        )
                        self._engine, self._closed = None, closed  # from here on a new user waits for the next engine
                finally:
                    journal.close()
        finally:
            self._engine = self._closed = None
            closed.set()


def _busy(ledger: Ledger) -> bool:
    return any(is_alive(epic.wave) for epic in ledger.epics.values())


class holding:  # noqa: N801 - it is used as a verb: `with holding(...)`
    """The repository's lock, for a block. The operating system gives it back when the process dies, kill -9 included.

    Raises `Refused(engine_elsewhere)` that names the holder.
    """

    def __init__(self, state_dir: Path, name: str) -> None:
        self._holder = state_dir / "engine.json"
        self._name = name
        state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(state_dir / "engine.lock", timeout=0)

    def __enter__(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise Refused(
                Code.ENGINE_ELSEWHERE,
                f"Another process runs this repository's engine ({self._who()}).",
                "Its progress is in story_status here too. To change anything, use that process, or end it first.",
            ) from error
        self._holder.write_text(json.dumps({"pid": os.getpid(), "what": self._name}), "utf-8")

    def __exit__(self, *_: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _who(self) -> str:
        try:
            holder = json.loads(self._holder.read_text("utf-8"))
        except (OSError, ValueError):
            return "it has just started"
        return f"{holder['what']}, process {holder['pid']}"
