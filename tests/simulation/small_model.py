"""Breadth first through every state that a small epic can reach, with the invariants checked in each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from mcp_server.core import breakers, interrupted, outcomes
from mcp_server.core.breakers import probe_ends_s
from mcp_server.core.commands import CancelEpic, CancelStory, Command, RetryStory, SkipStory, SteerCommand
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import AttemptFailed, Event, Fact, StoryRetried, WaveStarted, WaveWidened
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check, check_settled, check_step
from mcp_server.core.limits import Policy
from mcp_server.core.model import HOLDS_FILES, LIVE, SETTLED, Cause, Epic, Ledger, Story, StoryState, Wave, is_alive
from mcp_server.core.policy import FAULTS
from mcp_server.core.settle import calm_at_s, deadline_s
from mcp_server.core.spec import EpicId
from mcp_server.core.views import question
from mcp_server.core.wanted import wanted
from mcp_server.core.why import why
from mcp_server.errors import Code, Refused
from tests.core.lives import PLAIN, alarm, claims, commands, crash, holds, late, reports, taken_over, too_late

STEPS_S = 2.0
"""All waits are this long, or twice: as few moments as may be tell apart what happens first."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is searched: where it begins, what a lead may do, and the bound that keeps it finite."""

    start: Ledger
    policy: Policy
    cancels: frozenset[str]
    """Stories that the lead may cancel; the whole epic may always be."""
    most_attempts: int
    """No story is given attempts beyond this number; from it on nothing happens that would cost it none."""
    others: Mapping[EpicId, Policy] = field(default_factory=dict[EpicId, Policy])
    """Policies of single epics."""
    ends: frozenset[Cause] = PLAIN
    """How attempts may end badly."""
    steers: tuple[type[SteerCommand], ...] = ()
    """What else a lead may say."""
    usd: float = 0.0
    """What each report of costs adds; nobody reports any when it is 0."""
    crashes: bool = True
    """The engine may be killed."""
    goes_on: bool = False
    """Then its work goes on, with agents that were adopted or without."""


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
    with _few_moments():
        return _explore(model)


@contextmanager
def _few_moments() -> Generator[None]:
    waits: dict[str, Callable[..., float]] = {"backoff_s": lambda *_, **__: STEPS_S}  # pyright: ignore[reportUnknownLambdaType]
    with ExitStack() as stack:
        stack.enter_context(patch.object(outcomes, "MERGE_TRIES", 2))
        stack.enter_context(patch.object(outcomes, "backoff_s", waits["backoff_s"]))
        stack.enter_context(patch.object(breakers, "park_s", waits["backoff_s"]))
        stack.enter_context(patch.object(interrupted, "backoff_s", waits["backoff_s"]))
        yield


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
        alone: list[list[Event]] = [[event] for event in (*_reports(model, ledger), *alarm(ledger), *offered)]
        _look(model, ledger, stuck=not alone)
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
        if not _may_say(model, ledger, command):
            continue
        try:
            event = decide(ledger, command, ledger.as_of_s)
        except Refused:
            continue
        if not (isinstance(event, WaveStarted | WaveWidened | StoryRetried) and _beyond_bound(model, ledger, event)):
            yield [event]
    if model.crashes and model.goes_on:
        yield from (left for left in taken_over(ledger) if left and not _beyond_crashes(model, ledger))
    elif model.crashes and (left := crash(ledger)):
        yield left


def _beyond_crashes(model: Model, ledger: Ledger) -> bool:
    """True where one more end of an engine would only lead to attempts beyond the bound."""
    return any(s.attempt >= model.most_attempts for e in ledger.epics.values() for s in e.stories.in_state(*LIVE))


def _may_say(model: Model, ledger: Ledger, command: Command) -> bool:
    match command:
        case CancelStory() | SkipStory() | RetryStory() if command.story not in model.cancels:
            return False
        case CancelEpic():  # before the first wave it leads to nothing that a cancel during it does not
            return is_alive(ledger.epics[command.epic].wave)
        case CancelStory():
            return True
        case _:
            return not isinstance(command, SteerCommand) or isinstance(command, model.steers)


def _reports(model: Model, ledger: Ledger) -> Iterator[Fact]:
    """Rate limits and faults end, or attempts that cost nothing would be counted for ever."""
    for fact in reports(ledger, model.ends, model.usd):
        free = isinstance(fact, AttemptFailed) and fact.cause in model.ends & (FAULTS | {Cause.RATE_LIMIT})
        if not (free and fact.attempt.number >= model.most_attempts):
            yield fact


