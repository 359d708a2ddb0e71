"""Leases: how a sub-agent holds an attempt, who may still report with one, and what is there to be claimed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mcp_server.core.breakers import CLOSED, team_hold
from mcp_server.core.commands import ClaimStory, EndLease, LeaseCommand, RenewLease
from mcp_server.core.events import AttemptLeased, AttemptSucceeded, LeaseEnded, LeaseRenewed
from mcp_server.core.limits import Strategy
from mcp_server.core.model import REPOSITORY, Epic, Lease, Ledger, Story, StoryState, is_alive, is_team
from mcp_server.core.spec import AttemptId
from mcp_server.core.stories import urgency
from mcp_server.errors import Code, Refused

ENDS_IN = frozenset({StoryState.RUNNING, StoryState.MERGING})
"""A holder may be gone while its work is in the merge queue: that lands all the same, but nobody is left to repair."""
_LETTER_BY_LETTER = "Pass the lease that claim_story answered, letter by letter; without one, end your turn."


def lease_name(attempt: AttemptId, token: str) -> str:
    """The lease in one word, as its holder quotes it: `epic/story/attempt/token`."""
    return f"{attempt}/{token}"


def lease_of(name: str) -> tuple[AttemptId, str]:
    """Attempt and token of a lease's name. Raises `Refused(bad_argument)`."""
    parts = name.strip().split("/")
    if len(parts) != 4 or not re.fullmatch("[0-9]{1,9}", parts[2]):  # noqa: PLR2004 - the four of the docstring
        raise Refused(
            Code.BAD_ARGUMENT,
            f"{name!r} is no lease; a lease looks like 'epic/S1/1/k3f9'.",
            "Pass the lease that claim_story answered, letter by letter.",
        )
    return AttemptId(parts[0], parts[1], int(parts[2])), parts[3]


def attempt_of(epic: Epic, story: Story) -> AttemptId:
    """The story's current attempt."""
    return AttemptId(epic.spec.id, story.spec.id, story.attempt)


def offers(epic: Epic) -> list[Story]:
    """Stories that a sub-agent may claim now, most urgent first."""
    if not is_team(epic):
        return []
    return sorted(epic.stories.in_state(StoryState.OFFERED), key=urgency)


def claimable(ledger: Ledger, epic: Epic) -> list[Story]:
    """Offers that may be taken now: none while the epic is paused or a breaker is open; one, the probe, half open."""
    if epic.paused or team_hold(ledger) is not None:
        return []
    open_ = offers(epic)
    half_open = any(ledger.breakers.get(n, CLOSED).opened for n in (REPOSITORY, str(Strategy.AGENT_TEAMS)))
    return open_[:1] if half_open else open_


def is_over(story: Story, now_s: float) -> bool:
    """True for a leased story that runs and whose holder is gone, or silent beyond its deadline."""
    lease = story.lease
    return (
        story.state is StoryState.RUNNING and lease is not None and (lease.ended is not None or lease.until_s <= now_s)
    )


def can_repair(epic: Epic, story: Story) -> bool:
    """True when a refused merge goes back to the sub-agent that did the work."""
    wave = epic.wave
    return wave is not None and is_alive(wave) and story.lease is not None and story.repairs < wave.policy.repairs


def renewed_until_s(story: Story, lease: Lease, epic: Epic, now_s: float) -> float:
    """`min(now + lease_s, began + attempt_timeout_s)`; after a refused merge always `now + lease_s`, to mend it in."""
    assert epic.wave is not None, "a lease is held in a wave"  # noqa: S101 - an invariant, for the type checker too
    policy = epic.wave.policy
    full_s = now_s + policy.lease_s
    return full_s if story.repairs else max(lease.until_s, min(full_s, lease.began_s + policy.attempt_timeout_s))


def held(
    ledger: Ledger, attempt: AttemptId, token: str, states: frozenset[StoryState] = frozenset({StoryState.RUNNING})
) -> tuple[Epic, Story, Lease]:
    """The story of a lease that still counts, in one of these states.

    It counts until the end of the lease is on record, also beyond its deadline: a late sign of life is one. Raises
    `Refused(lease_lost)`.
    """
    epic, story = _known(ledger, attempt, token)
    lease = story.lease
    current = lease is not None and story.attempt == attempt.number and lease.token == token
    if not current or lease is None or story.state not in states or lease.ended is not None:
        raise _lost(story, attempt, lease if current else None)
    return epic, story, lease


