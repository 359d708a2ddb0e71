"""Claim 3: what a story costs in git, against one `git worktree add` and `remove`. Real git, the real adapters."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import anyio
from claim.rows import Config, Row, milliseconds, ratio_of
from claim.scratch import Scratch, scratch

from mcp_server.adapters.git.integration import GitMerge
from mcp_server.adapters.git.names import integration_branch
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.spec import AttemptId
from mcp_server.ports import Done, Landing

EPIC = "claim"
TRACE = "GIT_TRACE2_EVENT"
"""Names a folder in which git leaves one file a process, its own children included."""


@dataclass(slots=True)
class Cost:
    """Of the stories so far: seconds of each, without what its agent does, and git processes in all."""

    seconds: list[float] = field(default_factory=list[float])
    commands: int = 0
    processes: int = 0


class Ours:
    """A story as the engine does it: hold, inspect, and for the whole way rebase, prove, move the branch, clear."""

    def __init__(self, made: Scratch, repository: Repository, *, lands: bool) -> None:
        root = made.beside / "worktrees"
        self._made = made
        self._worktrees, self._merge = GitWorktrees(repository, root), GitMerge(repository, root)
        self._lands = lands

    async def story(self, number: int) -> float:
        """Seconds of it."""
        attempt = AttemptId(EPIC, f"S{number}", 1)
        began_s = time.perf_counter()
        base = await self._merge.tip(EPIC)
        async with self._worktrees.hold(attempt, base) as path:
            agent_s = _agent(self._made, path, number)
            outcome = await self._worktrees.inspect(attempt, base)
            assert isinstance(outcome, Done), outcome
        if self._lands:
            landing = await self._merge.rebase(attempt, base, outcome.head)
            assert isinstance(landing, Landing), landing
            await self._merge.checkout(EPIC)
            assert await self._merge.advance(attempt, landing.onto, landing.head)
            await self._merge.forget(attempt)
        return time.perf_counter() - began_s - agent_s


class Plain:
    """One `git worktree add` and one `git worktree remove` a story."""

    def __init__(self, made: Scratch) -> None:
        self._made = made

    async def story(self, number: int) -> float:
        """Seconds of it."""
        path = self._made.beside / "plain" / f"S{number}"
        traced = {TRACE: os.environ[TRACE]} if TRACE in os.environ else {}
        began_s = time.perf_counter()
        self._made.git("worktree", "add", "-q", "-b", f"plain/S{number}", str(path), "main", more=traced)
        agent_s = _agent(self._made, path, number)
        self._made.git("worktree", "remove", str(path), more=traced)
        return time.perf_counter() - began_s - agent_s


def _agent(made: Scratch, path: Path, number: int) -> float:
    """What is the same for both is not counted: a commit."""
    began_s = time.perf_counter()
    made.commit(path, f"S{number}.txt", f"{number}\n")
    return time.perf_counter() - began_s


@contextmanager
def _traced(folder: Path) -> Generator[None]:
    folder.mkdir()
    os.environ[TRACE] = str(folder)
    try:
        yield
    finally:
        del os.environ[TRACE]


def _counted(folder: Path) -> tuple[int, int]:
    """Git commands that were started, and git processes in all: a child has its parent's name before its own."""
    names: list[str] = []
    for path in folder.iterdir():
        first, *_ = path.read_text("utf-8").splitlines()
        names.append(json.loads(first)["sid"])
    return sum("/" not in name for name in names), len(names)


async def _costs(files: int, stories: int) -> dict[str, Cost]:
    with scratch(files) as made:
        repository = await Repository.open(made.repo)
        await repository.create_branch(integration_branch(EPIC), await repository.head_sha())
        whole, held = Ours(made, repository, lands=True), Ours(made, repository, lands=False)
        ways = {"plain": Plain(made).story, "whole": whole.story, "held": held.story}
        costs = {name: Cost() for name in ways}
        for number in range(stories):  # in turn, so that all meet the same noise
            for place, (name, do) in enumerate(ways.items()):
                costs[name].seconds.append(await do(3 * number + place))
        for place, (name, do) in enumerate(ways.items(), 1):  # again, with a trace, which costs time of its own
            folder = made.beside / f"trace-{name}"
            with _traced(folder):
                for number in range(stories):
                    await do(place * 10_000 + number)
            costs[name].commands, costs[name].processes = _counted(folder)
        return costs


def rows(config: Config) -> Iterator[Row]:
    """A small repository and, in a full run, a large one: the checkout of its files costs both the same."""
    stories = config.of(15, 6)
    for files in (20,) if config.quick else (20, 1000):
        costs = anyio.run(_costs, files, stories)
        plain = costs.pop("plain")
        for name, ours in costs.items():
            what, buys = WORDS[name]
            yield Row(
                3,
                f"{what}, {files} files: git processes a story",
                f"{ours.processes / stories:.1f} ({ours.commands / stories:.1f} commands)",
                f"{plain.processes / stories:.1f} ({plain.commands / stories:.1f} commands)",
                ratio_of(ours.processes, plain.processes),
                stories,
                buys,
            )
            here, there = median(ours.seconds), median(plain.seconds)
            yield Row(
                3,
                f"{what}, {files} files: time a story",
                milliseconds(here),
                milliseconds(there),
                ratio_of(here, there),
                stories,
                f"{milliseconds(here - there)} more, where agents work for minutes.",
            )


WORDS = {
    "whole": (
        "worktree, verdict, rebase, merge",
        "More, not less: it buys a verdict, a rebase, a place for the checks, a merge that a crash cannot break.",
    ),
    "held": (
        "worktree and verdict alone",
        "More, not less: it buys a verdict, and a worktree that is locked and whose work a crash cannot lose.",
    ),
}
