"""Landed stories an hour and check runs a story, one by one and batched. `python benchmarks/merge_queue.py [--seed S]`.

A synthetic epic of 40 stories with disjoint files and a check of 10 s, on the real engine in virtual time with git in
memory: what is measured is the queue, exactly and on any machine; real git adds some ten milliseconds a story. So many
agents work that the queue never runs dry: 16, of 30 to 90 s each. In some rows every so many-th story turns the check
red (its next attempt is good), or every so many-th run of the check is red for no reason (flaky). Exit code 1 when a
story did not land, or landed twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from mcp_server.core.events import AttemptSucceeded, BranchMerged
from mcp_server.core.spec import AttemptId, StoryId
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.world import EPIC, World, a_world, story

STORIES = 40
CHECK_S = 10.0
AGENTS = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One row: of so many stories one is red in its first attempt, of so many checks one is flaky; 0 for none."""

    name: str
    red: int = 0
    flaky: int = 0


CASES = (
    Case("all green"),
    Case("1 story in 20 red", red=20),
    Case("1 story in 10 red", red=10),
    Case("1 story in 5 red", red=5),
    Case("1 check in 20 flaky", flaky=20),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an epic."""

    stories_an_hour: float
    """From the first story that came to the queue to the last that landed."""
    checks_a_story: float
    wait_s: float
    """Median of the time from the queue to the branch."""
    agents: int
    """Attempts that were made."""


def _judged(world: World, case: Case, dice: Random) -> None:
    """Make a check red for no reason now and then."""
    right = world.runner.judge

    def judge(attempt: AttemptId, command: tuple[str, ...], cwd: Path) -> int | None:
        verdict = right(attempt, command, cwd)
        return 1 if case.flaky and dice.randrange(case.flaky) == 0 else verdict

    world.runner.judge = judge


async def _epic(case: Case, batch: int, seed: int) -> Result:
    dice = Random(f"{case.name} {seed}")  # noqa: S311 - repeatable is what it has to be
    names = [f"S{number:02}" for number in range(1, STORIES + 1)]
    async with a_world() as world:
        world.runner.check_s = CHECK_S
        world.does(**{name: world.good(seconds=dice.uniform(30, 90)) for name in names})
        red = dice.sample(names, STORIES // case.red) if case.red else []
        world.truth.rotten |= {AttemptId(EPIC, name, 1) for name in red}
        _judged(world, case, dice)
        world.plan(*(story(name, files=f"{name}.txt") for name in names))
        world.start(slots=AGENTS, batch=batch, attempts=9)
        await world.rest()
        landed = world.truth.landed(EPIC)
        wrong = [name for name in names if len(landed.get(name, [])) != 1]
        assert not wrong, f"landed not exactly once: {wrong}"
        return _result(world)


def _result(world: World) -> Result:
    queued: dict[StoryId, float] = {}
    waits: list[float] = []
    began_s, ended_s, agents = float("inf"), 0.0, 0
    for event in world.journal.replay():
        if isinstance(event, AttemptSucceeded):
            queued[event.attempt.story] = event.at_s
            began_s = min(began_s, event.at_s)
            agents += 1
        elif isinstance(event, BranchMerged):
            waits.append(event.at_s - queued[event.attempt.story])
            ended_s = max(ended_s, event.at_s)
    hours = (ended_s - began_s) / 3600
    return Result(STORIES / hours, len(world.runner.checks) / STORIES, median(waits), agents)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8], help="how many may land together")
    args = parser.parse_args(argv)
    print(f"{STORIES} stories, a check of {CHECK_S:g} s, {AGENTS} agents, virtual time, seed {args.seed}\n")
    print("| epic | batch | stories an hour | check runs a story | median wait, s | attempts | against one by one |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        alone = 0.0
        for batch in (1, *args.batch):
            found: list[Result] = []

            async def one(case: Case = case, batch: int = batch, found: list[Result] = found) -> None:
                found.append(await _epic(case, batch, args.seed))

            run_seeded(one, args.seed)
            result = found[0]
            alone = alone or result.stories_an_hour
            print(
                f"| {case.name} | {batch if batch > 1 else 'one by one'} | {result.stories_an_hour:.0f} | "
                f"{result.checks_a_story:.2f} | {result.wait_s:.0f} | {result.agents} | "
                f"{result.stories_an_hour / alone:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
