"""`wanted(ledger)`: the jobs that should be alive now. And when time alone may change that."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcp_server.core.leases import is_over
from mcp_server.core.model import Epic, Ledger, StoryState, is_team
from mcp_server.core.settle import waits_s
from mcp_server.core.spec import AttemptId


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """Hold a worktree, run the agent in it, judge what it left."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Integrate:
    """Rebase the commits of the head of a merge queue, prove them, move the integration branch."""

    attempt: AttemptId
    behind: tuple[AttemptId, ...] = field(default=(), compare=False)
    """Those that may land together with it. Fixed when the job starts: it is the same job whoever joins the queue."""


@dataclass(frozen=True, slots=True)
class Collect:
    """A lease is over: look once more for a sign of life, else save the work and end the attempt."""

    attempt: AttemptId


Job = RunAttempt | Integrate | Collect


def wanted(ledger: Ledger) -> frozenset[Job]:
    """An attempt for every offered or running story; one merge an epic, in order of arrival.

    What sub-agents of the editor work on needs nobody, until a lease is over.
    """
    jobs: set[Job] = set()
    for epic in ledger.epics.values():
        team = is_team(epic)
        for story in epic.stories.in_state(StoryState.OFFERED, StoryState.RUNNING):
            attempt = AttemptId(epic.spec.id, story.spec.id, story.attempt)
            if not team:
                jobs.add(RunAttempt(attempt))
            elif is_over(story, ledger.as_of_s):
                jobs.add(Collect(attempt))
        head = merge_head(epic)
        if head is not None:
            story = epic.stories[head.story]
            if story.not_before_s <= ledger.as_of_s:
                jobs.add(Integrate(head, batch_behind(epic, head, ledger.as_of_s)))
    return frozenset(jobs)


def merge_head(epic: Epic) -> AttemptId | None:
    """The attempt whose turn it is; nobody's while a stopped merge still has the integration worktree."""
    stories = epic.stories
    if any(s.head is not None for s in stories.in_state(StoryState.STOPPING)):
        return None
    first = min(stories.in_state(StoryState.MERGING), key=lambda s: s.merge_rank, default=None)
    if first is None:
        return None
    return AttemptId(epic.spec.id, first.spec.id, first.attempt)


def batch_behind(epic: Epic, head: AttemptId, now_s: float) -> tuple[AttemptId, ...]:
    """Those behind the head of the queue whose files are disjoint from its own and from each other's, in order.

    Who is red can be told apart then, and landing one does not conflict with another. Whoever the world has failed
    while it was merged has a turn of its own.
    """
    if epic.wave is None or epic.wave.policy.batch < 2:  # noqa: PLR2004 - one alone is no batch
        return ()
    queue = sorted(epic.stories.in_state(StoryState.MERGING), key=lambda s: s.merge_rank)
    files = set(epic.stories[head.story].files_changed)
    found: list[AttemptId] = []
    for story in queue:
        waits = story.merge_faults or story.not_before_s > now_s or story.spec.id == head.story
        if waits or not files.isdisjoint(story.files_changed):
            continue
        files.update(story.files_changed)
        found.append(AttemptId(epic.spec.id, story.spec.id, story.attempt))
        if len(found) + 1 == epic.wave.policy.batch:
            break
    return tuple(found)


def next_wake_s(ledger: Ledger) -> float | None:
    """The first moment after `as_of_s` at which time alone may change something; None when none will."""
    waits = [*waits_s(ledger)]
    for epic in ledger.epics.values():
        waits += [s.not_before_s for s in epic.stories.delayed() if s.state is StoryState.MERGING]
        for story in epic.stories.in_state(StoryState.RUNNING):
            lease = story.lease
            if lease is not None and lease.ended is None:
                waits.append(lease.until_s)
    return min((wait_s for wait_s in waits if ledger.as_of_s < wait_s < float("inf")), default=None)
