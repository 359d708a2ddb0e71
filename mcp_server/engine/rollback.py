"""Taking merged stories off the integration branch: reverted aside, checked, put on record, and only then moved."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from mcp_server.core.events import Rollback, RollbackGivenUp, RollbackProven, StoriesRolledBack
from mcp_server.core.limits import Policy
from mcp_server.core.model import Epic, Ledger, RollingBack, Story
from mcp_server.core.policy import backoff_s
from mcp_server.core.rollback import still_stands, to_roll_back
from mcp_server.core.spec import AttemptId, EpicId, StoryId
from mcp_server.engine.engine import Engine
from mcp_server.engine.landing import PATHS_SHOWN, desks
from mcp_server.engine.merging import LOOKS
from mcp_server.engine.proving import prove
from mcp_server.errors import Code, Fault, Refused
from mcp_server.land_port import Clash, Desk, Reverts, Undo
from mcp_server.ports import Ports

TIP_MOVES = 5
"""Times a rollback starts again because a story was merged meanwhile."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """What is asked for."""

    epic: EpicId
    story: StoryId
    reason: str
    with_dependants: bool = False


async def roll_back(engine: Engine, asked: RollBack, policy: Policy) -> StoriesRolledBack:
    """Take a merged story back, and those that build on it when they are asked for. `policy` has the checks.

    Raises `Refused` and `Fault`; the integration branch is as it was then.
    """
    async with desks(engine.ports, asked.epic):
        await _finish_earlier(engine, asked.epic)
        for _ in range(TIP_MOVES):
            told = await _tried(engine, asked, policy)
            if told is not None:
                return told
    raise Refused(
        Code.BRANCH_MOVED,
        f"Other stories were merged {TIP_MOVES} times while the tree without {asked.story!r} was being checked.",
        "Pause the epic (steer_epic), wait until what is in flight is merged, then roll it back.",
    )


async def _tried(engine: Engine, asked: RollBack, policy: Policy) -> StoriesRolledBack | None:
    """None when the branch has moved on meanwhile: then it is to be tried again."""
    name, ports = asked.epic, engine.ports
    stories = to_roll_back(engine.ledger, name, asked.story, with_dependants=asked.with_dependants)
    epic = engine.ledger.epics[name]
    reverts = await ports.land.revert(name, [_undo(name, story) for story in stories], asked.reason)
    if isinstance(reverts, Clash):
        raise _clash(epic, stories, reverts)
    going = tuple(s.spec.id for s in stories)
    runs = await prove(ports, epic, policy, Desk.ROLLBACK, reverts.head, going)
    rolling = RollingBack(
        going,
        tuple(s.attempt for s in stories),
        tuple(s.merged_as or "" for s in stories),
        reverts.onto,
        reverts.head,
        runs,
        asked.reason,
    )
    if not still_stands(engine.ledger, name, rolling) or engine.ledger.epics[name].rolling is not None:
        return None  # the next look at it says why it may not be
    engine.submit(RollbackProven(name, rolling, engine.now_s()))
    fact = await _moved(engine, name, rolling)
    return fact if isinstance(fact, StoriesRolledBack) else None


async def _moved(engine: Engine, name: EpicId, rolling: RollingBack) -> Rollback:
    """Git moves, or does not, and that is told. After `LOOKS` faults it is left on record, to be asked again."""
    fact: Rollback | None = None
    faults = 0
    with anyio.CancelScope(shield=True):  # once git moves, the fact must follow
        while fact is None:
            try:
                fact = await outcome(engine.ports, name, rolling, engine.now_s())
            except Fault:
                faults += 1
                if faults == LOOKS:
                    raise
                await anyio.sleep(backoff_s(faults))
    assert fact is not None, "it came out somehow"  # noqa: S101 - for the type checker
    engine.submit(fact)
    return fact


def _undo(name: EpicId, story: Story) -> Undo:
    """Where its own commits begin is known when the proof is of this very merge, and not empty."""
    proven, head = story.proven, story.merged_as or ""
    own = proven is not None and proven.head == head != proven.onto
    return Undo(
        AttemptId(name, story.spec.id, story.attempt), head, proven.onto if own and proven is not None else None
    )


async def outcome(ports: Ports, name: EpicId, rolling: RollingBack, at_s: float) -> Rollback:
    """Bring a rollback that is on record to its end in git, or find it there. Raises `Fault`: it stays on record."""
    undos = [
        Undo(AttemptId(name, story, attempt), head)
        for story, attempt, head in zip(rolling.stories, rolling.attempts, rolling.heads, strict=True)
    ]
    saved = await ports.land.take_back(name, undos, Reverts(rolling.onto, rolling.head))
    if saved is None:
        return RollbackGivenUp(name, at_s)
    return StoriesRolledBack(name, tuple((attempt.story, ref) for attempt, ref in saved.items()), at_s)


async def _finish_earlier(engine: Engine, name: EpicId) -> None:
    """One that a fault of the world's has left on record comes to its end first."""
    epic = engine.ledger.epics.get(name)
    if epic is not None and epic.rolling is not None:
        await _moved(engine, name, epic.rolling)


async def found_rollbacks(ledger: Ledger, ports: Ports, at_s: float) -> list[Rollback]:
    """How those came out that an engine which is gone has left on record. Raises `Fault`."""
    return [
        await outcome(ports, name, epic.rolling, at_s)
        for name, epic in ledger.epics.items()
        if epic.rolling is not None
    ]


def _clash(epic: Epic, stories: tuple[Story, ...], clash: Clash) -> Refused:
    """Who has changed the same files since is named: their work is built on what would go."""
    name, oldest = epic.spec.id, min(story.changed for story in stories)
    going = {story.spec.id for story in stories}
    later = [
        s.spec.id
        for s in sorted(epic.stories.values(), key=lambda s: s.changed, reverse=True)
        if s.merged_as and s.changed > oldest and s.spec.id not in going and {*s.files_changed} & {*clash.paths}
    ]
    whose = f" {', '.join(later)} changed them after it." if later else ""
    first = f"roll {', '.join(later)} back first, or " if later else ""
    head = stories[-1].merged_as or ""
    return Refused(
        Code.CONFLICT,
        f"{stories[-1].spec.id!r} cannot be taken back: what was merged later conflicts with that in: "
        f"{', '.join(clash.paths[:PATHS_SHOWN])}.{whose} Nothing was changed.",
        f"Either {first}write a story that undoes it by hand (`git show {head[:12]}`, on epicwave/{name}).",
    )
