"""Real histories as epics on real git: how much faster than serial each policy is. `python benchmarks/histories.py`.

`[--corpus FOLDER] [--windows N] [--slots 4] [--repair SHARE] [--policies exclusive optimistic] [--jobs 2] [--seed 0]`

Windows of 50 consecutive commits (`git-histories/*.json` in FOLDER, else in the folder that EPICWAVE_CORPUS names) are
epics: a commit is a story with its files, which its author knows, the stories whose lines it replaces as dependencies,
and 2 + 0.5 * sqrt(lines) minutes of work. The product's engine, core and git ports run them on a real repository with a
synthetic tree; agents sleep for virtual minutes and then really edit and commit, and a check takes 10 virtual seconds.
Git itself takes no virtual time (0.1 to 0.5 real seconds a story). Where git cannot merge a story, its next agent mends
the conflict as the brief says, which takes 2 + 0.5 * sqrt(its lines in the files in conflict) minutes; or, as a bound,
does the story again, which takes its minutes (`--repair 1.0`) or a share. `history_world.py` says what is edited where.

Serial is the same by the strategy sequential, one story after the other. Prints a line a window: hours of work, then
for each policy the speed-up over serial and the repairs; and medians. Every policy must end in the same tree as serial,
with every story merged once: exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import trio.testing
import yaml
from history_world import Actors, History, Run, Window, measured_chance, move, read_window, wrong

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import MergeRefused
from mcp_server.core.model import Cause, StoryState
from mcp_server.core.planning import plan
from mcp_server.core.views import is_at_rest
from mcp_server.engine.landed import adopt
from mcp_server.engine.lifecycle import running
from mcp_server.server.launch import Launch, launch
from mcp_server.server.world import World
from mcp_server.testing.clock import VirtualClock

POLICIES = ("serial", "exclusive", "optimistic", "auto")
ROUNDS = 20
"""Times that a person has tried again what waits for one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured."""

    slots: int = 4
    repair: float | None = None
    policies: tuple[str, ...] = ("serial", "exclusive", "optimistic")
    seed: int = 0


def config(policy: str, asked: Asked, folder: Path) -> dict[str, object]:
    """The configuration of a repository that runs so."""
    epic: dict[str, object] = {
        "parallel_strategy": "sequential" if policy == "serial" else "asyncio",
        "attempts": 10,
        "attempt_timeout_s": 80_000,
        "stall_timeout_s": 80_000,
        "agent": "actor",
        "checks": [["check"]],
        "min_free_mb": 0,
        "worktrees_dir": str(folder / "worktrees"),
    }
    if policy != "serial":
        epic["max_parallel_stories"] = asked.slots
        epic["overlap"] = policy
    return {"epic": epic, "agents": {"actor": {"command": ["git"]}}}


def repository(folder: Path, history: History, settings: dict[str, object]) -> Path:
    """A repository with the synthetic tree."""
    repo = folder / "repo"
    for path, lines in history.files.items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text("\n".join(lines) + "\n", "utf-8")
    repo.mkdir(exist_ok=True)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Begin", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=repo, check=True)
    (repo / ".epicwave").mkdir(exist_ok=True)  # not committed: the trees are compared
    (repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return repo


async def live(clock: trio.testing.MockClock, repo: Path, actors: Actors) -> Run:
    """One epic from its plan until all is merged."""
    run = Run()
    async with anyio.create_task_group() as group:
        group.start_soon(move, clock)
        world = await World.open(repo)
        with closing(SqliteJournal(world.journal_path)) as journal:
            ports = replace(world.ports(journal), clock=VirtualClock(), runner=actors)
            async with running(ports) as engine:
                known = await world.known(engine.ledger)
                await adopt(engine, plan(actors.history.draft(), config_checks=True, known=known))
                began_s = anyio.current_time()
                for _ in range(ROUNDS):
                    await launch(world, engine, Launch("history", "all", retry=True, has_agents=False))
                    await engine.wait_for(lambda ledger: is_at_rest(ledger, ledger.epics["history"]))
                    stories = engine.ledger.epics["history"].stories
                    run.merged = stories.count(StoryState.MERGED)
                    if run.merged == len(stories):
                        break
                    run.asked_for += len(stories) - run.merged
                run.minutes = (anyio.current_time() - began_s) / 60.0
            refused = [fact for fact in journal.replay() if isinstance(fact, MergeRefused)]
            run.conflicts = sum(fact.cause is Cause.CONFLICT for fact in refused)
        group.cancel_scope.cancel()
    run.repairs, run.checks = sum(actors.started.values()) - len(actors.started), actors.checks
    run.mended = actors.mended_s / actors.worked_s
    return run


def tree_of(repo: Path) -> str:
    """What the epic has come to."""
    words = ["git", "rev-parse", "epicwave/history^{tree}"]
    return subprocess.run(words, cwd=repo, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def measure(asked: Asked, job: tuple[str, list[dict[str, object]]]) -> Window:
    """One window under all policies."""
    title, found = job
    history = History(read_window(found), measured_chance)
    history.lay_out(random.Random(f"{asked.seed} {title}"))  # noqa: S311 - to be repeated by its seed
    work, longest = [change.minutes for change in history.window], list[float]()
    for change in history.window:
        longest.append(change.minutes + max((longest[d] for d in change.deps), default=0.0))
    most = sum(work) / max(*longest, sum(work) / asked.slots)
    window = Window(title, len(work), sum(work), most)
    for policy in asked.policies:
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="epicwave-histories-") as folder:
            _alone(Path(folder))
            clock = trio.testing.MockClock(rate=0.0, autojump_threshold=math.inf)
            settings, actors = config(policy, asked, Path(folder)), Actors(history, asked.repair)
            repo = repository(Path(folder), history, settings)
            run = anyio.run(live, clock, repo, actors, backend="trio", backend_options={"clock": clock})
            run.tree = tree_of(repo)
        run.real_s = time.monotonic() - began_s
        window.runs[policy] = run
    return window


def _alone(folder: Path) -> None:
    """No configuration of the user's may change what is measured."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "EPICWAVE_EPIC__"))]:
        del os.environ[name]
    who = {f"GIT_{role}_{key}": "actor@localhost" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    os.environ.update(who, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1", HOME=str(folder))


def windows_in(folder: Path) -> list[tuple[str, list[dict[str, object]]]]:
    """All windows of all histories, with a title each."""
    found: list[tuple[str, list[dict[str, object]]]] = []
    for path in sorted((folder / "git-histories").glob("*.json")):
        for number, window in enumerate(json.loads(path.read_text("utf-8")), 1):
            found.append((f"{path.stem.removesuffix('-50')} {number}", window))
    return found


def main() -> int:
    """Measure, print the table; 1 when a policy ended in another tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=os.environ.get("EPICWAVE_CORPUS"))
    parser.add_argument("--windows", type=int, help="this many, evenly spread; all without it")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--repair", type=float, help="share of a story's minutes, to do it again")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(Asked().policies))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.corpus is None:
        parser.error("name a folder with git-histories/*.json, or set EPICWAVE_CORPUS")
    asked = Asked(given.slots, given.repair, tuple(dict.fromkeys(["serial", *given.policies])), given.seed)
    windows = windows_in(given.corpus)
    if given.windows:
        windows = windows[:: max(1, len(windows) // given.windows)][: given.windows]
    print(f"{len(windows)} windows, {asked.slots} slots, {asked}")
    print(
        f"{'window':44} {'hours':>5} {'most':>5}", *(f"{p:>11} {'mended':>6}" for p in asked.policies[1:]), flush=True
    )
    measured: list[Window] = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for window in pool.map(partial(measure, asked), windows):
            measured.append(window)
            rows = (f"{window.faster(p):10.2f}x {window.runs[p].repairs:6}" for p in asked.policies[1:])
            print(
                f"{window.title:44} {window.work_min / 60:5.1f} {window.most:5.2f}", *rows, *wrong(window), flush=True
            )
    _medians(measured, asked.policies)
    return any(wrong(window) for window in measured)


def _medians(measured: Sequence[Window], policies: Sequence[str]) -> None:
    for policy in policies[1:]:
        faster = sorted(window.faster(policy) for window in measured)
        runs = [window.runs[policy] for window in measured]
        print(
            f"{policy}: median {statistics.median(faster):.2f}x over serial, from {faster[0]:.2f} to {faster[-1]:.2f}; "
            f"{sum(r.conflicts for r in runs)} conflicts, {sum(r.repairs for r in runs)} repairs "
            f"({statistics.mean(r.mended for r in runs):.1%} of the work), "
            f"{sum(r.asked_for for r in runs)} waited for a person, {sum(r.checks for r in runs)} checks, "
            f"{sum(w.stories for w in measured)} stories"
        )
    print(f"dependencies and slots alone would allow: median {statistics.median(w.most for w in measured):.2f}x")
    trees = sum(not wrong(window) for window in measured)
    print(f"windows with the same final tree under every policy, all stories merged: {trees} of {len(measured)}")
    print(f"real seconds: {sum(run.real_s for window in measured for run in window.runs.values()):.0f}")


if __name__ == "__main__":
    sys.exit(main())
