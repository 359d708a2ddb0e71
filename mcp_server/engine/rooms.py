"""Worktrees for sub-agents that are being set up. That may take longer than a call may: a later claim waits on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from mcp_server.core.events import AttemptFailed
from mcp_server.core.limits import Environment
from mcp_server.core.model import Cause, Ledger, Story, StoryState
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.environment import require_room, set_up
from mcp_server.errors import Code, Fault, FaultCause, Refused

WAIT_S = 40.0
"""How long a claim waits for a set-up: hosts cut calls off after 1 to 4 minutes."""


class NotYet(Refused):
    """The claim gets nothing, and no other story would do better now."""


@dataclass(slots=True)
class _Room:
    """A worktree for whoever claims its story next; `path` is None until it is set up."""

    base: Sha = ""
    path: Path | None = None
    fault: Fault | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Rooms:
    """Stores the worktrees that are being set up, or are and wait for a claim."""

    def __init__(self) -> None:
        self._rooms: dict[AttemptId, _Room] = {}

    async def ready(self, engine: Engine, attempt: AttemptId) -> tuple[Sha, Path] | None:
        """Base and worktree of an offered story, set up; None when there is nothing to set up.

        Raises `NotYet` when that takes longer than a call, or has failed: then the attempt has ended as `setup`. Raises
        `Fault`, and `Refused(engine_elsewhere)`; the offer stands then.
        """
        environment = _environment(engine, attempt)
        await require_room(engine.ports, environment)
        if not environment.setup:
            return None
        room = self._rooms.get(attempt)
        if room is None:
            room = _Room()
            engine.aside(partial(self._furnish, engine, attempt, room))
            engine.aside(partial(_give_up, engine, attempt, room))
            self._rooms[attempt] = room
        with anyio.move_on_after(WAIT_S):
            await room.ended.wait()
        if room.path is not None:
            self._rooms.pop(attempt, None)
            return room.base, room.path
        raise _not_yet(attempt, room)

    async def clear(self, attempt: AttemptId) -> None:
        """Stop setting a worktree up: whoever claims has one of its own, and nothing of ours may come in between."""
        room = self._rooms.pop(attempt, None)
        if room is not None:
            room.scope.cancel()
            await room.ended.wait()

    async def _furnish(self, engine: Engine, attempt: AttemptId, room: _Room) -> None:
        """Make the worktree and set it up, for as long as its story is offered."""
        ports = engine.ports
        try:
            with room.scope:
                room.base = await ports.merge.tip(attempt.epic)
                path = await ports.worktrees.lend(attempt, room.base, ours=True)
                own = _story(engine.ledger, attempt).ports
                assert path is not None, "ours"  # noqa: S101 - for the type checker
                await set_up(ports, _environment(engine, attempt), attempt, path, room.base, own)
                room.path = path
            if room.scope.cancelled_caught and not _is_held(engine.ledger, attempt):
                # its worktree went while somebody still wrote there, or goes now
                await saved_work(ports, attempt)
        except Fault as fault:
            room.fault = fault
            if fault.cause is FaultCause.SETUP:
                await _tell(engine, attempt, fault)
        finally:
            if room.path is None and self._rooms.get(attempt) is room:
                del self._rooms[attempt]
            room.ended.set()


async def _give_up(engine: Engine, attempt: AttemptId, room: _Room) -> None:
    """Stop setting up what is not offered any more."""
    await engine.wait_for(lambda ledger: not _is_offered(ledger, attempt))
    room.scope.cancel()


async def _tell(engine: Engine, attempt: AttemptId, fault: Fault) -> None:
    saved = await saved_work(engine.ports, attempt)
    failed = AttemptFailed(attempt, Cause.SETUP, fault.detail, fault.tail, saved, engine.now_s())
    if _is_offered(engine.ledger, attempt):  # else it was told to stop meanwhile, and its stop is told
        engine.submit(failed)


def _not_yet(attempt: AttemptId, room: _Room) -> Exception:
    fault, name = room.fault, repr(attempt.story)
    if fault is not None and fault.cause is not FaultCause.SETUP:
        return fault
    if fault is not None:
        return NotYet(Code.STORY_NOT_OFFERED, fault.detail, "That is not yours to mend: end your turn, and say so.")
    if room.ended.is_set():
        return Refused(Code.STORY_NOT_OFFERED, f"Story {name} is not offered any more.", "End your turn now.")
    return NotYet(Code.STORY_NOT_OFFERED, f"The worktree of story {name} is being set up.", "Call claim_story again.")


def _story(ledger: Ledger, attempt: AttemptId) -> Story:
    return ledger.epics[attempt.epic].stories[attempt.story]


def _is_held(ledger: Ledger, attempt: AttemptId) -> bool:
    story = _story(ledger, attempt)
    return story.state in (StoryState.RUNNING, StoryState.MERGING) and story.attempt == attempt.number


def _is_offered(ledger: Ledger, attempt: AttemptId) -> bool:
    story = _story(ledger, attempt)
    return story.state is StoryState.OFFERED and story.attempt == attempt.number


def _environment(engine: Engine, attempt: AttemptId) -> Environment:
    wave = engine.ledger.epics[attempt.epic].wave
    assert wave is not None, "only a wave offers stories"  # noqa: S101 - for the type checker
    return wave.policy.environment
