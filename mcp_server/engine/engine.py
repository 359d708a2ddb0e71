"""The one writer: every fact goes through `submit`, and the living jobs are made to agree with what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

import anyio
import anyio.abc

from mcp_server.core.commands import Command
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import AttemptFailed, AttemptStopped, BranchMerged, Event, Fact, Ticked
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.model import Ledger, StoryState
from mcp_server.core.wanted import Integrate, Job, RunAttempt, next_wake_s, wanted
from mcp_server.engine.jobs import Context, integrate, run_attempt, saved_work
from mcp_server.ports import Ports


class Engine:
    """Stores the ledger, the living jobs' cancel scopes and one alarm; nothing else. Made by `lifecycle.running`."""

    def __init__(self, ledger: Ledger, ports: Ports, jobs: anyio.abc.TaskGroup) -> None:
        self.ledger = ledger
        self.ports = ports
        self._group = jobs
        self._scopes: dict[Job, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def start(self) -> None:
        """Set the alarm, and take up the merges that an earlier engine left in the queue."""
        self._group.start_soon(self.ring, name="alarm")
        self._reconcile()

    def handle(self, command: Command) -> Event:
        """Do what a lead asks for, at once. Raises `Refused`."""
        event = decide(self.ledger, command, self.now_s())
        self.submit(event)
        return event

    def submit(self, event: Event) -> None:
        """The one door: durable before visible, visible before acted on. No await between reading and writing."""
        after = evolve(self.ledger, event)
        check(after)
        if isinstance(event, Ticked) and after == replace(self.ledger, as_of_s=after.as_of_s, seq=after.seq):
            self.ledger = replace(self.ledger, as_of_s=after.as_of_s)  # a tick that changes nothing is not a fact
        else:
            self.ports.journal.append([event])
            self.ledger = after
        self._reconcile()
        self.nudge()

    def now_s(self) -> float:
        """Seconds since the epoch, never before the last fact: a clock that was set back stands still instead."""
        return max(self.ledger.as_of_s, self.ports.clock.now_s())

    @property
    def alive(self) -> int:
        """Jobs that have not come to their end."""
        return len(self._scopes)

    def nudge(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_for(self, condition: Callable[[Ledger], bool], timeout_s: float = math.inf) -> bool:
        """Wait until the ledger is so. False when the time is up first."""
        with anyio.move_on_after(timeout_s):
            while not condition(self.ledger):
                await self._changed.wait()
        return condition(self.ledger)

    async def ring(self) -> None:
        """The alarm: submit a tick at each moment when time alone changes something. Runs as long as the engine."""
        while True:
            wake_s = next_wake_s(self.ledger)
            rearmed = self._changed
            with anyio.move_on_after(math.inf if wake_s is None else max(0.0, wake_s - self.now_s())):
                await rearmed.wait()
                continue
            if wake_s is not None and self.now_s() >= wake_s:
                self.submit(Ticked(self.now_s()))

    def _reconcile(self) -> None:
        """Start what is wanted and not alive, stop what is alive and not wanted."""
        want = wanted(self.ledger)
        for job, scope in self._scopes.items():
            if job not in want:
                scope.cancel()
        for job in want - self._scopes.keys():
            self._scopes[job] = anyio.CancelScope()
            self._group.start_soon(self._live, job, name=str(job))

    async def _live(self, job: Job) -> None:
        """A job's life: it ends by one fact, and that fact makes it unwanted."""
        fact: Fact | None = None
        with self._scopes[job]:
            fact = await self._work(job)
        if self._is_stopping(job) and not isinstance(fact, BranchMerged | AttemptFailed):
            fact = await self._stopped(job)
        del self._scopes[job]
        current = accept(self.ledger, fact) if fact is not None else None
        assert current is not None, f"{job} ended with {fact}, which nobody waits for"  # noqa: S101 - our bug, loudly
        self.submit(current)

    async def _stopped(self, job: Job) -> AttemptStopped:
        """What remains to be done for a job that was told to stop: its work is saved, whatever else happens."""
        saved: str | None = None
        with anyio.CancelScope(shield=True):
            saved = await saved_work(self.ports, job.attempt)
        return AttemptStopped(job.attempt, saved, self.now_s())

    async def _work(self, job: Job) -> Fact:
        epic = self.ledger.epics[job.attempt.epic]
        assert epic.wave is not None, f"{job} outside a wave"  # noqa: S101 - an invariant, for the type checker too
        story = epic.stories[job.attempt.story]
        context = Context(epic, story, job.attempt, epic.wave.policy, self.ports, self._report)
        match job:
            case RunAttempt():
                return await run_attempt(context)
            case Integrate():
                return await integrate(context)
            case _:
                assert_never(job)

    def _report(self, fact: Fact) -> None:
        """A fact on the way: the job goes on. One that comes too late (told to stop meanwhile) is dropped."""
        current = accept(self.ledger, fact)
        if current is not None:
            self.submit(current)

    def _is_stopping(self, job: Job) -> bool:
        story = self.ledger.epics[job.attempt.epic].stories[job.attempt.story]
        return story.attempt == job.attempt.number and story.state is StoryState.STOPPING
