"""Money and tokens: what a story and an epic have cost, against what they may cost."""

from __future__ import annotations

from mcp_server.core.change import put
from mcp_server.core.limits import Budget
from mcp_server.core.model import NOTHING_USED, Epic, Story, Usage
from mcp_server.core.policy import WARN_AT

TELLING = 0.05
"""A running attempt tells when it has used so much more of a limit: a journal is no meter."""


def spent(story: Story) -> Usage:
    """What a story has cost, of what counts for its own budget."""
    used = story.used.plus(story.using)
    return Usage(used.usd - story.forgiven.usd, used.tokens - story.forgiven.tokens)


def share(used: Usage, usd: float | None, tokens: int | None) -> float:
    """The larger part of a limit that is used; 1 is all of it, 0 is for no limit."""
    parts = [used.usd / usd if usd else 0.0, used.tokens / tokens if tokens else 0.0]
    return max(parts)


def story_share(story: Story, budget: Budget) -> float:
    """Part of the story's own budget that it has used."""
    return share(spent(story), budget.story_usd, budget.story_tokens)


def epic_share(epic: Epic) -> float:
    """Part of the epic's budget that is used, by the limits of its last wave."""
    budget = epic.wave.policy.budget if epic.wave is not None else Budget()
    return share(epic.used, budget.epic_usd, budget.epic_tokens)


def in_words(used: Usage, usd: float | None, tokens: int | None) -> str:
    """What is used of what, for instance `1.20 of 5.00 USD, 310,000 of 1,000,000 tokens`."""
    parts = [f"{used.usd:.2f} of {usd:.2f} USD"] if usd else []
    return ", ".join(parts + ([f"{used.tokens:,} of {tokens:,} tokens"] if tokens else []))


def story_words(story: Story, budget: Budget) -> str:
    """What the story has used of its own budget."""
    return in_words(spent(story), budget.story_usd, budget.story_tokens)


def epic_words(epic: Epic) -> str:
    """What the epic has used of its budget."""
    budget = epic.wave.policy.budget if epic.wave is not None else Budget()
    return in_words(epic.used, budget.epic_usd, budget.epic_tokens)


def warnings(epic: Epic) -> list[str]:
    """A sentence for the epic and for each story that has used `WARN_AT` of its budget or more."""
    if epic.wave is None:
        return []
    budget = epic.wave.policy.budget
    found = [f"The epic has used {epic_words(epic)}."] if epic_share(epic) >= WARN_AT else []
    return found + [
        f"{story.spec.id} has used {story_words(story, budget)}."
        for story in epic.stories.values()
        if story_share(story, budget) >= WARN_AT
    ]


def worth_telling(before: Usage, now: Usage, budget: Budget) -> bool:
    """True when a running attempt has used `TELLING` of any limit since it last told."""
    more = Usage(now.usd - before.usd, now.tokens - before.tokens)
    of_story = share(more, budget.story_usd, budget.story_tokens)
    return max(of_story, share(more, budget.epic_usd, budget.epic_tokens)) >= TELLING


def told(epic: Epic, story: Story, usage: Usage) -> Epic:
    """The epic with what the current attempt has cost so far; it never becomes less."""
    now = Usage(max(usage.usd, story.using.usd), max(usage.tokens, story.using.tokens))
    more = Usage(now.usd - story.using.usd, now.tokens - story.using.tokens)
    return put(epic, story, using=now)._replace(used=epic.used.plus(more)) if more != NOTHING_USED else epic


def closed(story: Story) -> Story:
    """The story with the costs of its current attempt among those of its earlier ones: the attempt is over."""
    return story._replace(used=story.used.plus(story.using), using=NOTHING_USED)
