"""The state for programs (`--json`): the names of the tools' replies, nothing cut, and what a screen shows besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field

from mcp_server.core.checks import fingerprints
from mcp_server.core.forecast import Times, forecast
from mcp_server.core.model import LIVE, Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.settle import slots_of
from mcp_server.core.spec import EpicId
from mcp_server.core.views import counts, epic_state, shown_state
from mcp_server.core.why import alerts, why
from mcp_server.server.paging import Reply
from mcp_server.server.wire import EpicStatus, StoryLine


class WholeStory(StoryLine):
    """Everything that a program may ask of a story. Moments are seconds since the epoch."""

    level: int
    """Its wave in the plan, from 1."""
    depends_on: list[str] = Field(default_factory=list[str])
    since_s: float = 0
    """When it came into its state; 0 for one that nothing has happened to."""
    began_s: float = 0
    """When the agent of its latest attempt began."""
    took_s: float = 0
    """From there to its merge."""
    agent: str = ""
    last_line: str = ""
    """Of its agent's log, while it runs."""
    merged_as: str = ""
    checks: list[str] = Field(default_factory=list[str])
    """What ran last, on which tree, and how it ended."""
    saved_ref: str = ""
    used_usd: float = 0
    used_tokens: int = 0

    @classmethod
    def whole(cls, ledger: Ledger, epic: Epic, story: Story, now_s: float, times: Times, last_line: str) -> Self:
        """The story as it is now."""
        moves = story.state in LIVE or story.state is StoryState.MERGING
        used = story.used.plus(story.using)
        took_s = times.took_s.get(epic.spec.id, {}).get(story.spec.id, 0.0)
        return cls(
            story=story.spec.id,
            title=story.spec.title,
            state=shown_state(epic, story),
            attempt=story.attempt,
            in_state_s=round(max(0.0, now_s - story.since_s)) if moves else 0,
            why=why(ledger, epic, story),
            level=story.level,
            depends_on=list(story.spec.depends_on),
            since_s=round(story.since_s, 3),
            began_s=round(times.began(epic, story) or 0.0, 3),
            took_s=round(took_s, 3) if story.state is StoryState.MERGED else 0,
            agent=story.agent,
            last_line=last_line,
            merged_as=story.merged_as or "",
            checks=fingerprints(story),
            saved_ref=(story.failure.saved_ref or "") if story.failure is not None else "",
            used_usd=round(used.usd, 6),
            used_tokens=used.tokens,
        )


class WholeEpic(EpicStatus):
    """Everything that a program may ask of an epic, with its stories."""

    branch: str
    left_s: int = 0
    """A guess at how long its wave still takes; 0 for no idea."""
    left_from: int = 0
    """Finished stories that the guess was learned from."""
    used_usd: float = 0
    used_tokens: int = 0
    stories: list[WholeStory] = Field(default_factory=list[WholeStory])

    @classmethod
    def whole(cls, ledger: Ledger, epic: Epic, now_s: float, times: Times, stories: list[WholeStory]) -> Self:
        """The epic as it is now, with these of its stories."""
        wave = epic.wave if is_alive(epic.wave) else None
        guess = forecast(ledger, epic, times, now_s)
        return cls(
            epic=epic.spec.id,
            title=epic.spec.title,
            state=str(epic_state(ledger, epic)),
            counts=counts(epic),
            wave=wave.number if wave is not None else 0,
            slots=slots_of(wave) if wave is not None else 0,
            strategy=str(wave.policy.strategy) if wave is not None else "",
            alerts=alerts(ledger, epic),
            branch=f"epicwave/{epic.spec.id}",
            left_s=round(guess.left_s) if guess is not None else 0,
            left_from=guess.finished if guess is not None else 0,
            used_usd=round(epic.used.usd, 6),
            used_tokens=epic.used.tokens,
            stories=stories,
        )


class Whole(Reply):
    """The answer of `status --json`, and each line of `watch --json`, where later lines have only what has changed."""

    cursor: int
    """Number of the last fact that it knows of."""
    at_s: float
    epics: list[WholeEpic] = Field(default_factory=list[WholeEpic])


Lines = Mapping[tuple[EpicId, str], str]
"""Epic and story to the last line of its agent's log."""


def whole(
    ledger: Ledger, epics: Iterable[Epic], now_s: float, times: Times, lines: Lines, before: Ledger | None = None
) -> Whole:
    """The state of these epics; only what has changed since `before`, when that is given."""
    found: list[WholeEpic] = []
    for epic in epics:
        was = before.epics.get(epic.spec.id) if before is not None else None
        if was is epic and before is not None and before.breakers == ledger.breakers:
            continue
        stories = [
            WholeStory.whole(ledger, epic, story, now_s, times, lines.get((epic.spec.id, story.spec.id), ""))
            for story in (epic.stories.values() if was is None else touched(was, epic))
        ]
        found.append(WholeEpic.whole(ledger, epic, now_s, times, stories))
    return Whole(cursor=ledger.seq, at_s=round(now_s, 3), epics=found)


def touched(was: Epic, epic: Epic) -> list[Story]:
    """Stories that have changed, and those that wait for one that has: their reasons name it. In the epic's order."""
    stories = epic.stories
    ahead = [story for _, story in stories.since(was.stories)]
    found = {story.spec.id for story in ahead}
    while ahead:
        for story in stories.dependents(ahead.pop()):
            if story.spec.id not in found and story.state in (StoryState.PENDING, StoryState.QUEUED):
                found.add(story.spec.id)
                ahead.append(story)
    return [story for story in stories.values() if story.spec.id in found]
