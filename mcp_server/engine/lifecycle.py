"""Start, recover, run, stop. What a crash left is reported as ordinary facts: recovery is the normal door."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio

from mcp_server.core.events import BranchMerged, Event, WaveInterrupted
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import Check, check, check_step
from mcp_server.core.model import LIVE, AttemptId, Epic, Ledger, StoryState, is_alive, is_team
from mcp_server.engine.engine import Engine
from mcp_server.engine.jobs import forget, has_landed, saved_work
from mcp_server.engine.landed import found_merges
from mcp_server.errors import Fault
from mcp_server.ports import Ports

CLOSE_S = 60.0
"""Time that saving unfinished work may take when the engine closes, in seconds."""


def replay(ports: Ports) -> Ledger:
    """The ledger that the journal tells of. Raises `Refused(journal_unreadable)`."""
    ledger = Ledger()
    for event in ports.journal.replay():
        ledger = evolve(ledger, event)
    check(ledger)
    return ledger


@asynccontextmanager
async def running(ports: Ports, check_each: Check = check_step) -> AsyncGenerator[Engine]:
    """The engine of a repository, alive within the block. On the way out every job is stopped and its work is saved.

    The caller holds the repository's lock: there is one engine at a time. `check_each` looks at every change; tests
    pass a thorough one.
    """
    ledger = await recover(replay(ports), ports)
    group = anyio.create_task_group()
    engine = Engine(ledger, ports, group, check_each)
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
            await _leave(engine)


async def _leave(engine: Engine) -> None:
    """Tidy up at the end. What the world does not let us do now, the next engine does when it recovers."""
    with suppress(Fault):
        engine.ledger = await recover(engine.ledger, engine.ports)
    for epic in engine.ledger.epics.values():
        if epic.wave is not None:
            with suppress(Fault):
                await engine.ports.merge.close(epic.spec.id)


async def recover(ledger: Ledger, ports: Ports) -> Ledger:
    """Report what an engine that is gone left: merges that git has already; interrupted attempts, their work saved.

    Safe to repeat. Merges that were under way stay in the queue; they cost no agent and go on by themselves.
    Raises `Fault` when git cannot even say what is left.
    """
    for event in await found_merges(ledger, ports, max(ports.clock.now_s(), ledger.as_of_s)):
        ledger = _stored(ledger, ports, event)
    for attempt in await ports.worktrees.held():
        await clear(ledger, ports, attempt)
    for epic in list(ledger.epics.values()):
        for event in await _left_over(epic, ports, max(ports.clock.now_s(), ledger.as_of_s)):
            ledger = _stored(ledger, ports, event)
    return ledger


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


async def _left_over(epic: Epic, ports: Ports, now_s: float) -> list[Event]:
    events: list[Event] = []
    if is_team(epic) and is_alive(epic.wave):  # the editor's sub-agents are not our children: leases tell who is alive
        return events
    saved: list[tuple[str, str]] = []
    name = epic.spec.id
    for story in epic.stories.values():
        if story.state not in LIVE:
            continue
        attempt = AttemptId(name, story.spec.id, story.attempt)
        if story.process is not None:
            await ports.runner.end_leftover(story.process)
        if story.proven is not None and await has_landed(ports, attempt, story.proven):
            await forget(ports, attempt, story.lease)
            events.append(BranchMerged(attempt, story.proven.head, story.files_changed, now_s))
        elif (ref := await saved_work(ports, attempt)) is not None:
            saved.append((story.spec.id, ref))
    if is_alive(epic.wave) or any(s.state in LIVE for s in epic.stories.values()):
        events.append(WaveInterrupted(name, tuple(saved), now_s))
    return events
