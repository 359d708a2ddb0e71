"""What is always true. `check` runs after every event, in production too; a breach is our bug and stops the engine."""

from __future__ import annotations

from itertools import combinations

from mcp_server.core.breakers import profile_of
from mcp_server.core.footprint import overlap
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
    WaveState,
    is_alive,
    is_team,
)
from mcp_server.core.settle import dependencies_merged
from mcp_server.core.spending import epic_share
from mcp_server.core.wanted import Integrate, next_wake_s, wanted

ACTIVE = frozenset({StoryState.OFFERED, StoryState.RUNNING})


def check(ledger: Ledger) -> None:
    """Raise AssertionError with the broken sentence when one does not hold."""
    alive = [s for e in ledger.epics.values() for s in e.stories.values() if s.state in LIVE and s.head is None]
    waves = [e.wave for e in ledger.epics.values() if e.wave is not None and is_alive(e.wave)]
    slots = max((w.policy.slots for w in waves), default=0)
    assert len(alive) <= slots, "no more attempts are alive than there are slots"
    for epic in ledger.epics.values():
        for story in epic.stories.values():
            _check_story(epic, story)
        _check_wave(epic)
    _check_files(ledger)
    jobs = wanted(ledger)
    assert len({j.attempt[:2] for j in jobs}) == len(jobs), "a story has at most one job"
    integrations = [j.attempt.epic for j in jobs if isinstance(j, Integrate)]
    assert len(set(integrations)) == len(integrations), "an epic merges one story at a time"
    _check_breakers(ledger)
    if any(e.wave is not None and is_alive(e.wave) and not e.paused for e in ledger.epics.values()):
        stopping = any(s.state is StoryState.STOPPING for e in ledger.epics.values() for s in e.stories.values())
        offered = any(claimable(ledger, epic) for epic in ledger.epics.values())
        awaited = jobs or stopping or offered or next_wake_s(ledger) is not None
        assert awaited, "a living wave waits for something that will come"


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
        for epic in ledger.epics.values():
            for story in epic.stories.values():
                if breaker.opened and story.state is StoryState.OFFERED and not is_team(epic):
                    counts = name in (REPOSITORY, profile_of(epic, story))
                    earlier = story.changed < breaker.changed
                    probes = breaker.probe == attempt_of(epic, story)
                    assert not counts or earlier or probes, f"breaker {name}: open, it starts nothing but its probe"


def _check_wave(epic: Epic) -> None:
    if is_alive(epic.wave) and epic_share(epic) >= 1.0:
        spending = [s.spec.id for s in epic.stories.values() if s.state in ACTIVE]
        assert not spending, f"{epic.spec.id}: nothing is at work when the budget is spent"
    if epic.wave is None or epic.wave.state is not WaveState.FINISHED:
        return
    rest = SETTLED | {StoryState.PENDING, StoryState.MERGING}
    for story in epic.stories.values():
        stopped_merge = story.state is StoryState.STOPPING and story.head is not None
        assert story.state in rest or stopped_merge, f"{epic.spec.id}: a finished wave leaves no attempt alive"


def _check_files(ledger: Ledger) -> None:
    """An attempt never works beside one that holds its files, unless one of their waves was told not to look."""
    held = [
        (e, s)
        for e in ledger.epics.values()
        for s in e.stories.values()
        if s.state in HOLDS_FILES and s.spec.files and e.wave is not None and e.wave.policy.conflict_detection
    ]
    for (e1, a), (e2, b) in combinations(held, 2):
        if a.state not in ACTIVE and b.state not in ACTIVE:
            continue
        names = f"{e1.spec.id}/{a.spec.id} and {e2.spec.id}/{b.spec.id}"
        assert not overlap(a.spec.files, b.spec.files), f"{names}: overlapping stories are never in flight together"
