"""Breakers: faults in a row stop new starts, one probe finds out whether things work again; rate limits park."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptSucceeded,
    BranchMerged,
    Fact,
    MergeRefused,
)
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import REPOSITORY, Breaker, Cause, Epic, Ledger, Story, StoryState, is_team
from mcp_server.core.policy import FAULTS, REPOSITORYS, cooldown_s, jitter, park_s
from mcp_server.core.spec import AttemptId

CLOSED = Breaker()


class Holding(StrEnum):
    """Why a breaker lets nothing start."""

    OPEN = "open"
    PROBING = "probing"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps attempts from starting."""

    breaker: str
    how: Holding
    because: str
    until_s: float | None
    """None while a probe is at work: how it ends, decides."""


def profile_of(epic: Epic, story: Story) -> str:
    """Name of the breaker that the story's current attempt counts for."""
    return str(Strategy.AGENT_TEAMS) if is_team(epic) else story.agent


def held(ledger: Ledger, name: str) -> Hold | None:
    """What keeps attempts of an agent profile, or of all, from starting now; None when nothing does."""
    breaker = ledger.breakers.get(name, CLOSED)
    if breaker.parked_until_s > ledger.as_of_s:
        return Hold(name, Holding.PARKED, breaker.because, breaker.parked_until_s)
    if breaker.opened and breaker.until_s > ledger.as_of_s:
        return Hold(name, Holding.OPEN, breaker.because, breaker.until_s)
    if breaker.opened and breaker.probe is not None:
        return Hold(name, Holding.PROBING, breaker.because, None)
    return None


def choose(ledger: Ledger, policy: Policy, story: Story) -> str | Hold:
    """The agent profile that the story's next attempt runs with, or what holds it back."""
    hold = held(ledger, REPOSITORY)
    if hold is not None:
        return hold
    own = story.spec.agent or policy.agent
    hold = held(ledger, own)
    if hold is None:
        return own
    return policy.fallback if policy.fallback and held(ledger, policy.fallback) is None else hold


def team_hold(ledger: Ledger) -> Hold | None:
    """What keeps sub-agents of the editor from claiming anything."""
    return held(ledger, REPOSITORY) or held(ledger, str(Strategy.AGENT_TEAMS))


def with_probe(ledger: Ledger, names: tuple[str, ...], attempt: AttemptId) -> Mapping[str, Breaker]:
    """The breakers after an attempt has started: those that are half open have their probe."""
    opened = {n: b for n in names if (b := ledger.breakers.get(n, CLOSED)).opened}
    if not opened:
        return ledger.breakers
    return {**ledger.breakers, **{n: replace(b, probe=attempt) for n, b in opened.items()}}


def looked_after(ledger: Ledger) -> Ledger:
    """Probes that are gone make room for the next one; one that has worked for `probe_s` closes its breaker."""
    breakers = {name: _looked_after(ledger, breaker) for name, breaker in ledger.breakers.items()}
    if all(breakers[name] is breaker for name, breaker in ledger.breakers.items()):
        return ledger
    return replace(ledger, breakers=breakers)


def _looked_after(ledger: Ledger, breaker: Breaker) -> Breaker:
    ends_s = probe_ends_s(ledger, breaker)
    if breaker.probe is None or (ends_s is not None and ends_s > ledger.as_of_s):
        return breaker
    return replace(breaker, probe=None) if ends_s is None else _closed(breaker)


def probe_ends_s(ledger: Ledger, breaker: Breaker) -> float | None:
    """When the probe has worked for long enough; infinity while it is not at work yet, None when it is gone."""
    if breaker.probe is None:
        return None
    epic = ledger.epics.get(breaker.probe.epic)
    story = epic.stories.get(breaker.probe.story) if epic is not None else None
    if epic is None or epic.wave is None or story is None or story.attempt != breaker.probe.number:
        return None
    if story.state is StoryState.RUNNING and (story.lease is None or story.lease.ended is None):
        return story.since_s + epic.wave.policy.probe_s
    return float("inf") if story.state in (StoryState.OFFERED, StoryState.RUNNING) else None


def waits_s(ledger: Ledger) -> Iterator[float]:
    """When a breaker lets something start again, or its probe has worked for long enough; past moments too."""
    for breaker in ledger.breakers.values():
        yield breaker.parked_until_s
        if breaker.opened:
            yield breaker.until_s
            yield probe_ends_s(ledger, breaker) or 0.0


