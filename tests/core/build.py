"""Short builders for the tests of the core: specs, plans, and `Life`, a history told through the engine's own doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcp_server.core.commands import (
    CancelEpic,
    CancelStory,
    ClaimStory,
    Command,
    DrainWave,
    EndLease,
    HandIn,
    PauseEpic,
    PlanEpic,
    RenewLease,
    ResumeEpic,
    RetryStory,
    SkipStory,
    StartWave,
    Through,
)
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Event,
    Fact,
    LeaseEnded,
    MergeFound,
    MergeProven,
    MergeRefused,
    RollbackProven,
    StoriesRolledBack,
    Ticked,
    UsageReported,
    WaveInterrupted,
    WorkSeen,
)
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check, check_settled, check_step
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import (
    Breaker,
    Cause,
    CheckRun,
    Clash,
    Epic,
    Lease,
    Ledger,
    Process,
    Proven,
    RollingBack,
    Story,
    Usage,
    Wave,
    is_team,
)
from mcp_server.core.planning import Plan
from mcp_server.core.rollback import still_stands, to_roll_back
from mcp_server.core.spec import AttemptId, EpicSpec, StorySpec
from mcp_server.core.wanted import Collect, Integrate, RunAttempt, next_wake_s, wanted
from mcp_server.core.why import why

EPIC = "e"
PARALLEL = Policy(strategy=Strategy.ASYNCIO, slots=2, agent="scripted")
TEAM = Policy(
    strategy=Strategy.AGENT_TEAMS, slots=2, attempt_timeout_s=150.0, lease_s=60.0, repairs=1, agent="scripted"
)
SILENT = "Its sub-agent was not heard of."


def story(name: str, *depends_on: str, files: str = "", **fields: Any) -> StorySpec:
    """A story's spec; `files` are words."""
    spec = StorySpec(id=name, title=f"Title of {name}", depends_on=depends_on, files=tuple(files.split()))
    return replace(spec, **fields)


def plan_of(*specs: StorySpec, epic: str = EPIC, **fields: Any) -> Plan:
    """A plan as `planning.plan` would make it, dependencies first in `specs`; a story takes its minutes, else one."""
    levels: dict[str, int] = {}
    for spec in specs:
        levels[spec.id] = 1 + max((levels[d] for d in spec.depends_on), default=0)
    ranks: dict[str, float] = {}
    for spec in reversed(specs):
        behind = max((ranks[s.id] for s in specs if spec.id in s.depends_on), default=0.0)
        ranks[spec.id] = (spec.minutes if spec.minutes is not None else 1.0) + behind
    return Plan(
        spec=replace(EpicSpec(id=epic, title=f"Epic {epic}", stories=specs), **fields),
        levels=levels,
        ranks=ranks,
        waves=(),
        critical_path=(),
        critical_minutes=0.0,
        work_minutes=0.0,
        overlaps=(),
        warnings=(),
    )


