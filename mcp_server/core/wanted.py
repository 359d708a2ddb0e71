"""`wanted(ledger)`: the jobs that should be alive now. And when time alone may change that."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_server.core.model import AttemptId, Epic, Ledger, StoryState, WaveState


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """Hold a worktree, run the agent in it, judge what it left."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class Integrate:
    """Rebase an attempt's commits, prove them, move the integration branch."""

    attempt: AttemptId


Job = RunAttempt | Integrate


def wanted(ledger: Ledger) -> frozenset[Job]:
    """An attempt for every offered or running story; one merge an epic, in order of arrival."""
    jobs: set[Job] = set()
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            if story.state in (StoryState.OFFERED, StoryState.RUNNING):
                jobs.add(RunAttempt(AttemptId(epic.spec.id, story.spec.id, story.attempt)))
        head = merge_head(epic)
        if head is not None:
            story = epic.stories[head.story]
            if story.not_before_s <= ledger.as_of_s:
                jobs.add(Integrate(head))
    return frozenset(jobs)


def merge_head(epic: Epic) -> AttemptId | None:
    """The attempt whose turn it is; nobody's while a stopped merge still has the integration worktree."""
    if any(s.state is StoryState.STOPPING and s.head is not None for s in epic.stories.values()):
        return None
    queue = [s for s in epic.stories.values() if s.state is StoryState.MERGING]
    if not queue:
        return None
    first = min(queue, key=lambda s: s.merge_rank)
    return AttemptId(epic.spec.id, first.spec.id, first.attempt)


def next_wake_s(ledger: Ledger) -> float | None:
    """The first moment after `as_of_s` at which time alone may change something; None when none will."""
    waits: list[float] = []
    for epic in ledger.epics.values():
        running = epic.wave is not None and epic.wave.state is WaveState.RUNNING
        for story in epic.stories.values():
            queued = story.state is StoryState.QUEUED and running
            if (queued or story.state is StoryState.MERGING) and story.not_before_s > ledger.as_of_s:
                waits.append(story.not_before_s)
    return min(waits, default=None)
