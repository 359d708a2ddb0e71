"""What follows from a moment alone: blocked stories leave the queue, ready ones are admitted, waves end."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace

from mcp_server.core.breakers import Hold, choose, looked_after, with_probe
from mcp_server.core.change import halt, put
from mcp_server.core.footprint import overlap
from mcp_server.core.model import (
    LIVE,
    REPOSITORY,
    SATISFIES,
    SETTLED,
    AttemptId,
    Epic,
    EpicId,
    Ledger,
    Story,
    StoryState,
    Strategy,
    Wave,
    WaveState,
    is_alive,
    is_team,
)
from mcp_server.core.policy import CALM_S, FAULTS
from mcp_server.core.spending import closed, epic_share, epic_words
from mcp_server.core.stories import altered, urgency

UNDER_WAY = frozenset(StoryState) - SETTLED - {StoryState.PENDING}
"""States in which a story of a wave has not come to rest yet."""


def settle(ledger: Ledger, *touched: EpicId) -> Ledger:
    """The ledger with everything done that its moment (`as_of_s`) allows; the same object when that is nothing.

    `touched` are the epics that are not as they were when they were settled last; all when none is named. Stories of
    any epic may be admitted: slots and files are shared. To leave the queue or to end, an epic needs its own change.
    """
    on_time = _living(ledger, tuple(ledger.epics), lambda epic: _on_time(epic, ledger.as_of_s))
    changed = (name for name, epic in on_time.epics.items() if epic is not ledger.epics[name])
    names = tuple({*touched, *changed}) if touched else tuple(ledger.epics)
    return _living(_admit(looked_after(_living(on_time, names, _put_back))), names, _end)


def slots_of(wave: Wave) -> int:
    """Attempts that may be alive when the wave admits one now."""
    return wave.policy.slots - wave.fewer


def deadline_s(wave: Wave) -> float | None:
    """When the wave's time is up."""
    limit_s = wave.policy.epic_timeout_s
    return wave.started_s + limit_s if limit_s is not None else None


def calm_at_s(wave: Wave) -> float | None:
    """When a slot that was given up is taken back if nothing happens; None when none was."""
    return wave.calm_since_s + CALM_S if wave.fewer else None


def _on_time(epic: Epic, now_s: float) -> Epic:
    """A wave whose time is up, or whose epic has spent its budget, comes to its end; calm gives back a slot."""
    wave = epic.wave
    assert wave is not None, "a living wave"  # noqa: S101 - for the type checker
    deadline, calm_s = deadline_s(wave), calm_at_s(wave)
    if deadline is not None and deadline <= now_s:
        return halt(epic, f"timeout: the {wave.policy.epic_timeout_s:g} s of a wave are over")
    if epic_share(epic) >= 1.0:
        return halt(epic, f"budget: {epic_words(epic)} are used")
    if calm_s is not None and calm_s <= now_s:
        return replace(epic, wave=replace(wave, fewer=wave.fewer - 1, calm_since_s=now_s, ends=()))
    return epic


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
    assert wave is not None, "a living wave"  # noqa: S101 - for the type checker
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
    while wave is not None and wave.state is WaveState.RUNNING and not epic.paused and (mask := left[name]):
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
    """Slot and files are taken together or not at all; who cannot have both does not stand in another's way.

    While a breaker is half open, who has just had a fault comes last: another story shows better what is wrong.
    """
    taken: dict[Strategy, int] = {}
    waiting = {
        name: epic.stories.ready
        for name, epic in ledger.epics.items()
        if epic.stories.ready and epic.wave is not None and not _is_full(ledger, epic.wave, taken)
    }
    found = candidates(ledger, waiting) if waiting else iter(())
    if any(breaker.opened for breaker in ledger.breakers.values()):
        found = iter(sorted(found, key=lambda c: c[2].failure is not None and c[2].failure.cause in FAULTS))
    for epic, wave, story in found:
        name = epic.spec.id
        if _is_full(ledger, wave, taken):
            waiting[name] = 0  # nobody of this wave has a slot
            continue
        if clash(ledger, wave, story) is not None:
            continue
        profile = "" if is_team(epic) else choose(ledger, wave.policy, story)
        if isinstance(profile, Hold):
            continue
        ledger = _admitted(ledger, epic.spec.id, story, profile)
        taken.clear()
    return ledger


def _admitted(ledger: Ledger, epic_id: EpicId, story: Story, profile: str) -> Ledger:
    epic = put(
        ledger.epics[epic_id],
        closed(story),
        state=StoryState.OFFERED,
        attempt=story.attempt + 1,
        agent=profile,
        adopted=False,
        base=None,
        head=None,
        proven=None,
        merge_faults=0,
        lease=None,
        repairs=0,
    )
    attempt = AttemptId(epic_id, story.spec.id, story.attempt + 1)
    breakers = with_probe(ledger, (profile, REPOSITORY), attempt) if profile else ledger.breakers
    return replace(ledger, epics={**ledger.epics, epic_id: epic}, breakers=breakers)


def _is_full(ledger: Ledger, wave: Wave, taken: dict[Strategy, int]) -> bool:
    """True when the wave has no slot left. `taken` keeps what was counted; clear it when a story is admitted."""
    kind = wave.policy.strategy
    if kind not in taken:
        taken[kind] = len(occupied(ledger, wave))
    return taken[kind] >= slots_of(wave)


def _end(epic: Epic) -> Epic:
    wave = epic.wave
    if wave is None or any(s.spec.id in wave.members for s in epic.stories.in_state(*UNDER_WAY)):
        return epic
    return replace(epic, wave=replace(wave, state=WaveState.FINISHED))
