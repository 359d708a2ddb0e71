"""How long a big journal takes to replay, and a fact to pass the one door.

`python benchmarks/replay.py [--stories 10000] [--epics 1] [--records 100000] [--slots 8] [--submits 3000] [--seed 0]`

Lives a long life with the pure functions alone: waves of processes and of sub-agents by turns, failures, conflicts,
retries, progress reports, until the journal (a real one, in a temporary folder) has that many records and some stories
are still open. Then it is replayed, SQLite and JSON included, and a real engine goes on where it ends, with agents and
a git that answer at once: each `Engine.submit` is measured, with its append to the journal.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import anyio
import anyio.lowlevel

from mcp_server.adapters.clock import SystemClock
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.commands import CancelEpic, StartWave
from mcp_server.core.decide import decide
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptSucceeded,
    BranchMerged,
    EpicPlanned,
    Event,
    LeaseEnded,
    LeaseRenewed,
    MergeProven,
    MergeRefused,
    Ticked,
)
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import Cause, Lease, Ledger, Process, Proven, Story, StoryState, Usage, is_alive, is_team
from mcp_server.core.spec import AttemptId, EpicId, EpicSpec, StorySpec
from mcp_server.core.wanted import Integrate, RunAttempt, next_wake_s, wanted
from mcp_server.engine.engine import Engine
from mcp_server.engine.lifecycle import running
from mcp_server.errors import Refused
from mcp_server.ports import AgentCall, Done, Ended, Landing, Ports, ProcessEnd

STEP_S = 4.0
"""Between two facts, on average."""
BATCH = 500


@dataclass(frozen=True, slots=True)
class Config:
    """What is measured; printed first."""

    stories: int
    epics: int
    records: int
    slots: int
    submits: int
    seed: int


def planned(name: EpicId, stories: int, chance: random.Random, at_s: float) -> EpicPlanned:
    """An epic of so many stories, each on up to three of the forty before it; a third share one of some files."""
    specs: list[StorySpec] = []
    levels: dict[str, int] = {}
    for nth in range(stories):
        before = [f"S{n}" for n in range(max(0, nth - 40), nth)]
        needs = tuple(sorted(chance.sample(before, min(len(before), chance.choice([0, 1, 1, 2, 3])))))
        files = [f"src/part{nth}/code.py", f"tests/test_{nth}.py"]
        if chance.random() < 0.3:
            files.append(f"src/shared{chance.randrange(1 + stories // 20)}.py")
        title = f"Story {nth} does what its epic needs"
        spec = StorySpec(f"S{nth}", title, "A few words. " * 5, ("It works.",), needs, tuple(files), minutes=10.0)
        specs.append(spec)
        levels[spec.id] = 1 + max((levels[d] for d in needs), default=0)
    ranks = {spec.id: 10.0 for spec in specs}
    for spec in reversed(specs):
        for needed in spec.depends_on:
            ranks[needed] = max(ranks[needed], 10.0 + ranks[spec.id])
    return EpicPlanned(EpicSpec(name, f"Epic {name}", stories=tuple(specs)), levels, ranks, at_s)


class Life:
    """Stores the ledger, the journal, and what was not written to it yet."""

    def __init__(self, config: Config, journal: SqliteJournal) -> None:
        self.config, self.journal = config, journal
        self.chance = random.Random(config.seed)  # noqa: S311
        self.ledger = Ledger(as_of_s=time.time() - config.records * STEP_S * 2)
        self.unwritten: list[Event] = []

    def run(self) -> None:
        """Live until the journal is long enough."""
        for nth in range(self.config.epics):
            stories = self.config.stories // self.config.epics
            self.submit(planned(f"e{nth}", stories, self.chance, self.ledger.as_of_s))
        while self.ledger.seq < self.config.records:
            self._start_waves()
            self.submit(self._next())
        self.journal.append(self.unwritten)

    def submit(self, event: Event) -> None:
        """One fact more."""
        self.ledger = evolve(self.ledger, event)
        self.unwritten.append(event)
        if len(self.unwritten) == BATCH:
            self.journal.append(self.unwritten)
            self.unwritten = []

    def _start_waves(self) -> None:
        """A wave of sub-agents, then one of processes, each a sixth of the plan further."""
        for name, epic in self.ledger.epics.items():
            if is_alive(epic.wave) or epic.stories.count(StoryState.MERGED) == len(epic.stories):
                continue
            number = epic.wave.number if epic.wave is not None else 0
            strategy = (Strategy.AGENT_TEAMS, Strategy.ASYNCIO)[number % 2]
            policy = Policy(strategy=strategy, slots=self.config.slots, attempts=3, fail_fast=False)
            sixth = max(s.level for s in epic.stories.values()) // 6 + 1
            for through in (sixth * (number + 1), "all"):
                with suppress(Refused):
                    start = StartWave(name, through, policy, "base", named=True, retry=True)
                    self.submit(decide(self.ledger, start, self.ledger.as_of_s))
                    break

    def _next(self) -> Event:
        at_s = self.ledger.as_of_s + self.chance.expovariate(1 / STEP_S)
        wake_s = next_wake_s(self.ledger)
        if wake_s is not None and wake_s <= at_s:
            return Ticked(wake_s)
        choices: list[Callable[[float], Event]] = []
        for job in sorted(wanted(self.ledger), key=lambda job: job.attempt):
            story = self.ledger.epics[job.attempt.epic].stories[job.attempt.story]
            match job:
                case RunAttempt():
                    choices.append(partial(self._worked, job.attempt, story))
                case Integrate():
                    choices.append(partial(self._merged, job.attempt, story))
                case _:
                    choices.append(partial(self._collected, job.attempt, story))
        for name, epic in self.ledger.epics.items():
            if is_team(epic):
                for story in epic.stories.in_state(StoryState.OFFERED, StoryState.RUNNING):
                    choices.append(partial(self._leased, AttemptId(name, story.spec.id, story.attempt), story))  # noqa: PERF401
        if choices:
            return self.chance.choice(choices)(at_s)
        assert wake_s is not None, "there is always something to wait for"
        return Ticked(wake_s)

    def _worked(self, attempt: AttemptId, story: Story, at_s: float) -> Event:
        if story.state is StoryState.OFFERED:
            return AttemptClaimed(attempt, Process(4711, at_s), "5e1f" * 10, at_s)
        return self._ended(attempt, at_s)

    def _leased(self, attempt: AttemptId, story: Story, at_s: float) -> Event:
        if story.state is StoryState.OFFERED:
            lease = Lease("f00baa", at_s, at_s + 900.0, "agent-7", f"/worktrees/{attempt}")
            return AttemptLeased(attempt, lease, "5e1f" * 10, at_s)
        if story.lease is not None and story.lease.ended is None and self._has_time():
            return LeaseRenewed(attempt, at_s + 900.0, "half of it is done", at_s)
        return self._ended(attempt, at_s)

    def _has_time(self) -> bool:
        """True while reports of progress can fill the journal, with a tenth of the stories left at its end."""
        merged = sum(epic.stories.count(StoryState.MERGED) for epic in self.ledger.epics.values())
        to_merge = self.config.stories * 9 // 10 - merged
        return self.config.records - self.ledger.seq > 5 * to_merge and self.chance.random() < 0.95

    def _collected(self, attempt: AttemptId, story: Story, at_s: float) -> Event:
        if story.lease is not None and story.lease.ended is None:
            return LeaseEnded(attempt, Cause.LEASE_LOST, "nobody was heard of", at_s)
        return AttemptFailed(attempt, Cause.LEASE_LOST, "nobody was heard of", "", None, at_s)

    def _ended(self, attempt: AttemptId, at_s: float) -> Event:
        luck = self.chance.random()
        if luck < 0.06:
            return AttemptFailed(attempt, Cause.AGENT_FAILED, "exit code 1", "Error: no\n" * 20, None, at_s)
        if luck < 0.065:
            return AttemptFailed(attempt, Cause.FAULT, "git: index.lock", "", None, at_s)
        return AttemptSucceeded(attempt, "5e1f" * 10, "c0de" * 10, ("src/a.py", "src/b.py", "tests/test_a.py"), at_s)

    def _merged(self, attempt: AttemptId, story: Story, at_s: float) -> Event:
        if story.proven is not None:
            return BranchMerged(attempt, story.proven.head, story.files_changed, at_s)
        if self.chance.random() < 0.04:
            return MergeRefused(attempt, Cause.CONFLICT, "in src/a.py", "<<<<\n" * 20, None, at_s, "tip", ("src/a.py",))
        return MergeProven(attempt, Proven("5e1f" * 10, "beef" * 10, ()), story.files_changed, at_s)


class Instantly:
    """A world that answers at once: worktrees, merges and agents. Stores nothing but chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311

    @asynccontextmanager
    async def hold(self, attempt: AttemptId, base: str) -> AsyncGenerator[Path]:
        yield Path("/nowhere", str(attempt), base)

    async def inspect(self, attempt: AttemptId, base: str) -> Done:
        return Done("c0de" * 10, (f"{attempt}.py", base))

    async def rescue(self, attempt: AttemptId) -> None:  # noqa: ARG002
        return None

    async def held(self) -> list[AttemptId]:
        return []

    async def free_mb(self) -> float:
        return 1e6

    async def set_up_by(self, epic: EpicId) -> str:
        return f"nothing to set up for {epic}"

    async def tip(self, epic: EpicId) -> str:
        return f"tip-{epic}"

    async def rebase(self, attempt: AttemptId, base: str, head: str) -> Landing:
        return Landing(base, f"{head}-rebased", (f"{attempt}.py",))

    async def checkout(self, epic: EpicId) -> Path:
        return Path("/nowhere", epic)

    async def advance(self, attempt: AttemptId, onto: str, head: str, before: object = ()) -> bool:  # noqa: ARG002
        return bool(attempt and onto and head)

    async def landed(self, epic: EpicId, but: list[str]) -> list[str]:  # noqa: ARG002
        return []

    async def contains(self, epic: EpicId, sha: str) -> bool:
        return not (epic and sha)

    async def forget(self, attempt: AttemptId) -> None:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()

    async def close(self, epic: EpicId) -> None:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        claimed(Process(4711, 1.0))
        await anyio.sleep(self.chance.uniform(0.0, 0.02))
        used(Usage())
        return ProcessEnd(Ended.EXITED, int(self.chance.random() < 0.06), 1.0, f"{call.attempt} ends")

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """It never was."""


