"""State to status: what an epic as a whole is, derived from its stories. Nothing here is stored."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from mcp_server.core.breakers import Hold, held, holding_names
from mcp_server.core.model import LIVE, SATISFIES, Cause, Epic, Ledger, Story, StoryState, is_alive, is_team
from mcp_server.core.settle import dependencies_merged
from mcp_server.core.spec import StoryId

BUSY = frozenset({StoryState.RUNNING, StoryState.STOPPING, StoryState.MERGING})
"""States in which something of a story is at work; an offer that nobody has claimed is not."""


class EpicState(StrEnum):
    """An epic as a lead sees it."""

    PLANNED = "planned"  # nothing has started yet
    ACTIVE = "active"  # a wave is alive, or a merge is under way
    PAUSED = "paused"  # a wave is alive and nothing of it is at work: the lead, a breaker or a rate limit holds it
    READY = "ready"  # the next wave can start
    BLOCKED = "blocked"  # nothing can start before a failed or cancelled story is retried
    DONE = "done"  # every story is merged, or was skipped
    CANCELLED = "cancelled"


def epic_state(ledger: Ledger, epic: Epic) -> EpicState:
    """The epic's state, from its stories, its wave, and the breakers of its agents."""
    stories = epic.stories
    if stories.any_in(*LIVE, StoryState.MERGING):
        idle = epic.paused and is_team(epic) and not stories.any_in(*BUSY)
        return EpicState.PAUSED if idle else EpicState.ACTIVE
    if is_alive(epic.wave):
        return EpicState.PAUSED if epic.paused or holds(ledger, epic) else EpicState.ACTIVE
    if stories.count(*SATISFIES) == len(stories):
        return EpicState.DONE
    if epic.cancelled is not None:
        return EpicState.CANCELLED
    if not any(is_ready(epic, s) for s in stories.in_state(StoryState.PENDING)):
        return EpicState.BLOCKED
    return EpicState.PLANNED if epic.wave is None else EpicState.READY


def holds(ledger: Ledger, epic: Epic) -> list[Hold]:
    """What keeps stories of the epic's living wave from starting: breakers, rate limits."""
    if not is_alive(epic.wave):
        return []
    return [hold for name in sorted(holding_names(epic)) if (hold := held(ledger, name)) is not None]


def is_at_rest(ledger: Ledger, epic: Epic) -> bool:
    """True when nothing of the epic moves and nothing will by itself; a breaker or a rate limit ends by itself."""
    state = epic_state(ledger, epic)
    return bool(epic.paused) if state is EpicState.PAUSED else state is not EpicState.ACTIVE


def question(story: Story) -> str:
    """What a human has to answer or to mend: a sub-agent's question, or a conflict that came back again and again.

    Empty when it waits for no human, or one has said how to go on.
    """
    failure = story.failure
    if story.state is not StoryState.PENDING or failure is None or failure.answered:
        return ""
    return failure.detail if failure.cause is Cause.QUESTION or failure.stuck else ""


def ready(epic: Epic) -> list[StoryId]:
    """Pending stories whose dependencies are merged: what the next wave would start."""
    return [s.spec.id for s in epic.stories.in_state(StoryState.PENDING) if is_ready(epic, s)]


def is_ready(epic: Epic, story: Story) -> bool:
    """True for a pending story that could start: it asks nothing, and all that it builds on is there."""
    return not question(story) and dependencies_merged(epic, story)


def roots_of_block(epic: Epic, story: Story) -> list[StoryId]:
    """The stories below it that keep a story from ever starting: failed, cancelled, or waiting for an answer."""
    roots: list[StoryId] = []
    seen: set[StoryId] = set()
    ahead = list(story.spec.depends_on)
    while ahead:
        dependency = ahead.pop()
        if dependency in seen:
            continue
        seen.add(dependency)
        below = epic.stories[dependency]
        if below.state in (StoryState.FAILED, StoryState.CANCELLED) or question(below):
            roots.append(dependency)
        elif below.state not in SATISFIES:
            ahead.extend(below.spec.depends_on)
    return sorted(roots, key=list(epic.stories).index) if len(roots) > 1 else roots


def is_blocked(epic: Epic, story: Story) -> bool:
    """True for a pending story that asks something, or is behind one that does or that failed or was cancelled."""
    return story.state is StoryState.PENDING and bool(question(story) or roots_of_block(epic, story))


def shown_state(epic: Epic, story: Story) -> str:
    """The story's state as a lead sees it: the stored one, or the derived `ready` and `blocked`, or `done`."""
    if story.state is StoryState.MERGED and story.merged_as is None:
        return "done"
    if story.state is not StoryState.PENDING:
        return str(story.state)
    if is_blocked(epic, story):
        return "blocked"
    return "ready" if dependencies_merged(epic, story) else "pending"


def counts(epic: Epic) -> dict[str, int]:
    """How many stories are in each shown state; states without any are left out."""
    return dict(Counter(shown_state(epic, s) for s in epic.stories.values()))
