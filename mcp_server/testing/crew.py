"""The editor's sub-agents by chance: who comes, where it works, what goes wrong with it, and what it does then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

import anyio

from mcp_server.core.model import is_team
from mcp_server.core.spec import EpicId
from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.wire_team import ReportReply
from mcp_server.testing.fake_repository import HandRefused
from mcp_server.testing.team import AGAIN_S, DeskGone, SubAgent, commands_in
from mcp_server.testing.world import NoServer, World

T = TypeVar("T")
TRIES = 6
"""Refusals of one report after which a sub-agent gives up."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What sub-agents of a life are like; chances are between 0 and 1."""

    isolated: float = 0.5
    """Gets a desk of the host's; else it works at ours."""
    named: float = 0.5
    """The host's hooks say who calls, and tell of ends."""
    misbehaves: float = 0.0
    dies: float = 0.0
    silent: float = 0.0
    undeclared: float = 0.0
    rotten: float = 0.0
    repairs: float = 1.0
    """Mends well what it is asked to mend."""
    pace_s: float = 30.0
    """The longest time without a sign of life of one that works."""

    @classmethod
    def of(cls, chance: Random) -> Manners:
        """Some by chance."""
        return cls(
            isolated=chance.choice([0.0, 0.5, 1.0]),
            named=chance.choice([0.0, 0.5, 1.0]),
            misbehaves=chance.choice([0.0, 0.3, 0.6]),
            dies=chance.choice([0.0, 0.15, 0.3]),
            silent=chance.choice([0.0, 0.1, 0.3]),
            undeclared=chance.choice([0.0, 0.3, 0.7]),
            rotten=chance.choice([0.0, 0.2, 0.4]),
            repairs=chance.choice([0.5, 1.0]),
            pace_s=chance.choice([30.0, 200.0, 500.0]),
        )


Slip = Literal["", "uncommitted", "aside", "root", "idle", "failed", "blocked", "stops", "late"]
SLIPS: tuple[Slip, ...] = ("uncommitted", "aside", "root", "idle", "failed", "blocked", "stops", "late")


class Over(Exception):  # noqa: N818 - it says what a sub-agent is told
    """Its lease is over, whatever it does."""


