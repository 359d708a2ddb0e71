"""What a fact makes of the state. `evolve` never refuses, does no I/O, and ends by settling what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, assert_never

from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    EpicCancelled,
    EpicPlanned,
    Event,
    Fact,
    LeaseEnded,
    LeaseRenewed,
    MergeFound,
    MergeProven,
    MergeRefused,
    StoryCancelled,
    Ticked,
    WaveInterrupted,
    WaveStarted,
    WaveWidened,
)
from mcp_server.core.leases import can_repair, renewed_until_s
from mcp_server.core.model import (
    LIVE,
    SETTLED,
    Cause,
    Epic,
    Failure,
    Lease,
    Ledger,
    Story,
    StoryId,
    StoryState,
    Wave,
    WaveState,
    is_alive,
)
from mcp_server.core.policy import MERGE_TRIES, backoff_s
from mcp_server.core.settle import settle


def evolve(ledger: Ledger, event: Event) -> Ledger:
    """The ledger after a fact. Everything that follows from it at that moment (admission, ends of waves) is in it."""
    if event.at_s < ledger.as_of_s:  # a clock that was set back stands still
        event = replace(event, at_s=ledger.as_of_s)
    match event:
        case EpicPlanned():
            epic = _planned(ledger.epics.get(event.spec.id), event)
        case WaveStarted():
            epic = _started(ledger.epics[event.epic], event)
        case WaveWidened():
            epic = _widened(ledger.epics[event.epic], event)
        case WaveInterrupted():
            epic = _interrupted(ledger.epics[event.epic], event)
        case EpicCancelled():
            epic = _epic_cancelled(ledger.epics[event.epic], event)
        case StoryCancelled():
            epic = _story_cancelled(ledger.epics[event.epic], event)
        case MergeFound():
            epic = _found(ledger.epics[event.attempt.epic], event)
        case Ticked():
            return _stamp(ledger, settle(replace(ledger, as_of_s=event.at_s, seq=ledger.seq + 1)))
        case _:
            epic = _reported(ledger.epics[event.attempt.epic], event)
    after = replace(ledger, epics={**ledger.epics, epic.spec.id: epic}, as_of_s=event.at_s, seq=ledger.seq + 1)
    return _stamp(ledger, settle(after))


def _stamp(before: Ledger, after: Ledger) -> Ledger:
    """Date every change of state once, here: when, and by which fact."""
    epics = dict(after.epics)
    for epic_id, epic in after.epics.items():
        known = before.epics.get(epic_id)
        if epic is known:
            continue
        stories = dict(epic.stories)
        for story_id, story in epic.stories.items():
            old = known.stories.get(story_id) if known is not None else None
            if old is None or (old.state, old.attempt) != (story.state, story.attempt):
                stories[story_id] = replace(story, since_s=after.as_of_s, changed=after.seq)
        epics[epic_id] = replace(epic, stories=stories)
    return replace(after, epics=epics)


def put(epic: Epic, story: Story, **changes: Any) -> Epic:
    """The epic with one story changed."""
    return replace(epic, stories={**epic.stories, story.spec.id: replace(story, **changes)})


def _planned(before: Epic | None, event: EpicPlanned) -> Epic:
    stories: dict[StoryId, Story] = {}
    for spec in event.spec.stories:
        known = before.stories.get(spec.id) if before is not None else None
        level, rank = event.levels[spec.id], event.ranks[spec.id]
        if known is not None:
            story = replace(known, spec=spec, level=level, rank=rank)
        else:
            story = Story(spec=spec, level=level, rank=rank)
        if spec.done and story.state is not StoryState.MERGED:
            story = replace(story, state=StoryState.MERGED)
        elif story.state is StoryState.MERGED and story.merged_as is None and not spec.done:
            story = replace(story, state=StoryState.PENDING)  # the author took the mark back
        stories[spec.id] = story
    if before is None:
        return Epic(spec=event.spec, stories=stories)
    return replace(before, spec=event.spec, stories=stories)


def _queue(epic: Epic, members: tuple[StoryId, ...], attempts: int, notes: tuple[tuple[StoryId, str], ...]) -> Epic:
    told = dict(notes)
    for story_id in members:
        story = epic.stories[story_id]
        epic = put(
            epic,
            story,
            state=StoryState.QUEUED,
            budget=story.attempt + attempts,
            not_before_s=0.0,
            stop_reason="",
            advice=told.get(story_id, story.advice),
            failure=replace(story.failure, answered=True) if story.failure is not None else None,
        )
    return epic


def _started(epic: Epic, event: WaveStarted) -> Epic:
    number = epic.wave.number + 1 if epic.wave is not None else 1
    left_over = (s.spec.id for s in epic.stories.values() if s.state is StoryState.MERGING)  # of an interrupted wave
    wave = Wave(number, WaveState.RUNNING, frozenset((*event.members, *left_over)), event.policy, event.at_s)
    epic = _queue(epic, event.members, event.policy.attempts, event.notes)
    return replace(epic, wave=wave, cancelled=None, base=epic.base or event.base)


def _widened(epic: Epic, event: WaveWidened) -> Epic:
    wave = epic.wave
    assert wave is not None, "a wave is widened while it lives"  # noqa: S101 - decide saw to it
    epic = _queue(epic, event.members, wave.policy.attempts, event.notes)
    return replace(epic, wave=replace(wave, members=wave.members | frozenset(event.members)))


def _interrupted(epic: Epic, event: WaveInterrupted) -> Epic:
    saved = dict(event.saved)
    for story in list(epic.stories.values()):
        if story.state in LIVE or story.state is StoryState.QUEUED:
            stopping = story.state is StoryState.STOPPING
            epic = put(
                epic,
                story,
                state=StoryState.CANCELLED if stopping else StoryState.PENDING,
                stop_reason=story.stop_reason if stopping else "the engine that ran it ended",
                process=None,
                head=None,
                proven=None,
                failure=_kept(story, saved.get(story.spec.id)),
            )
    if is_alive(epic.wave):
        epic = end_wave(epic, "the engine that ran it ended")
    return epic


def _kept(story: Story, saved_ref: str | None) -> Failure | None:
    """The failure record that tells the next attempt where the work of this one lies."""
    if saved_ref is None:
        return story.failure
    reason = story.stop_reason or "the engine ended while the agent was at work"
    return Failure(Cause.STOPPED, reason, story.attempt, saved_ref=saved_ref)


def end_wave(epic: Epic, because: str) -> Epic:
    """The epic with its wave finished."""
    assert epic.wave is not None, "only a wave can end"  # noqa: S101 - callers looked
    return replace(epic, wave=replace(epic.wave, state=WaveState.FINISHED, ended_because=because))


def stop(epic: Epic, story: Story, reason: str) -> Epic:
    """The epic with one story told to stop: at once when nothing of it is alive, else through `stopping`."""
    if story.state in SETTLED or story.state is StoryState.STOPPING:
        return epic
    alive = story.state in LIVE or story.state is StoryState.MERGING
    to = StoryState.STOPPING if alive else StoryState.CANCELLED
    return put(epic, story, state=to, stop_reason=reason)


def _epic_cancelled(epic: Epic, event: EpicCancelled) -> Epic:
    for story in list(epic.stories.values()):
        epic = stop(epic, story, event.reason)
    if epic.wave is not None and epic.wave.state is WaveState.RUNNING:
        epic = replace(epic, wave=replace(epic.wave, state=WaveState.DRAINING, ended_because="cancelled"))
    return replace(epic, cancelled=event.reason)


def _story_cancelled(epic: Epic, event: StoryCancelled) -> Epic:
    return stop(epic, epic.stories[event.story], event.reason)


def _found(epic: Epic, event: MergeFound) -> Epic:
    """Merged, whatever the journal believed; what belonged to an attempt that this one has overtaken is over."""
    story = epic.stories[event.attempt.story]
    attempt = max(story.attempt, event.attempt.number)
    epic = replace(epic, merges=epic.merges + 1, base=epic.base or event.onto)
    return put(
        epic,
        story,
        state=StoryState.MERGED,
        attempt=attempt,
        budget=max(story.budget, attempt),
        merged_as=event.tip,
        files_changed=event.files,
        merge_rank=epic.merges,
        head=None,
        process=None,
        proven=story.proven if story.proven is not None and story.proven.head == event.tip else None,
        failure=None,
        stop_reason="",
        not_before_s=0.0,
    )


def _reported(epic: Epic, event: Fact) -> Epic:
    story = epic.stories[event.attempt.story]
    match event:
        case AttemptLeased():
            return put(epic, story, state=StoryState.RUNNING, lease=event.lease, base=event.base)
        case LeaseRenewed() | LeaseEnded():
            return put(epic, story, lease=_lease_after(story.lease, event))
        case AttemptClaimed():
            return put(epic, story, state=StoryState.RUNNING, process=event.process, base=event.base)
        case AttemptSucceeded():
            epic = replace(epic, merges=epic.merges + 1)
            return put(
                epic,
                story,
                state=StoryState.MERGING,
                process=None,
                base=event.base,
                head=event.head,
                files_changed=event.files,
                merge_rank=epic.merges,
                merge_faults=0,
                not_before_s=0.0,
                lease=replace(story.lease, head=event.head) if story.lease is not None else None,
            )
        case MergeProven():
            return put(epic, story, proven=event.proven)
        case BranchMerged():
            return put(
                epic,
                story,
                state=StoryState.MERGED,
                merged_as=event.tip,
                files_changed=event.files,
                head=None,
                failure=None,
                stop_reason="",
            )
        case AttemptStopped():
            return put(
                epic,
                story,
                state=StoryState.CANCELLED,
                process=None,
                head=None,
                proven=None,
                failure=_kept(story, event.saved_ref),
            )
        case AttemptFailed() | MergeRefused():
            return _failed(epic, story, event)
        case _:
            assert_never(event)


def _lease_after(lease: Lease | None, event: LeaseRenewed | LeaseEnded) -> Lease:
    assert lease is not None, "only a lease is renewed or ends"  # noqa: S101 - decide saw to it
    if isinstance(event, LeaseRenewed):
        return replace(lease, until_s=event.until_s, note=event.note or lease.note)
    return replace(lease, ended=(event.cause, event.detail))


def _repair(epic: Epic, story: Story, event: MergeRefused, failure: Failure) -> Epic:
    """The sub-agent that did the work is still there and knows it: it mends the conflict or the red check."""
    assert story.lease is not None, "can_repair looked"  # noqa: S101
    repairing = replace(story, repairs=story.repairs + 1)
    until_s = renewed_until_s(repairing, story.lease, epic, event.at_s)
    return put(
        epic,
        repairing,
        state=StoryState.RUNNING,
        lease=replace(story.lease, until_s=until_s),
        head=None,
        proven=None,
        failure=failure,
    )


def _failed(epic: Epic, story: Story, event: AttemptFailed | MergeRefused) -> Epic:
    """An attempt or a merge ended badly: try again while the budget lasts, else failed for good."""
    at_s = event.at_s
    failure = Failure(event.cause, event.detail, story.attempt, event.tail, event.saved_ref)
    if isinstance(event, MergeRefused):
        failure = replace(failure, onto=event.onto, paths=event.paths)
    if isinstance(event, MergeRefused) and event.cause is not Cause.FAULT and can_repair(epic, story):
        return _repair(epic, story, event, failure)
    if isinstance(event, MergeRefused) and event.cause is Cause.FAULT and story.merge_faults + 1 < MERGE_TRIES:
        faults = story.merge_faults + 1  # the work is good: it stays in the queue and is tried again later
        return put(epic, story, merge_faults=faults, not_before_s=at_s + backoff_s(faults), failure=failure)
    running = epic.wave is not None and epic.wave.state is WaveState.RUNNING
    stopping = story.state is StoryState.STOPPING
    merge_faulted = isinstance(event, MergeRefused) and event.cause is Cause.FAULT
    left = story.attempt < story.budget and not merge_faulted  # its work is done and saved: not paid for again
    if stopping:
        to = StoryState.CANCELLED if left else StoryState.FAILED
    elif event.cause is Cause.QUESTION:
        to = StoryState.PENDING  # until somebody answers
    elif left:
        to = StoryState.QUEUED if running else StoryState.PENDING
    else:
        to = StoryState.FAILED
    wait_s = backoff_s(story.attempt) if event.cause is Cause.FAULT else 0.0
    epic = put(
        epic,
        story,
        state=to,
        process=None,
        head=None,
        proven=None,
        failure=failure,
        not_before_s=at_s + wait_s if to is StoryState.QUEUED else 0.0,
    )
    if to is StoryState.FAILED and story.spec.critical and running:
        epic = _fail_fast(epic, story)
    return epic


def _fail_fast(epic: Epic, story: Story) -> Epic:
    """A critical story failed for good: nothing more starts and its living siblings stop."""
    wave = epic.wave
    if wave is None or not wave.policy.fail_fast:
        return epic
    reason = f"fail_fast: critical story {story.spec.id!r} failed"
    for sibling in list(epic.stories.values()):
        if sibling.spec.id in wave.members and sibling.state in LIVE:
            epic = stop(epic, sibling, reason)
    return replace(epic, wave=replace(wave, state=WaveState.DRAINING, ended_because=reason))
