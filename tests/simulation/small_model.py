"""Breadth first through every state that a small epic can reach, with the invariants checked in each."""

from __future__ import annotations

import importlib
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from unittest.mock import patch

from mcp_server.core.commands import CancelEpic, CancelStory
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import Event, WaveStarted, WaveWidened
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.model import HOLDS_FILES, SETTLED, Epic, EpicId, Ledger, Policy, Story, StoryState, is_alive
from mcp_server.core.views import question
from mcp_server.core.wanted import wanted
from mcp_server.core.why import why
from mcp_server.errors import Code, Refused
from tests.core.lives import alarm, claims, commands, crash, holds, late, reports, too_late


@dataclass(frozen=True, slots=True)
class Model:
    """What is searched: where it begins, what a lead may do, and the bound that keeps it finite."""

    start: Ledger
    policy: Policy
    cancels: frozenset[str]
    """Stories that the lead may cancel; the whole epic may always be."""
    most_attempts: int
    """No story is given attempts beyond this number."""
    others: Mapping[EpicId, Policy] = field(default_factory=dict[EpicId, Policy])
    """Policies of single epics."""


@dataclass(slots=True)
class Search:
    """What was found."""

    states: int = 0
    steps: int = 0
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """How often a story went from one state by a kind of event to another."""


def explore(model: Model) -> Search:
    """Every reachable state. Raises AssertionError with the broken sentence at the first state that breaks one.

    Merges are tried twice: more tries would only repeat the same states.
    """
    with patch.object(importlib.import_module("mcp_server.core.outcomes"), "MERGE_TRIES", 2):
        return _explore(model)


def _explore(model: Model) -> Search:
    found = Search()
    keys = {_key(model.start): 0}
    todo = deque([model.start])
    by_itself: list[list[int]] = []  # for each state, those that it comes to without lead, holders of leases, and crash
    at_rest: list[int] = []
    while todo:
        ledger = todo.popleft()
        number = len(by_itself)
        by_itself.append([])
        offered = (decide(ledger, claim, ledger.as_of_s) for claim in claims(ledger))
        alone: list[list[Event]] = [[event] for event in (*reports(ledger), *alarm(ledger), *offered)]
        _look(ledger, stuck=not alone)
        if not alone:
            at_rest.append(number)
        for index, events in enumerate((*alone, *_from_outside(model, ledger))):
            after = _after(ledger, events, found)
            key = _key(after)
            if key not in keys:
                keys[key] = len(keys)
                todo.append(after)
            if index < len(alone):
                by_itself[number].append(keys[key])
    found.states = len(keys)
    lost = _never_at_rest(by_itself, at_rest)
    assert not lost, f"{lost} states never come to rest by themselves"
    return found


def _from_outside(model: Model, ledger: Ledger) -> Iterator[list[Event]]:
    """What the lead, who holds a story, or a crash may do here: events that happen together."""
    for report in holds(ledger):
        yield [decide(ledger, report, ledger.as_of_s)]
    for command in commands(ledger, model.policy, others=model.others):
        if isinstance(command, CancelStory) and command.story not in model.cancels:
            continue
        if isinstance(command, CancelEpic) and not is_alive(ledger.epics[command.epic].wave):
            continue  # a cancel before the first wave leads to nothing that a cancel during it does not
        try:
            event = decide(ledger, command, ledger.as_of_s)
        except Refused:
            continue
        if not (isinstance(event, WaveStarted | WaveWidened) and _beyond_bound(model, ledger, event)):
            yield [event]
    if left := crash(ledger):
        yield left


def _beyond_bound(model: Model, ledger: Ledger, event: WaveStarted | WaveWidened) -> bool:
    stories = ledger.epics[event.epic].stories
    attempts = model.others.get(event.epic, model.policy).attempts
    return any(stories[m].attempt + attempts > model.most_attempts for m in event.members)


