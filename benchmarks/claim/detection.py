"""Claim 1: how long siblings live on when a critical story has failed. Real processes, real git, the real command."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import yaml
from claim.rows import Config, Row, at, ratio_of, seconds
from claim.scratch import Scratch, scratch

import mcp_server

SLEEPER = Path(__file__).with_name("sleeper.py")
PLAIN = Path(__file__).with_name("plain.py")
LOOK_S = 0.002
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Workload:
    """One critical story that fails, and siblings with a child each and so much work left."""

    siblings: int
    work_left_s: float
    manners: str
    """`polite`, or `deaf` to TERM."""

    @property
    def stories(self) -> list[str]:
        """Their names; `S0` is the critical one."""
        return [f"S{n}" for n in range(self.siblings + 1)]

    def agent(self, folder: Path) -> list[str]:
        """Its command."""
        return [sys.executable, "-I", "-S", str(SLEEPER), str(folder), str(self.work_left_s), self.manners]


def ours(workload: Workload) -> float:
    """Seconds from the end of the critical agent to that of the last process of a sibling, under `epicwave run`."""
    with scratch() as made:
        folder = made.beside / "alive"
        folder.mkdir()
        _write_epic(made, workload, folder)
        command = [sys.executable, "-P", "-m", "mcp_server.cli", "run", "epic.yaml"]
        return _watched(made, workload, folder, command)


def plain(workload: Workload) -> float:
    """The same under the plain runner."""
    with scratch() as made:
        folder = made.beside / "alive"
        folder.mkdir()
        names = ",".join(workload.stories)
        return _watched(made, workload, folder, [sys.executable, "-I", str(PLAIN), names, *workload.agent(folder)])


def _write_epic(made: Scratch, workload: Workload, folder: Path) -> None:
    stories = [{"id": name, "title": f"Story {name}", "critical": name == "S0"} for name in workload.stories]
    (made.repo / "epic.yaml").write_text(yaml.safe_dump({"id": "fail", "title": "Fails", "stories": stories}), "utf-8")
    settings = {
        "parallel_strategy": "asyncio",
        "max_parallel_stories": len(stories),
        "fail_fast": True,
        "attempts": 1,
        "agent": "sleeper",
        "worktrees_dir": str(made.beside / "worktrees"),
    }
    config = {"epic": settings, "agents": {"sleeper": {"command": workload.agent(folder)}}}
    (made.repo / ".epicwave").mkdir()
    (made.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")


def _watched(made: Scratch, workload: Workload, folder: Path, command: list[str]) -> float:
    """Let it start, let the critical agent fail, and look at the processes until all are gone."""
    log = (made.beside / "log").open("wb")
    code = {"PYTHONPATH": str(Path(mcp_server.__file__).parents[1])}  # the same that is imported here
    runner = subprocess.Popen(command, cwd=made.repo, env=made.environment | code, stdout=log, stderr=log)
    try:
        expected = 1 + 2 * workload.siblings
        _until(lambda: len(list(folder.iterdir())) == expected, f"{expected} agents' processes are up", made)
        found = {path: psutil.Process(int(path.stem)) for path in folder.iterdir()}
        critical = [process for path, process in found.items() if path.suffix == ".critical"]
        siblings = [process for path, process in found.items() if path.suffix == ".sibling"]
        (folder / "go").touch()
        _until(lambda: not any(map(_alive, critical)), "the critical agent is gone", made)
        failed_s = time.monotonic()
        _until(lambda: not any(map(_alive, siblings)), "all siblings are gone", made)
        gone_s = time.monotonic()
        runner.wait(PATIENCE_S)
    finally:
        runner.kill()
        runner.wait()
        log.close()
    return gone_s - failed_s


def _until(condition: Callable[[], bool], what: str, made: Scratch) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until_s:
            said = (made.beside / "log").read_text("utf-8")
            raise TimeoutError(f"not in {PATIENCE_S:g} s: {what}. The runner said: {said[-1500:]}")
        threading.Event().wait(LOOK_S)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def rows(config: Config) -> Iterator[Row]:
    """Polite siblings and deaf ones."""
    left_s, n = (6.5, 1) if config.quick else (20.0, 4)
    for count in (3,) if config.quick else (3, 7):
        workloads = [Workload(count, left_s, manners) for manners in ("polite", "deaf")]
        with ThreadPoolExecutor(2 * n) as pool:  # these only sleep; ours are measured one after the other
            there = list(pool.map(plain, workloads * n))
        for number, workload in enumerate(workloads):
            yield _row(workload, [ours(workload) for _ in range(n)], there[number::2])


def _row(workload: Workload, here: list[float], there: list[float]) -> Row:
    if workload.manners == "polite":
        note = (
            f"The other waits for what the siblings have left to do, here {workload.work_left_s:g} s: only our "
            "own time means anything, the ratio is as good as that number."
        )
    else:
        note = "Who ignores TERM gets 5 s before KILL: with less than that left to do, nothing is gained."
    return Row(
        1,
        f"a critical story fails, its {workload.siblings} {workload.manners} siblings are gone",
        f"{seconds(median(here))} (worst {seconds(at(here, 1))})",
        seconds(median(there)),
        ratio_of(median(here), median(there)),
        len(here),
        note,
    )
