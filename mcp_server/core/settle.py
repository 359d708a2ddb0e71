"""What follows from a moment alone: blocked stories leave the queue, ready ones are admitted, waves end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mcp_server.core.footprint import overlap
from mcp_server.core.model import (
    HOLDS_FILES,
    LIVE,
    SETTLED,
    Epic,
    Ledger,
    Story,
    StoryState,
    Strategy,
    Wave,
    WaveState,
    is_alive,
)


def settle(ledger: Ledger) -> Ledger:
    """The ledger with everything done that its moment (`as_of_s`) allows."""
    epics = dict(ledger.epics)
    for epic_id, epic in ledger.epics.items():
        if is_alive(epic.wave):
            epics[epic_id] = _put_back(epic)
    ledger = _admit(replace(ledger, epics=epics))
    epics = dict(ledger.epics)
    for epic_id, epic in ledger.epics.items():
        if is_alive(epic.wave):
            epics[epic_id] = _end(epic)
    return replace(ledger, epics=epics)


def dependencies_merged(epic: Epic, story: Story) -> bool:
    """True when everything the story builds on is on the integration branch."""
    return all(epic.stories[d].state is StoryState.MERGED for d in story.spec.depends_on)


def _put_back(epic: Epic) -> Epic:
    """Queued stories that this wave can no longer run go back to pending; blocked is derived from there."""
    wave = epic.wave
    if wave is None:
        return epic
    stories = dict(epic.stories)
    queued = [s for s in stories.values() if s.state is StoryState.QUEUED]
    changed = bool(queued)
    while changed:
        changed = False
        for story in queued:
            now = stories[story.spec.id]
            if now.state is not StoryState.QUEUED:
                continue
            doomed = wave.state is WaveState.DRAINING or any(
                stories[d].state in (StoryState.FAILED, StoryState.CANCELLED, StoryState.PENDING)
                for d in now.spec.depends_on
            )
            if doomed:
                stories[story.spec.id] = replace(now, state=StoryState.PENDING, not_before_s=0.0)
                changed = True
    return replace(epic, stories=stories)


def candidates(ledger: Ledger) -> Iterator[tuple[Epic, Wave, Story]]:
    """Queued stories whose time and dependencies have come, most urgent first."""
    found = [
        (epic, epic.wave, story)
        for epic in ledger.epics.values()
        if epic.wave is not None and epic.wave.state is WaveState.RUNNING
        for story in epic.stories.values()
        if story.state is StoryState.QUEUED
        and story.not_before_s <= ledger.as_of_s
        and dependencies_merged(epic, story)
    ]
    yield from sorted(found, key=lambda c: (-c[2].rank, c[2].level, c[2].spec.id))


def occupied(ledger: Ledger, wave: Wave) -> list[tuple[Epic, Story]]:
    """Stories of the whole repository that take a slot, as this wave counts them.

    One after the other (`sequential`) means that the one before is merged, so there the merge queue counts too. A
    sub-agent waits for the outcome and may have to repair: its story takes its slot until it is merged.
    """
    counted = LIVE | {StoryState.MERGING} if wave.policy.strategy is Strategy.SEQUENTIAL else LIVE
    return [
        (e, s)
        for e in ledger.epics.values()
        for s in e.stories.values()
        if s.state in counted or (s.state is StoryState.MERGING and s.lease is not None)
    ]


def clash(ledger: Ledger, wave: Wave, story: Story) -> tuple[Epic, Story, tuple[str, ...]] | None:
    """The story that holds a file this one needs, and what they share; None when its files are free."""
    if not wave.policy.conflict_detection or not story.spec.files:
        return None
    for epic in ledger.epics.values():
        for other in epic.stories.values():
            if other.state in HOLDS_FILES and (shared := overlap(story.spec.files, other.spec.files)):
                return epic, other, shared
    return None


def _admit(ledger: Ledger) -> Ledger:
    """Slot and files are taken together or not at all; who cannot have both does not stand in another's way."""
    for epic, wave, story in list(candidates(ledger)):
        if len(occupied(ledger, wave)) >= wave.policy.slots or clash(ledger, wave, story) is not None:
            continue
        epic_now = ledger.epics[epic.spec.id]
        admitted = replace(
            story,
            state=StoryState.OFFERED,
            attempt=story.attempt + 1,
            base=None,
            head=None,
            proven=None,
            merge_faults=0,
            lease=None,
            repairs=0,
        )
        epic_now = replace(epic_now, stories={**epic_now.stories, story.spec.id: admitted})
        ledger = replace(ledger, epics={**ledger.epics, epic.spec.id: epic_now})
    return ledger


def _end(epic: Epic) -> Epic:
    wave = epic.wave
    at_rest = SETTLED | {StoryState.PENDING}
    if wave is None or any(epic.stories[m].state not in at_rest for m in wave.members if m in epic.stories):
        return epic
    return replace(epic, wave=replace(wave, state=WaveState.FINISHED))
