"""Stop epics at random moments and count what is left. `python benchmarks/leaks.py --runs 1000 [--seed S] [--jobs J]`.

Each run: a repository, an epic of 3 to 5 stories, agents that live for some tenths of a second and have children that
ignore TERM or leave their group. `epicwave run` or `epicwave serve` works on it as a process and is stopped at a random
moment: by the tool cancel_epic, end of input, SIGINT, SIGTERM, kill -9, or kill -9 in the middle of an orderly end.
After a kill it is started again, and goes on to the end or is cancelled. Then there must be no process, worktree, work
branch, base ref, lock or temporary folder, the checkout must be as it was, and all that agents have committed must be
on the epic's branch or on a rescue ref (after an orderly end, also on the work branch of a story in the merge queue;
then the epic is run to its end, and counted again). Exit code 1 on any leak; `--seed S --only RUN` repeats one.
"""

from __future__ import annotations

import argparse
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
from leak_world import PATIENCE_S, Place, Served, end

GONE_S = 8.0
"""After a kill -9 nobody is there to wait for: leashes end the agents by themselves, TERM first, within this time."""


@dataclass(slots=True)
class Outcome:
    """What one run did and what it left."""

    number: int
    kind: str
    what: list[str] = field(default_factory=list[str])
    leaks: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    seconds: float = 0.0
    committed: int = 0


def _moment(dice: random.Random, place: Place, process: subprocess.Popen[str]) -> None:
    """Come back at a random moment: during the start, or while it works, or when it has ended already."""
    if dice.random() < 0.15:
        _wait(process, dice.uniform(0, 1.2))
        return
    until_s = time.monotonic() + PATIENCE_S
    while not place.began and process.poll() is None and time.monotonic() < until_s:
        _wait(process, 0.02)
    _wait(process, dice.uniform(0, 2.5))


