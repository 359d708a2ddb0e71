"""Start, recover, run, stop. What a crash left is reported as ordinary facts: recovery is the normal door."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio

from mcp_server.core.events import BranchMerged, EpicPaused, Event, WaveInterrupted
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import Check, check, check_step
from mcp_server.core.model import LIVE, Epic, Ledger, StoryState, WaveState, is_alive, is_team
from mcp_server.core.spec import AttemptId
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.landed import found_merges
from mcp_server.engine.merging import forget, has_landed
from mcp_server.engine.rollback import found_rollbacks
from mcp_server.errors import Fault
from mcp_server.ports import Left, Ports

CLOSE_S = 60.0
"""Time that saving unfinished work may take when the engine closes, in seconds."""
RESUME_S = 900.0
"""After so long without a fact, and without an agent that still runs, a wave is paused and does not just go on: a
machine that comes back after a night must not start agents by itself."""


def replay(ports: Ports) -> Ledger:
    """The ledger that the journal tells of. Raises `Refused(journal_unreadable)`."""
    ledger = Ledger()
    for event in ports.journal.replay():
        ledger = evolve(ledger, event)
    check(ledger)
    return ledger


@dataclass(frozen=True, slots=True)
class Manner:
    """How a wave fares whose engine is gone: it ends and everything is put back, or its work goes on."""

    goes_on: bool = False
    adopts: bool = False
    """There is an engine to follow the agents that are left; the end of one leaves nobody."""
    tell: Callable[[str], None] = lambda _: None
    """Hears one sentence an epic: who was adopted, who starts again, what is paused."""


@asynccontextmanager
async def running(
    ports: Ports, check_each: Check = check_step, *, goes_on: bool = False, tell: Callable[[str], None] = lambda _: None
) -> AsyncGenerator[Engine]:
    """The engine of a repository, alive within the block. On the way out every job is stopped and its work is saved.

    The caller holds the repository's lock: there is one engine at a time. `check_each` looks at every change; tests
    pass a thorough one. `goes_on`: the waves of an engine that is gone live on, its agents are adopted where they can
    be followed, ours may outlive us, and after our end the next engine goes on; `tell` hears what was found.
    """
    ledger = await recover(replay(ports), ports, Manner(goes_on, goes_on, tell))
    group = anyio.create_task_group()
    engine = Engine(ledger, ports, group, check_each, goes_on=goes_on)
    try:
        async with group:
            engine.start()
            try:
                yield engine
            finally:
                engine.leave()
            group.cancel_scope.cancel()
    finally:
        engine.end()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S):
            await _leave(engine, Manner(goes_on))


async def _leave(engine: Engine, manner: Manner) -> None:
    """Tidy up at the end. What the world does not let us do now, the next engine does when it recovers."""
    with suppress(Fault):
        engine.ledger = await recover(engine.ledger, engine.ports, manner)
    for epic in engine.ledger.epics.values():
        if epic.wave is not None:
            with suppress(Fault):
                await engine.ports.merge.close(epic.spec.id)
                await engine.ports.land.close(epic.spec.id)


async def recover(ledger: Ledger, ports: Ports, manner: Manner) -> Ledger:
    """Report what an engine that is gone left: merges that git has already; interrupted attempts, their work saved.

    Safe to repeat. Merges that were under way stay in the queue; they cost no agent and go on by themselves.
    Raises `Fault` when git cannot even say what is left.
    """
    left = await _looked_for(ledger, ports) if manner.adopts else {}
    if manner.adopts and Left.RUNS not in left.values():
        for event in _paused(ledger, ports.clock.now_s()):
            ledger = _stored(ledger, ports, event)
            manner.tell(f"Epic {event.epic!r} is paused: {event.reason}.")
    for event in await found_rollbacks(ledger, ports, max(ports.clock.now_s(), ledger.as_of_s)):
        ledger = _stored(ledger, ports, event)
    for event in await found_merges(ledger, ports, max(ports.clock.now_s(), ledger.as_of_s)):
        ledger = _stored(ledger, ports, event)
    for attempt in await ports.worktrees.held():
        await clear(ledger, ports, attempt)
    for epic in list(ledger.epics.values()):
        for event in await _left_over(epic, ports, max(ports.clock.now_s(), ledger.as_of_s), manner, left):
            ledger = _stored(ledger, ports, event)
            if isinstance(event, WaveInterrupted) and manner.goes_on:
                manner.tell(_in_words(epic, event))
    return ledger


async def _looked_for(ledger: Ledger, ports: Ports) -> dict[AttemptId, Left]:
    """What is left of every agent that is alive as far as the journal knows."""
    found: dict[AttemptId, Left] = {}
    for name, epic in ledger.epics.items():
        for story in epic.stories.in_state(*LIVE):
            if story.process is not None:
                attempt = AttemptId(name, story.spec.id, story.attempt)
                found[attempt] = await ports.runner.look_for(attempt, story.process)
    return found


def _paused(ledger: Ledger, now_s: float) -> list[EpicPaused]:
    """Waves that nobody has looked after for long: a lead has to say that they go on.

    Dated when the last engine was heard of, and before all else: at any later moment another epic may start something.
    """
    away_s = now_s - ledger.as_of_s
    if away_s <= RESUME_S:
        return []
    reason = f"no engine was there for {away_s / 60:.0f} minutes, and nothing starts by itself after so long"
    return [
        EpicPaused(name, reason, ledger.as_of_s)
        for name, epic in ledger.epics.items()
        if epic.wave is not None and epic.wave.state is WaveState.RUNNING and not epic.paused and not is_team(epic)
    ]


def _in_words(epic: Epic, event: WaveInterrupted) -> str:
    """Who was adopted and who was not, for the log of the host."""
    gone = [s.spec.id for s in epic.stories.in_state(*LIVE) if s.spec.id not in event.adopted]
    told = [f"adopted {', '.join(event.adopted)}"] if event.adopted else []
    told += [f"ended and saved {', '.join(gone)}"] if gone else []
    return f"Epic {event.epic!r} goes on after the end of its engine: {'; '.join(told) or 'nobody was at work'}."


def _stored(ledger: Ledger, ports: Ports, event: Event) -> Ledger:
    after = evolve(ledger, event)
    check(after)
    ports.journal.append([event])
    return after


def is_over(ledger: Ledger, attempt: AttemptId) -> bool:
    """True when nobody needs what is left of an attempt. What the journal does not know is somebody else's."""
    epic = ledger.epics.get(attempt.epic)
    story = epic.stories.get(attempt.story) if epic is not None else None
    if story is None or attempt.number > story.attempt:
        return False
    return attempt.number < story.attempt or story.state not in LIVE | {StoryState.MERGING}


