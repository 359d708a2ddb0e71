"""What a fact about an attempt makes of its epic: how attempts and merges end, and what comes after that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcp_server.core.breakers import profile_of
from mcp_server.core.change import halt, put, stop
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Fact,
    LeaseEnded,
    LeaseRenewed,
    MergeFound,
    MergeProven,
    MergeRefused,
    UsageReported,
    WorkSeen,
)
from mcp_server.core.learn import remembered
from mcp_server.core.leases import can_repair, renewed_until_s
from mcp_server.core.limits import Policy
from mcp_server.core.model import Cause, Epic, Failure, Lease, Ledger, Story, StoryState, WaveState
from mcp_server.core.policy import (
    BACKED_OFF,
    ENDS_KEPT,
    FAULTS,
    MERGE_TRIES,
    WORLDS_DOING,
    Category,
    backoff_s,
    category,
    jitter,
    too_bad,
)
from mcp_server.core.spending import story_share, story_words, told


def reported(ledger: Ledger, epic: Epic, event: Fact) -> Epic:
    """What a fact about an attempt makes of its epic; `ledger` has the breakers as they are after it."""
    if isinstance(event, AttemptSucceeded | AttemptFailed | UsageReported):
        epic = told(epic, epic.stories[event.attempt.story], event.usage)
    story = epic.stories[event.attempt.story]
    match event:
        case AttemptFailed() | MergeRefused():
            return _failed(ledger, epic, story, event)
        case AttemptStopped():
            return _stopped(epic, story, event)
        case UsageReported():
            return _limited(epic, story)
        case WorkSeen():
            return put(epic, story, touched=event.touched, clashes=event.clashes)
        case AttemptLeased():
            return _running(epic, story, event, lease=event.lease, beside_since=ledger.seq)
        case LeaseRenewed() | LeaseEnded():
            return put(epic, story, lease=_lease_after(story.lease, event))
        case _:
            return _went_on(epic, story, event)


def _went_on(epic: Epic, story: Story, event: AttemptClaimed | AttemptSucceeded | MergeProven | BranchMerged) -> Epic:
    """One step further on the way to be merged."""
    match event:
        case AttemptClaimed():
            return _running(epic, story, event, process=event.process)
        case AttemptSucceeded():
            epic = _tallied(epic._replace(merges=epic.merges + 1), event.at_s, bad=False)
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
            flaky = epic.flaky.union(event.proven.flaky) if event.proven.flaky else epic.flaky
            return put(epic._replace(flaky=flaky), story, proven=event.proven)
        case _:
            return _merged(epic, story, event)


def _running(epic: Epic, story: Story, event: AttemptClaimed | AttemptLeased, **who: Any) -> Epic:
    """At work, and dated here already: how long a probe has worked is looked at before all changes are dated."""
    return put(epic, story, state=StoryState.RUNNING, since_s=event.at_s, base=event.base, **who)


def _merged(epic: Epic, story: Story, event: BranchMerged) -> Epic:
    return put(
        remembered(epic, story),
        story,
        state=StoryState.MERGED,
        merged_as=event.tip,
        files_changed=event.files,
        head=None,
        failure=None,
        stop_reason="",
    )


def _lease_after(lease: Lease | None, event: LeaseRenewed | LeaseEnded) -> Lease:
    assert lease is not None, "only a lease is renewed or ends"  # noqa: S101 - decide saw to it
    if isinstance(event, LeaseRenewed):
        return replace(lease, until_s=event.until_s, note=event.note or lease.note)
    return replace(lease, ended=(event.cause, event.detail))


def _repair(epic: Epic, story: Story, event: MergeRefused, failure: Failure) -> Epic:
    """The sub-agent that did the work is still there and knows it: it mends the conflict or the red check."""
    assert story.lease is not None, "can_repair looked"  # noqa: S101
    repairing = story._replace(repairs=story.repairs + 1)
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


def _limited(epic: Epic, story: Story) -> Epic:
    """A running attempt that has spent its story's own budget is stopped; the epic's is `settle`'s to look at."""
    assert epic.wave is not None, "only a wave starts attempts"  # noqa: S101 - for the type checker
    budget = epic.wave.policy.budget
    if story.state is not StoryState.RUNNING or story_share(story, budget) < 1.0:
        return epic
    return stop(epic, story, f"{story_words(story, budget)} are used", Cause.BUDGET)


def _stopped(epic: Epic, story: Story, event: AttemptStopped) -> Epic:
    to = stopped_state(story)
    failure = kept(story, event.saved_ref)
    epic = put(epic, story, state=to, process=None, head=None, proven=None, failure=failure)
    return fail_fast(epic, story) if to is StoryState.FAILED else epic


def _failed(ledger: Ledger, epic: Epic, story: Story, event: AttemptFailed | MergeRefused) -> Epic:
    """An attempt or a merge ended badly: try again while the budget lasts, else failed for good."""
    failure = Failure(event.cause, event.detail, story.attempt, event.tail, event.saved_ref)
    if isinstance(event, MergeRefused):
        if event.cause is Cause.CONFLICT:
            story = story._replace(beside_since=ledger.seq)  # what it met so far is judged
        failure = replace(failure, onto=event.onto, paths=event.paths, head=event.head, checks=event.checks)
        if event.cause is Cause.FAULT and story.merge_faults + 1 < MERGE_TRIES:
            faults = story.merge_faults + 1  # the work is good: it stays in the queue and is tried again later
            return put(epic, story, merge_faults=faults, not_before_s=event.at_s + backoff_s(faults), failure=failure)
        if event.cause is not Cause.FAULT and can_repair(epic, story):
            return _repair(epic, story, event, failure)
    else:
        epic = _tallied(epic, event.at_s, bad=category(event.cause) in (Category.TRANSIENT, Category.RATE_LIMIT))
    return _ended(epic, story, failure, is_free=_is_free(ledger, epic, story, event), at_s=event.at_s)