class Life:
    """A ledger and the facts that made it. Stories are named `a`, or `f/a` in an epic other than `e`.

    Every step passes `decide` or `accept`, is checked, and is recorded if the engine would record it.
    """

    def __init__(self, *specs: StorySpec) -> None:
        self.ledger = Ledger()
        self.log: list[Event] = []
        if specs:
            self.plan(*specs)

    # --- commands

    def command(self, command: Command) -> Event:
        event = decide(self.ledger, command, self.now_s)
        self.submit(event)
        return event

    def plan(self, *specs: StorySpec, epic: str = EPIC, **fields: Any) -> None:
        self.command(PlanEpic(plan_of(*specs, epic=epic, **fields)))

    def start(self, through: Through = "all", *, epic: str = EPIC, retry: bool = False, **policy: Any) -> None:
        """Start or widen a wave: two slots side by side, unless `policy` says otherwise."""
        wanted_policy = replace(PARALLEL, **policy)
        self.command(StartWave(epic, through, wanted_policy, "base", named=bool(policy), retry=retry))

    def team(
        self,
        through: Through = "all",
        *,
        epic: str = EPIC,
        retry: bool = False,
        notes: Mapping[str, str] | None = None,
        **policy: Any,
    ) -> None:
        """Start or widen a wave for the editor's sub-agents."""
        told = tuple((notes or {}).items())
        wanted_policy = replace(TEAM, **policy)
        self.command(StartWave(epic, through, wanted_policy, "base", named=bool(policy), retry=retry, notes=told))

    def cancel(self, name: str | None = None, *, epic: str = EPIC, reason: str = "changed my mind") -> None:
        """Cancel a story, or the whole epic when none is named."""
        if name is None:
            self.command(CancelEpic(epic, reason))
        else:
            self.command(CancelStory(*_split(name), reason))

    def pause(self, *, epic: str = EPIC) -> None:
        self.command(PauseEpic(epic, "lunch"))

    def resume(self, *, epic: str = EPIC) -> None:
        self.command(ResumeEpic(epic))

    def drain(self, *, epic: str = EPIC) -> None:
        self.command(DrainWave(epic, "enough for today"))

    def retry(self, *names: str, note: str = "") -> None:
        for name in names:
            self.command(RetryStory(*_split(name), note))

    def skip(self, *names: str) -> None:
        for name in names:
            self.command(SkipStory(*_split(name), "not worth it"))

    # --- what sub-agents ask for

    def lease(self, *names: str, holder: str = "") -> None:
        """Sub-agents claim the stories, in the moment that it is; without a name, nobody knows which."""
        for name in names:
            attempt = self.attempt(name)
            self.command(ClaimStory(attempt, token_of(attempt), "base", holder, f"/trees/{attempt}", ours=True))

    def renew(self, name: str, note: str = "") -> None:
        self.command(RenewLease(self.attempt(name), self._held(name).token, note))

    def end(self, name: str, cause: Cause = Cause.AGENT_FAILED, detail: str = "It gave up.") -> None:
        self.command(EndLease(self.attempt(name), self._held(name).token, cause, detail))

    def hand_in(self, *names: str, head: str = "head") -> None:
        for name in names:
            self.command(HandIn(self.attempt(name), self._held(name).token, head, ("x.py",)))

    def collect(self, *names: str, saved: str | None = None) -> None:
        """The job of a lease that is over: its end goes on record, if it has not yet, and then the attempt ends."""
        for name in names:
            attempt = self.attempt(name)
            assert Collect(attempt) in wanted(self.ledger), f"the lease of {name} is not over"
            if self._held(name).ended is None:
                self.report(LeaseEnded(attempt, Cause.LEASE_LOST, SILENT, self.now_s))
            cause, detail = self._held(name).ended or (Cause.LEASE_LOST, SILENT)
            self.report(AttemptFailed(attempt, cause, detail, "", saved, self.now_s))

    def ask(self, name: str, text: str = "Which colour?") -> None:
        """The sub-agent cannot go on before this is answered."""
        self.end(name, Cause.QUESTION, text)
        self.collect(name)

    def _held(self, name: str) -> Lease:
        lease = self.of(name).lease
        assert lease is not None, f"nobody holds {name}"
        return lease

    # --- facts

    def claim(self, *names: str) -> None:
        for name in names:
            self.report(AttemptClaimed(self.attempt(name), Process(7, 1.5), "base", self.now_s))

    def succeed(self, *names: str, files: tuple[str, ...] = ("x.py",)) -> None:
        """The agents end well, claiming first if they have not yet."""
        for name in names:
            team = is_team(self.ledger.epics[_split(name)[0]])
            if str(self.of(name).state) == "offered":
                (self.lease if team else self.claim)(name)
            if team:
                self.hand_in(name)
            else:
                self.report(AttemptSucceeded(self.attempt(name), "base", "head", files, self.now_s))

    def prove(self, name: str) -> None:
        proven = Proven("tip", "proven", (CheckRun(("make", "test"), 0, 1.0),))
        self.report(MergeProven(self.attempt(name), proven, ("x.py",), self.now_s))

    def merge(self, *names: str, files: tuple[str, ...] = ("x.py",)) -> None:
        """The branches land, succeeding first if they have not yet."""
        for name in names:
            if str(self.of(name).state) in {"offered", "running"}:
                self.succeed(name, files=files)
            self.report(BranchMerged(self.attempt(name), f"tip-{name}", files, self.now_s))

    def fail(
        self,
        name: str,
        cause: Cause = Cause.AGENT_FAILED,
        *,
        saved: str | None = None,
        resumes_at_s: float | None = None,
        usd: float = 0.0,
    ) -> None:
        attempt, used = self.attempt(name), Usage(usd)
        self.report(AttemptFailed(attempt, cause, "it broke.", "last line", saved, self.now_s, resumes_at_s, used))

    def use(self, name: str, usd: float = 0.0, tokens: int = 0) -> None:
        """The running attempt tells what it has cost so far."""
        self.report(UsageReported(self.attempt(name), Usage(usd, tokens), self.now_s))

    def see(self, name: str, *touched: str, clashes: tuple[Clash, ...] = ()) -> None:
        """A probe has looked at the story's work."""
        self.report(WorkSeen(self.attempt(name), touched, clashes, self.now_s))

    def refuse(self, name: str, cause: Cause = Cause.CHECKS, *, saved: str | None = None) -> None:
        self.report(MergeRefused(self.attempt(name), cause, "red.", "last line", saved, self.now_s))

    def conflict(self, name: str, *paths: str) -> None:
        """The rebase of a queued story stopped at these paths."""
        fact = MergeRefused(self.attempt(name), Cause.CONFLICT, "conflict.", "", None, self.now_s, "tip", paths)
        self.report(fact)

    def stopped(self, *names: str, saved: str | None = None) -> None:
        for name in names:
            self.report(AttemptStopped(self.attempt(name), saved, self.now_s))

    def found(self, name: str, number: int) -> None:
        """The engine saw at its start that git has the work of an attempt."""
        attempt = self.attempt(name)._replace(number=number)
        self.submit(MergeFound(attempt, f"onto-{name}", f"tip-{name}", ("x.py",), self.now_s))

    def roll_back(self, name: str, *, whole: bool = False) -> None:
        """It is proven that the tree without the story, or all that builds on it too, is good."""
        epic, story_id = _split(name)
        going = to_roll_back(self.ledger, epic, story_id, with_dependants=whole)
        rolling = RollingBack(
            tuple(s.spec.id for s in going),
            tuple(s.attempt for s in going),
            tuple(s.merged_as or "" for s in going),
            "tip",
            "reverted",
            (),
            "it broke",
        )
        assert still_stands(self.ledger, epic, rolling)
        self.submit(RollbackProven(epic, rolling, self.now_s))

    def rolled_back(self, *saved: tuple[str, str], epic: str = EPIC) -> None:
        """Git has moved."""
        self.submit(StoriesRolledBack(epic, saved, self.now_s))

    def interrupt(
        self, *saved: tuple[str, str], epic: str = EPIC, goes_on: bool = False, adopted: tuple[str, ...] = ()
    ) -> None:
        self.submit(WaveInterrupted(epic, saved, self.now_s, goes_on, adopted))

    def tick(self, seconds: float) -> None:
        self.submit(Ticked(self.now_s + seconds))

    def tick_to_wake(self) -> None:
        """The alarm rings once."""
        wake_s = next_wake_s(self.ledger)
        assert wake_s is not None, "no alarm is set"
        self.submit(Ticked(wake_s))

    # --- the door

    def report(self, fact: Fact) -> None:
        """A fact that must still be current."""
        assert accept(self.ledger, fact) is fact, f"{fact} comes too late: {self.states()}"
        self.submit(fact)

    def submit(self, event: Event) -> None:
        after = evolve(self.ledger, event)
        check(after)
        check_step(self.ledger, after)
        check_settled(after)
        same = after == replace(self.ledger, as_of_s=after.as_of_s, seq=after.seq)
        if isinstance(event, Ticked) and same:
            self.ledger = replace(self.ledger, as_of_s=after.as_of_s)
            return
        self.ledger = after
        self.log.append(event)
        assert self.ledger.seq == len(self.log), "every recorded fact is counted"

    # --- looking

    @property
    def now_s(self) -> float:
        return self.ledger.as_of_s

    @property
    def epic(self) -> Epic:
        return self.ledger.epics[EPIC]

    @property
    def wave(self) -> Wave:
        assert self.epic.wave is not None, "no wave was started"
        return self.epic.wave

    def of(self, name: str) -> Story:
        epic, story_id = _split(name)
        return self.ledger.epics[epic].stories[story_id]

    def why(self, name: str) -> str:
        return why(self.ledger, self.ledger.epics[_split(name)[0]], self.of(name))

    def attempt(self, name: str) -> AttemptId:
        return AttemptId(*_split(name), self.of(name).attempt)

    def breaker(self, name: str = "scripted") -> Breaker:
        return self.ledger.breakers.get(name, Breaker())

    def states(self, epic: str = EPIC) -> dict[str, str]:
        return {i: str(s.state) for i, s in self.ledger.epics[epic].stories.items()}

    def agents(self) -> list[str]:
        """Names of the stories whose agents are wanted, sorted; those of another epic with its name."""
        return sorted(_name(j.attempt) for j in wanted(self.ledger) if isinstance(j, RunAttempt))

    def merges(self) -> list[str]:
        """Names of the stories that are being merged, sorted."""
        return sorted(_name(j.attempt) for j in wanted(self.ledger) if isinstance(j, Integrate))


def replayed(log: list[Event]) -> Ledger:
    """What the recorded facts make, from nothing."""
    ledger = Ledger()
    for event in log:
        ledger = evolve(ledger, event)
    return ledger


def token_of(attempt: AttemptId) -> str:
    """Another one for each attempt."""
    return f"t{attempt.number}"


def _split(name: str) -> tuple[str, str]:
    epic, slash, story_id = name.partition("/")
    return (epic, story_id) if slash else (EPIC, name)


def _name(attempt: AttemptId) -> str:
    return attempt.story if attempt.epic == EPIC else f"{attempt.epic}/{attempt.story}"
