"""Looking on from outside: what the journal says, as soon as it says it. No engine is started, and none is needed."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from mcp_server.core.forecast import Times
from mcp_server.core.model import Ledger
from mcp_server.core.policy import jitter, poll_after_s
from mcp_server.errors import Refused
from mcp_server.server.caller import Gone, calling, visiting
from mcp_server.server.groups import plainly
from mcp_server.server.host import LOOK_MAX_S, LOOK_S
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

NEWS_S = 60.0
"""How long one question for news waits for its answer, in seconds."""


class Onlooker:
    """Stores the state as of the last look, and how long stories took. While an engine process is there, it pushes."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.times = Times()
        self.is_told = False
        """True while an engine process tells us of changes."""
        self._folder = folder
        self._mirror = Mirror(world.journal_path, self.times.note)
        self._changed = anyio.Event()

    def ledger(self) -> Ledger:
        """The state now. Raises `Refused` when the journal cannot be read."""
        return self._mirror.ledger()

    async def wait(self, seq: int, limit_s: float) -> None:
        """Until there is a fact behind number `seq`, or the time is up."""
        with anyio.move_on_after(limit_s):
            while self.ledger().seq == seq:
                await self._changed.wait()

    async def listen(self, *, starts: bool = False) -> None:
        """Hear of changes, from one engine process after the other, and look for them while there is none.

        With `starts` an engine process that has died is followed by another one.
        """
        while True:
            try:
                meeting = calling if starts else visiting
                async with meeting(self.world.state_dir, self._folder) as caller:
                    told = self.ledger().seq
                    self._nudge()
                    self.is_told = True
                    while True:
                        told = await caller.news(told, NEWS_S)
                        self._nudge()
            except (Gone, Refused):  # whoever steers is told why; here there is still the journal
                self.is_told = False
            await self._look()

    async def _look(self) -> None:
        """One look at the journal, soon after a change and less often the longer nothing has changed."""
        now, share = self.ledger(), jitter(os.getpid(), anyio.current_time())
        quiet_s = max(0.0, self.world.clock.now_s() - now.as_of_s)
        await anyio.sleep(poll_after_s(quiet_s, first_s=LOOK_S, cap_s=LOOK_MAX_S, share=share))
        self._nudge()

    def _nudge(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def looking_on(world: World, folder: Path, *, starts: bool = False) -> AsyncGenerator[Onlooker]:
    """An onlooker that listens, within the block."""
    onlooker = Onlooker(world, folder)
    async with plainly(), anyio.create_task_group() as group:

        async def listen() -> None:
            await onlooker.listen(starts=starts)

        group.start_soon(listen)
        yield onlooker
        group.cancel_scope.cancel()
