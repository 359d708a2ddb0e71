"""What follows from a moment alone: blocked stories leave the queue, ready ones are admitted, waves end."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace

from mcp_server.core.footprint import overlap
from mcp_server.core.model import (
    LIVE,
    SATISFIES,
    SETTLED,
    Epic,
    EpicId,
    Ledger,
    Story,
    StoryState,
    Strategy,
    Wave,
    WaveState,
    is_alive,
)
from mcp_server.core.stories import altered, urgency

UNDER_WAY = frozenset(StoryState) - SETTLED - {StoryState.PENDING}
"""States in which a story of a wave has not come to rest yet."""


def settle(ledger: Ledger, *touched: EpicId) -> Ledger:
    """The ledger with everything done that its moment (`as_of_s`) allows; the same object when that is nothing.

    `touched` are the epics that are not as they were when they were settled last; all when none is named. Stories of
    any epic may be admitted: slots and files are shared. To leave the queue or to end, an epic needs its own change.
    """
    names = touched or tuple(ledger.epics)
    return _living(_admit(_living(ledger, names, _put_back)), names, _end)


def _living(ledger: Ledger, names: tuple[EpicId, ...], settled: Callable[[Epic], Epic]) -> Ledger:
    """The ledger with each of these epics settled whose wave is alive."""
    epics = ((name, ledger.epics[name]) for name in names)
    after = {name: now for name, epic in epics if is_alive(epic.wave) and (now := settled(epic)) is not epic}
    return replace(ledger, epics={**ledger.epics, **after}) if after else ledger


def dependencies_merged(epic: Epic, story: Story) -> bool:
    """True when the story need not wait for anything that it builds on."""
    return all(epic.stories[d].state in SATISFIES for d in story.spec.depends_on)


def _put_back(epic: Epic) -> Epic:
    """Queued stories that this wave can no longer run go back to pending; blocked is derived from there."""
    wave, stories = epic.wave, epic.stories
    if wave is None:
        return epic
    draining = wave.state is WaveState.DRAINING
    while leaving := list(stories.in_state(StoryState.QUEUED) if draining else stories.doomed()):
        for story in leaving:
            stories = stories.put(altered(story, state=StoryState.PENDING, not_before_s=0.0))
    return epic if stories is epic.stories else replace(epic, stories=stories)


def candidates(ledger: Ledger, waiting: dict[EpicId, int] | None = None) -> Iterator[tuple[Epic, Wave, Story]]:
    """Queued stories whose time and dependencies have come, most urgent first.

    `waiting` has for each epic the mask of those to look at, which may shrink on the way; all that are ready if None.
    """
    left = waiting if waiting is not None else {name: epic.stories.ready for name, epic in ledger.epics.items()}
    return heapq.merge(*(_line(ledger, name, left) for name in left), key=lambda c: urgency(c[2]))


def _line(ledger: Ledger, name: EpicId, left: dict[EpicId, int]) -> Iterator[tuple[Epic, Wave, Story]]:
    epic = ledger.epics[name]
    wave = epic.wave
    while wave is not None and wave.state is WaveState.RUNNING and (mask := left[name]):
        left[name] = mask & (mask - 1)
        story = epic.stories.first(mask)
        if story.not_before_s <= ledger.as_of_s:
            yield epic, wave, story


def occupied(ledger: Ledger, wave: Wave) -> list[tuple[Epic, Story]]:
    """Stories of the whole repository that take a slot, as this wave counts them.

    One after the other (`sequential`) means that the one before is merged, so there the merge queue counts too. A
    sub-agent waits for the outcome and may have to repair: its story takes its slot until it is merged.
    """
    counted = LIVE | {StoryState.MERGING} if wave.policy.strategy is Strategy.SEQUENTIAL else LIVE
    return [
        (e, s)
        for e in ledger.epics.values()
        for s in e.stories.holding()
        if s.state in counted or (s.state is StoryState.MERGING and s.lease is not None)
    ]


def clash(ledger: Ledger, wave: Wave, story: Story) -> tuple[Epic, Story, tuple[str, ...]] | None:
    """The story that holds a file this one needs, and what they share; None when its files are free."""
    if not wave.policy.conflict_detection or not story.spec.files:
        return None
    for epic in ledger.epics.values():
        for other in epic.stories.holding():
            if shared := overlap(story.spec.files, other.spec.files):
                return epic, other, shared
    return None


def _admit(ledger: Ledger) -> Ledger:
    """Slot and files are taken together or not at all; who cannot have both does not stand in another's way."""
    taken: dict[Strategy, int] = {}
    waiting = {
        name: epic.stories.ready
        for name, epic in ledger.epics.items()
        if epic.stories.ready and epic.wave is not None and not _is_full(ledger, epic.wave, taken)
    }
    for epic, wave, story in candidates(ledger, waiting) if waiting else ():
        name = epic.spec.id
        if _is_full(ledger, wave, taken):
            waiting[name] = 0  # nobody of this wave has a slot
            continue
        if clash(ledger, wave, story) is not None:
            continue
        admitted = altered(
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
        epic_now = ledger.epics[name]
        epic_now = replace(epic_now, stories=epic_now.stories.put(admitted))
        ledger = replace(ledger, epics={**ledger.epics, name: epic_now})
        taken.clear()
    return ledger


def _is_full(ledger: Ledger, wave: Wave, taken: dict[Strategy, int]) -> bool:
    """True when the wave has no slot left. `taken` keeps what was counted; clear it when a story is admitted."""
    kind = wave.policy.strategy
    if kind not in taken:
        taken[kind] = len(occupied(ledger, wave))
    return taken[kind] >= wave.policy.slots


def _end(epic: Epic) -> Epic:
    wave = epic.wave
    if wave is None or any(s.spec.id in wave.members for s in epic.stories.in_state(*UNDER_WAY)):
        return epic
    return replace(epic, wave=replace(wave, state=WaveState.FINISHED))
