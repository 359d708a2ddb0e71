"""Real faults strike real epics; count what is lost. `python benchmarks/faults.py --runs 500 [--seed S] [--jobs J]`.

Each run: a repository in which the user has unfinished work, an epic of 6 to 10 stories with dependencies, footprints
and a check that some attempts break, `epicwave run` as a process, and agents that write down outside what they really
did. One kind of fault a run, at a random moment; afterwards the same command is given again until all stories are
merged. Then nothing may be lost (a file that an attempt wrote, committed or not, is on the branch or on a ref below
refs/epicwave/), doubled, started too early, resurrected (on the branch without having been merged), left behind or
touched, and the check is green on the tip. Exit code 1 on any breach; `--seed S --only RUN` repeats one.

A fault has hit when its target was there: the process was alive, the order was carried out, the disk was full or the
clock was wrong while the engine ran. The clock is the wall clock of the whole run, by a small library of our own that
is compiled and preloaded; without a C compiler it is `time.time` in the engine alone. File times are not moved.
A full disk is a tmpfs, which only root may mount; for anybody else these kinds are left out, and that is said.
"""

from __future__ import annotations

import argparse
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import psutil
from fault_tools import CALLS, Clock, DeadlyGit, FullDisk, can_mount, clock_library
from fault_world import STALL_S, FaultPlace
from leak_world import PATIENCE_S, end

from mcp_server.adapters.agents.process import START_BOUND_S

MOST_RUNS = 7
"""Times that `epicwave run` is given until all is merged."""
GONE_S = 8.0
"""After a kill -9 of the engine its agents end by themselves within this time."""
STOPPED_S = STALL_S + 5.0 + 6.0
"""A stopped agent is gone after the stall limit and the grace, on a busy machine."""
STOPPED_LEASH_S = STOPPED_S + START_BOUND_S
"""One that is stopped before it has started its agent is given up after that bound."""
KINDS_OF_BREACH = ("lost", "doubled", "too early", "resurrected", "red tip", "leaks", "touched", "limits", "broken")


@dataclass(slots=True)
class Run:
    """One run: its dice, its repository, its engine, what hit, and what came of it."""

    number: int
    kind: str
    dice: random.Random
    place: FaultPlace
    hits: list[str] = field(default_factory=list[str])
    breaches: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    codes: list[int] = field(default_factory=list[int])
    seconds: float = 0.0
    starts: int = 0
    half_objects: int = 0

    def start(self) -> subprocess.Popen[str]:
        """The engine, once it has begun."""
        process = self.place.run()
        until_s = time.monotonic() + PATIENCE_S
        while not self.place.began and not ended(process, 0.02):
            assert time.monotonic() < until_s, "the engine does not begin"
        return process

    def finish(self, process: subprocess.Popen[str]) -> None:
        """Wait for its end."""
        self.codes.append(end(process))

    def to_the_end(self) -> None:
        """Give the command until all is merged."""
        while not self.codes or self.codes[-1] != 0:
            assert len(self.codes) < MOST_RUNS, f"not all is merged after exit codes {self.codes}"
            self.finish(self.place.run())

    def found(self, process: subprocess.Popen[str], what: str = "") -> psutil.Process | None:
        """An agent, or (`leash`) the leash of one; waits for one as long as the engine lives."""
        while not ended(process, 0.02):
            if agents := self.place.agents(what):
                return self.dice.choice(agents)
        return None


def ended(process: subprocess.Popen[str], wait_s: float) -> bool:
    """Wait so long. True when it has ended."""
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def engine_killed(run: Run) -> None:
    """Kill -9 of the engine, once to three times; started again at once, or when its agents are gone."""
    for _ in range(run.dice.choice([1, 1, 2, 3])):
        process = run.start()
        if not ended(process, run.dice.uniform(0.1, 4.0)):
            process.kill()
            run.hits.append("engine")
        run.finish(process)
        if run.codes[-1] == 0:
            return
        until_s, at_once = time.monotonic() + GONE_S, run.dice.random() < 0.5
        while not at_once and (left := run.place.processes()):
            assert time.monotonic() < until_s, f"{GONE_S:g} s after kill -9 there still run {left}"
            psutil.wait_procs(left, timeout=0.1)


