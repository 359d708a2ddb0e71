"""Agents and checks that take virtual time: each attempt is scripted, and who ran when is kept from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel

from mcp_server.core.model import NO_PORTS, NOTHING_USED, Cause, CheckRun, Process, Usage
from mcp_server.core.spec import AttemptId, StoryId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall, Ended, Left, ProcessEnd
from mcp_server.testing.clock import EPOCH_S
from mcp_server.testing.fake_leash import FakeLeash

KILLED = 137
Judge = Callable[[AttemptId, tuple[str, ...], Path], int | None]
"""A check's exit code for what lies in the folder; None for a check that never ends."""


@dataclass(frozen=True, slots=True)
class Play:
    """What one attempt's agent does. It prints all the time unless it hangs."""

    seconds: float = 60.0
    exit_code: int = 0
    tail: str = ""
    act: Callable[[AgentCall], None] | None = None
    """Its work on the worktree, done at the end of its time."""
    hang: bool = False
    """Falls silent at the end of its time instead of ending."""
    fault: str | None = None
    """Reason why it cannot be started."""
    breaks: str | None = None
    """Reason why its log cannot be written any more, at the end of its time."""
    dies_in_s: float = 0.0
    """Time it takes to die when told to; it is alive until then."""
    trouble: Cause | None = None
    """What its output shows at its end: a rate limit, an error of its provider; or it crashed."""
    resumes_in_s: float | None = None
    """When the rate limit ends, from then on."""
    usage: Usage = NOTHING_USED
    """What it costs in all."""
    tells: int = 0
    """How often it tells on the way what it has cost so far."""


@dataclass(slots=True)
class Span:
    """One run as an observer saw it; `until_s` is None while it is alive."""

    attempt: AttemptId
    process: Process
    from_s: float
    until_s: float | None = None
    how: Ended | None = None
    """None when it was alive or cancelled."""


def passes(_attempt: AttemptId, _command: tuple[str, ...], _cwd: Path) -> int | None:
    """The judge that lets everything pass."""
    return 0


