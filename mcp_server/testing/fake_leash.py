"""An agent in virtual time that outlives its engine: it goes on, waits for an adopter, and leaves a record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc

from mcp_server.core.model import NOTHING_USED, Process, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault

ADOPT_S = 120.0
"""How long it works on without an engine, as with the real one."""


@dataclass(slots=True)
class FakeLeash:
    """One agent behind a leash. Stores whether an engine is there, what it has used, and how it ended by itself."""

    attempt: AttemptId
    process: Process
    group: anyio.abc.TaskGroup
    """Of the world: an engine that dies takes its own tasks with it."""
    dies_in_s: float
    followed: bool = True
    claimed: bool = False
    used: Usage = NOTHING_USED
    exited: bool = False
    """It came to its end by itself, and that is on record."""
    fault: Fault | None = None
    over: anyio.Event = field(default_factory=anyio.Event)
    news: anyio.Event = field(default_factory=anyio.Event)
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _alone: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _ending: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def start(self, work: Callable[[Callable[[Usage], None]], Awaitable[None]], ended: Callable[[], None]) -> None:
        """Let it do its work; `ended` is called when nothing of it is left."""
        self.group.start_soon(self._live, work, ended)

    async def _live(
        self, work: Callable[[Callable[[Usage], None]], Awaitable[None]], ended: Callable[[], None]
    ) -> None:
        try:
            with self._scope:
                try:
                    await work(self._tells)
                except Fault as fault:
                    self.fault = fault
                self.exited = True
            if not self.exited or self.fault is not None:
                await anyio.sleep(self.dies_in_s)
        finally:
            ended()
            self.over.set()
            self._nudge()

    def _tells(self, used: Usage) -> None:
        self.used = used
        self._nudge()

    def _nudge(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    @property
    def is_alive(self) -> bool:
        """True until nothing of it is left."""
        return not self.over.is_set()

    def loses_its_engine(self) -> None:
        """Kill -9 of the engine: it ends with it before its claim is on record, else it waits for another one."""
        self._ending.cancel()
        if self.is_alive and self.followed:
            self.followed = False
            if self.claimed:
                self.group.start_soon(self._wait_for_adopter)
            else:
                self._scope.cancel()

    async def _wait_for_adopter(self) -> None:
        self._alone = anyio.CancelScope()
        with self._alone:
            await anyio.sleep(ADOPT_S)
            if not self.followed:
                self._scope.cancel()

    def take(self) -> None:
        """An engine is there again."""
        self.followed = True
        self._alone.cancel()

    async def end(self) -> None:
        """Have it ended, and see that it is. Whoever is killed meanwhile sees nothing any more."""
        self._scope.cancel()
        self._ending = anyio.CancelScope(shield=True)
        with self._ending:
            await self.over.wait()

    async def follow(self, used: Callable[[Usage], None]) -> None:
        """Until it is over; `used` hears of all that it tells, what it told before included."""
        told = NOTHING_USED
        while True:
            if self.used != told:
                told = self.used
                used(told)
            if not self.is_alive:
                return
            await self.news.wait()