async def submits(config: Config, journal: SqliteJournal) -> list[float]:
    """Seconds of each `Engine.submit` from here on; waves of sub-agents end, processes go on."""
    world = Instantly(config.seed)
    ports = Ports(SystemClock(), journal, world, world, world, world)  # pyright: ignore[reportArgumentType] - no more is asked
    took: list[float] = []
    plain = Engine.submit

    def timed(engine: Engine, event: Event) -> None:
        began_s = time.perf_counter()
        plain(engine, event)
        took.append(time.perf_counter() - began_s)

    with patch.object(Engine, "submit", timed):
        async with running(ports) as engine:
            for name, epic in engine.ledger.epics.items():
                if is_alive(epic.wave):
                    engine.handle(CancelEpic(name, "processes go on"))
            await engine.wait_for(lambda ledger: not any(is_alive(e.wave) for e in ledger.epics.values()), 60.0)
            policy = Policy(strategy=Strategy.ASYNCIO, slots=config.slots, attempts=3, fail_fast=False)
            for name in engine.ledger.epics:
                with suppress(Refused):
                    engine.handle(StartWave(name, "all", policy, "base", named=True, retry=True))
            took.clear()
            await engine.wait_for(
                lambda ledger: len(took) >= config.submits or not any(is_alive(e.wave) for e in ledger.epics.values()),
                300.0,
            )
            return took[: config.submits]