@dataclass(slots=True)
class FakeRunner:
    """Stores the script, by story and attempt or by story alone, and every span."""

    plays: Mapping[tuple[StoryId, int] | StoryId, Play] = field(
        default_factory=dict[tuple[StoryId, int] | StoryId, Play]
    )
    default: Play = field(default_factory=Play)
    judge: Judge = passes
    check_s: float = 1.0
    furnish: Judge = passes
    """What a set-up command does, and its exit code."""
    setup_s: float = 1.0
    spans: list[Span] = field(default_factory=list[Span])
    calls: list[AgentCall] = field(default_factory=list[AgentCall])
    checks: list[tuple[AttemptId, CheckRun]] = field(default_factory=list[tuple[AttemptId, CheckRun]])
    setups: list[tuple[AttemptId, CheckRun, Path]] = field(default_factory=list[tuple[AttemptId, CheckRun, Path]])
    ports: dict[AttemptId, range] = field(default_factory=dict[AttemptId, range])
    """What the attempt's last check or set-up was given."""
    leftovers: list[Process] = field(default_factory=list[Process])
    """What `end_leftover` was called with."""
    leftover_s: float = 0.0
    """How long that takes."""
    stage: anyio.abc.TaskGroup | None = None
    """Where agents live that may outlive their engine; without it none does."""
    is_alive_engine: Callable[[], bool] = lambda: True
    """False from the moment on when the engine that calls was killed."""
    leashes: dict[Process, tuple[FakeLeash, Play, Span]] = field(
        default_factory=dict[Process, tuple[FakeLeash, Play, Span]]
    )
    adoptions: list[AgentCall] = field(default_factory=list[AgentCall])

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """See `Runner`."""
        await anyio.lowlevel.checkpoint_if_cancelled()  # who was told to stop meanwhile is not started
        self.calls.append(call)
        play = self.play_of(call)
        if play.fault is not None:
            raise Fault(FaultCause.SPAWN, play.fault)
        now_s = anyio.current_time()
        span = Span(call.attempt, Process(1000 + len(self.spans), now_s), now_s)
        self.spans.append(span)
        if call.outlives and self.stage is not None:
            return await self._run_afloat(play, call, span, claimed, used)
        try:
            claimed(span.process)
            how = span.how = await self._perform(play, call, used)
        finally:
            with anyio.CancelScope(shield=True):
                if span.how is not Ended.EXITED:
                    await anyio.sleep(play.dies_in_s)
            span.until_s = anyio.current_time()
        return _end(play, span, how)

    async def _run_afloat(
        self,
        play: Play,
        call: AgentCall,
        span: Span,
        claimed: Callable[[Process], None],
        used: Callable[[Usage], None],
    ) -> ProcessEnd:
        """The same behind a leash that outlives whoever follows it."""
        assert self.stage is not None, "looked at by our caller"
        leash = FakeLeash(call.attempt, span.process, self.stage, play.dies_in_s)
        self.leashes[span.process] = leash, play, span

        def ended() -> None:
            span.until_s = anyio.current_time()

        leash.start(lambda tells: _act(play, call, tells), ended)
        try:
            claimed(span.process)
            leash.claimed = True
        except BaseException:
            if self.is_alive_engine():
                await leash.end()
            raise
        return await self._follow(leash, play, span, call, used)

    async def _follow(
        self, leash: FakeLeash, play: Play, span: Span, call: AgentCall, used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """To its end or to its limits, which count from its own start. Ends it unless our engine has died."""
        ran_s = anyio.current_time() - call.ran_s
        silent_s = play.seconds + call.stall_s if play.hang else float("inf")
        limit_s = min(call.timeout_s, silent_s)
        try:
            with anyio.CancelScope(deadline=ran_s + limit_s) as limit:
                await leash.follow(used)
        finally:
            if self.is_alive_engine():
                await leash.end()
        if leash.fault is not None:
            raise leash.fault
        if not leash.exited and not limit.cancelled_caught:  # somebody else has ended it
            return ProcessEnd(Ended.EXITED, KILLED, anyio.current_time() - ran_s, play.tail, Cause.CRASH)
        at_limit = Ended.STALL if silent_s < call.timeout_s else Ended.TIMEOUT
        span.how = Ended.EXITED if leash.exited else at_limit
        return _end(play, span, span.how)

    async def _perform(self, play: Play, call: AgentCall, used: Callable[[Usage], None]) -> Ended:
        silent_s = play.seconds + call.stall_s if play.hang else float("inf")
        with anyio.move_on_after(min(call.timeout_s, silent_s)):
            await _act(play, call, used)
            return Ended.EXITED
        return Ended.STALL if silent_s < call.timeout_s else Ended.TIMEOUT

    async def look_for(self, attempt: AttemptId, process: Process) -> Left:
        """See `Runner`."""
        leash = self._leash(attempt, process)
        if leash is None:
            return Left.GONE
        if leash.is_alive and not leash.exited:
            leash.take()
            return Left.RUNS
        return Left.ENDED if leash.exited else Left.GONE

    def _leash(self, attempt: AttemptId, process: Process) -> FakeLeash | None:
        leash, _, _ = self.leashes.get(process, (None, None, None))
        return leash if leash is not None and leash.attempt == attempt else None

    async def adopt(self, call: AgentCall, process: Process, used: Callable[[Usage], None]) -> ProcessEnd:
        """See `Runner`."""
        self.adoptions.append(call)
        if process not in self.leashes:
            return ProcessEnd(Ended.EXITED, KILLED, call.ran_s, "", Cause.CRASH)
        leash, play, span = self.leashes[process]
        return await self._follow(leash, play, span, call, used)

    def crash(self) -> None:
        """The engine was killed with a kill -9: agents that may outlive it do."""
        for leash, _, _ in self.leashes.values():
            leash.loses_its_engine()

    async def run_check(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`."""
        check = await _judged(self.judge, self.check_s, attempt, command, cwd, timeout_s)
        self.checks.append((attempt, check))
        self.ports[attempt] = ports
        return check

    async def run_setup(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`."""
        run = await _judged(self.furnish, self.setup_s, attempt, command, cwd, timeout_s)
        self.setups.append((attempt, run, cwd))
        self.ports[attempt] = ports
        return run

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """See `Runner`."""
        if process is None:
            for leash in [one for one, _, _ in self.leashes.values() if one.attempt == attempt and one.is_alive]:
                await leash.end()
            return
        self.leftovers.append(process)
        await anyio.sleep(self.leftover_s)
        leash = self._leash(attempt, process)
        if leash is not None:
            await leash.end()

    def play_of(self, call: AgentCall) -> Play:
        """What the attempt's agent does: the entry for story and number, for the story, or the default."""
        attempt = call.attempt
        return self.plays.get((attempt.story, attempt.number)) or self.plays.get(attempt.story) or self.default

    def alive(self) -> list[AttemptId]:
        """Attempts whose agent is alive now."""
        return [span.attempt for span in self.spans if span.until_s is None]

    def peak(self) -> int:
        """The most agents that were ever alive at one moment."""
        return max((sum(_covers(other, span.from_s) for other in self.spans) for span in self.spans), default=0)

    def overlapped(self, one: StoryId, other: StoryId) -> bool:
        """True when any attempts of the two stories were alive together."""
        mine = [s for s in self.spans if s.attempt.story == one]
        theirs = [s for s in self.spans if s.attempt.story == other]
        return any(_covers(a, b.from_s) or _covers(b, a.from_s) for a in mine for b in theirs)


async def _act(play: Play, call: AgentCall, used: Callable[[Usage], None]) -> None:
    """What an agent does until it ends by itself, if it does."""
    for part in range(1, play.tells + 1):
        await anyio.sleep(play.seconds / (play.tells + 1))
        used(Usage(play.usage.usd * part / play.tells, play.usage.tokens * part // play.tells))
    await anyio.sleep(play.seconds / (play.tells + 1))
    if play.act is not None:
        play.act(call)
    if play.breaks is not None:
        raise Fault(FaultCause.DISK, play.breaks)
    if play.hang:
        await anyio.sleep_forever()


def _end(play: Play, span: Span, how: Ended) -> ProcessEnd:
    assert span.until_s is not None, "it is over"
    ended = how is Ended.EXITED
    resumes_at_s = EPOCH_S + span.until_s + play.resumes_in_s if play.resumes_in_s is not None else None
    return ProcessEnd(
        how,
        play.exit_code if ended else None,
        span.until_s - span.from_s,
        play.tail,
        play.trouble if ended else None,
        resumes_at_s,
        play.usage,
    )


async def _judged(
    judge: Judge, seconds: float, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float
) -> CheckRun:
    argv, began_s = tuple(command), anyio.current_time()
    code: int | None = None
    with anyio.move_on_after(timeout_s):
        await anyio.sleep(seconds)
        code = judge(attempt, argv, cwd)
        if code is None:
            await anyio.sleep_forever()
    return CheckRun(argv, code, anyio.current_time() - began_s, "" if code == 0 else f"{argv[0]}: {code}")


def _covers(span: Span, moment_s: float) -> bool:
    """A span begins when it begins and is over when it ends."""
    return span.from_s <= moment_s and (span.until_s is None or moment_s < span.until_s)