def held_by(epic: Epic, holder: str, place: str) -> Iterator[Story]:
    """Stories whose lease counts and is this sub-agent's, or of whoever works there; an empty word is nobody."""
    for story in epic.stories.in_state(*ENDS_IN):
        lease = story.lease
        if lease is None or lease.ended is not None:
            continue
        if (holder and lease.holder == holder) or (place and lease.place == place):
            yield story


def holds(ledger: Ledger, attempt: AttemptId, token: str) -> Story | None:
    """The story when this lease is the one of its current attempt, whatever its state; else None."""
    _, story = _known(ledger, attempt, token)
    same = story.lease is not None and story.attempt == attempt.number and story.lease.token == token
    return story if same else None


def decide_lease(
    ledger: Ledger, command: LeaseCommand, now_s: float
) -> AttemptLeased | LeaseRenewed | LeaseEnded | AttemptSucceeded:
    """The fact that the command becomes. Raises `Refused`."""
    if isinstance(command, ClaimStory):
        return _claim(ledger, command, now_s)
    ending = isinstance(command, EndLease)
    epic, story, lease = held(
        ledger, command.attempt, command.token, ENDS_IN if ending else frozenset({StoryState.RUNNING})
    )
    match command:
        case RenewLease():
            until_s = renewed_until_s(story, lease, epic, now_s)
            if command.for_s is not None:
                until_s = max(until_s, now_s + command.for_s)
            return LeaseRenewed(command.attempt, until_s, command.note, now_s)
        case EndLease():
            return LeaseEnded(command.attempt, command.cause, command.detail, now_s)
        case _:
            return AttemptSucceeded(command.attempt, story.base or "", command.head, command.files, now_s)


def _claim(ledger: Ledger, command: ClaimStory, now_s: float) -> AttemptLeased:
    attempt = command.attempt
    epic = ledger.epics.get(attempt.epic)
    story = epic.stories.get(attempt.story) if epic is not None else None
    open_ = claimable(ledger, epic) if epic is not None else []
    offered = epic is not None and story is not None and story in open_ and story.attempt == attempt.number
    if epic is None or epic.wave is None or not offered:
        named = ", ".join(repr(s.spec.id) for s in open_)
        state = story.state if story is not None else "not known"
        raise Refused(
            Code.STORY_NOT_OFFERED,
            f"Story {attempt.story!r} is {state}, and not offered to sub-agents.",
            f"Claim one of {named}." if named else "Nothing is offered now: end your turn.",
        )
    mine = next(held_by(epic, command.holder, "" if command.ours else command.place), None)
    if mine is not None:
        raise Refused(
            Code.LEASE_HELD,
            f"You hold story {mine.spec.id!r}, and one at a time is enough.",
            f"Report it first, or have another sub-agent claim {attempt.story!r}.",
        )
    policy = epic.wave.policy
    until_s = now_s + min(policy.lease_s, policy.attempt_timeout_s)
    lease = Lease(command.token, now_s, until_s, command.holder, command.place, command.ours)
    return AttemptLeased(attempt, lease, command.base, now_s)


def _known(ledger: Ledger, attempt: AttemptId, token: str) -> tuple[Epic, Story]:
    epic = ledger.epics.get(attempt.epic)
    story = epic.stories.get(attempt.story) if epic is not None else None
    if epic is None or story is None:
        raise Refused(
            Code.LEASE_LOST,
            f"The lease {lease_name(attempt, token)!r} is of no story that is planned here.",
            _LETTER_BY_LETTER,
        )
    return epic, story


def _lost(story: Story, attempt: AttemptId, lease: Lease | None) -> Refused:
    """Why a report does not count, and what becomes of the work. `lease` is None when it is not the one quoted."""
    if lease is None and attempt.number >= story.attempt:
        why = f"Attempt {attempt.number} of story {attempt.story!r} is not held by this lease."
        return Refused(Code.LEASE_LOST, why, _LETTER_BY_LETTER)
    remedy = f"Stop here and end your turn. What you committed is kept on refs/epicwave/rescue/{attempt}."
    if lease is None:
        why = f"Attempt {attempt.number} of story {attempt.story!r} is over; it is {story.state} now"
    elif lease.ended is not None:
        why = f"The lease is over ({lease.ended[1]})"
    else:
        why = f"Story {attempt.story!r} is {story.state}"
        if story.state in (StoryState.MERGING, StoryState.MERGED):
            remedy = "Your commits were taken: call report_story with this lease again for the outcome."
    reason = f" ({story.stop_reason})" if story.stop_reason else ""
    return Refused(Code.LEASE_LOST, f"{why}{reason}.", remedy)
