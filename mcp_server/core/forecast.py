"""How long an epic still takes: what its finished stories took, carried over to what is left. A guess that says so."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from statistics import median

from mcp_server.core.events import AttemptClaimed, AttemptLeased, BranchMerged, Event
from mcp_server.core.model import LIVE, Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.planning import duration_minutes
from mcp_server.core.settle import UNDER_WAY, holders, occupied, slots_of
from mcp_server.core.spec import AttemptId, EpicId, StoryId
from mcp_server.core.stories import urgency
from mcp_server.core.views import holds

OVERDUE = 0.25
"""Of a story that takes longer than expected, so large a part of what was expected is taken to be left."""


@dataclass(slots=True)
class Times:
    """Stores when the agent of each attempt began, and how long each merged story took from there to its merge."""

    began_s: dict[AttemptId, float] = field(default_factory=dict[AttemptId, float])
    took_s: dict[EpicId, dict[StoryId, float]] = field(default_factory=dict[EpicId, dict[StoryId, float]])

    def note(self, event: Event) -> None:
        """Take in the next fact."""
        match event:
            case AttemptClaimed() | AttemptLeased():
                self.began_s[event.attempt] = event.at_s
            case BranchMerged() if event.attempt in self.began_s:
                took_s = event.at_s - self.began_s[event.attempt]
                self.took_s.setdefault(event.attempt.epic, {})[event.attempt.story] = took_s
            case _:
                pass

    def began(self, epic: Epic, story: Story) -> float | None:
        """When the agent of the story's latest attempt began; None when none has."""
        return self.began_s.get(AttemptId(epic.spec.id, story.spec.id, story.attempt))


@dataclass(frozen=True, slots=True)
class Forecast:
    """A guess at the end of what a wave has under way."""

    left_s: float
    finished: int
    """Stories that it was learned from."""

    def __str__(self) -> str:
        """`about 12 min left, from 5 finished stories`."""
        stories = f"{self.finished} finished {'story' if self.finished == 1 else 'stories'}"
        return f"about {_rounded(self.left_s)} left, from {stories}"


def forecast(ledger: Ledger, epic: Epic, times: Times, now_s: float) -> Forecast | None:
    """When the epic's living wave will be through, if all goes as it went so far.

    The seconds that a planned minute took, in the median of the epic's finished stories, make the expected time of each
    other one; those are then given to the slots in the order of admission, each behind its dependencies. Files that
    stories share and attempts that fail are left out. None while nothing has finished, and while nothing may start.
    """
    wave = epic.wave
    if wave is None or not is_alive(wave) or epic.paused or holds(ledger, epic):
        return None
    took_s = times.took_s.get(epic.spec.id, {})
    paces = [
        took_s[name] / minutes
        for name, story in epic.stories.items()
        if name in took_s and story.state is StoryState.MERGED and (minutes := duration_minutes(story.spec)) > 0
    ]
    if not paces:
        return None
    pace = median(paces)
    expected_s = {s.spec.id: pace * duration_minutes(s.spec) for s in epic.stories.in_state(*UNDER_WAY)}
    going: dict[StoryId, float] = {}
    for story in epic.stories.in_state(*LIVE, StoryState.MERGING):
        whole_s = expected_s[story.spec.id] if story.state is not StoryState.STOPPING else 0.0
        began_s = times.began(epic, story)
        spent_s = max(0.0, now_s - began_s) if began_s is not None else 0.0
        going[story.spec.id] = max(whole_s - spent_s, whole_s * OVERDUE)
    holding = {(e.spec.id, s.spec.id) for e, s in occupied(holders(ledger), wave)}
    mine = {story for name, story in holding if name == epic.spec.id}
    lanes = max(1, slots_of(wave) - (len(holding) - len(mine)))
    return Forecast(_through_s(epic, expected_s, going, mine, lanes), len(paces))


def _through_s(
    epic: Epic, expected_s: dict[StoryId, float], going: dict[StoryId, float], holding: set[StoryId], lanes: int
) -> float:
    """Seconds until all of `expected_s` is through: `going` has what is left of those that have begun."""
    needs = {name: sum(d in expected_s for d in epic.stories[name].spec.depends_on) for name in expected_s}
    line = [(urgency(epic.stories[name]), name) for name, open_ in needs.items() if not open_ and name not in going]
    heapq.heapify(line)
    ends = [(left_s, name) for name, left_s in going.items()]
    heapq.heapify(ends)
    busy, at_s = set(holding), 0.0
    while line or ends:
        while line and len(busy) < lanes:
            _, name = heapq.heappop(line)
            busy.add(name)
            heapq.heappush(ends, (at_s + expected_s[name], name))
        at_s, done = heapq.heappop(ends)
        busy.discard(done)
        for after in epic.stories.dependents(epic.stories[done]):
            name = after.spec.id
            if name in needs:
                needs[name] -= 1
                if not needs[name] and name not in going:
                    heapq.heappush(line, (urgency(after), name))
    return at_s


def _rounded(seconds: float) -> str:
    """As exact as a guess may sound: `40 s`, `12 min`, `2 h 10 min`."""
    if seconds < 90:  # noqa: PLR2004
        return f"{max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min"
    hours, rest = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
