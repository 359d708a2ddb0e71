"""`epicwave demo`: a small real epic in a scratch repository, in parallel and then one story after the other."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import yaml
from rich.console import Console
from rich.table import Table

from mcp_server.adapters.agents.profiles import resolve
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.cli.run import Asked, run_epic
from mcp_server.cli.terminal import open_console
from mcp_server.core.metrics import Span, most_at_once, spans, wall_s

EPIC = "textkit"
CHECK = (sys.executable, "-B", "-m", "unittest", "-q")
IDENTITY = ("-c", "user.name=epicwave demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
BAR = 40
"""Characters of the time line."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of the epic came to."""

    spans: list[Span]
    wall_s: float
    exit_code: int
    untouched: bool
    """`git status` and HEAD of the user's checkout are byte for byte what they were."""
    tests_pass: bool
    """The check passes in a fresh clone of the merged branch."""


async def run_demo(keep: Path | None, slots: int) -> int:
    """Run it and say what happened; the result is the exit code: 0 when all of it is as it should be."""
    console = open_console()
    if keep is not None:
        await anyio.Path(keep).mkdir(parents=True, exist_ok=False)
        return await _both(Path(await anyio.Path(keep).resolve()), slots, console)
    with tempfile.TemporaryDirectory(prefix="epicwave-demo-", ignore_cleanup_errors=True) as folder:
        return await _both(Path(await anyio.Path(folder).resolve()), slots, console)


async def _both(folder: Path, slots: int, console: Console) -> int:
    console.print(f"An epic of 11 stories in a scratch repository below {folder}, {slots} agents at once:\n")
    parallel = await _one(folder / "parallel", Asked(Path(), "asyncio", slots, "demo"), console)
    console.print("\nThe same epic, one story after the other:")
    serial = await _one(folder / "sequential", Asked(Path(), "sequential", None, "demo"), Console(quiet=True))
    console.print(f"{serial.wall_s:.1f} s.\n")
    console.print(_table(parallel))
    problems = _problems(parallel, serial)
    for problem in problems:
        console.print(f"NOT AS IT SHOULD BE: {problem}")
    if not problems:
        console.print(
            f"\nMerged on epicwave/{EPIC}, checks green in a fresh clone, your checkout untouched. "
            f"{parallel.wall_s:.1f} s with {slots} slots (up to {most_at_once(parallel.spans)} agents at once) against "
            f"{serial.wall_s:.1f} s one after the other: {serial.wall_s / parallel.wall_s:.1f}x."
        )
    return 1 if problems else 0


async def _one(repo: Path, asked: Asked, console: Console) -> Result:
    content = yaml.safe_load(files("mcp_server.cli").joinpath("demo.yaml").read_text("utf-8"))
    await anyio.to_thread.run_sync(_make_repository, repo, content)
    before = await anyio.to_thread.run_sync(_checkout, repo)
    asked = Asked(repo / "epic.yaml", asked.strategy, asked.slots, asked.agent, allow_checks=True)  # it is ours
    exit_code = await run_epic(repo, asked, console)
    after = await anyio.to_thread.run_sync(_checkout, repo)
    journal = SqliteJournal(repo / ".git" / "epicwave" / "journal.db")
    events = journal.replay()
    journal.close()
    passes = await anyio.to_thread.run_sync(_tests_pass, repo)
    return Result(spans(events, EPIC), wall_s(events, EPIC), exit_code, before == after, passes)


def _make_repository(repo: Path, content: dict[str, Any]) -> None:
    script = repo.parent / f"{repo.name}-script.json"
    config = {
        "epic": {"checks": [list(CHECK)]},
        "agents": {
            "demo": {"command": list(resolve("scripted", {}).command), "environment": {"EPICWAVE_SCRIPT": str(script)}}
        },
    }
    for path, text in (content["program"] | {".epicwave/config.yaml": yaml.safe_dump(config)}).items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text(text, "utf-8")
    _git(repo, "init", "-q", "-b", "main")
    _git(repo, "add", "-A")
    _git(repo, *IDENTITY, "commit", "-q", "-m", "A small program")
    (repo / "epic.yaml").write_text(content["epic"], "utf-8")  # untracked, as an epic often is
    script.write_text(json.dumps(_script(content)), "utf-8")


def _script(content: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What the scripted agent does, by story and attempt."""
    script: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for story, seconds in content["think"].items():
        for attempt in ("1", "2"):
            written = content["work"].get(story, {}) | content["attempts"].get(story, {}).get(attempt, {})
            script.setdefault(story, {})[attempt] = [
                {"sleep_s": seconds},
                *({"write": {"path": path, "text": text}} for path, text in written.items()),
                *content["edits"].get(story, []),
                {"commit": f"{story}: attempt {attempt}"},
            ]
    return script


def _git(repo: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(repo), *words], check=True, stdout=subprocess.PIPE).stdout


def _checkout(repo: Path) -> tuple[bytes, bytes]:
    return _git(repo, "status", "--porcelain=v2", "--branch", "-z"), _git(repo, "rev-parse", "HEAD")


def _tests_pass(repo: Path) -> bool:
    """The check in a fresh clone of the merged branch: nothing of the engine has a hand in it."""
    clone = repo.parent / f"{repo.name}-merged"
    _git(repo, "clone", "-q", "--no-local", "--branch", f"epicwave/{EPIC}", ".", str(clone))
    return subprocess.run(CHECK, cwd=clone, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _table(result: Result) -> Table:
    """Each attempt with its place in time."""
    table = Table(box=None, pad_edge=False)
    for name in ("story", "try", "outcome", "start", "agent", "merge"):
        table.add_column(name, no_wrap=True)
    table.add_column("time".ljust(BAR), no_wrap=True)
    began_s = min((s.started_s for s in result.spans), default=0.0)
    total_s = max((s.settled_s for s in result.spans), default=1.0) - began_s or 1.0
    for span in result.spans:
        left, middle, right = (
            round(BAR * (at_s - began_s) / total_s) for at_s in (span.started_s, span.ended_s, span.settled_s)
        )
        bar = " " * left + "=" * max(1, middle - left) + "-" * (right - middle)
        table.add_row(
            span.attempt.story,
            str(span.attempt.number),
            span.outcome,
            f"{span.started_s - began_s:.1f} s",
            f"{span.agent_s:.1f} s",
            f"{span.settled_s - span.ended_s:.1f} s",
            bar,
        )
    return table


def _problems(parallel: Result, serial: Result) -> list[str]:
    found: list[str] = []
    for name, result in (("in parallel", parallel), ("one after the other", serial)):
        if result.exit_code != 0:
            found.append(f"{name}: not every story was merged.")
        if not result.untouched:
            found.append(f"{name}: the checkout was changed.")
        if not result.tests_pass:
            found.append(f"{name}: the check is red in a fresh clone of the merged branch.")
        repaired = [s.outcome for s in result.spans if s.attempt.story == "S10"]
        if repaired != ["checks", "merged"]:
            found.append(f"{name}: S10 should fail its check once and then be merged, and was {repaired}.")
    if most_at_once(parallel.spans) < 2:  # noqa: PLR2004 - two is what parallel means
        found.append("in parallel: no two agents worked at the same time.")
    if most_at_once(serial.spans) != 1:
        found.append("one after the other: two agents worked at the same time.")
    return found