def _is_free(ledger: Ledger, epic: Epic, story: Story, event: AttemptFailed | MergeRefused) -> bool:
    """True for an end that costs the story no attempt: a rate limit, or a fault that is not its own.

    The world's doing never is, nor a conflict while repairs are left: others were faster. A crash, a stall or a lost
    lease is not while the breaker is open, since the attempt was its probe, or one of those that showed that something
    is wrong with them all. `fault_tries` bounds it.
    """
    assert epic.wave is not None, "only a wave starts attempts"  # noqa: S101 - for the type checker
    if isinstance(event, MergeRefused):
        return event.cause is Cause.CONFLICT and story.conflicts + story.repairs < epic.wave.policy.repairs
    if event.cause is Cause.RATE_LIMIT:
        return True
    breaker = ledger.breakers.get(profile_of(epic, story))
    shared = event.cause in WORLDS_DOING or (breaker is not None and breaker.opened > 0)
    return event.cause in FAULTS and shared and story.faults < epic.wave.policy.fault_tries


def _tallied(epic: Epic, at_s: float, *, bad: bool) -> Epic:
    """Under `adaptive_slots`: how attempts end, and a slot less when too many end badly."""
    wave = epic.wave
    if wave is None or not wave.policy.adaptive_slots:
        return epic
    ends = (*wave.ends, bad)[-ENDS_KEPT:]
    wave = replace(wave, ends=ends, calm_since_s=at_s if bad else wave.calm_since_s)
    if bad and too_bad(ends) and wave.fewer < wave.policy.slots - 1:
        wave = replace(wave, fewer=wave.fewer + 1, ends=())
    return epic._replace(wave=wave)


def _ended(epic: Epic, story: Story, failure: Failure, *, is_free: bool, at_s: float) -> Epic:
    """The state after an attempt that will not be merged, and what that means for its wave."""
    assert epic.wave is not None, "only a wave starts attempts"  # noqa: S101 - for the type checker
    policy, running = epic.wave.policy, epic.wave.state is WaveState.RUNNING
    merge_faulted = failure.cause is Cause.FAULT and story.state is StoryState.MERGING
    budget = story.budget + is_free
    left = story.attempt < budget and not merge_faulted  # its work is done and saved: not paid for again
    cancelled = story.state is StoryState.STOPPING and story.stop_cause is Cause.STOPPED
    if left and not cancelled and story_share(story, policy.budget) >= 1.0:
        words = f"{story_words(story, policy.budget)} are used. The attempt ended as {failure.cause}: {failure.detail}"
        failure, left = replace(failure, cause=Cause.BUDGET, detail=words), False
    if failure.cause is Cause.CONFLICT and story.state is StoryState.MERGING and not is_free:
        failure = replace(failure, stuck=True)
    if story.state is StoryState.STOPPING:
        to = stopped_state(story) if left else StoryState.FAILED
    elif failure.cause is Cause.QUESTION or failure.stuck:
        to = StoryState.PENDING  # until somebody answers
    elif left:
        to = StoryState.QUEUED if running else StoryState.PENDING
    else:
        to = StoryState.FAILED
    faults = story.faults + (is_free and category(failure.cause) is Category.TRANSIENT)
    epic = put(
        epic,
        story,
        state=to,
        process=None,
        head=None,
        proven=None,
        failure=failure,
        budget=budget,
        faults=faults,
        conflicts=story.conflicts + (failure.cause is Cause.CONFLICT),
        not_before_s=at_s + _wait_s(policy, story, failure) if to is StoryState.QUEUED else 0.0,
    )
    return fail_fast(epic, story) if to is StoryState.FAILED else epic


def _wait_s(policy: Policy, story: Story, failure: Failure) -> float:
    """How long the next attempt waits.

    After a rate limit its profile is parked, and that is enough; after a stall, a lost lease or a timeout the whole
    limit has passed already; and what an agent did badly is done better at once, with the reason in the brief.
    """
    if failure.cause not in BACKED_OFF:
        return 0.0
    share = jitter(policy.seed, story.spec.id, story.attempt)
    return backoff_s(story.faults + 1, share=share)


def fail_fast(epic: Epic, story: Story) -> Epic:
    """A critical story failed for good: nothing more starts and its living siblings stop."""
    wave = epic.wave
    if wave is None or wave.state is not WaveState.RUNNING or not (wave.policy.fail_fast and story.spec.critical):
        return epic
    return halt(epic, f"fail_fast: critical story {story.spec.id!r} failed")


def found(epic: Epic, event: MergeFound) -> Epic:
    """Merged, whatever the journal believed; what belonged to an attempt that this one has overtaken is over."""
    story = epic.stories[event.attempt.story]
    attempt = max(story.attempt, event.attempt.number)
    epic = epic._replace(merges=epic.merges + 1, base=epic.base or event.onto)
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


def kept(story: Story, saved_ref: str | None) -> Failure | None:
    """The failure record that tells the next attempt where the work of this one lies."""
    if saved_ref is None and story.stop_cause is Cause.STOPPED:
        return story.failure
    reason = story.stop_reason or "the engine ended while the agent was at work"
    return Failure(story.stop_cause, reason, story.attempt, saved_ref=saved_ref)


def stopped_state(story: Story) -> StoryState:
    """What a story becomes that was told to stop and has: failed when its own budget is spent."""
    return StoryState.FAILED if story.stop_cause is Cause.BUDGET else StoryState.CANCELLED
