"""What is always true. `check` runs after every event, in production too; a breach is our bug and stops the engine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

from mcp_server.core.apart import contested
from mcp_server.core.blocks import taken
from mcp_server.core.breakers import CLOSED, profile_of
from mcp_server.core.leases import attempt_of, claimable
from mcp_server.core.model import (
    HOLDS_FILES,
    LIVE,
    REPOSITORY,
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
from mcp_server.core.settle import dependencies_merged, settle
from mcp_server.core.spec import Sharing, StoryId
from mcp_server.core.spending import epic_share
from mcp_server.core.wanted import Integrate, next_wake_s, wanted

ACTIVE = frozenset({StoryState.OFFERED, StoryState.RUNNING})
_REST = SETTLED | {StoryState.PENDING, StoryState.MERGING}
_RESTLESS = frozenset(StoryState) - _REST

Check = Callable[[Ledger, Ledger], None]
"""Looks at a change, from a ledger in which all holds to the next. Raises AssertionError."""


def check(ledger: Ledger) -> None:
    """Raise AssertionError with the broken sentence when one does not hold."""
    _check_slots(ledger)
    for epic in ledger.epics.values():
        assert epic.stories.is_marked_right(), f"{epic.spec.id}: what is derived of its stories agrees with them"
        for story in epic.stories.values():
            _check_story(epic, story)
        _check_wave(epic)
    _check_files(ledger, [(e, s) for e in ledger.epics.values() for s in e.stories.in_state(*ACTIVE)])
    _check_ports(ledger)
    _check_breakers(ledger)
    _check_jobs(ledger)


def check_change(before: Ledger, after: Ledger) -> None:
    """What `check` finds, given that it found nothing before, by looking only at what has changed and around it."""
    _check_slots(after)
    touched: list[tuple[Epic, Story]] = []
    for name, epic in after.epics.items():
        known = before.epics.get(name)
        if epic is not known:
            stories = _touched(known, epic)
            touched += [(epic, story) for story in stories]
            for story in stories:
                sentence = f"{name}: what is derived of its stories agrees with them"
                assert epic.stories.is_marked_right_at(story), sentence
                _check_story(epic, story)
            _check_wave(epic)
    _check_files(after, touched)
    _check_ports(after)
    _check_breakers(after)
    _check_jobs(after)


def check_step(before: Ledger, after: Ledger) -> None:
    """`check_change`, and what no state alone can show: how a story may come into its state."""
    check_change(before, after)
    for name, epic in after.epics.items():
        if epic is not before.epics.get(name):
            _check_steps(after, before.epics.get(name), epic)


def check_settled(ledger: Ledger) -> None:
    """What a fold that looks only at what a fact has touched must not miss."""
    settled = settle(ledger)
    assert settled == ledger, "all that can follow from the last fact has followed"
    assert ledger.quiet_until_s <= settled.quiet_until_s, "no moment is slept through"


def _check_steps(ledger: Ledger, before: Epic | None, epic: Epic) -> None:
    for was, story in epic.stories.since(before.stories if before is not None else None):
        name = f"{epic.spec.id}/{story.spec.id}"
        if story.state is StoryState.SKIPPED and was is not None:
            assert was.state not in HOLDS_FILES, f"{name}: skipped while nothing of it was alive"
        if story.state is StoryState.OFFERED and (was is None or was.attempt != story.attempt):
            assert not epic.paused, f"{name}: nothing starts in a paused epic"
            for profile in () if is_team(epic) else (story.agent, REPOSITORY):
                breaker = ledger.breakers.get(profile, CLOSED)
                assert breaker.parked_until_s <= ledger.as_of_s, f"{name}: nothing starts with a parked agent"
                probes = breaker.until_s <= ledger.as_of_s and breaker.probe == attempt_of(epic, story)
                assert not breaker.opened or probes, f"{name}: half open, the one probe starts"


def _touched(before: Epic | None, epic: Epic) -> list[Story]:
    """Stories of which something may be broken now: by themselves, by what they build on, by the wave."""
    stories = epic.stories
    if before is None:
        return list(stories.values())
    found: dict[StoryId, Story] = {}
    for was, story in stories.since(before.stories):
        found[story.spec.id] = story
        if was is None or was.state is not story.state:
            found.update((s.spec.id, s) for s in stories.dependents(story))
    if epic.wave != before.wave:
        found.update((s.spec.id, s) for s in stories.in_state(StoryState.QUEUED, *HOLDS_FILES))
    return list(found.values())


def _alive_waves(ledger: Ledger) -> list[Wave]:
    return [e.wave for e in ledger.epics.values() if e.wave is not None and is_alive(e.wave)]


def _check_slots(ledger: Ledger) -> None:
    alive = sum(s.head is None for e in ledger.epics.values() for s in e.stories.in_state(*LIVE))
    slots = max((w.policy.slots for w in _alive_waves(ledger)), default=0)
    assert alive <= slots, "no more attempts are alive than there are slots"


def _check_ports(ledger: Ledger) -> None:
    blocks = taken(ledger)
    assert all(a[1] <= b[0] for a, b in pairwise(blocks)), "no two attempts in flight share a port"


def _check_jobs(ledger: Ledger) -> None:
    """Of all epics together: whoever should be at work, and that a wave never waits for nothing."""
    jobs = wanted(ledger)
    assert len({j.attempt[:2] for j in jobs}) == len(jobs), "a story has at most one job"
    integrations = [j.attempt.epic for j in jobs if isinstance(j, Integrate)]
    assert len(set(integrations)) == len(integrations), "an epic merges one story at a time"
    if any(is_alive(e.wave) and not e.paused for e in ledger.epics.values()):
        stopping = any(epic.stories.any_in(StoryState.STOPPING) for epic in ledger.epics.values())
        offered = any(claimable(ledger, epic) or _waits_for_lead(epic) for epic in ledger.epics.values())
        awaited = jobs or stopping or offered or next_wake_s(ledger) is not None
        assert awaited, "a living wave waits for something that will come"


def _waits_for_lead(epic: Epic) -> bool:
    """True for a paused epic whose offers keep their slots and files from another one until it is resumed."""
    return bool(epic.paused) and epic.stories.any_in(StoryState.OFFERED)


def _check_story(epic: Epic, story: Story) -> None:
    name = f"{epic.spec.id}/{story.spec.id}"
    assert story.attempt <= story.budget or story.attempt == 0, f"{name}: no attempt beyond its budget"
    beyond = story.state in ACTIVE | {StoryState.MERGING}
    assert not beyond or dependencies_merged(epic, story), f"{name}: past queued only with its dependencies merged"
    assert story.agent or is_team(epic) or story.state not in ACTIVE, f"{name}: an attempt has an agent"
    assert (story.state is not StoryState.MERGING) or (story.head and story.base), f"{name}: merging has commits"
    alive = story.state is StoryState.RUNNING
    assert not alive or (story.process is None) != (story.lease is None), f"{name}: running has a process or a lease"
    assert not alive or (story.lease is not None) == is_team(epic), f"{name}: leases are for sub-agents of the editor"
    assert story.process is None or story.state in LIVE, f"{name}: a process only while it is alive"
    if story.state in ACTIVE | {StoryState.QUEUED}:
        assert epic.wave is not None, f"{name}: only a wave starts stories"
        assert is_alive(epic.wave), f"{name}: in flight only in a living wave"
        assert story.spec.id in epic.wave.members, f"{name}: in flight only as a member of the wave"
    if story.state is StoryState.QUEUED:
        assert epic.wave is not None and epic.wave.state is WaveState.RUNNING, f"{name}: queued only in a running wave"  # noqa: PT018


def _check_breakers(ledger: Ledger) -> None:
    for name, breaker in ledger.breakers.items():
        assert breaker.opened or breaker.probe is None, f"breaker {name}: only an open one has a probe"
        for epic in ledger.epics.values() if breaker.opened else ():
            for story in epic.stories.in_state(StoryState.OFFERED) if not is_team(epic) else ():
                counts = name in (REPOSITORY, profile_of(epic, story))
                earlier = story.changed < breaker.changed
                probes = breaker.probe == attempt_of(epic, story)
                assert not counts or earlier or probes, f"breaker {name}: open, it starts nothing but its probe"


def _check_wave(epic: Epic) -> None:
    if is_alive(epic.wave) and epic_share(epic) >= 1.0:
        assert not epic.stories.any_in(*ACTIVE), f"{epic.spec.id}: nothing is at work when the budget is spent"
    if epic.wave is None or epic.wave.state is not WaveState.FINISHED:
        return
    for story in epic.stories.in_state(*_RESTLESS):
        stopped_merge = story.state is StoryState.STOPPING and story.head is not None
        assert stopped_merge, f"{epic.spec.id}: a finished wave leaves no attempt alive"


def _check_files(ledger: Ledger, among: list[tuple[Epic, Story]]) -> None:
    """An attempt never works beside one that holds its files, unless both may: `auto` ones after a look at the chances.

    Of two, one at least is in `among`.
    """
    looked_at = [(e, s) for e, s in among if s.state in HOLDS_FILES and s.spec.footprint]
    if not looked_at:
        return
    held = [(e, s) for e in ledger.epics.values() for s in e.stories.holding() if s.spec.footprint]
    for (e1, a), (e2, b) in product(looked_at, held):
        if a is b or (a.state not in ACTIVE and b.state not in ACTIVE):
            continue
        names = f"{e1.spec.id}/{a.spec.id} and {e2.spec.id}/{b.spec.id}"
        if Sharing.EXCLUSIVE in {a.terms.overlap, b.terms.overlap}:
            shared = contested(a.spec.footprint, a.terms, b.spec.footprint, b.terms)
            assert not shared, f"{names}: overlapping stories are never in flight together"