class Member:
    """One sub-agent's life: stores what it is like, and whether it has claimed anything."""

    def __init__(self, agent: SubAgent, chance: Random, manners: Manners) -> None:
        self.agent = agent
        self.chance = chance
        self.manners = manners
        self.is_starting = True
        self.is_free = False
        """It was told that its story is over."""
        self.slip: Slip = chance.choice(SLIPS) if self._is(manners.misbehaves) else ""
        self.dies_at = chance.choice(["work", "queue", "repair"]) if self._is(manners.dies) else ""
        self.heeds = self._is(0.8)
        self.shares = ("shared.txt",) if self._is(manners.undeclared) else ()
        agent.reply_s = chance.choice([0.0, 0.0, 2.0])
        agent.human_s = chance.uniform(0, 200) if self._is(0.3) else None

    @property
    def has_claimed(self) -> bool:
        """True when it holds or has held a lease."""
        return self.agent.claimed is not None

    async def live(self, epic: EpicId) -> None:
        """From its claim to the end of its turn."""
        try:
            with suppress(Over, DeskGone):
                await self._turn(epic)
            if self.slip == "late" and self.has_claimed:
                await self._linger()
            elif self.is_free and self._is(0.2) and self._is_tidy():
                with suppress(Over, DeskGone):
                    await self._turn(epic)
        except HandRefused as refused:
            raise AssertionError(f"a command that it was told does not work: {refused}") from refused
        self._leave()

    async def _turn(self, epic: EpicId) -> None:
        if not await self._claim(epic):
            return
        if self._is(self.manners.rotten):
            self.agent.world.truth.rotten.add(self.agent.holds.attempt)
        if self.slip != "aside" or self.agent.own is None:
            self.agent.begin()
        await self._work()
        if self.dies_at == "work" or self.slip == "stops":
            await self._end("died" if self.dies_at else "ended its turn without a report")
        elif self.slip in ("failed", "blocked"):
            reply = await self._report(self.slip)
            if reply.answer == "answered":
                await self._finish()
        else:
            await self._finish()

    async def _claim(self, epic: EpicId) -> bool:
        before = self.agent.claimed
        offers = self.agent.world.leasing.open_offers(self.agent.world.ledger, self.agent.world.ledger.epics[epic])
        wanted = self.chance.choice(offers).spec.id if offers and self._is(0.2) else None
        try:
            await self._persist(lambda: self.agent.claim(wanted, epic=epic))
            if self._is(0.1):
                await self._persist(lambda: self.agent.claim(epic=epic))  # once more: the answer was lost on the way
        except Refused as refused:
            if refused.code not in (Code.STORY_NOT_OFFERED, Code.LEASE_HELD):
                raise
        self.is_starting = False
        return self.agent.claimed is not before

    async def _work(self) -> None:
        if self.slip == "root":
            self.agent.start_over()
        for _ in range(0 if self.slip == "idle" else self.chance.randint(1, 4)):
            await self._pause(self.chance.uniform(1, self.manners.pace_s))
            self.agent.touch(*self.shares)
            if self._is(0.5):
                self.agent.commit()
            if self._is(0.3):
                await self._report("progress")
        if self.slip not in ("uncommitted", "idle"):
            self.agent.commit()
        if self._is(self.manners.silent):
            await self._pause(self.chance.uniform(100, 2000))

    async def _finish(self) -> None:
        """Report done, and do what the answers say, until there is nothing more to do."""
        for _ in range(TRIES):
            try:
                reply = await self._report("done")
            except Refused as refused:
                if not self.heeds:
                    await self._end("ended its turn without a report")
                    return
                await self._pause(self.chance.uniform(1, 60))
                self._heed(refused)
                continue
            if not await self._do(reply):
                return
        await self._report("failed")

    def _heed(self, refused: Refused) -> None:
        if commands_in(refused):
            self.agent.obey(refused)
        else:
            self.agent.work(*self.shares)

    async def _do(self, reply: ReportReply) -> bool:
        """What an answer to `done` asks for; False when the turn ends."""
        while reply.answer == "checking":
            if self.dies_at == "queue":
                await self._end("died")
                return False
            if self.slip == "late":
                self.agent.work()
            await self._pause(self.chance.uniform(0, 60))
            reply = await self._report("done")
        if reply.answer == "merged":
            self.is_free = True
            if self.agent.own is not None and self._is(0.5):
                self.agent.run("git switch -")
            return False
        if self.dies_at == "repair":
            self.agent.obey(reply.commands[:-1])  # in the middle of a rebase, when that is what it was told
            await self._end("died")
            return False
        await self._pause(self.chance.uniform(1, self.manners.pace_s))
        if self._is(self.manners.repairs):
            self.agent.mend(reply)
        else:
            self.agent.work()
        return True

    async def _linger(self) -> None:
        """It does not hear that all is over, or too late."""
        await self._pause(self.chance.uniform(1, 1000))
        with suppress(DeskGone):
            self.agent.touch()
            if self._is(0.7):
                self.agent.commit()
        if self._is(0.5):
            with suppress(Refused, Over):
                await self._report("done")

    def _leave(self) -> None:
        """The host takes back a desk where nothing is left."""
        world, own = self.agent.world, self.agent.own
        if own is not None and self._is(0.3) and self._is_tidy():
            world.truth.host_clears(own)

    def _is_tidy(self) -> bool:
        return self.agent.own is None or not self.agent.world.git.dirty(self.agent.own)

    async def _end(self, word: str) -> None:
        """It is gone. A hook may tell of it, once, and nobody may be there to hear that."""
        with suppress(NoServer):
            await self.agent.ended(word)

    async def _report(self, outcome: Literal["progress", "done", "failed", "blocked"]) -> ReportReply:
        """Raises `Refused(not_done)`, and `Over` when there is nothing more to do."""
        try:
            reply = await self._persist(lambda: self.agent.report(outcome))
        except Refused as refused:
            if refused.code is not Code.LEASE_LOST:
                raise
            raise Over from refused
        if reply.answer in ("stop", "ended"):
            self.is_free = True
            raise Over
        return reply

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until somebody answers."""
        while True:
            try:
                return await call()
            except NoServer:
                await self._pause(self.chance.uniform(1, 60))
            except Fault:
                await self._pause(AGAIN_S)

    async def _pause(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def _is(self, chance: float) -> bool:
        return self.chance.random() < chance


class Crew:
    """The host: starts sub-agents when there are offers. Counts those that have claimed a story."""

    def __init__(self, world: World, chance: Random, manners: Manners) -> None:
        self.world = world
        self.chance = chance
        self.manners = manners
        self.claims = 0
        self._starting: list[Member] = []
        self._number = 0

    def calm_down(self) -> None:
        """From here on whoever comes does its work."""
        self.manners = Manners(isolated=self.manners.isolated, named=self.manners.named)

    async def run(self) -> None:
        """Look what is offered, now and then, until it is cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(self.chance.uniform(1, 60))
                for epic in self._short_of_hands():
                    group.start_soon(self._one, epic)

    def _short_of_hands(self) -> list[EpicId]:
        """Epics, each as often as a sub-agent is missing; sometimes one too many."""
        if not self.world.is_up or not self.world.engines:
            return []
        self._starting = [member for member in self._starting if member.is_starting]
        short: list[EpicId] = []
        for name, epic in self.world.ledger.epics.items():
            if is_team(epic):
                missing = len(self.world.leasing.open_offers(self.world.ledger, epic)) - len(self._starting)
                short += [name] * (max(0, missing) + (self.chance.random() < 0.05))
        return short

    async def _one(self, epic: EpicId) -> None:
        chance, manners = self.chance, self.manners
        self._number += 1
        name = f"agent-{self._number}" if chance.random() < manners.named else ""
        at = chance.choice([None, None, min(self.world.git.commits)])
        member = Member(SubAgent(self.world, name, isolated=chance.random() < manners.isolated, at=at), chance, manners)
        self._starting.append(member)
        await member.live(epic)
        self.claims += member.has_claimed
