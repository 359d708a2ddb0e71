"""What follows from a moment alone: blocked stories leave the queue, ready ones are admitted, waves end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mcp_server.core.breakers import Hold, choose, looked_after, with_probe
from mcp_server.core.change import halt, put
from mcp_server.core.footprint import overlap
from mcp_server.core.model import (
    DOOMS,
    HOLDS_FILES,
    LIVE,
    REPOSITORY,
    SATISFIES,
    SETTLED,
    AttemptId,
    Epic,
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


def settle(ledger: Ledger) -> Ledger:
    """The ledger with everything done that its moment (`as_of_s`) allows."""
    epics = dict(ledger.epics)
    for epic_id, epic in ledger.epics.items():
        if is_alive(epic.wave):
            epics[epic_id] = _put_back(_calmed(_within_limits(epic, ledger.as_of_s), ledger.as_of_s))
    ledger = _admit(looked_after(replace(ledger, epics=epics)))
    epics = dict(ledger.epics)
    for epic_id, epic in ledger.epics.items():
        if is_alive(epic.wave):
            epics[epic_id] = _end(epic)
    return replace(ledger, epics=epics)


def dependencies_merged(epic: Epic, story: Story) -> bool:
    """True when everything the story builds on is on the integration branch."""
    return all(epic.stories[d].state in SATISFIES for d in story.spec.depends_on)


def slots_of(wave: Wave) -> int:
    """Attempts that may be alive when the wave admits one now."""
    return wave.policy.slots - wave.fewer


def deadline_s(wave: Wave) -> float | None:
    """When the wave's time is up."""
    limit_s = wave.policy.epic_timeout_s
    return wave.started_s + limit_s if limit_s is not None else None


def _within_limits(epic: Epic, now_s: float) -> Epic:
    """A wave whose time is up, or whose epic has spent its budget, comes to its end; its agents are stopped."""
    wave = epic.wave
    assert wave is not None, "a living wave"  # noqa: S101 - for the type checker
    deadline = deadline_s(wave)
    if deadline is not None and deadline <= now_s:
        return halt(epic, f"timeout: the {wave.policy.epic_timeout_s:g} s of a wave are over")
    if epic_share(epic) >= 1.0:
        return halt(epic, f"budget: {epic_words(epic)} are used")
    return epic


def calm_at_s(wave: Wave) -> float | None:
    """When a slot that was given up is taken back if nothing happens; None when none was."""
    return wave.calm_since_s + CALM_S if wave.fewer else None


def _calmed(epic: Epic, now_s: float) -> Epic:
    wave = epic.wave
    calm_s = calm_at_s(wave) if wave is not None else None
    if wave is None or calm_s is None or calm_s > now_s:
        return epic
    return replace(epic, wave=replace(wave, fewer=wave.fewer - 1, calm_since_s=now_s, ends=()))


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
            doomed = wave.state is WaveState.DRAINING or any(stories[d].state in DOOMS for d in now.spec.depends_on)
            if doomed:
                stories[story.spec.id] = replace(now, state=StoryState.PENDING, not_before_s=0.0)
                changed = True
    return replace(epic, stories=stories)


def candidates(ledger: Ledger) -> Iterator[tuple[Epic, Wave, Story]]:
    """Queued stories whose time and dependencies have come, most urgent first."""
    found = [
        (epic, epic.wave, story)
        for epic in ledger.epics.values()
        if epic.wave is not None and epic.wave.state is WaveState.RUNNING and not epic.paused
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
    """Slot and files are taken together or not at all; who cannot have both does not stand in another's way.

    While a breaker is half open, who has just had a fault comes last: another story shows better what is wrong.
    """
    found = list(candidates(ledger))
    if any(breaker.opened for breaker in ledger.breakers.values()):
        found.sort(key=lambda c: c[2].failure is not None and c[2].failure.cause in FAULTS)
    for epic, wave, story in found:
        if len(occupied(ledger, wave)) >= slots_of(wave) or clash(ledger, wave, story) is not None:
            continue
        profile = "" if is_team(epic) else choose(ledger, wave.policy, story)
        if isinstance(profile, Hold):
            continue
        ledger = _admitted(ledger, epic, story, profile)
    return ledger


def _admitted(ledger: Ledger, epic: Epic, story: Story, profile: str) -> Ledger:
    epic = put(
        ledger.epics[epic.spec.id],
        closed(story),
        state=StoryState.OFFERED,
        attempt=story.attempt + 1,
        agent=profile,
        base=None,
        head=None,
        proven=None,
        merge_faults=0,
        lease=None,
        repairs=0,
    )
    attempt = AttemptId(epic.spec.id, story.spec.id, story.attempt + 1)
    breakers = with_probe(ledger, (profile, REPOSITORY), attempt) if profile else ledger.breakers
    return replace(ledger, epics={**ledger.epics, epic.spec.id: epic}, breakers=breakers)


def _end(epic: Epic) -> Epic:
    wave = epic.wave
    at_rest = SETTLED | {StoryState.PENDING}
    if wave is None or any(epic.stories[m].state not in at_rest for m in wave.members if m in epic.stories):
        return epic
    return replace(epic, wave=replace(wave, state=WaveState.FINISHED))