def _wait(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait for its end, so long at most. True when it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _gone(place: Place, process: subprocess.Popen[str]) -> None:
    """After a kill -9: the agents must end by themselves, before anything is started again."""
    process.communicate(timeout=PATIENCE_S)
    until_s = time.monotonic() + GONE_S
    while left := place.processes():
        assert time.monotonic() < until_s, f"{GONE_S:g} s after kill -9 agents still run: {left}"
        psutil.wait_procs(left, timeout=0.1)


def _again(dice: random.Random, place: Place, told: list[str]) -> None:
    """After a kill: go on to the end in a terminal, or cancel through a server."""
    if dice.random() < 0.6:
        told.append(f"run to the end: {end(place.start('run', 'epic.yaml'))}")
        return
    with Served(place) as server:
        server.tool("plan_epic", epic_file="epic.yaml")
        if dice.random() < 0.5:
            server.tool("start_wave", epic="leak", through="all", retry=True)
            _wait(server.process, dice.uniform(0, 1))
        told.append(f"cancelled after the restart: {server.tool('cancel_epic', epic='leak')[:60]}")


def _killed_while_ending(dice: random.Random, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _wait(process, dice.uniform(0, 0.4))
    process.kill()


def run_signal(dice: random.Random, place: Place, told: list[str], number: signal.Signals) -> None:
    """`epicwave run`, ended by a signal in order."""
    process = place.start("run", "epic.yaml")
    _moment(dice, place, process)
    told.append(f"exit code {end(process, number) if process.poll() is None else end(process)}")


def run_kill(dice: random.Random, place: Place, told: list[str], *, while_ending: bool = False) -> None:
    """`epicwave run`, killed, perhaps twice, and started again."""
    for _ in range(dice.choice([1, 1, 2])):
        process = place.start("run", "epic.yaml")
        _moment(dice, place, process)
        if while_ending:
            _killed_while_ending(dice, process)
        else:
            process.kill()
        _gone(place, process)
    _again(dice, place, told)


def serve_cancel(dice: random.Random, place: Place, told: list[str]) -> None:
    """`epicwave serve`, the epic cancelled through the tool, then the end of its input."""
    with _started(place) as server:
        _moment(dice, place, server.process)
        told.append(server.tool("cancel_epic", epic="leak")[:60])


def serve_end(dice: random.Random, place: Place, told: list[str], number: signal.Signals | None) -> None:
    """`epicwave serve`, ended by a signal or by the end of its input while agents work."""
    server = _started(place)
    _moment(dice, place, server.process)
    told.append(f"exit code {end(server.process, number)}")


def serve_kill(dice: random.Random, place: Place, told: list[str]) -> None:
    """`epicwave serve`, killed and started again."""
    server = _started(place)
    _moment(dice, place, server.process)
    server.process.kill()
    _gone(place, server.process)
    _again(dice, place, told)


def _started(place: Place) -> Served:
    server = Served(place)
    server.tool("plan_epic", epic_file="epic.yaml")
    server.tool("start_wave", epic="leak", through="all")
    return server


Act = Callable[[random.Random, Place, list[str]], None]
ACTS: dict[str, Act] = {
    "run: SIGINT": lambda d, p, t: run_signal(d, p, t, signal.SIGINT),
    "run: SIGTERM": lambda d, p, t: run_signal(d, p, t, signal.SIGTERM),
    "run: kill -9": run_kill,
    "run: kill -9 while ending": lambda d, p, t: run_kill(d, p, t, while_ending=True),
    "serve: cancel_epic": serve_cancel,
    "serve: end of input": lambda d, p, t: serve_end(d, p, t, None),
    "serve: SIGTERM": lambda d, p, t: serve_end(d, p, t, signal.SIGTERM),
    "serve: kill -9": serve_kill,
}


def one(seed: int, number: int) -> Outcome:
    """One run."""
    dice = random.Random(f"{seed} {number}")  # noqa: S311 - to be repeated by its seed
    outcome = Outcome(number, list(ACTS)[number % len(ACTS)])
    began_s = time.monotonic()
    place = Place(dice)
    try:
        ACTS[outcome.kind](dice, place, outcome.what)
        waiting = place.waiting()
        outcome.leaks = place.leaks(waiting)
        if waiting and not outcome.leaks:
            outcome.what.append(
                f"{len(waiting)} in the merge queue, run to the end: {end(place.start('run', 'epic.yaml'))}"
            )
            outcome.leaks = place.leaks()
        outcome.committed = len(list(place.committed.iterdir()))
    except (AssertionError, ConnectionError, subprocess.TimeoutExpired, KeyError) as error:
        outcome.leaks = {"broken": [f"{type(error).__name__}: {error}"]}
    outcome.seconds = time.monotonic() - began_s
    stderr = (place.folder / "stderr").read_text("utf-8", "replace") if (place.folder / "stderr").exists() else ""
    if "Traceback" in stderr and not stderr.endswith(
        "KeyboardInterrupt\n"
    ):  # that one is Python's own, while it starts
        outcome.leaks.setdefault("tracebacks", []).append(stderr[-1500:])
    place.remove()
    return outcome


def main() -> int:
    """Run them, print the table; 1 on any leak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--only", type=int, help="repeat this run alone")
    asked = parser.parse_args()
    numbers: Sequence[int] = [asked.only] if asked.only is not None else range(asked.runs)
    print(f"seed {asked.seed}, {len(numbers)} runs", flush=True)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for outcome in pool.map(partial(one, asked.seed), numbers):
            outcomes.append(outcome)
            if outcome.leaks:
                print(f"LEAK: --seed {asked.seed} --only {outcome.number}: {outcome.kind}, {outcome.what}")
                for kind, entries in outcome.leaks.items():
                    print(f"  {kind}: {entries}", flush=True)
    _table(outcomes)
    return any(outcome.leaks for outcome in outcomes)


def _table(outcomes: list[Outcome]) -> None:
    kinds = Counter(kind for outcome in outcomes for kind in outcome.leaks)
    print(f"\n{'how it was stopped':28} {'runs':>5} {'leaks':>5} {'commits':>7} {'seconds':>8}")
    for name in ACTS:
        these = [outcome for outcome in outcomes if outcome.kind == name]
        if these:
            bad, done = sum(bool(o.leaks) for o in these), sum(o.committed for o in these)
            print(f"{name:28} {len(these):5} {bad:5} {done:7} {sum(o.seconds for o in these) / len(these):8.1f}")
    total = sum(bool(outcome.leaks) for outcome in outcomes)
    print(f"{'all':28} {len(outcomes):5} {total:5} {sum(o.committed for o in outcomes):7}")
    print(f"leaks by kind: {dict(kinds) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
