"""What follows from a moment alone: blocked stories leave the queue, ready ones are admitted, waves end."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf

from mcp_server.core.apart import clash, shares, terms_of
from mcp_server.core.blocks import free_block
from mcp_server.core.breakers import Hold, choose, looked_after, with_probe
from mcp_server.core.breakers import waits_s as breaker_waits_s
from mcp_server.core.change import halt, having, put
from mcp_server.core.limits import Strategy
from mcp_server.core.model import (
    LIVE,
    REPOSITORY,
    SATISFIES,
    SETTLED,
    Epic,
    Ledger,
    Story,
    StoryState,
    Wave,
    WaveState,
    is_alive,
    is_team,
)
from mcp_server.core.policy import CALM_S, CROWDED, FAULTS
from mcp_server.core.spec import AttemptId, EpicId
from mcp_server.core.spending import closed, epic_share, epic_words
from mcp_server.core.stories import urgency

UNDER_WAY = frozenset(StoryState) - SETTLED - {StoryState.PENDING}
"""States in which a story of a wave has not come to rest yet."""


def settle(ledger: Ledger, before: Ledger | None = None, touched: EpicId | None = None) -> Ledger:
    """The ledger with everything done that its moment (`as_of_s`) allows; an equal one when that is nothing.

    All epics are looked at, unless `before` is a settled ledger and nothing that it waits for has come since. Then
    only `touched` is, the one epic that has changed, and who may start, since slots and files are shared.
    """
    if before is None or before.quiet_until_s <= ledger.as_of_s:
        return _settled(ledger, tuple(ledger.epics), inf)
    if touched is None or _stands(before, ledger, touched):
        return ledger
    return _settled(ledger, (touched,), before.quiet_until_s)


def _settled(ledger: Ledger, names: tuple[EpicId, ...], others_quiet_until_s: float) -> Ledger:
    now_s = ledger.as_of_s
    ledger = _living(ledger, names, lambda epic: _put_back(_on_time(epic, now_s)))
    ledger = _living(_admit(looked_after(ledger)), names, _end)
    coming = (wait_s for wait_s in waits_s(ledger, *names) if wait_s > now_s)
    quiet_until_s = min((others_quiet_until_s, *coming))
    return ledger if quiet_until_s == ledger.quiet_until_s else replace(ledger, quiet_until_s=quiet_until_s)


def _stands(before: Ledger, after: Ledger, name: EpicId) -> bool:
    """True when nothing of the epic has changed that settling looks at, and no breaker has."""
    was, epic = before.epics.get(name), after.epics[name]
    return (
        was is not None
        and (epic.wave, epic.paused, epic.used) == (was.wave, was.paused, was.used)
        and after.breakers is before.breakers
        and (epic.stories.stand_as(was.stories) or _only_started(after, was, epic))
    )


def _only_started(ledger: Ledger, was: Epic, epic: Epic) -> bool:
    """True when agents of offered stories have begun to work and no more: only of a probe does the time count."""
    if any(breaker.probe is not None for breaker in ledger.breakers.values()):
        return False
    changed = epic.stories.since(was.stories)
    return all(old and (old.state, new.state) == (StoryState.OFFERED, StoryState.RUNNING) for old, new in changed)


def waits_s(ledger: Ledger, *names: EpicId) -> Iterator[float]:
    """Moments at which time alone may start a story, close a breaker, end a wave or widen it; past ones too.

    Of these epics; of all when none is named.
    """
    yield from breaker_waits_s(ledger)
    for name in names or ledger.epics:
        epic = ledger.epics[name]
        wave = epic.wave
        if wave is None or not is_alive(wave):
            continue
        yield deadline_s(wave) or 0.0
        yield calm_at_s(wave) or 0.0
        if wave.state is WaveState.RUNNING and not epic.paused:
            yield from (s.not_before_s for s in epic.stories.delayed() if s.state is StoryState.QUEUED)


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
        return epic._replace(wave=replace(wave, fewer=wave.fewer - 1, calm_since_s=now_s, ends=()))
    return epic


def _living(ledger: Ledger, names: tuple[EpicId, ...], settled: Callable[[Epic], Epic]) -> Ledger:
    """The ledger with each of these epics settled whose wave is alive."""
    epics = ((name, ledger.epics[name]) for name in names)
    after = {name: now for name, epic in epics if is_alive(epic.wave) and (now := settled(epic)) is not epic}
    return having(ledger, {**ledger.epics, **after}) if after else ledger


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
            stories = stories.put(story._replace(state=StoryState.PENDING, not_before_s=0.0))
    return epic if stories is epic.stories else epic._replace(stories=stories)


def candidates(ledger: Ledger, waiting: dict[EpicId, int] | None = None) -> Iterator[tuple[Epic, Wave, Story]]:
    """Queued stories whose time and dependencies have come, most urgent first.

    `waiting` has for each epic the mask of those to look at, which may shrink on the way; all that are ready if None.
    """
    left = waiting if waiting is not None else {name: epic.stories.ready for name, epic in ledger.epics.items()}
    first = ((nth, name, _next(ledger, name, left)) for nth, name in enumerate(left))
    line = [(urgency(found[2]), nth, name, found) for nth, name, found in first if found is not None]
    heapq.heapify(line)
    while line:
        _, nth, name, found = line[0]
        if found[2].not_before_s <= ledger.as_of_s:
            yield found
        found = _next(ledger, name, left)
        if found is None:
            heapq.heappop(line)
        else:
            heapq.heapreplace(line, (urgency(found[2]), nth, name, found))


def _next(ledger: Ledger, name: EpicId, left: dict[EpicId, int]) -> tuple[Epic, Wave, Story] | None:
    """The most urgent one of those that are left, which it then is no more; None in an epic that starts none."""
    epic, mask = ledger.epics[name], left[name]
    wave = epic.wave
    if not mask or epic.paused or wave is None or wave.state is not WaveState.RUNNING:
        return None
    left[name] = mask & (mask - 1)
    return epic, wave, epic.stories.first(mask)


def holders(ledger: Ledger) -> list[tuple[Epic, Story]]:
    """Stories of the whole repository that have begun and are not merged yet."""
    return [(epic, story) for epic in ledger.epics.values() for story in epic.stories.holding()]


def occupied(begun: Sequence[tuple[Epic, Story]], wave: Wave) -> list[tuple[Epic, Story]]:
    """Those of the `holders` that take a slot, as this wave counts them.

    One after the other (`sequential`) means that the one before is merged, so there the merge queue counts too. A
    sub-agent waits for the outcome and may have to repair: its story takes its slot until it is merged.
    """
    counted = LIVE | {StoryState.MERGING} if wave.policy.strategy is Strategy.SEQUENTIAL else LIVE
    return [(e, s) for e, s in begun if s.state in counted or (s.state is StoryState.MERGING and s.lease is not None)]


def _admit(ledger: Ledger) -> Ledger:
    """Slot and files are taken together or not at all; who cannot have both does not stand in another's way.

    While a breaker is half open, who has just had a fault comes last: another story shows better what is wrong.
    """
    begun, taken = holders(ledger), dict[Strategy, int]()
    waiting = {
        name: ready
        for name, epic in ledger.epics.items()
        if (ready := epic.stories.ready) and epic.wave is not None and not _is_full(begun, epic.wave, taken)
    }
    found = candidates(ledger, waiting) if waiting else iter(())
    if any(breaker.opened for breaker in ledger.breakers.values()):
        found = iter(sorted(found, key=lambda c: c[2].failure is not None and c[2].failure.cause in FAULTS))
    for epic, wave, story in _in_turn(found, lambda wave, story: shares(begun, wave, story)):
        name = epic.spec.id
        if _is_full(begun, wave, taken):
            waiting[name] = 0  # nobody of this wave has a slot
            continue
        if clash(ledger, begun, wave, story) is not None:
            continue
        profile = "" if is_team(epic) else choose(ledger, wave.policy, story)
        if isinstance(profile, Hold):
            continue
        ledger = _admitted(ledger, epic.spec.id, story, profile)
        begun[:], taken = holders(ledger), {}
    return ledger


def _in_turn(
    found: Iterator[tuple[Epic, Wave, Story]], is_crowded: Callable[[Wave, Story], bool]
) -> Iterator[tuple[Epic, Wave, Story]]:
    """Candidates as they are tried: who has to share files stands behind those of at least `CROWDED` of its rank."""
    crowded: deque[tuple[Epic, Wave, Story]] = deque()
    for candidate in found:
        while crowded and candidate[2].rank < CROWDED * crowded[0][2].rank:
            yield crowded.popleft()
        if is_crowded(*candidate[1:]):
            crowded.append(candidate)
        else:
            yield candidate
    yield from crowded


def _admitted(ledger: Ledger, epic_id: EpicId, story: Story, profile: str) -> Ledger:
    before = ledger.epics[epic_id]
    assert before.wave is not None, "only a wave admits"  # noqa: S101 - for the type checker
    epic = put(
        before,
        closed(story),
        state=StoryState.OFFERED,
        attempt=story.attempt + 1,
        agent=profile,
        terms=terms_of(before.wave.policy, story),
        beside_since=ledger.seq,
        adopted=False,
        ports=free_block(ledger, before.wave.policy.environment),
        base=None,
        head=None,
        proven=None,
        merge_faults=0,
        touched=(),
        clashes=(),
        lease=None,
        repairs=0,
    )
    attempt = AttemptId(epic_id, story.spec.id, story.attempt + 1)
    breakers = with_probe(ledger, (profile, REPOSITORY), attempt) if profile else ledger.breakers
    return having(ledger, {**ledger.epics, epic_id: epic}, breakers)


def _is_full(begun: Sequence[tuple[Epic, Story]], wave: Wave, taken: dict[Strategy, int]) -> bool:
    """True when the wave has no slot left. `taken` keeps what was counted of `begun`."""
    kind = wave.policy.strategy
    if kind not in taken:
        taken[kind] = len(occupied(begun, wave))
    return taken[kind] >= slots_of(wave)


def _end(epic: Epic) -> Epic:
    wave = epic.wave
    if wave is None or any(s.spec.id in wave.members for s in epic.stories.in_state(*UNDER_WAY)):
        return epic
    return epic._replace(wave=replace(wave, state=WaveState.FINISHED))