def killed_in_git(run: Run, who: str) -> None:
    """Kill -9 of git, or of the engine, at a chosen call of git: before, during or after it."""
    git = DeadlyGit(run.place)
    for number in range(run.dice.choice([1, 2, 3])):
        how = run.dice.choice(["before", "during", "during", "after"])
        git.order(number, run.dice.choice(CALLS), how, who, run.dice.uniform(0.0, 0.015))
    for _ in range(2):
        process = run.start()
        if not ended(process, run.dice.uniform(0.3, 3.0)):
            how = run.dice.choice(["before", "during", "during", "after"])
            git.order(9, run.dice.choice(CALLS), how, who, run.dice.uniform(0.0, 0.015))
        run.finish(process)
        if run.codes[-1] == 0:
            break
    git.disarm()
    run.hits += git.fired


def struck(run: Run, what: str, blow: signal.Signals) -> None:
    """Kill -9 or SIGSTOP of agents, or of their leashes."""
    process = run.start()
    for _ in range(run.dice.choice([1, 2, 3]) if blow is signal.SIGKILL else run.dice.choice([1, 1, 2])):
        if ended(process, run.dice.uniform(0.0, 1.5)) or (agent := run.found(process, what)) is None:
            break
        try:
            agent.send_signal(blow)
        except psutil.NoSuchProcess:
            continue
        run.hits.append(what or "agent")
        if blow is signal.SIGSTOP:
            limit_s = STOPPED_LEASH_S if what else STOPPED_S
            if psutil.wait_procs([agent], timeout=limit_s)[1]:
                run.breaches["limits"] = [f"a stopped {what or 'agent'} lives on after {limit_s:g} s"]
                break
    run.finish(process)


def agent_stopped(run: Run) -> None:
    """SIGSTOP of an agent; now and then of its leash, which takes longer."""
    struck(run, "leash" if run.dice.random() < 0.15 else "", signal.SIGSTOP)


def engine_stopped(run: Run) -> None:
    """SIGSTOP of the engine, SIGCONT after a while, or kill -9."""
    process = run.start()
    for _ in range(run.dice.choice([1, 2])):
        if ended(process, run.dice.uniform(0.1, 3.0)):
            break
        process.send_signal(signal.SIGSTOP)
        run.hits.append("engine")
        ended(process, run.dice.uniform(0.3, STALL_S + 1.5))
        process.send_signal(signal.SIGKILL if run.dice.random() < 0.2 else signal.SIGCONT)
    run.finish(process)


def disk_full(run: Run) -> None:
    """The disk is full for a while, perhaps while the engine is started again."""
    assert run.place.mounted is not None
    disk = FullDisk(run.place.mounted)
    process = run.start()
    for _ in range(run.dice.choice([1, 1, 2])):
        if ended(process, run.dice.uniform(0.0, 3.0)):
            break
        disk.fill(run.dice.choice([0, 0, 4096, 20_000, 100_000]))
        run.hits.append("full")
        if ended(process, run.dice.uniform(0.3, 3.5)) and run.dice.random() < 0.5:
            run.finish(process)
            process = run.place.run()
            run.hits.append("started while full")
            ended(process, run.dice.uniform(0.5, 3.0))
        disk.free()
    run.finish(process)


