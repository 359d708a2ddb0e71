"""Whole lives by seed: a random epic, agents that misbehave, a world that fails, a lead who meddles, and kill -9.

One seed is one life, and the same seed is the same life again, fact by fact. `epicwave simulate` runs many.
"""

from __future__ import annotations

import json
import math
import traceback
from collections import Counter
from dataclasses import dataclass
from random import Random

import anyio

from mcp_server.core.limits import Strategy
from mcp_server.core.model import StoryState
from mcp_server.engine.lifecycle import RESUME_S
from mcp_server.errors import Fault, FaultCause
from mcp_server.testing.breach import Breach, Broken, Promise, breaches_of
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.crew import Crew
from mcp_server.testing.fate import AGENTS, Config
from mcp_server.testing.lead import Lead
from mcp_server.testing.plays import Cast
from mcp_server.testing.tally import Tally, digest
from mcp_server.testing.world import World, a_world, assert_same

WAVES_TO_THE_END = 60
ENDS = frozenset({StoryState.MERGED, StoryState.SKIPPED})


class Life:
    """One life: stores its chance, its world, and who is in it."""

    def __init__(self, config: Config, world: World) -> None:
        self.config = config
        self.world = world
        self.chance = Random(config.seed + 1)
        self.ended_s = 0.0
        """When it was over, on the loop's clock."""
        self.lead = Lead(config, self.chance, world)
        self.cast = Cast(config, self.chance, world.truth)
        self.crew = Crew(world, self.chance, config.manners)
        self._is_calm = False
        self._compared = 0

    async def run(self) -> None:
        """Troubled times, then calm ones, to the end. The host is there all the time."""
        async with anyio.create_task_group() as group:
            if self.config.policy.strategy is Strategy.AGENT_TEAMS:
                group.start_soon(self.crew.run)
            await self._run()
            self.ended_s = anyio.current_time()
            group.cancel_scope.cancel()

    async def _run(self) -> None:
        world, troubles = self.world, self.config.troubles
        world.runner.play_of = self.cast.play_of  # type: ignore[method-assign]
        world.git.before_step = self._trouble
        world.runner.check_s = troubles.check_s
        self.lead.plan("e")
        acts = [self._crash] * troubles.crashes + [self.lead.meddle] * self.config.meddles
        acts += [self._outage] * troubles.outages + [self._full_disk] * troubles.full_disks
        self.chance.shuffle(acts)
        for act in acts:
            await self._alive()
            if self.chance.random() < 0.7:
                self.lead.says(self.lead.start_all)
            await self._a_moment()
            await self._alive()
            await act()
        await self._alive()
        self.lead.says(self.lead.start_all)
        await self._a_moment()
        await self._calm()

    async def _calm(self) -> None:
        """From here on nobody meddles, nothing fails, agents do their work: everything has to come to its end."""
        world = self.world
        self._is_calm = self.lead.is_calm = self.cast.is_calm = True
        world.line.die_at_call = math.inf
        world.line.forget_awaits()
        world.full_disk = False
        world.git.calm()
        self.crew.calm_down()
        if world.is_leaving:  # its disk was full, and it still saves what there is: nobody can start anything with it
            await world.engine_gone()
        await self._alive()
        self.lead.resume_all()
        for _ in range(WAVES_TO_THE_END):
            await world.rest()
            self._look()
            if not self.lead.start_all():
                break
        self._all_ended()

    def _all_ended(self) -> None:
        stuck: dict[str, str] = {}
        for name in self.lead.epics:
            for story in self.world.ledger.epics[name].stories.values():
                skipped = (name, story.spec.id) in self.world.truth.witness.skipped
                if story.state not in ENDS or (story.state is StoryState.SKIPPED) != skipped:
                    stuck[f"{name}/{story.spec.id}"] = str(story.state)
        if stuck:
            raise Broken([Breach(Promise.PROGRESS, f"in the end, with nothing in the way: {stuck}")])

    async def _a_moment(self) -> None:
        """Let some time pass, or some calls of the world: most of what is delicate happens at a call."""
        with anyio.move_on_after(self.chance.uniform(0, 300)):
            if self.chance.random() < 0.3:
                await self.world.engine_gone()
            else:
                await self.world.line.more_calls(self.chance.randint(1, 25))

    async def _alive(self) -> None:
        """There is an engine: a new one when the last one is gone. It may die while it opens, or may not open yet."""
        while not self.world.is_up:
            await self.world.kill()
            self._look()
            self.world.line.forget_awaits()
            if self.world.full_disk and self.chance.random() < 0.2:
                self.world.full_disk = False
            await self._away()
            if self.chance.random() < 0.3 and not self._is_calm:
                self._arm()
            self.world.goes_on = self.chance.random() < self.config.goes_on
            await self.world.open()
            if not self.world.is_up:
                await anyio.sleep(1.0)

    async def _away(self) -> None:
        """Where work goes on it takes a while until the next engine comes: agents end meanwhile, or are given up."""
        if not self.config.goes_on:
            return
        chance, began_s = self.chance, anyio.current_time()
        await anyio.sleep(chance.choice([0.0, 0.0, chance.uniform(0, 100), chance.uniform(0, 300), 2 * RESUME_S]))
        if anyio.current_time() - began_s > RESUME_S:
            self.world.truth.witness.was_alone(self.world.ledger)

    # --- kill -9, and everything else that goes wrong

    async def _crash(self) -> None:
        """Kill the engine: now, at one of its next calls of the world, or when one of its awaits comes back."""
        self.world.line.finishes = self.chance.random() < 0.5
        if self.chance.random() < 0.2:
            await self.world.kill()
            return
        self._arm()
        if self.chance.random() < 0.2:
            await self.world.close()

    def _arm(self) -> None:
        line = self.world.line
        if self.chance.random() < 0.4:
            line.die_at_call = line.calls + self.chance.randint(1, 30)
        else:
            line.die_at_await(int(2.0 ** self.chance.uniform(0, 7)))

    async def _outage(self) -> None:
        self.cast.outage(self.chance.choice([AGENTS[0], *AGENTS]), self.chance.uniform(60, 1500))

    async def _full_disk(self) -> None:
        self.world.full_disk = True
        await anyio.sleep(self.chance.uniform(1, 300))
        self.world.full_disk = False

    def _look(self) -> None:
        """What was in memory when an engine died is what the journal tells; once an engine, the journal goes on."""
        world = self.world
        world.truth.witness.breaches += world.truth.witness.unjust(world.ledger)
        if world.is_up or len(world.engines) == self._compared:
            return
        self._compared = len(world.engines)
        assert_same(world.replayed(world.ledger.seq), world.ledger)
        if not world.is_closing and len(world.journal.rows) != world.ledger.seq:
            raise Broken([Breach(Promise.REPLAY, "the journal has more facts than memory had")])

    def _trouble(self, op: str) -> None:
        if self._is_calm:
            return
        world, troubles, chance = self.world, self.config.troubles, self.chance
        world.git.delay_s[op] = chance.uniform(0, troubles.delay_s)
        world.git.stubborn = chance.random() < troubles.stubborn
        world.runner.leftover_s = world.git.delay_s[op]
        if chance.random() < troubles.fault:
            cause = chance.choice([FaultCause.GIT, FaultCause.DISK])
            world.git.fail_next(op, Fault(cause, f"{op} failed"))


