"""Whole lives by seed: a random epic, agents that misbehave, a world that fails, a lead who meddles, and kill -9.

One seed is one life. `python -m mcp_server.testing.lives --lives 2000 --seed 0` runs many and stops at the first that
breaks a promise; the same seed shows it again.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import anyio

from mcp_server.core.model import AttemptId, Epic, EpicId, StoryState, Strategy, is_alive
from mcp_server.core.views import question
from mcp_server.errors import Fault, FaultCause, Refused
from mcp_server.ports import AgentCall
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.crew import Crew, Manners
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import Killed, World, a_world, assert_same, story

CALM_S = 20_000.0
"""From here on nobody meddles, nothing fails, and agents do their work: everything has to come to its end."""
WAVES_TO_THE_END = 60
FILES = ("src/a.py", "src/b.py", "src/", "src/*.py", "docs/", "docs/x.md", "**/z.txt", "lib/z.txt")


@dataclass(frozen=True, slots=True)
class Config:
    """What a life is made of; chances are between 0 and 1."""

    seed: int
    stories: int
    second_epic: bool
    edges: float
    footprints: float
    critical: float
    slots: int
    strategy: Strategy
    attempts: int
    fail_fast: bool
    detection: bool
    misbehaves: float
    undeclared: float
    rotten: float
    fault: float
    delay_s: float
    check_s: float
    meddles: int
    crashes: int
    slow_death_s: float
    stubborn: float
    lease_s: float
    repairs: int
    changes_mind: float
    manners: Manners

    @classmethod
    def of(cls, seed: int, only: Strategy | None = None) -> Config:
        """The configuration of a seed. Every second life is one of a team, unless there is `only` one strategy."""
        chance, more = Random(seed), Random(f"team {seed}")
        strategy = chance.choice([Strategy.ASYNCIO, Strategy.ASYNCIO, Strategy.SEQUENTIAL])
        strategy = only or (Strategy.AGENT_TEAMS if seed % 2 else strategy)
        longer = 2 if strategy is Strategy.AGENT_TEAMS else 1
        return cls(
            seed=seed,
            stories=chance.randint(3, 12),
            second_epic=chance.random() < 0.3,
            edges=chance.choice([0.0, 0.15, 0.4]),
            footprints=chance.choice([0.0, 0.5, 1.0]),
            critical=chance.choice([0.0, 0.2]),
            slots=1 if strategy is Strategy.SEQUENTIAL else chance.randint(1, 5),
            strategy=strategy,
            attempts=chance.randint(1, 3),
            fail_fast=chance.random() < 0.7,
            detection=chance.random() < 0.9,
            misbehaves=chance.choice([0.0, 0.2, 0.5]),
            undeclared=chance.choice([0.0, 0.3]),
            rotten=chance.choice([0.0, 0.1, 0.3]),
            fault=chance.choice([0.0, 0.03, 0.15]),
            delay_s=chance.choice([0.0, 1.0, 20.0]),
            check_s=chance.choice([0.0, 1.0, 60.0]),
            meddles=longer * chance.choice([0, 3, 12]),
            crashes=longer * chance.choice([0, 1, 3, 6]),
            slow_death_s=chance.choice([0.0, 0.0, 15.0]),
            stubborn=more.choice([0.0, 0.5, 1.0]),
            lease_s=more.choice([60.0, 300.0, 900.0]),
            repairs=more.randint(0, 2),
            changes_mind=more.choice([0.0, 0.0, 0.3]) if strategy is Strategy.AGENT_TEAMS else 0.0,
            manners=Manners.of(more),
        )


@dataclass(slots=True)
class Tally:
    """What became of a life, or of many."""

    lives: int = 0
    crashes: int = 0
    calls: int = 0
    """What the engines asked of the world."""
    facts: int = 0
    agents: int = 0
    claims: int = 0
    days: float = 0.0

    def add(self, other: Tally) -> None:
        """Count another life."""
        self.lives += other.lives
        self.crashes += other.crashes
        self.calls += other.calls
        self.facts += other.facts
        self.agents += other.agents
        self.claims += other.claims
        self.days += other.days

    def __str__(self) -> str:
        return (
            f"{self.lives} lives, {self.crashes} crashes, {self.calls} calls, {self.facts} facts, "
            f"{self.agents} agents, {self.claims} sub-agents, {self.days:.0f} virtual days"
        )


class Life:
    """One life: stores its chance, its world, and what it has counted."""

    def __init__(self, config: Config, world: World) -> None:
        self.config = config
        self.world = world
        self.chance = Random(config.seed + 1)
        self.crashes = 0
        self.epics: list[EpicId] = []
        self.crew = Crew(world, self.chance, config.manners)
        self._plays: dict[AttemptId, Play] = {}
        self._compared = 0

    async def run(self) -> None:
        """Troubled times, then calm ones, to the end. The host is there all the time."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.crew.run)
            await self._run()
            group.cancel_scope.cancel()

    async def _run(self) -> None:
        world = self.world
        world.runner.play_of = self.play_of  # type: ignore[method-assign]
        world.git.before_step = self._trouble
        world.runner.check_s = self.config.check_s
        self._plan("e")
        acts = [self._crash] * self.config.crashes + [self._meddle] * self.config.meddles
        self.chance.shuffle(acts)
        for act in acts:
            await self._alive()
            if self.chance.random() < 0.7:
                self._lead(self._start_all)
            await self._a_moment()
            await self._alive()
            await act()
        await self._alive()
        self._lead(self._start_all)
        await anyio.sleep(max(0.0, CALM_S - anyio.current_time()))
        world.line.die_at_call = math.inf
        world.git.calm()
        self.crew.calm_down()
        await self._alive()
        for _ in range(WAVES_TO_THE_END):
            await world.rest()
            if not self._start_all():
                break

    # --- the lead

    async def _a_moment(self) -> None:
        """Let some time pass, or some calls of the world: most of what is delicate happens at a call."""
        with anyio.move_on_after(self.chance.uniform(0, 300)):
            if self.chance.random() < 0.3:
                await self.world.engine_gone()
            else:
                await self.world.line.more_calls(self.chance.randint(1, 25))

    async def _alive(self) -> None:
        while not self.world.is_up:
            await self.world.kill()
            self._compare()
            await self.world.open()

    def _lead(self, act: Callable[[], object]) -> None:
        """Whoever talks to an engine may be refused, and may see it die."""
        with suppress(Refused, Killed):
            act()

    def _start_all(self) -> bool:
        """Start or widen a wave in every epic; False when there was nothing to start."""
        started = False
        for name in self.epics:
            epic = self.world.ledger.epics[name]
            asked = [s.spec.id for s in epic.stories.values() if question(s)]
            notes = dict.fromkeys(asked, "the answer") if self.chance.random() < 0.5 else {}
            with suppress(Refused):
                self.world.start(
                    self.chance.choice(["all", "all", "ready", 2]) if not self.is_calm else "all",
                    epic=name,
                    retry=self.is_calm or self.chance.random() < 0.7,
                    notes=notes,
                    slots=self.config.slots,
                    strategy=self._strategy(epic),
                    attempts=self.config.attempts,
                    fail_fast=self.config.fail_fast,
                    conflict_detection=self.config.detection,
                    attempt_timeout_s=900.0,
                    stall_timeout_s=200.0,
                    check_timeout_s=100.0,
                    lease_s=self.config.lease_s,
                    repairs=self.config.repairs,
                )
                started = True
        return started

    def _strategy(self, epic: Epic) -> Strategy:
        if epic.wave is not None and is_alive(epic.wave):
            return epic.wave.policy.strategy
        return Strategy.ASYNCIO if self.chance.random() < self.config.changes_mind else self.config.strategy

    async def _meddle(self) -> None:
        epic = self.chance.choice(self.epics)
        name = self.chance.choice(list(self.world.ledger.epics[epic].stories))
        match self.chance.randint(0, 6):
            case 0:
                self._lead(lambda: self.world.cancel(epic=epic))
            case 1 | 2:
                self._lead(lambda: self.world.cancel(name, epic=epic))
            case 3 if self.config.second_epic and len(self.epics) == 1:
                self._lead(lambda: self._plan("f"))
            case 4 if f"refs/heads/epicwave/{epic}" in self.world.git.refs:
                self.world.truth.push(epic, f"by hand {anyio.current_time()}")
            case 5:
                await self.world.close()
            case _:
                self._lead(self._start_all)

    def _plan(self, epic: EpicId) -> None:
        chance, names = self.chance, [f"{epic}{n}" for n in range(self.config.stories)]
        self.world.plan(
            *(
                story(
                    name,
                    *(d for d in names[:n] if chance.random() < self.config.edges),
                    files=" ".join(chance.sample(FILES, chance.randint(1, 2)))
                    if chance.random() < self.config.footprints
                    else "",
                    critical=chance.random() < self.config.critical,
                    minutes=float(chance.randint(1, 90)),
                    done=chance.random() < 0.05,
                )
                for n, name in enumerate(names)
            ),
            epic=epic,
        )
        self.epics.append(epic)

    # --- kill -9

    async def _crash(self) -> None:
        """Kill the engine now, or at one of its next calls of the world."""
        self.crashes += 1
        self.world.line.finishes = self.chance.random() < 0.5
        if self.chance.random() < 0.5:
            self.world.line.die_at_call = self.world.line.calls + self.chance.randint(1, 30)
        else:
            await self.world.kill()

    def _compare(self) -> None:
        """What was in memory when the engine died is what the journal tells; once an engine, the journal goes on."""
        if len(self.world.engines) > self._compared:
            self._compared = len(self.world.engines)
            if not self.world.is_closing:
                assert_same(self.world.replayed(), self.world.ledger)

    # --- the world

    @property
    def is_calm(self) -> bool:
        """True when the troubles are over."""
        return anyio.current_time() >= CALM_S

    def _trouble(self, op: str) -> None:
        if self.is_calm:
            return
        self.world.git.delay_s[op] = self.chance.uniform(0, self.config.delay_s)
        self.world.git.stubborn = self.chance.random() < self.config.stubborn
        if self.chance.random() < self.config.fault:
            self.world.git.fail_next(op, Fault(FaultCause.GIT, f"{op} failed"))

    def play_of(self, attempt: AttemptId) -> Play:
        """What an attempt's agent does; the same whenever it is asked."""
        if attempt not in self._plays:
            self._plays[attempt] = self._new_play(attempt)
        return self._plays[attempt]

    def _new_play(self, attempt: AttemptId) -> Play:
        chance, truth = self.chance, self.world.truth
        if self.is_calm:
            return Play(seconds=60.0, act=truth.work)
        seconds = chance.choice([1.0, 60.0, chance.uniform(1, 600)])
        dies_in_s = chance.uniform(0, self.config.slow_death_s)
        if chance.random() < self.config.rotten:
            truth.rotten.add(attempt)
        act = truth.work_on("shared.txt") if chance.random() < self.config.undeclared else truth.work
        if chance.random() >= self.config.misbehaves:
            return Play(seconds, act=act, dies_in_s=dies_in_s)
        return chance.choice(
            [
                Play(seconds, act=act, exit_code=1, dies_in_s=dies_in_s),
                Play(seconds, act=truth.scribble, dies_in_s=dies_in_s),
                Play(seconds, act=_both(act, truth.scribble), dies_in_s=dies_in_s),
                Play(seconds, dies_in_s=dies_in_s),
                Play(seconds, act=truth.work_elsewhere, dies_in_s=dies_in_s),
                Play(seconds, act=act, hang=True, dies_in_s=dies_in_s),
                Play(5000.0, act=act, dies_in_s=dies_in_s),
                Play(seconds, fault="not installed"),
            ]
        )


