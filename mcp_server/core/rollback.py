"""Taking merged stories off the integration branch again: which, in which order, and what becomes of them."""

from __future__ import annotations

from mcp_server.core.change import put, stop
from mcp_server.core.events import Rollback, RollbackGivenUp, RollbackProven, StoriesRolledBack
from mcp_server.core.model import HOLDS_FILES, Cause, Epic, Failure, Ledger, RollingBack, Story, StoryState
from mcp_server.core.spec import EpicId, StoryId
from mcp_server.core.steer import epic_of, story_of
from mcp_server.errors import Code, Refused


def to_roll_back(ledger: Ledger, name: EpicId, story_id: StoryId, *, with_dependants: bool) -> tuple[Story, ...]:
    """The story, and those that build on it when they are asked for: in the order in which they are taken back.

    Raises `Refused` that names, in that order, what stands in the way.
    """
    epic = epic_of(ledger, name)
    story = story_of(epic, story_id)
    if story.state is not StoryState.MERGED or story.merged_as is None:
        by_mark = story.state is StoryState.MERGED
        raise Refused(
            Code.TOO_LATE,
            f"Story {story_id!r} is {'done by its mark in the epic file' if by_mark else story.state}: "
            "there is nothing of it on the integration branch to take back.",
            "Only what was merged here is rolled back; cancel_epic(story=...) stops what is alive.",
        )
    above = _above(epic, story)
    alive = [s.spec.id for s in above if s.state in HOLDS_FILES]
    if alive:
        raise Refused(
            Code.BUILT_ON,
            f"{', '.join(alive)} {'builds' if len(alive) == 1 else 'build'} on story {story_id!r} and may have "
            "begun with its work.",
            f"Wait until that has come to its end, or cancel it; then roll {story_id!r} back.",
        )
    merged = [s for s in above if s.state is StoryState.MERGED and s.merged_as is not None]
    order = sorted([*merged, story], key=lambda s: s.changed, reverse=True)
    if merged and not with_dependants:
        first = ", ".join(s.spec.id for s in order[:-1])
        raise Refused(
            Code.BUILT_ON,
            f"{len(merged)} merged {'story builds' if len(merged) == 1 else 'stories build'} on {story_id!r}: "
            f"in this order they have to be rolled back first: {first}.",
            "Roll them back one by one in that order, or all in one go: with_dependants=true.",
        )
    return tuple(order)


def still_stands(ledger: Ledger, name: EpicId, rolling: RollingBack) -> bool:
    """True when the stories may be taken back as it was proven: nobody has merged or begun anything on them since.

    The fence for what was checked while others went on.
    """
    epic = ledger.epics.get(name)
    going = dict(zip(rolling.stories, zip(rolling.attempts, rolling.heads, strict=True), strict=True))
    for story_id, (attempt, head) in going.items():
        story = epic.stories.get(story_id) if epic is not None else None
        if epic is None or story is None or (story.attempt, story.merged_as) != (attempt, head):
            return False
        above = [s for s in _above(epic, story) if s.spec.id not in going]
        if any(s.state in HOLDS_FILES or s.merged_as is not None for s in above):
            return False
    return True


def rolled(epic: Epic, event: Rollback) -> Epic:
    """What the steps of a rollback make of an epic. Who has begun on what is gone is stopped."""
    match event:
        case RollbackProven():
            return epic._replace(rolling=event.rolling)
        case RollbackGivenUp():
            return epic._replace(rolling=None)
        case _:
            return _taken_back(epic, event)


def _taken_back(epic: Epic, event: StoriesRolledBack) -> Epic:
    rolling = epic.rolling
    assert rolling is not None, "a rollback is proven before git has it"  # noqa: S101 - the engine saw to it
    refs, reason = dict(event.saved), f"rolled back: {rolling.reason}"
    here = [epic.stories[story_id] for story_id in rolling.stories if story_id in epic.stories]
    for story in here:  # the others are not in the plan any more
        failure = Failure(Cause.STOPPED, reason, story.attempt, saved_ref=refs.get(story.spec.id))
        epic = put(
            epic,
            story,
            state=StoryState.CANCELLED,
            stop_reason=reason,
            stop_cause=Cause.STOPPED,
            failure=failure,
            merged_as=None,
            proven=None,
            rolled_back=True,
        )
    for story in here:
        because = f"story {story.spec.id!r}, which it builds on, is rolled back"
        for above in _above(epic, story):
            if above.state in HOLDS_FILES:
                epic = stop(epic, above, because)
    return epic._replace(rolling=None, undone=rolling.head)


def _above(epic: Epic, story: Story) -> list[Story]:
    """Everything that builds on a story, at whatever distance, in the author's order."""
    found: set[StoryId] = set()
    ahead = [story]
    while ahead:
        for dependent in epic.stories.dependents(ahead.pop()):
            if dependent.spec.id not in found:
                found.add(dependent.spec.id)
                ahead.append(dependent)
    return [s for s in epic.stories.values() if s.spec.id in found]
