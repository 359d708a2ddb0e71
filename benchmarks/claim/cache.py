"""Claim 6: what a cache of planned graphs would save of a `plan_epic`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

import anyio
import yaml
from claim.rows import Config, Row, chance, milliseconds, ratio_of
from claim.scratch import scratch

from mcp_server.adapters.formats.detect import read_text
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.commands import PlanEpic
from mcp_server.core.decide import decide
from mcp_server.core.evolve import evolve
from mcp_server.core.model import Ledger
from mcp_server.core.planning import plan
from mcp_server.server.wire_plan import PlanReply

SIZES = (10, 30, 100, 300, 1000)


class Written(NamedTuple):
    """A story of an epic that nobody has written."""

    number: int
    title: str
    needs: list[int]
    files: list[str]


def as_yaml(stories: Iterable[Written]) -> str:
    """An epic in our own format."""
    listed = [
        {"id": f"S{s.number}", "title": s.title, "depends_on": [f"S{n}" for n in s.needs], "files": s.files}
        for s in stories
    ]
    return yaml.safe_dump({"id": "big", "title": "Big", "stories": listed}, sort_keys=False)


def as_markdown(stories: Iterable[Written]) -> str:
    """The same as BMAD writes it."""
    lines = ["# Epic 1: Big", ""]
    for s in stories:
        lines += [f"### Story 1.{s.number}: {s.title}", ""]
        lines += [f"**Depends on:** {', '.join(f'Story 1.{n}' for n in s.needs)}", ""] if s.needs else []
        lines += ["**Files affected:**", *(f"- `{path}`" for path in s.files), ""]
    return "\n".join(lines)


def written(count: int, dice: Random, version: int) -> list[Written]:
    """So many stories; no version shares a file with another, because overlaps of files are remembered."""
    found: list[Written] = []
    for number in range(1, count + 1):
        before = range(max(1, number - 10), number)
        needs = dice.sample(before, min(len(before), dice.randint(0, 2)))
        files = [f"v{version}/part{dice.randrange(count)}.py", f"tests/v{version}/test{number}.py"]
        found.append(Written(number, f"Do part {number}", needs, files))
    return found


def parts(texts: Sequence[str], folder: Path) -> dict[str, float]:
    """Seconds of each part of a `plan_epic` but for git: the least, of versions of one epic that are alike."""
    least: dict[str, float] = dict.fromkeys(("read", "plan", "keep", "reply"), float("inf"))
    journal = SqliteJournal(folder / f"{len(texts[0])}.db")
    try:
        for text in texts:
            moments = [time.perf_counter()]
            reading = read_text(text)
            moments.append(time.perf_counter())
            planned = plan(reading.draft)
            moments.append(time.perf_counter())
            event = decide(Ledger(), PlanEpic(planned), 0.0)
            evolve(Ledger(), event)
            journal.append([event])
            moments.append(time.perf_counter())
            PlanReply.page(planned, [], [], 0)
            moments.append(time.perf_counter())
            assert not reading.unused, reading.unused[:3]
            for name, (begin_s, end_s) in zip(least, pairwise(moments), strict=True):
                least[name] = min(least[name], end_s - begin_s)
    finally:
        journal.close()
    return least


async def _git_s(repo: Path, repeats: int) -> float:
    """Seconds of what a `plan_epic` asks of git."""
    repository = await Repository.open(repo)
    least_s = float("inf")
    for _ in range(repeats):
        began_s = time.perf_counter()
        await repository.notices()
        least_s = min(least_s, time.perf_counter() - began_s)
    return least_s


FORMATS: dict[str, Callable[[Iterable[Written]], str]] = {"YAML": as_yaml, "Markdown": as_markdown}


def rows(config: Config) -> Iterator[Row]:
    """By number of stories: a whole `plan_epic`, as it is and with the plan for nothing."""
    repeats = config.of(9, 3)
    with scratch() as made:
        git_s = anyio.run(_git_s, made.repo, repeats)
        for name, write in FORMATS.items():
            for count in SIZES:
                versions = [written(count, chance(config.seed, count, v), v) for v in range(repeats)]
                yield _row(name, count, parts([write(v) for v in versions], made.beside), git_s, repeats)


def _row(name: str, count: int, found: dict[str, float], git_s: float, repeats: int) -> Row:
    whole_s = sum(found.values()) + git_s
    cached_s = whole_s - found["plan"]
    return Row(
        6,
        f"plan_epic of {count} stories in {name}, without a cache and with one that hits",
        milliseconds(whole_s),
        milliseconds(cached_s),
        ratio_of(whole_s, cached_s),
        repeats,
        f"It saves {milliseconds(found['plan'])}, when an unchanged epic is planned again (reading takes "
        f"{milliseconds(found['read'])}): nothing worth having, there is no cache.",
    )
