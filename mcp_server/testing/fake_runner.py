"""Agents and checks that take virtual time: each attempt is scripted, and who ran when is kept from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel

from mcp_server.core.model import NO_PORTS, NOTHING_USED, AttemptId, Cause, CheckRun, Process, StoryId, Usage
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall, Ended, ProcessEnd
from mcp_server.testing.clock import EPOCH_S

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
        try:
            claimed(span.process)
            how = span.how = await self._perform(play, call, used)
        finally:
            with anyio.CancelScope(shield=True):
                if span.how is not Ended.EXITED:
                    await anyio.sleep(play.dies_in_s)
            span.until_s = anyio.current_time()
        code = play.exit_code if how is Ended.EXITED else None
        ended = how is Ended.EXITED
        resumes_at_s = EPOCH_S + span.until_s + play.resumes_in_s if play.resumes_in_s is not None else None
        return ProcessEnd(
            how,
            code,
            span.until_s - span.from_s,
            play.tail,
            play.trouble if ended else None,
            resumes_at_s,
            play.usage,
        )

    async def _perform(self, play: Play, call: AgentCall, used: Callable[[Usage], None]) -> Ended:
        silent_s = play.seconds + call.stall_s if play.hang else float("inf")
        with anyio.move_on_after(min(call.timeout_s, silent_s)):
            for part in range(1, play.tells + 1):
                await anyio.sleep(play.seconds / (play.tells + 1))
                used(Usage(play.usage.usd * part / play.tells, play.usage.tokens * part // play.tells))
            await anyio.sleep(play.seconds / (play.tells + 1))
            if play.act is not None:
                play.act(call)
            if play.breaks is not None:
                raise Fault(FaultCause.DISK, play.breaks)
            if not play.hang:
                return Ended.EXITED
            await anyio.sleep_forever()
        return Ended.STALL if silent_s < call.timeout_s else Ended.TIMEOUT

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

    async def end_leftover(self, process: Process) -> None:
        """See `Runner`."""
        self.leftovers.append(process)
        await anyio.sleep(self.leftover_s)

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
