"""How many merge conflicts the live probe tells beforehand, how many it tells in vain, and what it costs.

    python benchmarks/probe.py [--stories 96] [--files 5000] [--seed 1]

On a real repository of so many files, stories run eight at a time in worktrees of their own and edit blocks of lines,
step by step over ten minutes, some of it committed and some not. Time is counted, not waited for: the probe looks at
them on the schedule that the engine uses. Then they are merged one after the other by the real merge port; one that
conflicts is left out, as if it went back to be mended. Last, the processor's time of the looks themselves, children
included, for eight worktrees in which nothing changes and for eight that change before each look. Exit code 1 when less
than 95 % of the conflicts were told beforehand, or when there were too few (20) to say so.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import anyio

from mcp_server.adapters.git.integration import GitMerge
from mcp_server.adapters.git.probe import GitProbe
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.policy import probe_after_s
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.ports import Conflicted, Done
from mcp_server.probe import Sight

Told = dict[frozenset[AttemptId], dict[str, float]]
"""Pairs, the files in which they were told to conflict at any time, and when each was told first."""
AT_ONCE = 8
HOT = 5
"""Files that are edited as often as all others together: routes, settings, a change log."""
ENOUGH, GOAL = 20, 0.95
"""Conflicts that must have been met for a share to mean anything, and the share of them that is to be told before."""
ROUND_S = 600.0
LINES = 120
LOOKS = 12
"""Looks whose cost is measured, of each kind."""


@dataclass
class Tally:
    """What was told, and what came of it."""

    stories: int = 0
    conflicts: int = 0
    foretold: int = 0
    lead_s: list[float] = field(default_factory=list[float])
    told: int = 0
    """Pairs, and stories with the branch, that the probe named at any time."""
    came: int = 0
    undecided: int = 0
    """Of them, those of which one was left out for another conflict: nobody will know."""
    looks: int = 0


def git(at: Path, *argv: str) -> str:
    """Run git as an agent would."""
    return subprocess.run(["git", *argv], cwd=at, check=True, capture_output=True, text=True).stdout.strip()


def make(top: Path, files: int, chance: Random) -> list[str]:
    """A repository of files of 120 lines in folders of 50; their names."""
    names = [f"part{number // 50:03}/file{number:05}.txt" for number in range(files)]
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("".join(f"{chance.randrange(10**9)}\n" for _ in range(LINES)))
    git(top, "init", "-q", "-b", "main")
    git(top, "config", "user.name", "Ann")
    git(top, "config", "user.email", "ann@example.org")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "first")
    return names


def edit(path: Path, chance: Random) -> None:
    """Rewrite a block of one to eight lines."""
    lines = path.read_text().splitlines(keepends=True)
    at, count = chance.randrange(max(1, len(lines) - 8)), chance.randint(1, 8)
    lines[at : at + count] = [f"{chance.randrange(10**9)}\n" for _ in range(count)]
    path.write_text("".join(lines))


@dataclass
class Author:
    """One story's agent: its files, and the moments at which it edits one."""

    attempt: AttemptId
    place: Path
    names: list[str]
    moments_s: list[float]

    def act(self, chance: Random, *, last: bool) -> None:
        """One edit; a new file now and then; a commit after some of them, and after the last."""
        edit(self.place / chance.choice(self.names), chance)
        if chance.random() < 0.1:
            (self.place / f"new-{self.attempt.story}-{chance.randrange(10**6)}.txt").write_text("new\n")
        if last or chance.random() < 0.3:
            git(self.place, "add", "-A")
            git(self.place, "commit", "-q", "-m", "a step")


