"""Breadth first through every state that a small epic can reach, with the invariants checked in each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from mcp_server.core.commands import CancelEpic, CancelStory
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import Event, WaveStarted, WaveWidened
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.model import SETTLED, Epic, Ledger, Policy, StoryState, is_alive
from mcp_server.core.wanted import wanted
from mcp_server.core.why import why
from mcp_server.errors import Refused
from tests.core.lives import alarm, commands, crash, late, reports


@dataclass(frozen=True, slots=True)
class Model:
    """What is searched: where it begins, what a lead may do, and the bound that keeps it finite."""

    start: Ledger
    policy: Policy
    cancels: frozenset[str]
    """Stories that the lead may cancel; the whole epic may always be."""
    most_attempts: int
    """No story is given attempts beyond this number."""


@dataclass(slots=True)
class Search:
    """What was found."""

    states: int = 0
    steps: int = 0
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """How often a story went from one state by a kind of event to another."""


def explore(model: Model) -> Search:
    """Every reachable state. Raises AssertionError with the broken sentence at the first state that breaks one."""
    found = Search()
    keys = {_key(model.start): 0}
    todo = deque([model.start])
    by_itself: list[list[int]] = []  # for each state, those that it comes to without the lead and without a crash
    at_rest: list[int] = []
    while todo:
        ledger = todo.popleft()
        number = len(by_itself)
        by_itself.append([])
        alone: list[list[Event]] = [[event] for event in (*reports(ledger), *alarm(ledger))]
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
    """What the lead or a crash may do here: events that happen together."""
    for command in commands(ledger, model.policy):
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
    return any(stories[m].attempt + model.policy.attempts > model.most_attempts for m in event.members)


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
    for tick in alarm(ledger):
        assert tick.at_s > ledger.as_of_s, "an alarm rings later, or it would ring for ever"
    for epic in ledger.epics.values():
        assert not (stuck and is_alive(epic.wave)), f"wave {epic.spec.id} lives and nothing can happen"
        for story in epic.stories.values():
            silent = story.state in (StoryState.RUNNING, StoryState.MERGED)
            assert why(ledger, epic, story) or silent, f"{story.spec.id} is {story.state} and nobody knows why"
    assert not stuck or not wanted(ledger), "a job that can report nothing"


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
        )
        for s in epic.stories.values()
    )
    alive = wave is not None and is_alive(wave)
    return stories, (wave.state, wave.members) if wave is not None and alive else wave is None