def _beyond_bound(model: Model, ledger: Ledger, event: WaveStarted | WaveWidened | StoryRetried) -> bool:
    stories = ledger.epics[event.epic].stories
    attempts = model.others.get(event.epic, model.policy).attempts
    members = (event.story,) if isinstance(event, StoryRetried) else event.members
    return any(stories[m].attempt + attempts > model.most_attempts for m in members)


def _after(ledger: Ledger, events: list[Event], found: Search) -> Ledger:
    for event in events:
        after = evolve(ledger, event)
        check(after)
        check_step(ledger, after)
        check_settled(after)
        found.steps += 1
        for name, epic in after.epics.items():
            for story_id, story in epic.stories.items():
                was = ledger.epics[name].stories[story_id].state
                if was is not story.state:
                    found.moves[str(was), type(event).__name__, str(story.state)] += 1
        ledger = after
    return ledger


def _look(model: Model, ledger: Ledger, *, stuck: bool) -> None:
    """What holds in each state besides the invariants."""
    for fact in _reports(model, ledger):
        assert accept(ledger, fact) is fact, f"{fact} of a living job is refused"
        assert accept(ledger, late(fact)) is None, f"{fact} of the attempt before is taken"
    _fenced(ledger)
    for tick in alarm(ledger):
        assert tick.at_s > ledger.as_of_s, "an alarm rings later, or it would ring for ever"
    for epic in ledger.epics.values():
        assert not (stuck and is_alive(epic.wave) and not epic.paused), (
            f"wave {epic.spec.id} lives and nothing can happen"
        )
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
    now_s = ledger.as_of_s
    epics = tuple(_epic_key(epic, now_s) for epic in ledger.epics.values())
    return epics, tuple(sorted((name, _breaker_key(ledger, name)) for name in ledger.breakers))


def _breaker_key(ledger: Ledger, name: str) -> Hashable:
    """How often in a row it opened counts up to where its cool-down is the longest."""
    breaker, now_s = ledger.breakers[name], ledger.as_of_s
    probed_s = probe_ends_s(ledger, breaker)
    return (
        0 if breaker.opened else breaker.faults,
        min(breaker.opened, 2),
        max(0.0, breaker.until_s - now_s) if breaker.opened else 0.0,
        max(0.0, breaker.parked_until_s - now_s),
        str(breaker.probe),
        max(0.0, probed_s - now_s) if probed_s is not None else -1.0,
    )


def _epic_key(epic: Epic, now_s: float) -> Hashable:
    wave = epic.wave
    queue = sorted(s.merge_rank for s in epic.stories.values() if s.state is StoryState.MERGING)
    stories = tuple(
        (
            s.state,
            s.attempt if s.state not in SATISFIED else 0,
            s.budget if s.state not in SETTLED | {StoryState.PENDING} else 0,
            max(0.0, s.not_before_s - now_s) if s.state in (StoryState.QUEUED, StoryState.MERGING) else 0.0,
            queue.index(s.merge_rank) if s.state is StoryState.MERGING else 0,
            s.head is None,
            s.proven is None or s.state is StoryState.MERGED,
            s.merge_faults if s.state is StoryState.MERGING else 0,
            bool(question(s)),
            _lease_key(epic, s, now_s),
            _story_key(s),
        )
        for s in epic.stories.values()
    )
    alive = wave is not None and is_alive(wave)
    told = bool(epic.paused), epic.used
    return stories, told, _wave_key(wave, now_s) if wave is not None and alive else wave is None


SATISFIED = frozenset({StoryState.MERGED})


def _story_key(s: Story) -> Hashable:
    """What policies remember of it."""
    if s.state in SATISFIED:
        return None
    faulted = s.state is StoryState.QUEUED and s.failure is not None and s.failure.cause in FAULTS
    agent = s.agent if s.state in LIVE else ""
    return faulted, agent, s.faults, s.stop_cause, s.used, s.using, s.forgiven


def _wave_key(wave: Wave, now_s: float) -> Hashable:
    waits = (deadline_s(wave) or 0.0, calm_at_s(wave) or 0.0)
    return wave.state, wave.members, wave.fewer, wave.ends, *(max(0.0, wait_s - now_s) for wait_s in waits)


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