def _after(ledger: Ledger, events: list[Event], found: Search) -> Ledger:
    for event in events:
        after = evolve(ledger, event)
        check(after)
        found.steps += 1
        for name, epic in after.epics.items():
            for story_id, story in epic.stories.items():
                was = ledger.epics[name].stories[story_id].state
                if was is not story.state:
                    found.moves[str(was), type(event).__name__, str(story.state)] += 1
        ledger = after
    return ledger


def _look(ledger: Ledger, *, stuck: bool) -> None:
    """What holds in each state besides the invariants."""
    for fact in reports(ledger):
        assert accept(ledger, fact) is fact, f"{fact} of a living job is refused"
        assert accept(ledger, late(fact)) is None, f"{fact} of the attempt before is taken"
    _fenced(ledger)
    for tick in alarm(ledger):
        assert tick.at_s > ledger.as_of_s, "an alarm rings later, or it would ring for ever"
    for epic in ledger.epics.values():
        assert not (stuck and is_alive(epic.wave)), f"wave {epic.spec.id} lives and nothing can happen"
        for story in epic.stories.values():
            silent = story.state in (StoryState.RUNNING, StoryState.MERGED)
            assert why(ledger, epic, story) or silent, f"{story.spec.id} is {story.state} and nobody knows why"
    assert not stuck or not wanted(ledger), "a job that can report nothing"


def _fenced(ledger: Ledger) -> None:
    """Every report of somebody who holds no story any more is refused as such."""
    for report in too_late(ledger):
        try:
            event = decide(ledger, report, ledger.as_of_s)
        except Refused as refused:
            assert refused.code is Code.LEASE_LOST, refused  # noqa: PT017 - any other refusal tells the wrong thing
        else:
            raise AssertionError(f"{report} comes too late and is taken for {event}")


def _never_at_rest(by_itself: list[list[int]], at_rest: list[int]) -> int:
    """How many states have no way by facts and ticks alone to one where nothing moves."""
    before: list[list[int]] = [[] for _ in by_itself]
    for number, following in enumerate(by_itself):
        for after in following:
            before[after].append(number)
    known = set(at_rest)
    todo = list(at_rest)
    while todo:
        for number in before[todo.pop()]:
            if number not in known:
                known.add(number)
                todo.append(number)
    return len(by_itself) - len(known)


def _key(ledger: Ledger) -> Hashable:
    """The state without what changes nothing: the clock (waits are relative), texts, numbers of waves and of merges."""
    return tuple(_epic_key(epic, ledger.as_of_s) for epic in ledger.epics.values())


def _epic_key(epic: Epic, now_s: float) -> Hashable:
    wave = epic.wave
    queue = sorted(s.merge_rank for s in epic.stories.values() if s.state is StoryState.MERGING)
    stories = tuple(
        (
            s.state,
            s.attempt if s.state is not StoryState.MERGED else 0,
            s.budget if s.state not in SETTLED | {StoryState.PENDING} else 0,
            max(0.0, s.not_before_s - now_s) if s.state in (StoryState.QUEUED, StoryState.MERGING) else 0.0,
            queue.index(s.merge_rank) if s.state is StoryState.MERGING else 0,
            s.head is None,
            s.proven is None or s.state is StoryState.MERGED,
            s.merge_faults if s.state is StoryState.MERGING else 0,
            bool(question(s)),
            _lease_key(epic, s, now_s),
        )
        for s in epic.stories.values()
    )
    alive = wave is not None and is_alive(wave)
    return stories, (wave.state, wave.members) if wave is not None and alive else wave is None


def _lease_key(epic: Epic, story: Story, now_s: float) -> Hashable:
    """How long it still lasts and can be made to last, until it is over; its end, which is told after the merge."""
    lease, wave = story.lease, epic.wave
    if lease is None or wave is None or story.state not in HOLDS_FILES:
        return None
    cause = lease.ended[0] if lease.ended is not None else None
    if story.state is not StoryState.RUNNING or cause is not None:
        return cause, story.repairs
    most_s = lease.began_s + wave.policy.attempt_timeout_s
    return max(0.0, lease.until_s - now_s), story.repairs, None if story.repairs else max(0.0, most_s - now_s)