@dataclass(frozen=True, slots=True)
class Lived:
    """What a life was: its tally, its fingerprint, and what was broken in it, if anything."""

    seed: int
    tally: Tally
    digest: str
    breaches: tuple[Breach, ...] = ()
    trace: str = ""
    """Where it was seen, for whoever looks into it."""


def _told(life: Life, breaches: tuple[Breach, ...], trace: str) -> Lived:
    world, seed = life.world, life.config.seed
    rows = world.journal.rows
    seen: Counter[str] = Counter(kind for _, kind, *_ in rows)
    seen.update(f"{kind}: {json.loads(text)['cause']}" for _, kind, _, text in rows if kind == "AttemptFailed")
    adopted = sum(len(json.loads(text)["adopted"]) for _, kind, _, text in rows if kind == "WaveInterrupted")
    if adopted:
        seen["agents adopted"] = adopted
    tally = Tally(
        lives=1,
        deaths=world.line.deaths,
        engines=len(world.engines),
        calls=world.line.calls,
        facts=len(rows),
        agents=len(world.runner.calls),
        claims=life.crew.claims,
        days=life.ended_s / 86_400,
        merged=len(world.truth.lands),
        broken=Counter(str(breach.promise) for breach in breaches),
        seen=seen,
    )
    return Lived(seed, tally, digest([seed, *rows, sorted(tally.broken.items())]), breaches, trace)


def live(config: Config) -> Lived:
    """One life to its end, clean or not."""
    lives: list[Life] = []

    async def main() -> None:
        async with a_world(goes_on=config.goes_on >= 0.5) as world:
            lives.append(Life(config, world))
            await lives[0].run()

    breaches, trace = tuple[Breach, ...](), ""
    try:
        run_seeded(main, config.seed)
    except ExceptionGroup as error:  # whatever it is, this life was not clean
        breaches, trace = breaches_of(error), "".join(traceback.format_exception(error))
    return _told(lives[0], breaches, trace)


def run_life(seed: int, only: Strategy | None = None) -> Lived:
    """The life of a seed. Raises `Broken`, with the seed and its configuration in a note."""
    config = Config.of(seed, only)
    lived = live(config)
    if lived.breaches:
        error = Broken(lived.breaches)
        error.add_note(f"seed {seed}: {config}")
        raise error
    return lived