class Bench:
    """One repository, its ports, and the tally."""

    def __init__(self, repository: Repository, root: Path, names: list[str], chance: Random) -> None:
        self.worktrees = GitWorktrees(repository, root)
        self.merge = GitMerge(repository, root)
        self.probe = GitProbe(repository, root)
        self.names = names
        self.hot = chance.sample(names, HOT)
        self.chance = chance
        self.tally = Tally()

    def author(self, attempt: AttemptId, place: Path) -> Author:
        """A story of one to four files, and four to twelve edits in the ten minutes."""
        chance = self.chance
        names = [chance.choice(self.hot if chance.random() < 0.5 else self.names) for _ in range(chance.randint(1, 4))]
        moments = sorted(chance.uniform(10, ROUND_S) for _ in range(chance.randint(4, 12)))
        return Author(attempt, place, names, moments)

    @asynccontextmanager
    async def held(self, number: int, count: int, base: Sha) -> AsyncGenerator[list[Author]]:
        """The worktrees of so many stories, with an author each."""
        async with AsyncExitStack() as stack:
            authors: list[Author] = []
            for nth in range(count):
                attempt = AttemptId("bench", f"s{number + nth}", 1)
                place = await stack.enter_async_context(self.worktrees.hold(attempt, base))
                authors.append(self.author(attempt, place))
            yield authors

    async def round(self, number: int, count: int) -> None:
        """So many stories side by side, looked at on schedule; then merged."""
        base = await self.merge.tip("bench")
        heads: dict[AttemptId, Sha] = {}
        async with self.held(number, count, base) as authors:
            told = await self.run(authors, base)
            for author in authors:
                done = await self.worktrees.inspect(author.attempt, base)
                assert isinstance(done, Done), done
                heads[author.attempt] = done.head
        await self.probe.close()
        order = sorted(authors, key=lambda author: author.moments_s[-1])
        await self.land([author.attempt for author in order], base, heads, told)

    async def run(self, authors: list[Author], base: Sha) -> Told:
        """Ten minutes: pairs in conflict, and when each was told first."""
        steps = sorted((at_s, nth) for nth, author in enumerate(authors) for at_s in author.moments_s)
        sights = [Sight(author.attempt, base) for author in authors]
        told: Told = {}
        quiet_since_s = due_s = 0.0
        while steps or due_s < ROUND_S + 30.0:
            while steps and steps[0][0] <= due_s:
                at_s, nth = steps.pop(0)
                authors[nth].act(self.chance, last=at_s == authors[nth].moments_s[-1])
            began_s = time.monotonic()
            look = await self.probe.look(sights)
            self.tally.looks += 1
            for attempt, seen in look.seen.items():
                for clash in seen.clashes:
                    pair = frozenset({attempt, clash.other or attempt})
                    told[pair] = dict.fromkeys(clash.paths, due_s) | told.get(pair, {})
            quiet_since_s = due_s if look.changed else quiet_since_s
            due_s += probe_after_s(due_s - quiet_since_s, took_s=time.monotonic() - began_s)
        return told

    async def land(self, order: list[AttemptId], base: Sha, heads: dict[AttemptId, Sha], told: Told) -> None:
        """Merge them in the order in which they were done."""
        tally, landed, came = self.tally, list[AttemptId](), set[frozenset[AttemptId]]()
        for attempt in order:
            landing = await self.merge.rebase(attempt, base, heads[attempt])
            if isinstance(landing, Conflicted):
                tally.conflicts += 1
                pairs = {frozenset({attempt, other}) for other in landed}
                first_s = {
                    (pair, told[pair][path])
                    for pair in pairs & told.keys()
                    for path in landing.paths
                    if path in told[pair]
                }
                came |= {pair for pair, _ in first_s}
                if first_s:
                    tally.foretold += 1
                    tally.lead_s.append(ROUND_S - min(at_s for _, at_s in first_s))
            else:
                assert await self.merge.advance(attempt, landing.onto, landing.head)
                landed.append(attempt)
            await self.merge.forget(attempt)
        tally.stories += len(order)
        tally.told += len(told)
        tally.came += len(came)
        tally.undecided += sum(pair not in came and not pair <= set(landed) for pair in told)

    async def cost(self, *, busy: bool) -> tuple[float, float, float]:
        """Seconds of the clock and of the processor that one look takes, and the pause before the next one."""
        base = await self.merge.tip("bench")
        async with self.held(10_000 + 100 * busy, AT_ONCE, base) as authors:
            sights = [Sight(author.attempt, base) for author in authors]
            for author in authors:
                author.act(self.chance, last=False)
            await self.probe.look(sights)
            clock_s, cpu_s = [0.0, 0.0], 0.0
            for _ in range(LOOKS):
                for author in authors if busy else []:
                    author.act(self.chance, last=False)
                began_s, before_s = time.monotonic(), cpu_now_s()
                await self.probe.look(sights)
                clock_s.append(time.monotonic() - began_s)
                cpu_s += cpu_now_s() - before_s
        await self.probe.close()
        took_s = sum(clock_s) / LOOKS
        return took_s, cpu_s / LOOKS, probe_after_s(0.0 if busy else ROUND_S, took_s=took_s)


def cpu_now_s() -> float:
    """Processor time of this process and of all children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def words(tally: Tally) -> Iterator[str]:
    """What there is to say of the conflicts."""
    share = 100.0 * tally.foretold / max(1, tally.conflicts)
    vain = tally.told - tally.came - tally.undecided
    yield f"stories run                      {tally.stories}, {AT_ONCE} at a time, in {tally.looks} looks"
    yield f"conflicts at the merge           {tally.conflicts}"
    yield f"  told before                    {tally.foretold} ({share:.1f} %)"
    yield f"  median lead, of {ROUND_S:.0f} s          {median(tally.lead_s or [0.0]):.0f} s"
    yield f"pairs told                       {tally.told}"
    yield f"  that came                      {tally.came}"
    yield f"  false alarms                   {vain} (both have landed)"
    yield f"  nobody knows                   {tally.undecided} (one was left out for another conflict)"


async def main(stories: int, files: int, seed: int) -> int:
    """Make it, run it, print it; 1 when too little was told before."""
    chance = Random(seed)  # noqa: S311 - a scenario, not a secret
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder, "repo")
        names = make(top, files, chance)
        repository = await Repository.open(top)
        await repository.create_branch("epicwave/bench", await repository.head_sha())
        bench = Bench(repository, Path(folder, "trees"), names, chance)
        print(f"git {'.'.join(map(str, repository.version))}, {files} files, seed {seed}")
        for number in range(0, stories, AT_ONCE):
            await bench.round(number, min(AT_ONCE, stories - number))
        print("\n".join(words(bench.tally)))
        for kind, busy in (("idle", False), ("busy", True)):
            took_s, cpu_s, pause_s = await bench.cost(busy=busy)
            a_minute = 60.0 / (pause_s + took_s)
            print(
                f"{AT_ONCE} worktrees, {kind:<4}               {cpu_s * a_minute:.2f} s of processor a minute: "
                f"{a_minute:.1f} looks of {cpu_s * 1000:.0f} ms ({took_s * 1000:.0f} ms of the clock)"
            )
        return bench.tally.conflicts < ENOUGH or bench.tally.foretold < GOAL * bench.tally.conflicts


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="The live probe: what it tells, and what it costs.")
    arguments.add_argument("--stories", type=int, default=96)
    arguments.add_argument("--files", type=int, default=5000)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    sys.exit(anyio.run(main, chosen.stories, chosen.files, chosen.seed))