def judged(ledger: Ledger, fact: Fact) -> Mapping[str, Breaker]:
    """The breakers after a fact about an attempt; `ledger` is as it was before."""
    epic = ledger.epics[fact.attempt.epic]
    story = epic.stories[fact.attempt.story]
    assert epic.wave is not None, "only a wave starts attempts"  # noqa: S101 - an invariant, for the type checker too
    name, policy = profile_of(epic, story), epic.wave.policy
    match fact:
        case AttemptLeased():
            ledger = replace(ledger, breakers=with_probe(ledger, (name,), fact.attempt))
            return _with(ledger, REPOSITORY, _closed)
        case AttemptClaimed() | BranchMerged():
            return _with(ledger, REPOSITORY, _closed)  # git and the disk work now
        case MergeRefused() if fact.cause is Cause.FAULT:
            return _with(ledger, REPOSITORY, lambda b: _faulted(ledger, b, policy, fact, fresh=True))
        case MergeRefused():
            return _with(ledger, REPOSITORY, _closed)
        case AttemptFailed() if fact.cause in REPOSITORYS:  # a sub-agent's probe begins with its lease
            return _with(ledger, REPOSITORY, lambda b: _faulted(ledger, b, policy, fact, fresh=is_team(epic)))
        case AttemptFailed() if fact.cause is Cause.RATE_LIMIT:
            return _with(ledger, name, lambda b: _parked(ledger, b, policy, fact))
        case AttemptFailed() if fact.cause in FAULTS:
            return _with(ledger, name, lambda b: _faulted(ledger, b, policy, fact))
        case AttemptSucceeded() | AttemptFailed():
            return _with(ledger, name, lambda b: _fared_well(b, fact.attempt))
        case _:
            return ledger.breakers


def resumed(ledger: Ledger, epic: Epic) -> Mapping[str, Breaker]:
    """The breakers of an epic's agents after the lead said to go on: half open at once, and not parked any more."""
    breakers = dict(ledger.breakers)
    for name in holding_names(epic) & breakers.keys():
        breaker = breakers[name]
        until_s = min(breaker.until_s, ledger.as_of_s)
        breakers[name] = replace(breaker, until_s=until_s, parked_until_s=min(breaker.parked_until_s, ledger.as_of_s))
    return breakers


def holding_names(epic: Epic) -> frozenset[str]:
    """Names of all breakers that can hold back a story of the epic's wave."""
    if epic.wave is None:
        return frozenset()
    policy = epic.wave.policy
    if is_team(epic):
        return frozenset({REPOSITORY, str(Strategy.AGENT_TEAMS)})
    own = {s.spec.agent for s in epic.stories.values() if s.spec.agent}
    return frozenset({REPOSITORY, policy.agent, *own, *({policy.fallback} if policy.fallback else ())})


def _with(ledger: Ledger, name: str, change: Callable[[Breaker], Breaker]) -> Mapping[str, Breaker]:
    before = ledger.breakers.get(name, CLOSED)
    after = change(before)
    return ledger.breakers if after == before else {**ledger.breakers, name: after}


def _closed(breaker: Breaker) -> Breaker:
    return replace(breaker, faults=0, opened=0, until_s=0.0, probe=None)


def _fared_well(breaker: Breaker, attempt: AttemptId) -> Breaker:
    """The agent works: its result may be good or bad. While open, attempts from before the faults say nothing."""
    if breaker.opened and breaker.probe != attempt:
        return breaker
    return replace(_closed(breaker), parks=0)


def _parked(ledger: Ledger, breaker: Breaker, policy: Policy, fact: AttemptFailed) -> Breaker:
    """Until the time that was named, else for longer each time. It is no fault, and it frees the probe's place."""
    parks, at_s = breaker.parks, max(fact.at_s, ledger.as_of_s)
    until_s = fact.resumes_at_s
    if until_s is None or until_s <= at_s:
        parks += 1
        until_s = at_s + park_s(parks, share=jitter(policy.seed, fact.attempt, "park"))
    probe = None if breaker.probe == fact.attempt else breaker.probe
    until_s = max(until_s, breaker.parked_until_s)
    return replace(
        breaker, parked_until_s=until_s, parks=parks, probe=probe, because=fact.detail, changed=ledger.seq + 1
    )


def _faulted(
    ledger: Ledger, breaker: Breaker, policy: Policy, fact: AttemptFailed | MergeRefused, *, fresh: bool = False
) -> Breaker:
    """One fault more. An open breaker heeds its probe only, or what is tried after its time (`fresh`)."""
    at_s = max(fact.at_s, ledger.as_of_s)
    if not policy.breaker_faults:
        return breaker
    if breaker.opened and breaker.probe != fact.attempt and not (fresh and breaker.until_s <= at_s):
        return breaker
    faults = breaker.faults + 1
    if not breaker.opened and faults < policy.breaker_faults:
        return replace(breaker, faults=faults)
    opened = breaker.opened + 1
    until_s = at_s + cooldown_s(opened, first_s=policy.cooldown_s, cap_s=policy.cooldown_cap_s)
    because = f"{fact.cause}: {fact.detail}"
    return replace(
        breaker, faults=faults, opened=opened, until_s=until_s, probe=None, because=because, changed=ledger.seq + 1
    )
