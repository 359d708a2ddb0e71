"""The live probe: looks at running stories on a slow clock and when something is told of one, and says what is new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import anyio

from mcp_server.core.events import WorkSeen
from mcp_server.core.leases import attempt_of
from mcp_server.core.model import Ledger, Story, StoryState
from mcp_server.core.policy import probe_after_s
from mcp_server.core.sights import WATCHED, bounded, outside
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import Ports
from mcp_server.probe import Look, Seen, Sight

ANSWER_S = 1.5
"""How long a report waits for the look that it asked for: what comes later is in the next answer."""


@dataclass(slots=True)
class Watch:
    """Stores who is to be looked at next, and since when nothing has changed."""

    ports: Ports
    ledger: Callable[[], Ledger]
    report: Callable[[WorkSeen], bool]
    now_s: Callable[[], float]
    _asked: set[AttemptId] = field(default_factory=set[AttemptId])
    _looking_at: set[AttemptId] = field(default_factory=set[AttemptId])
    _bell: anyio.Event = field(default_factory=anyio.Event)
    _looked: anyio.Event = field(default_factory=anyio.Event)
    _due_s: float = 0.0
    """On the loop's clock: when all are looked at again."""
    _quiet_since_s: float = 0.0

    def ask(self, attempt: AttemptId) -> None:
        """Something has happened to an attempt: look at it soon, and compare the others with what is there now."""
        self._asked.add(attempt)
        self._bell.set()
        self._bell = anyio.Event()

    async def looked(self, attempt: AttemptId) -> None:
        """Ask, and wait until that look has been taken; not longer than an answer may take."""
        if attempt not in watched(self.ledger()):
            return
        self.ask(attempt)
        with anyio.move_on_after(ANSWER_S):
            while attempt in self._asked or attempt in self._looking_at:
                await self._looked.wait()

    async def run(self, until: Callable[[Callable[[Ledger], bool]], Awaitable[object]]) -> None:
        """Look as long as somebody works; `until` waits for that. As long as the engine."""
        while True:
            if not is_at_work(self.ledger()):
                self._asked.clear()
                await self._close()
                await until(is_at_work)
                self._due_s = anyio.current_time() + probe_after_s(0.0)
                self._quiet_since_s = anyio.current_time()
            bell, left_s = self._bell, self._due_s - anyio.current_time()
            if not self._asked and left_s > 0:
                with anyio.move_on_after(left_s):
                    await bell.wait()
                continue
            await self._turn(everybody=left_s <= 0)

    async def _turn(self, *, everybody: bool) -> None:
        """One look, and what it tells."""
        began_s = anyio.current_time()
        self._looking_at, self._asked = self._asked, set()
        now = watched(self.ledger())
        try:
            look = await self.ports.probe.look(sights(now), None if everybody else self._looking_at)
            self._tell(now, look, began_s)
        except Fault:
            pass  # nobody depends on it: what it would have told is met at the merge, or seen by the next look
        finally:
            self._looking_at = set()
            self._looked.set()
            self._looked = anyio.Event()
        ended_s = anyio.current_time()
        if everybody:
            quiet_s, took_s = ended_s - self._quiet_since_s, ended_s - began_s
            self._due_s = ended_s + probe_after_s(quiet_s, took_s=took_s, alone=len(now) < 2)  # noqa: PLR2004 - a pair

    def _tell(self, now: Mapping[AttemptId, Story], look: Look, began_s: float) -> None:
        if look.changed:
            self._quiet_since_s = began_s
        for attempt, seen in look.seen.items():
            fact = told(now[attempt], attempt, seen, self.now_s())
            if fact is not None:
                self.report(fact)  # and if the attempt has ended meanwhile, nobody needs to know

    async def _close(self) -> None:
        try:
            await self.ports.probe.close()
        except Fault:
            return


def told(story: Story, attempt: AttemptId, seen: Seen, now_s: float) -> WorkSeen | None:
    """The fact that a look becomes; None when it is known."""
    touched, clashes = outside(seen.files, story.spec.files), bounded(seen.clashes)
    return WorkSeen(attempt, touched, clashes, now_s) if (touched, clashes) != (story.touched, story.clashes) else None


def is_at_work(ledger: Ledger) -> bool:
    """True while anybody changes a worktree."""
    return any(epic.stories.any_in(StoryState.RUNNING) for epic in ledger.epics.values())


def watched(ledger: Ledger) -> dict[AttemptId, Story]:
    """Whom to look at: who works, and who has handed in and is not merged yet."""
    epics = ledger.epics.values()
    return {attempt_of(epic, story): story for epic in epics for story in epic.stories.in_state(*sorted(WATCHED))}


def sights(now: Mapping[AttemptId, Story]) -> list[Sight]:
    """Where they are to be looked at."""
    return [Sight(attempt, story.base or "", story.head) for attempt, story in now.items()]