async def clear(ledger: Ledger, ports: Ports, attempt: AttemptId) -> None:
    """Save and remove what is ours and over; anything else stays."""
    if not is_over(ledger, attempt):
        return
    story = ledger.epics[attempt.epic].stories[attempt.story]
    if attempt.number == story.attempt and story.state is StoryState.MERGED:
        await forget(ports, attempt, story.lease)
    else:
        await saved_work(ports, attempt)


async def _left_over(
    epic: Epic, ports: Ports, now_s: float, manner: Manner, left: Mapping[AttemptId, Left]
) -> list[Event]:
    events: list[Event] = []
    if is_team(epic) and is_alive(epic.wave):  # the editor's sub-agents are not our children: leases tell who is alive
        return events
    saved: list[tuple[str, str]] = []
    adopted: list[str] = []
    name = epic.spec.id
    for story in epic.stories.values():
        if story.state not in LIVE:
            continue
        attempt = AttemptId(name, story.spec.id, story.attempt)
        if story.state is StoryState.RUNNING and left.get(attempt, Left.GONE) is not Left.GONE:
            adopted.append(story.spec.id)
            continue
        if story.head is None:  # an agent may have been started, and its claim not be on record
            await ports.runner.end_leftover(attempt, story.process)
        if story.proven is not None and await has_landed(ports, attempt, story.proven):
            await forget(ports, attempt, story.lease)
            events.append(BranchMerged(attempt, story.proven.head, story.files_changed, now_s))
        elif (ref := await saved_work(ports, attempt)) is not None:
            saved.append((story.spec.id, ref))
    if epic.stories.any_in(*LIVE) or (is_alive(epic.wave) and not manner.goes_on):
        events.append(WaveInterrupted(name, tuple(saved), now_s, manner.goes_on, tuple(adopted)))
    return events