def _both(one: Callable[[AgentCall], None], other: Callable[[AgentCall], None]) -> Callable[[AgentCall], None]:
    def act(call: AgentCall) -> None:
        one(call)
        other(call)

    return act


async def live(config: Config) -> Tally:
    """One life in the present event loop. Raises AssertionError when a promise is broken."""
    async with a_world() as world:
        life = Life(config, world)
        await life.run()
        ends = {f"{e}/{s.spec.id}": s.state for e in life.epics for s in world.ledger.epics[e].stories.values()}
        stuck = {name: str(state) for name, state in ends.items() if state is not StoryState.MERGED}
        assert not stuck, f"never merged: {stuck}"
        counts = life.crashes, world.line.calls, len(world.journal.rows), len(world.runner.calls), life.crew.claims
        days = anyio.current_time() / 86_400
    return Tally(1, *counts, days=days)


def run_life(seed: int, only: Strategy | None = None) -> Tally:
    """The life of a seed. Raises AssertionError that names the seed and its configuration."""
    config = Config.of(seed, only)

    async def main() -> Tally:
        return await live(config)

    try:
        return run_seeded(main, seed)
    except BaseException as error:
        error.add_note(f"seed {seed}: {config}")
        raise


def main() -> None:
    """Run many lives and tell what they were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", type=Strategy, choices=[*Strategy], help="this one only")
    asked = parser.parse_args()
    total, first = Tally(), Config.of(asked.seed, asked.strategy)
    sys.stdout.write(f"seeds {asked.seed} to {asked.seed + asked.lives - 1}; the first is {first}\n")
    for seed in range(asked.seed, asked.seed + asked.lives):
        total.add(run_life(seed, asked.strategy))
        if total.lives % 100 == 0 or total.lives == asked.lives:
            sys.stdout.write(f"{total}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
