"""Whatever may happen next: every command, and every fact that a job in the present state could bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcp_server.core.commands import (
    CancelEpic,
    CancelStory,
    ClaimStory,
    Command,
    DrainWave,
    EndLease,
    HandIn,
    LeaseCommand,
    PauseEpic,
    RenewLease,
    ResumeEpic,
    RetryStory,
    SkipStory,
    StartWave,
    Through,
)
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Event,
    Fact,
    LeaseEnded,
    LeaseRenewed,
    MergeProven,
    MergeRefused,
    Ticked,
    UsageReported,
    WaveInterrupted,
)
from mcp_server.core.leases import attempt_of, claimable, renewed_until_s
from mcp_server.core.limits import Policy
from mcp_server.core.model import (
    LIVE,
    Cause,
    Epic,
    Ledger,
    Process,
    Proven,
    Story,
    StoryState,
    Usage,
    is_alive,
    is_team,
)
from mcp_server.core.spec import AttemptId, EpicId
from mcp_server.core.views import question
from mcp_server.core.wanted import Collect, Integrate, RunAttempt, next_wake_s, wanted
from tests.core.build import SILENT, token_of

PROVEN = Proven("tip", "proven", ())
PLAIN = frozenset({Cause.AGENT_FAILED, Cause.FAULT})
"""How attempts may end badly where nothing is said of it."""
AT_THE_START = (Cause.SPAWN, Cause.FAULT, Cause.SETUP, Cause.RATE_LIMIT)
ANY = frozenset({*PLAIN, *AT_THE_START, Cause.API_ERROR, Cause.CRASH, Cause.STALL, Cause.TIMEOUT, Cause.QUOTA})
NAMED_S = 4.0
"""How long a rate limit lasts that names its end, in seconds."""


def reports(ledger: Ledger, ends: frozenset[Cause] = PLAIN, usd: float = 0.0) -> Iterator[Fact]:
    """What the jobs that are alive may report, and what those that were told to stop end with.

    `ends` are the causes with which attempts and merges may end badly; `usd` is what each report of costs adds.
    """
    at_s = ledger.as_of_s
    for job in sorted(wanted(ledger), key=str):
        attempt = job.attempt
        epic = ledger.epics[attempt.epic]
        story = epic.stories[attempt.story]
        match job:
            case RunAttempt() if story.state is StoryState.OFFERED:
                yield AttemptClaimed(attempt, Process(7, 1.5), "base", at_s)
                yield from _badly(attempt, ends.intersection(AT_THE_START), at_s)
            case RunAttempt():
                yield AttemptSucceeded(attempt, "base", "head", ("x",), at_s)
                yield from _badly(attempt, ends - {Cause.SPAWN, Cause.SETUP}, at_s)
                if usd:
                    yield UsageReported(attempt, story.using.plus(Usage(usd)), at_s)
            case Integrate():
                if story.proven is None:
                    yield MergeProven(attempt, PROVEN, ("x",), at_s)
                else:
                    yield BranchMerged(attempt, "tip", ("x",), at_s)
                yield MergeRefused(attempt, Cause.CHECKS, "red.", "tail", "refs/saved", at_s, "tip")
                if Cause.FAULT in ends:
                    yield MergeRefused(attempt, Cause.FAULT, "no disk.", "", None, at_s)
            case Collect():
                yield from _collected(epic, story, attempt, at_s)
    yield from _stops(ledger)


def _badly(attempt: AttemptId, causes: frozenset[Cause], at_s: float) -> Iterator[Fact]:
    """Bad ends; a rate limit may name when it is over."""
    for cause in sorted(causes):
        saved = None if cause in AT_THE_START else "refs/saved"
        yield AttemptFailed(attempt, cause, f"{cause}.", "tail", saved, at_s)
        if cause is Cause.RATE_LIMIT:
            yield AttemptFailed(attempt, cause, f"{cause}.", "tail", saved, at_s, at_s + NAMED_S)


def _collected(epic: Epic, story: Story, attempt: AttemptId, at_s: float) -> Iterator[Fact]:
    """The end of a lease goes on record before that of the attempt, unless its worktree has changed since."""
    assert story.lease is not None
    if story.lease.ended is not None:
        cause, detail = story.lease.ended
        yield AttemptFailed(attempt, cause, detail, "", "refs/saved", at_s)
        return
    yield LeaseEnded(attempt, Cause.LEASE_LOST, SILENT, at_s)
    until_s = renewed_until_s(story, story.lease, epic, at_s)
    if until_s > at_s:
        yield LeaseRenewed(attempt, until_s, "", at_s)


def _stops(ledger: Ledger) -> Iterator[Fact]:
    """Ends of what was told to stop, its own end among them if that came first."""
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            if story.state is StoryState.STOPPING:
                attempt = attempt_of(epic, story)
                yield AttemptStopped(attempt, "refs/saved", ledger.as_of_s)
                collected = story.lease is not None and story.lease.ended is not None
                if story.head is not None:
                    yield BranchMerged(attempt, "tip", ("x",), ledger.as_of_s)
                elif collected or not is_team(epic):
                    yield AttemptFailed(attempt, Cause.TIMEOUT, "too slow.", "", None, ledger.as_of_s)


def claims(ledger: Ledger) -> Iterator[LeaseCommand]:
    """What sub-agents may take."""
    for epic in ledger.epics.values():
        for story in claimable(ledger, epic):
            attempt = attempt_of(epic, story)
            yield ClaimStory(attempt, token_of(attempt), "base", "", f"/trees/{attempt}", ours=True)


def holds(ledger: Ledger) -> Iterator[LeaseCommand]:
    """What those who hold a story may report; who is silent reports nothing."""
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            lease, attempt = story.lease, attempt_of(epic, story)
            if lease is None or lease.ended is not None:
                continue
            if story.state is StoryState.RUNNING:
                yield RenewLease(attempt, lease.token, "")
                yield HandIn(attempt, lease.token, "head", ("x",))
                yield EndLease(attempt, lease.token, Cause.QUESTION, "Which?")
            if story.state in (StoryState.RUNNING, StoryState.MERGING):
                yield EndLease(attempt, lease.token, Cause.AGENT_FAILED, "It gave up.")


def too_late(ledger: Ledger) -> Iterator[LeaseCommand]:
    """What nobody may do any more: reports with leases of earlier attempts or that are over, and with none."""
    current = set(holds(ledger))
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            attempt = attempt_of(epic, story)
            before = attempt._replace(number=attempt.number - 1)
            token = story.lease.token if story.lease is not None else token_of(attempt)
            for quoted, by in ((attempt, token), (attempt, token_of(before)), (before, token_of(before))):
                every = (
                    RenewLease(quoted, by, ""),
                    HandIn(quoted, by, "head", ("x",)),
                    EndLease(quoted, by, Cause.AGENT_FAILED, "It gave up."),
                )
                yield from (command for command in every if command not in current)


def alarm(ledger: Ledger) -> Iterator[Ticked]:
    """The tick at the next moment that matters."""
    wake_s = next_wake_s(ledger)
    if wake_s is not None:
        yield Ticked(wake_s)


def crash(ledger: Ledger) -> list[Event]:
    """What the next engine reports after this one is gone: each epic with anything alive was interrupted.

    But for the waves of sub-agents: those live on in the editor, and their leases tell which of them do.
    """
    return [
        WaveInterrupted(epic.spec.id, (), ledger.as_of_s)
        for epic in ledger.epics.values()
        if not (is_team(epic) and is_alive(epic.wave))
        and (is_alive(epic.wave) or any(s.state in LIVE for s in epic.stories.values()))
    ]


def taken_over(ledger: Ledger) -> Iterator[list[Event]]:
    """The same of an engine whose work goes on: nobody, anybody, or everybody who is at work is adopted."""
    adoptable = {
        epic.spec.id: tuple(s.spec.id for s in epic.stories.in_state(StoryState.RUNNING) if s.process is not None)
        for epic in ledger.epics.values()
    }
    choices = {(), *((name,) for names in adoptable.values() for name in names), *adoptable.values()}
    for chosen in sorted(choices):
        yield [
            replace(event, goes_on=True, adopted=tuple(name for name in chosen if name in adoptable[event.epic]))
            for event in crash(ledger)
            if isinstance(event, WaveInterrupted) and ledger.epics[event.epic].stories.any_in(*LIVE)
        ]


def commands(
    ledger: Ledger,
    policy: Policy,
    *,
    throughs: tuple[Through, ...] = ("all",),
    others: Mapping[EpicId, Policy] | None = None,
    steer: bool = True,
) -> Iterator[Command]:
    """What a lead may ask for, without judging whether it is allowed. `others` are policies of single epics.

    Without `steer` a lead only starts and cancels.
    """
    for epic in ledger.epics.values():
        name = epic.spec.id
        own = (others or {}).get(name, policy)
        for through in throughs:
            for retry in (False, True):
                yield StartWave(name, through, own, "base", named=False, retry=retry)
        yield CancelEpic(name, "stop")
        if steer:
            yield from (PauseEpic(name, "lunch"), ResumeEpic(name), DrainWave(name, "enough"))
        for story_id, story in epic.stories.items():
            yield CancelStory(name, story_id, "stop")
            if steer:
                yield RetryStory(name, story_id)
                yield SkipStory(name, story_id, "not worth it")
            if question(story):
                yield StartWave(name, "all", own, "base", named=False, notes=((story_id, "Red."),))


def late(fact: Fact) -> Fact:
    """The same report about the attempt before."""
    attempt = fact.attempt
    return replace(fact, attempt=attempt._replace(number=attempt.number - 1))