class Spent(NamedTuple):
    """Seconds on the wall, and of this process alone: others may be at work on the machine."""

    wall_s: float
    cpu_s: float

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def told(self, name: str) -> list[tuple[str, float, str]]:
        """Two rows of the table."""
        return [(name, self.wall_s, "s"), ("", self.cpu_s, "s of CPU")]


class Lap:
    """Stores when the last lap ended."""

    def __init__(self) -> None:
        self._at = Spent(time.perf_counter(), time.process_time())

    def next(self) -> Spent:
        """What the lap has taken that ends now."""
        now = Spent(time.perf_counter(), time.process_time())
        took = Spent(now.wall_s - self._at.wall_s, now.cpu_s - self._at.cpu_s)
        self._at = now
        return took


def measure(config: Config, folder: Path) -> Sequence[tuple[str, float, str]]:
    """What took how long: name, number, unit."""
    journal = SqliteJournal(folder / "journal.db")
    lap = Lap()
    life = Life(config, journal)
    life.run()
    lived = lap.next()
    events = journal.replay()
    read = lap.next()
    ledger = Ledger()
    for event in events:
        ledger = evolve(ledger, event)
    folded = lap.next()
    check(ledger)
    checked = lap.next()
    assert ledger == life.ledger, "replay tells the same"
    stories = [story for epic in ledger.epics.values() for story in epic.stories.values()]
    merged = sum(s.state is StoryState.MERGED for s in stories)
    attempts = sum(s.attempt for s in stories)
    del events, life, stories
    took = anyio.run(submits, config, journal)
    journal.close()
    cuts = statistics.quantiles(took, n=100)
    size = (folder / "journal.db").stat().st_size / 2**20
    return [
        ("records", ledger.seq, ""),
        ("journal", size, "MiB"),
        ("stories merged", merged, ""),
        ("attempts", attempts, ""),
        *lived.told("to live it"),
        *read.told("to read and decode it"),
        *folded.told("to fold it"),
        *checked.told("to check the end"),
        *read.plus(folded).plus(checked).told("replay in all"),
        ("submits measured", len(took), ""),
        ("submit p50", cuts[49] * 1000, "ms"),
        ("submit p99", cuts[98] * 1000, "ms"),
        ("submit at most", max(took) * 1000, "ms"),
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--stories", type=int, default=10_000)
    parser.add_argument("--epics", type=int, default=1)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--submits", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    config = Config(**vars(parser.parse_args()))
    sys.stdout.write(f"{config}, Python {sys.version.split()[0]}\n")
    with tempfile.TemporaryDirectory(prefix="epicwave-replay-") as folder:
        for name, number, unit in measure(config, Path(folder)):
            shown = f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"
            sys.stdout.write(f"{name:24}{shown:>12} {unit}\n")


if __name__ == "__main__":
    main()
