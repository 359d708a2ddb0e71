"""Whatever may happen next: every command, and every fact that a job in the present state could bring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mcp_server.core.commands import CancelEpic, CancelStory, Command, StartWave, Through
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Event,
    Fact,
    MergeProven,
    MergeRefused,
    Ticked,
    WaveInterrupted,
)
from mcp_server.core.model import LIVE, AttemptId, Cause, Ledger, Policy, Process, Proven, StoryState, is_alive
from mcp_server.core.wanted import Integrate, RunAttempt, next_wake_s, wanted

PROVEN = Proven("tip", "proven", ())


def reports(ledger: Ledger) -> Iterator[Fact]:
    """What the jobs that are alive may report, and what those that were told to stop end with."""
    at_s = ledger.as_of_s
    for job in sorted(wanted(ledger), key=str):
        attempt = job.attempt
        story = ledger.epics[attempt.epic].stories[attempt.story]
        match job:
            case RunAttempt() if story.state is StoryState.OFFERED:
                yield AttemptClaimed(attempt, Process(7, 1.5), "base", at_s)
                yield AttemptFailed(attempt, Cause.FAULT, "no disk.", "", None, at_s)
            case RunAttempt():
                yield AttemptSucceeded(attempt, "base", "head", ("x",), at_s)
                yield AttemptFailed(attempt, Cause.AGENT_FAILED, "it broke.", "tail", "refs/saved", at_s)
                yield AttemptFailed(attempt, Cause.FAULT, "no disk.", "", None, at_s)
            case Integrate():
                if story.proven is None:
                    yield MergeProven(attempt, PROVEN, ("x",), at_s)
                else:
                    yield BranchMerged(attempt, "tip", ("x",), at_s)
                yield MergeRefused(attempt, Cause.CHECKS, "red.", "tail", "refs/saved", at_s)
                yield MergeRefused(attempt, Cause.FAULT, "no disk.", "", None, at_s)
    yield from _stops(ledger)


def _stops(ledger: Ledger) -> Iterator[Fact]:
    """Ends of what was told to stop, its own end among them if that came first."""
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            if story.state is StoryState.STOPPING:
                attempt = AttemptId(epic.spec.id, story.spec.id, story.attempt)
                yield AttemptStopped(attempt, "refs/saved", ledger.as_of_s)
                if story.head is not None:
                    yield BranchMerged(attempt, "tip", ("x",), ledger.as_of_s)
                else:
                    yield AttemptFailed(attempt, Cause.TIMEOUT, "too slow.", "", None, ledger.as_of_s)


def alarm(ledger: Ledger) -> Iterator[Ticked]:
    """The tick at the next moment that matters."""
    wake_s = next_wake_s(ledger)
    if wake_s is not None:
        yield Ticked(wake_s)


def crash(ledger: Ledger) -> list[Event]:
    """What the next engine reports after this one is gone: each epic with anything alive was interrupted."""
    return [
        WaveInterrupted(epic.spec.id, (), ledger.as_of_s)
        for epic in ledger.epics.values()
        if is_alive(epic.wave) or any(s.state in LIVE for s in epic.stories.values())
    ]


def commands(ledger: Ledger, policy: Policy, *, throughs: tuple[Through, ...] = ("all",)) -> Iterator[Command]:
    """What a lead may ask for, without judging whether it is allowed."""
    for epic in ledger.epics.values():
        name = epic.spec.id
        for through in throughs:
            for retry in (False, True):
                yield StartWave(name, through, policy, "base", named=False, retry=retry)
        yield CancelEpic(name, "stop")
        for story in epic.stories:
            yield CancelStory(name, story, "stop")


def late(fact: Fact) -> Fact:
    """The same report about the attempt before."""
    attempt = fact.attempt
    return replace(fact, attempt=attempt._replace(number=attempt.number - 1))