def clock_jumps(run: Run) -> None:
    """The wall clock jumps by hours, forwards and backwards; sometimes a leash or the engine is killed just then."""
    clock = Clock(run.place)
    process = run.start()
    for _ in range(run.dice.choice([1, 2, 3])):
        if ended(process, run.dice.uniform(0.1, 2.0)):
            break
        clock.set(run.dice.choice([-1, 1]) * run.dice.randint(60, 20 * 3600))
        run.hits.append("clock")
        if run.dice.random() < 0.3 and (leash := run.found(process, "leash")) is not None:
            leash.kill()
            run.hits.append("leash")
    if run.dice.random() < 0.4 and not ended(process, run.dice.uniform(0.0, 1.0)):
        process.kill()
        run.hits.append("engine")
    run.finish(process)
    clock.set(run.dice.choice([-1, 1]) * run.dice.randint(0, 20 * 3600))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, and the disk that it needs."""

    strike: Callable[[Run], None]
    disk: str | None = None


KINDS = {
    "kill -9: engine": Kind(engine_killed),
    "kill -9: engine, in a git call": Kind(partial(killed_in_git, who="engine")),
    "kill -9: git": Kind(partial(killed_in_git, who="git")),
    "kill -9: agent": Kind(partial(struck, what="", blow=signal.SIGKILL)),
    "kill -9: leash": Kind(partial(struck, what="leash", blow=signal.SIGKILL)),
    "full disk: state": Kind(disk_full, "state"),
    "full disk: .git": Kind(disk_full, "git"),
    "full disk: worktrees": Kind(disk_full, "worktrees"),
    "SIGSTOP: agent": Kind(agent_stopped),
    "SIGSTOP: engine": Kind(engine_stopped),
    "clock jumps": Kind(clock_jumps),
}


def one(seed: int, most_stories: int, kinds: Sequence[str], number: int) -> Run:
    """One run, told in one line."""
    dice = random.Random(f"{seed} {number}")  # noqa: S311 - to be repeated by its seed
    kind = kinds[number % len(kinds)]
    began_s = time.monotonic()
    run = Run(number, kind, dice, FaultPlace(dice, most_stories, KINDS[kind].disk))
    try:
        try:
            KINDS[kind].strike(run)
            run.to_the_end()
            run.breaches |= run.place.breaches()
        except (AssertionError, OSError, psutil.Error, subprocess.SubprocessError, KeyError, ValueError) as error:
            run.breaches["broken"] = [f"{type(error).__name__}: {error}"]
        log = run.place.folder / "stderr"
        said = log.read_text("utf-8", "replace") if log.exists() else ""
        if "Traceback" in said:
            run.breaches.setdefault("broken", []).append(said[-3000:])
        run.starts, run.half_objects = len(run.place.starts()), run.place.half_objects()
    finally:
        run.place.remove()
    run.seconds = time.monotonic() - began_s
    return run


def main() -> int:
    """Run them, print the table; 1 on any breach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--most-stories", type=int, default=10, help="of an epic; at least 4 fewer, or 3")
    parser.add_argument("--only", type=int, help="repeat this run alone")
    asked = parser.parse_args()
    kinds = [name for name, kind in KINDS.items() if kind.disk is None or can_mount()]
    numbers: Sequence[int] = [asked.only] if asked.only is not None else range(asked.runs)
    clock = "of all processes, by a preloaded library" if clock_library() else "time.time of the engine alone"
    print(
        f"seed {asked.seed}, {len(numbers)} runs, {asked.jobs} at a time, epics of up to {asked.most_stories} stories"
    )
    print(f"Python {platform.python_version()}, {platform.system()}; the clock that jumps: {clock}", flush=True)
    if len(kinds) < len(KINDS):
        print("left out, since a tmpfs cannot be mounted here: full disk", flush=True)
    runs: list[Run] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for run in pool.map(partial(one, asked.seed, asked.most_stories, kinds), numbers):
            runs.append(run)
            _line(run, asked.seed)
    _table(runs)
    return any(run.breaches for run in runs)


def _line(run: Run, seed: int) -> None:
    verdict = "BREACH" if run.breaches else "ok"
    hits = ", ".join(run.hits) or "did not hit"
    print(f"{run.number:4} {verdict} {run.kind}: {hits}; exits {run.codes}, {run.starts} starts, {run.seconds:.1f} s")
    if run.breaches:
        print(f"     --seed {seed} --only {run.number}")
    for kind, entries in run.breaches.items():
        print(f"     {kind}: {entries}")
    sys.stdout.flush()


def _table(runs: Sequence[Run]) -> None:
    shown = KINDS_OF_BREACH
    print(f"\n{'kind of fault':31} {'runs':>5} {'hit':>5} {'faults':>6} {'starts':>6}", *(f"{s:>11}" for s in shown))
    for name in (*KINDS, "all"):
        these = [run for run in runs if name in (run.kind, "all")]
        if these:
            hit, faults = sum(bool(r.hits) for r in these), sum(len(r.hits) for r in these)
            kinds = Counter(kind for run in these for kind in run.breaches)
            numbers = f"{len(these):5} {hit:5} {faults:6} {sum(r.starts for r in these):6}"
            print(f"{name:31} {numbers}", *(f"{kinds[s]:11}" for s in shown))
    print(f"runs with a breach: {sum(bool(run.breaches) for run in runs)} of {len(runs)}")
    print(f"unfinished object files of killed gits, which git sweeps itself: {sum(r.half_objects for r in runs)}")


if __name__ == "__main__":
    sys.exit(main())
