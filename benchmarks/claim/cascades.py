"""Claim 4: an outage of the agents' provider for ten minutes, breaker on and off. A whole engine in virtual time.

From minute 5 to 15 every agent that is alive ends after about 20 s with the trouble API_ERROR; before and after, each
works for some minutes and succeeds. Counted: attempts that were started during the outage (all of them are wasted),
slot-seconds that stood idle afterwards until all slots were at work again, and stories that failed for good.
A second world has no outage, but one attempt in four ends in such an error by chance: there every pause is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import anyio
from claim.rows import Config, Row, at, chance, ratio_of

from mcp_server.core.model import Cause, StoryState
from mcp_server.core.spec import AttemptId
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, story

OUTAGE_S = (300.0, 900.0)
BOUND_S = 3600.0
"""Idle slots are counted for so long after the outage, at most: work that failed for good never goes on."""
STRAY = 0.25
"""Chance of an error in the world without an outage."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one epic."""

    wasted: int
    """Attempts that were started during the outage and failed."""
    idle_s: float
    """Slot-seconds, see `BOUND_S`."""
    failed: int
    makespan_s: float


@dataclass(frozen=True, slots=True)
class Weather:
    """How an attempt's agent fares, by its story, its number and its start."""

    seed: int
    outage_s: tuple[float, float] | None
    stray: float = 0.0

    def play(self, world: World, attempt: AttemptId, now_s: float) -> Play:
        """The same whether the breaker is on or off, for the same attempt at the same time."""
        dice = chance(self.seed, attempt)
        works_s, dies_s, strays = dice.lognormvariate(5.5, 0.5), dice.uniform(15.0, 25.0), dice.random() < self.stray
        if self.outage_s is not None:
            begins_s, ends_s = self.outage_s
            if now_s < ends_s and now_s + works_s > begins_s:
                return _error(max(0.0, begins_s - now_s) + dies_s)
        return _error(dies_s) if strays else world.good(seconds=works_s)


def _error(seconds: float) -> Play:
    return Play(seconds=seconds, exit_code=1, trouble=Cause.API_ERROR)


def live(weather: Weather, slots: int, **policy: Any) -> Fate:
    """One epic of independent stories, eight a slot, which is work for forty minutes, to its rest."""
    count = 8 * slots

    async def main() -> Fate:
        async with a_world() as world:
            began_s = anyio.current_time()

            def play_of(attempt: AttemptId) -> Play:
                return weather.play(world, attempt, anyio.current_time() - began_s)

            world.runner.play_of = play_of  # type: ignore[method-assign]
            world.plan(*(story(f"S{number}") for number in range(count)))
            world.start(slots=slots, **policy)
            await world.rest()
            failed = sum(world.of(f"S{n}").state is not StoryState.MERGED for n in range(count))
            spans = [(s.from_s - began_s, (s.until_s or s.from_s) - began_s) for s in world.runner.spans]
            ended_s = max(until_s for _, until_s in spans)
            if weather.outage_s is None:
                return Fate(0, 0.0, failed, ended_s)
            begins_s, ends_s = weather.outage_s
            wasted = sum(begins_s <= from_s < ends_s for from_s, _ in spans)
            until_s = ends_s + BOUND_S if failed else min(ended_s, ends_s + BOUND_S)
            return Fate(wasted, idle_slot_s(spans, slots, ends_s, until_s), failed, ended_s)

    return run_seeded(main, weather.seed)


def idle_slot_s(spans: list[tuple[float, float]], slots: int, from_s: float, until_s: float) -> float:
    """Slot-seconds without an agent, from a moment to the first at which all slots have one, or until the bound.

    An agent that was started in the outage and dies after it holds its slot, so full width is asked of later ones.
    """
    sound = [(begin_s, end_s) for begin_s, end_s in spans if begin_s >= from_s]
    moments = sorted({from_s, until_s, *(m for span in sound for m in span if from_s < m < until_s)})
    idle_s = 0.0
    for now_s, next_s in pairwise(moments):
        alive = sum(begin_s <= now_s < end_s for begin_s, end_s in sound)
        if alive >= slots:
            break
        idle_s += (slots - alive) * (next_s - now_s)
    return idle_s


def rows(config: Config) -> Iterator[Row]:
    """With the outage, by slots; then without one."""
    seeds = range(config.seed, config.seed + config.of(12, 3))
    for slots in (2, 8) if config.quick else (2, 4, 8):
        weathers = [Weather(seed, OUTAGE_S) for seed in seeds]
        on, off = ([live(w, slots, **switched) for w in weathers] for switched in ({}, {"breaker_faults": 0}))
        yield from _outage_rows(slots, on, off)
    weathers = [Weather(seed, None, STRAY) for seed in seeds]
    on, off = ([live(w, 4, **switched) for w in weathers] for switched in ({}, {"breaker_faults": 0}))
    here, there = (mean(fate.makespan_s for fate in fates) / 60 for fates in (on, off))
    yield Row(
        4,
        "no outage, 1 attempt in 4 errs by chance, 4 slots: minutes to the end",
        f"{here:.0f}",
        f"{there:.0f}",
        ratio_of(here, there),
        len(on),
        f"What the breaker costs when it is wrong; in the worst epic {_worst(on, off):.2f} times as long.",
    )


def _outage_rows(slots: int, on: list[Fate], off: list[Fate]) -> Iterator[Row]:
    yield _row(f"outage of 10 min, {slots} slots: attempts wasted", on, off, lambda fate: fate.wasted, _lost(on, off))
    later = [fate.idle_s for fate in on]
    note = (
        f"The price: work held back after the outage, until a probe has shown it is over; at worst {at(later, 1):.0f}."
    )
    yield _row(f"outage of 10 min, {slots} slots: slot-seconds idle after it", on, off, lambda fate: fate.idle_s, note)
    note = "Both lose what was at work when it began; the rest is the outage itself, and what is held back after it."
    yield _row(f"outage of 10 min, {slots} slots: minutes to the end", on, off, lambda fate: fate.makespan_s / 60, note)


def _row(what: str, on: list[Fate], off: list[Fate], count: Callable[[Fate], float], note: str) -> Row:
    here, there = mean(map(count, on)), mean(map(count, off))
    return Row(4, what, f"{here:.1f}", f"{there:.1f}", ratio_of(here, there), len(on), note)


def _lost(on: list[Fate], off: list[Fate]) -> str:
    here, there = sum(fate.failed for fate in on), sum(fate.failed for fate in off)
    return f"Stories that failed for good because of it, in all: {here} with the breaker, {there} without."


def _worst(on: list[Fate], off: list[Fate]) -> float:
    return max(one.makespan_s / other.makespan_s for one, other in zip(on, off, strict=True))
