"""What an engine asks of the world, behind a lifeline: it can be cut off at any call and any await, as by kill -9."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import trio
from trio.abc import Instrument
from trio.lowlevel import Task

from mcp_server.core.model import NO_PORTS, CheckRun, Ledger, Process, Usage
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault
from mcp_server.ports import AgentCall, Left, ProcessEnd
from mcp_server.testing.clock import VirtualClock
from mcp_server.testing.fake_git import FakeGit
from mcp_server.testing.fake_repository import USER_DESK
from mcp_server.testing.fake_runner import FakeRunner, Play
from mcp_server.testing.truth import Truth


class Killed(Exception):  # noqa: N818 - it says what happened to the process
    """This process is gone: nothing that it still tries takes effect."""


class Lifeline:
    """Counts what an engine asks of the world, and cuts it off: at a call or an await by number, or when told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.deaths = 0
        self.dead = False
        self.finishes = True
        """A git command that had been started comes to its end although the engine was killed meanwhile."""
        self.die_at_call = math.inf
        self.on_cut: Callable[[], None] = lambda: None
        self._awaited: list[tuple[int, anyio.Event]] = []
        self.mortals: set[Task] = set()
        """Tasks of the engine that is alive, and of those who have called it; what they have started is theirs."""
        self._awaits: Awaits | None = None

    @property
    def awaits(self) -> int:
        """Awaits of the engine that have come back since `die_at_await`."""
        return self._awaits.counted if self._awaits is not None else 0

    def die_at_await(self, number: float) -> None:
        """Cut it off when so many more of its awaits come back, in whichever of its tasks; infinity only counts."""
        self.forget_awaits()
        self._awaits = Awaits(self, number)
        trio.lowlevel.add_instrument(self._awaits)

    def forget_awaits(self) -> None:
        """Count them no more."""
        if self._awaits is not None:
            trio.lowlevel.remove_instrument(self._awaits)
            self._awaits = None

    def touch(self) -> None:
        """The engine asks something of the world. Raises `Killed` from its death on."""
        if not self.dead:
            self.calls += 1
            for number, event in self._awaited:
                if number <= self.calls:
                    event.set()
            if self.calls >= self.die_at_call:
                self.cut()
        if self.dead:
            raise Killed

    async def more_calls(self, number: int) -> None:
        """Wait until the engine has asked so many more things of the world."""
        awaited = self.calls + number, anyio.Event()
        self._awaited.append(awaited)
        try:
            await awaited[1].wait()
        finally:
            self._awaited.remove(awaited)

    def cut(self) -> None:
        """Kill -9."""
        self.deaths += bool(self.mortals)
        self.dead = True
        self.die_at_call = math.inf
        self.on_cut()


class Awaits(Instrument):
    """Sees every task that goes on after an await; counts those of the engine, and cuts its lifeline at one of them."""

    def __init__(self, line: Lifeline, die_at: float) -> None:
        self.counted = 0
        self._line = line
        self._die_at = die_at

    def before_task_step(self, task: Task) -> None:
        """See `trio.abc.Instrument`. What the await has brought is lost: nothing that comes next takes effect."""
        if self._line.dead or not self._is_mortal(task):
            return
        self.counted += 1
        if self.counted >= self._die_at:
            self._line.cut()

    def _is_mortal(self, task: Task | None) -> bool:
        while task is not None and task not in self._line.mortals:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None


class Refs(dict[str, Sha]):
    """Refs that tell the truth-keeper where they go."""

    def __init__(self, refs: dict[str, Sha], moved: Callable[[str, Sha | None, Sha], None]) -> None:
        super().__init__(refs)
        self._moved = moved

    def __setitem__(self, ref: str, sha: Sha) -> None:
        before = self.get(ref)
        super().__setitem__(ref, sha)
        self._moved(ref, before, sha)


class MortalGit(FakeGit):
    """The fake git behind a lifeline."""

    def __init__(self, line: Lifeline, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.line = line
        self.stubborn = False
        """A git command that has begun comes to its end before whoever waits for it hears of a cancellation.

        So it is with the real one, which runs in a thread.
        """
        self.before_step: Callable[[str], None] = lambda _op: None
        first = self.record({"README": "read me\n"})
        self.refs.update({"refs/heads/main": first, "refs/heads/mine": first, "refs/tags/v1": first})
        self.check_out(USER_DESK, first, "refs/heads/main")

    async def step(self, op: str) -> None:
        """See `FakeGit.step`."""
        self.line.touch()
        self.before_step(op)
        with anyio.CancelScope(shield=self.stubborn):
            await super().step(op)
        if self.line.dead and not self.line.finishes:
            raise Killed

    async def glance(self, op: str) -> None:
        """See `FakeGit.glance`. Who is dead sees nothing."""
        await super().glance(op)
        if self.line.dead:
            raise Killed

    def calm(self) -> None:
        """From here on nothing takes time and nothing fails."""
        self.delay_s.clear()
        self._faults.clear()


class Actors(FakeRunner):
    """The fake runner behind a lifeline, with the truth-keeper in the audience."""

    def __init__(self, line: Lifeline, truth: Truth) -> None:
        super().__init__(default=Play(act=truth.work), judge=truth.judge)
        self.line = line
        self.truth = truth
        self.is_alive_engine = lambda: not line.dead
        self.ledger: Callable[[], Ledger] = Ledger
        """What the engine knows now."""

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """See `Runner`."""
        self.line.touch()
        await anyio.lowlevel.checkpoint_if_cancelled()
        witness, clock = self.truth.witness, self.truth.git.clock
        witness.starts(call.attempt, call.profile, clock.now_s(), self.ledger())

        def began(process: Process) -> None:
            self.truth.began(call.attempt, self.truth.git.desks[call.worktree].files, self.alive())
            witness.works(call.attempt, clock.now_s())
            claimed(process)

        try:
            end = await super().run_agent(call, began, used)
        except Fault:
            self.line.touch()
            raise
        witness.ends(call.attempt, end)
        return end

    async def run_check(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`."""
        self.line.touch()
        return await super().run_check(attempt, command, cwd, timeout_s, ports)

    async def run_setup(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`."""
        self.line.touch()
        return await super().run_setup(attempt, command, cwd, timeout_s, ports)

    async def look_for(self, attempt: AttemptId, process: Process) -> Left:
        """See `Runner`."""
        self.line.touch()
        return await super().look_for(attempt, process)

    async def adopt(self, call: AgentCall, process: Process, used: Callable[[Usage], None]) -> ProcessEnd:
        """See `Runner`."""
        self.line.touch()
        witness, began_s = self.truth.witness, anyio.current_time()
        leash, play, span = self.leashes.get(process, (None, None, None))
        witness.adopts(call.attempt, there=leash is not None and (leash.is_alive or leash.exited))
        try:
            end = await super().adopt(call, process, used)
        except Fault:
            self.line.touch()
            raise
        if play is not None and span is not None:
            may_s = min(call.timeout_s, play.seconds + call.stall_s if play.hang else math.inf)
            over_s = (span.until_s or math.inf) - play.dies_in_s - max(span.from_s + may_s, began_s)
            if over_s > 1.0:
                witness.overran(call.attempt, over_s)
        witness.ends(call.attempt, end)
        return end

    def recorded(self) -> set[AttemptId]:
        """Attempts whose agents came to an end by themselves that is on record."""
        return {leash.attempt for leash, _, _ in self.leashes.values() if leash.exited}

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """See `Runner`."""
        self.line.touch()
        await super().end_leftover(attempt, process)
