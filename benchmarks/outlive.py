"""Kill the front, the editor's process group, or the engine process while three agents work; the epic must end merged.

`python benchmarks/outlive.py [--runs 100] [--seed S] [--jobs 1] [--only RUN]`

Each run: a repository, an epic of six stories in two waves, three agents at once, each with a child. An editor's front
(`epicwave serve`) starts it, and at a random moment one of these gets kill -9: the front; the front's whole process
group; the engine process; the engine process twice; engine and front. Whoever is left goes on: a front that is alive
has a new engine started, and where no front is left one is opened again when the engine is dead too. In the end every
story must be merged, none may have been started again after it was merged, each must be on the branch once, and once
the engine process has ended for want of work there must be no process, worktree, branch or lock of ours, and no work
lost. Exit code 1 when anything of it is not so.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import yaml
from leak_world import ROOT, Place, Served

from mcp_server.core.model import Epic, StoryState
from mcp_server.front.place import read_door
from mcp_server.server.mirror import Mirror

AGENT = """
import os, pathlib, subprocess, sys, time, uuid
outside, seconds, story = pathlib.Path(sys.argv[1]), float(sys.argv[2]), os.environ["EPICWAVE_STORY"]
with open(outside / "starts", "a") as file:
    file.write(f"{story} {time.time()}\\n")
subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
time.sleep(seconds)
name = f"{story}-{uuid.uuid4().hex}"
pathlib.Path("work").mkdir(exist_ok=True)
pathlib.Path("work", name).write_text(story)
subprocess.run(["git", "add", "-A"], check=True)
subprocess.run(["git", "commit", "-q", "-m", f"Do {story}"], check=True)
(outside / "committed" / name).touch()
"""
STORIES = {"S1": [], "S2": [], "S3": [], "S4": ["S1"], "S5": ["S2"], "S6": ["S3"]}
SLOTS = 3
IDLE_S = 2.0
END_S = 120.0
"""A run may take so long from the kill to the last merge: agents need 2 s, the machine may be busy."""


class Home(Place):
    """A place whose agents work for some seconds, and whose epic has two waves."""

    def _write_files(self, dice: random.Random) -> None:
        agent = self.folder / "agent.py"
        agent.write_text(AGENT, "utf-8")
        stories = [{"id": name, "title": f"Story {name}", "depends_on": needs} for name, needs in STORIES.items()]
        (self.repo / "epic.yaml").write_text(
            yaml.safe_dump({"id": "leak", "title": "Outlive", "checks": ["git status"], "stories": stories}), "utf-8"
        )
        command = [sys.executable, "-I", str(agent), str(self.folder), f"{dice.uniform(0.8, 2.0):.2f}"]
        epic = {
            "parallel_strategy": "asyncio",
            "max_parallel_stories": SLOTS,
            "agent": "worker",
            "attempts": 4,
            "worktrees_dir": str(self.folder / "worktrees"),
        }
        config = {"epic": epic, "agents": {"worker": {"command": command}}}
        (self.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
        self.more = {"EPICWAVE_IDLE_S": str(IDLE_S), "PYTHONPATH": str(ROOT)}
        self.way = "entry"

    def epic(self) -> Epic | None:
        """The epic as the journal tells it."""
        return Mirror(self.repo / ".git/epicwave/journal.db").ledger().epics.get("leak") if self.began else None

    def engine(self) -> int | None:
        """Pid of the engine process that is alive."""
        door = read_door(str(self.repo / ".git" / "epicwave"))
        return door.pid if door is not None and psutil.pid_exists(door.pid) else None

    def starts(self) -> list[tuple[str, float]]:
        """Story and moment of each start of an agent."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "starts").read_text("utf-8").splitlines()
            return [(story, float(at_s)) for story, at_s in (line.split() for line in lines)]
        return []


@dataclass(slots=True)
class Outcome:
    """What one run did, and what was wrong with it."""

    number: int
    kind: str
    wrong: list[str] = field(default_factory=list[str])
    again: int = 0
    """Agents that were started beyond one a story."""
    seconds: float = 0.0


def until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Look until it is so. Raises `AssertionError`."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not after {limit_s:g} s"
        time.sleep(0.05)


def kill_front(_home: Home, front: Served) -> bool:
    """The front alone."""
    front.process.kill()
    return True


def kill_group(_home: Home, front: Served) -> bool:
    """All that the editor has started and that has not left its group."""
    os.killpg(front.process.pid, signal.SIGKILL)
    return True


