"""The one writer: every fact goes through `submit`, and the living jobs are made to agree with what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import assert_type

import anyio
import anyio.abc
import anyio.lowlevel

from mcp_server.core.commands import Command
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import AttemptFailed, AttemptSucceeded, BranchMerged, Event, Fact, MergeRefused, Ticked
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import Check, check_step
from mcp_server.core.model import Ledger, StoryState
from mcp_server.core.spec import AttemptId
from mcp_server.core.wanted import Collect, Integrate, Job, RunAttempt, next_wake_s, wanted
from mcp_server.engine.collect import collect
from mcp_server.engine.context import Context
from mcp_server.engine.jobs import run_attempt, stopped
from mcp_server.engine.merging import integrate
from mcp_server.engine.probing import Watch
from mcp_server.errors import Code, Refused
from mcp_server.ports import Ports


class Engine:
    """Stores the ledger, the living jobs' cancel scopes and one alarm; nothing else. Made by `lifecycle.running`.

    `goes_on`: what it starts may outlive it.
    """

    def __init__(
        self,
        ledger: Ledger,
        ports: Ports,
        jobs: anyio.abc.TaskGroup,
        check: Check = check_step,
        *,
        goes_on: bool = False,
    ) -> None:
        self.ledger = ledger
        self.ports = ports
        self.watch = Watch(ports, lambda: self.ledger, self._report, self.now_s)
        self._goes_on = goes_on
        self._check = check
        self._group = jobs
        self._scopes: dict[Job, anyio.CancelScope] = {}
        self._changed = anyio.Event()
        self._is_leaving = False
        self._is_over = False

    def start(self) -> None:
        """Set the alarm, and take up the merges that an earlier engine left in the queue."""
        self._group.start_soon(self.ring, name="alarm")
        self._group.start_soon(self.watch.run, self.wait_for, name="probe")
        self._reconcile()

    def handle(self, command: Command) -> Event:
        """Do what a lead asks for, at once. Raises `Refused`."""
        event = decide(self.ledger, command, self.now_s())
        self.submit(event)
        return event

    def aside(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let something be done that no state wants as a job; it ends with the engine, and catches its own faults.

        Raises `Refused(engine_elsewhere)` when the engine is coming to its end.
        """
        if self._is_leaving:
            raise _over()
        self._group.start_soon(work)

    def leave(self) -> None:
        """Nobody waits for it any more: what is done aside would not come to its end."""
        self._is_leaving = True

    def end(self) -> None:
        """Its jobs are gone: from here on it takes nothing more. What it leaves is told without it."""
        self._is_over = True

    def submit(self, event: Event) -> None:
        """The one door: durable before visible, visible before acted on. No await between reading and writing.

        Raises `Refused(engine_elsewhere)` when the engine has come to its end meanwhile.
        """
        if self._is_over:
            raise _over()
        if event.at_s < self.ledger.as_of_s:  # a tick that is not stored may have been ahead of the clock
            event = replace(event, at_s=self.ledger.as_of_s)
        after = evolve(self.ledger, event)
        self._check(self.ledger, after)
        if isinstance(event, Ticked) and after == replace(self.ledger, as_of_s=after.as_of_s, seq=after.seq):
            self.ledger = replace(self.ledger, as_of_s=after.as_of_s)  # a tick that changes nothing is not a fact
        else:
            self.ports.journal.append([event])
            self.ledger = after
        self._reconcile()
        self.nudge()
        if isinstance(event, AttemptSucceeded | AttemptFailed | BranchMerged | MergeRefused):
            self.watch.ask(event.attempt)

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
            if wake_s is None:
                await rearmed.wait()
                continue
            with anyio.move_on_after(max(0.0, wake_s - self.now_s())):
                await rearmed.wait()
                continue
            self.submit(Ticked(max(wake_s, self.now_s())))  # it is time, whatever was done to the clock meanwhile

    def _reconcile(self) -> None:
        """Start what is wanted and not alive, stop what is alive and not wanted."""
        want = wanted(self.ledger)
        for job, scope in self._scopes.items():
            if job not in want:
                scope.cancel()
        for job in sorted(want - self._scopes.keys(), key=lambda job: job.attempt):
            self._begin(job)
        theirs = {attempt for job in self._scopes for attempt in _whom(job)}
        for attempt in sorted(stopping(self.ledger) - theirs):
            self._begin(Integrate(attempt)).cancel()  # it waited in the merge queue: nobody is there yet to stop

    def _begin(self, job: Job) -> anyio.CancelScope:
        self._scopes[job] = anyio.CancelScope()
        self._group.start_soon(self._live, job, name=str(job))
        return self._scopes[job]

    async def _live(self, job: Job) -> None:
        """A job's life: it ends by one fact, and that fact makes it unwanted."""
        fact: Fact | None = None
        with self._scopes[job]:
            await anyio.lowlevel.checkpoint_if_cancelled()
            fact = await self._work(job)
        if self._tells_the_stop(job) and not isinstance(fact, BranchMerged | AttemptFailed):
            fact = await stopped(self._context(job))
        del self._scopes[job]
        if fact is None and isinstance(job, Collect):  # the holder was heard of after all, before its end was on record
            self._reconcile()
            return
        current = accept(self.ledger, fact) if fact is not None else None
        assert current is not None, f"{job} ended with {fact}, which nobody waits for"  # noqa: S101 - our bug, loudly
        self.submit(current)

    def _tells_the_stop(self, job: Job) -> bool:
        """True when the job's attempt was told to stop and no other job of it is there to tell how that ended.

        A `Collect` may still be there although its story was renewed and handed in meanwhile: the merge tells it.
        """
        merges = isinstance(job, Collect) and Integrate(job.attempt) in self._scopes
        return job.attempt in stopping(self.ledger) and not merges

    async def _work(self, job: Job) -> Fact | None:
        match job:
            case RunAttempt():
                return await run_attempt(self._context(job))
            case Integrate():
                return await integrate(self._context(job))
            case _:
                assert_type(job, Collect)
                return await collect(self._context(job))

    def _context(self, job: Job) -> Context:
        epic = self.ledger.epics[job.attempt.epic]
        assert epic.wave is not None, f"{job} outside a wave"  # noqa: S101 - an invariant, for the type checker too
        story = epic.stories[job.attempt.story]
        behind = job.behind if isinstance(job, Integrate) else ()
        return Context(
            epic, story, job.attempt, epic.wave.policy, self.ports, self._report, self.now_s, self._goes_on, behind
        )

    def _report(self, fact: Fact) -> bool:
        """A fact on the way: the job goes on. One that comes too late (told to stop meanwhile) is dropped."""
        current = accept(self.ledger, fact)
        if current is not None:
            self.submit(current)
        return current is not None


def _whom(job: Job) -> tuple[AttemptId, ...]:
    """The attempts whose end a living job will tell, or may be about to."""
    return (job.attempt, *job.behind) if isinstance(job, Integrate) else (job.attempt,)


def _over() -> Refused:
    why = "The engine of this repository has just come to its end."
    return Refused(Code.ENGINE_ELSEWHERE, why, "Call again: the next call starts another one.")


def stopping(ledger: Ledger) -> set[AttemptId]:
    """Attempts that were told to stop and have not stopped yet."""
    return {
        AttemptId(epic.spec.id, story.spec.id, story.attempt)
        for epic in ledger.epics.values()
        for story in epic.stories.in_state(StoryState.STOPPING)
    }