def kill_engine(home: Home, _front: Served) -> bool:
    """The engine process; its front has another one started."""
    pid = home.engine()
    assert pid is not None, "there was no engine process"
    os.kill(pid, signal.SIGKILL)
    return True


def kill_engine_twice(home: Home, front: Served) -> bool:
    """And the one that took over."""
    first = home.engine()
    kill_engine(home, front)
    until(lambda: home.engine() not in (None, first), 60, "a second engine process")
    return kill_engine(home, front)


def kill_both(home: Home, front: Served) -> bool:
    """Nobody is left but the agents."""
    kill_engine(home, front)
    kill_front(home, front)
    return False


KINDS: dict[str, Callable[[Home, Served], bool]] = {  # True when somebody is left who goes on
    "front": kill_front,
    "process group": kill_group,
    "engine": kill_engine,
    "engine, twice": kill_engine_twice,
    "engine and front": kill_both,
}


def one(seed: int, number: int) -> Outcome:
    """One run."""
    dice = random.Random(f"{seed} {number}")  # noqa: S311 - to be repeated by its seed
    outcome = Outcome(number, list(KINDS)[number % len(KINDS)])
    began_s = time.monotonic()
    home = Home(dice)
    try:
        _live(dice, home, outcome)
    except (AssertionError, ConnectionError, subprocess.TimeoutExpired, KeyError, OSError) as error:
        outcome.wrong.append(f"{type(error).__name__}: {error}")
    if outcome.wrong:
        outcome.wrong.append(_last_words(home))
    outcome.seconds = time.monotonic() - began_s
    home.remove()
    return outcome


def _live(dice: random.Random, home: Home, outcome: Outcome) -> None:
    front = Served(home)
    front.tool("plan_epic", epic_file="epic.yaml")
    front.tool("start_wave", epic="leak", through="all")
    until(lambda: len(home.starts()) >= SLOTS, 60, "three agents at work")
    time.sleep(dice.uniform(0, 2.5))
    fronts = [front]
    if not KINDS[outcome.kind](home, front):
        fronts.append(Served(home))  # an editor is opened again: that alone must be enough
    until(lambda: _is_merged(home), END_S, "every story merged")
    for each in fronts:
        with suppress(BrokenPipeError, ValueError):
            each.__exit__()
    _judge(home, outcome)


def _is_merged(home: Home) -> bool:
    epic = home.epic()
    return epic is not None and all(s.state is StoryState.MERGED for s in epic.stories.values())


def _judge(home: Home, outcome: Outcome) -> None:
    until(lambda: not home.processes(), 60, "the engine process ends when nothing is alive")
    epic = home.epic()
    assert epic is not None
    merged_s = {s.spec.id: s.since_s for s in epic.stories.values()}
    starts = home.starts()
    outcome.again = len(starts) - len(STORIES)
    outcome.wrong += [f"{s} was started again after it was merged" for s, at_s in starts if at_s > merged_s[s]]
    done = Counter(home.git("log", "--format=%s", "epicwave/leak"))
    outcome.wrong += [f"{s} is on the branch {n} times" for s in STORIES if (n := done[f"Do {s}"]) != 1]
    outcome.wrong += [f"{kind}: {entries}" for kind, entries in home.leaks().items()]


def _last_words(home: Home) -> str:
    log = Path(home.repo, ".git", "epicwave", "engine.log")
    return log.read_text("utf-8")[-1500:] if log.exists() else "no engine.log"


def main() -> int:
    """Run them, print the table; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--only", type=int, help="repeat this run alone")
    asked = parser.parse_args()
    numbers: Sequence[int] = [asked.only] if asked.only is not None else range(asked.runs)
    print(f"seed {asked.seed}, {len(numbers)} runs", flush=True)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for outcome in pool.map(partial(one, asked.seed), numbers):
            outcomes.append(outcome)
            for wrong in outcome.wrong:
                print(f"--seed {asked.seed} --only {outcome.number} ({outcome.kind}): {wrong}", flush=True)
    print(f"\n{'killed':20} {'runs':>5} {'wrong':>5} {'started again':>13} {'seconds':>8}")
    for kind in KINDS:
        these = [outcome for outcome in outcomes if outcome.kind == kind]
        if these:
            bad, again = sum(bool(o.wrong) for o in these), sum(o.again for o in these)
            print(f"{kind:20} {len(these):5} {bad:5} {again:13} {sum(o.seconds for o in these) / len(these):8.1f}")
    return any(outcome.wrong for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
