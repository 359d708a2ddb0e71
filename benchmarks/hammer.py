"""Many editors on one repository: real fronts, hammering claims and status, and a count of what is lost.

`python benchmarks/hammer.py [--seconds 60] [--clients 8] [--stories 40]`

Each client is one of the mcp package's with a front of its own (`epicwave serve`), by turns in both eras of the
protocol. In a loop it claims a story as a new sub-agent, says how far it is, and gives up or commits and hands in;
and asks for the status in between. Counted as a loss: a call without a good answer; a story that two hold at
once; an attempt or a lease given out twice, or given out and not in the journal, or in the journal and told to nobody;
a cursor that goes back; counts that do not add up. The exit code is 1 when there is any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import psutil
import yaml
from mcp import Client, StdioServerParameters
from mcp_types import TextContent

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import AttemptLeased
from mcp_server.front.place import Door, read_door

EPIC = "hammer"
COMMITS = 0.02
"""Share of the claims that end in a commit; the others give up, and the story comes back."""


@dataclass(slots=True)
class Tally:
    """What all clients have seen together."""

    stories: int
    calls: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """How long each took, in seconds, by tool."""
    held: dict[str, str] = field(default_factory=dict[str, str])
    """Story to lease, from the answer to a claim until just before the report that ends it."""
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    merged: set[str] = field(default_factory=set[str])
    losses: list[str] = field(default_factory=list[str])

    def lose(self, what: str) -> None:
        """Something that must not be."""
        self.losses.append(what)
        print(f"LOSS: {what}", flush=True)


class Editor:
    """One client, and the sub-agents behind it."""

    def __init__(self, number: int, client: Client, slots: int, tally: Tally) -> None:
        self._number = number
        self._client = client
        self._slots = slots
        self._tally = tally
        self._cursor = 0
        self._chance = random.Random(number)  # noqa: S311
        self._agents = 0

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any] | None:
        """A tool's reply; None, and a loss, for anything but a good one."""
        began_s = time.perf_counter()
        with anyio.move_on_after(60) as patience:
            result = await self._client.call_tool(tool, arguments)
            self._tally.calls.setdefault(tool, []).append(time.perf_counter() - began_s)
            if not result.is_error and result.structured_content is not None:
                return result.structured_content
            said = " ".join(part.text for part in result.content if isinstance(part, TextContent))
            self._tally.lose(f"client {self._number}: {tool}{arguments} was refused: {said}")
        if patience.cancelled_caught:
            self._tally.lose(f"client {self._number}: {tool}{arguments} had no answer in 60 s")
        return None

    async def look(self) -> None:
        """The status has to be later than the one before, and of all stories."""
        status = await self.call("story_status", epic=EPIC)
        if status is None:
            return
        [epic] = status["epics"]
        if status["cursor"] < self._cursor:
            self._tally.lose(f"client {self._number}: the cursor went from {self._cursor} to {status['cursor']}")
        self._cursor = status["cursor"]
        if sum(epic["counts"].values()) != self._tally.stories:
            self._tally.lose(f"client {self._number}: {epic['counts']} are not {self._tally.stories} stories")

    async def claim(self) -> dict[str, Any] | None:
        """A story for a sub-agent that nobody knows yet; None when none is offered."""
        self._agents += 1
        name = f"agent-{self._number}-{self._agents}"
        reply = await self.call("claim_story", epic=EPIC, agent=name)
        if reply is None or not reply["claimed"]:
            return None
        tally, story = self._tally, reply["story"]
        tally.attempts[story, reply["attempt"]] += 1
        if tally.attempts[story, reply["attempt"]] > 1 or story in tally.held or story in tally.merged:
            tally.lose(f"{story}/{reply['attempt']} was given to {name} and to somebody else")
        tally.held[story] = reply["lease"]
        return reply

    async def turn(self) -> None:
        """One sub-agent's life, looked at."""
        await self.look()
        claimed = await self.claim()
        await self.look()
        if claimed is None:
            await anyio.sleep(0.05)
            await self._revive()
            return
        await self.call("report_story", lease=claimed["lease"], outcome="progress", note="at it")
        await self.look()
        if self._chance.random() < COMMITS:
            await self._commit(Path(claimed["worktree"]), claimed["story"])
            del self._tally.held[claimed["story"]]
            reply = await self.call("report_story", lease=claimed["lease"], outcome="done", note="done")
            if reply is not None and reply["answer"] == "merged":
                self._tally.merged.add(claimed["story"])
        else:
            del self._tally.held[claimed["story"]]
            await self.call("report_story", lease=claimed["lease"], outcome="failed", note="gave up")
        await self.look()

    async def _revive(self) -> None:
        """The first client gives those that have failed for good new attempts, so that there is always something."""
        status = await self.call("story_status", epic=EPIC)
        if self._number or status is None or not status["epics"][0]["counts"].get("failed"):
            return
        wave = {"through": "all", "strategy": "agent-teams", "slots": self._slots, "retry": True}
        await self.call("start_wave", epic=EPIC, **wave)

    async def _commit(self, place: Path, story: str) -> None:
        await (anyio.Path(place) / f"{story}.md").write_text(story)
        who = ["-c", "user.name=b", "-c", "user.email=b@localhost"]
        for words in (["add", "-A"], ["commit", "-q", "-m", story]):
            await anyio.run_process(["git", *who, *words], cwd=place)


def make_repository(folder: Path, stories: int, clients: int) -> Path:
    """A scratch repository with an epic of independent stories, and as many slots as clients."""
    repo = folder / "repo"
    (repo / ".epicwave").mkdir(parents=True)
    config = {"max_parallel_stories": clients, "attempts": 10, "worktrees_dir": str(folder / "worktrees")}
    (repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump({"epic": config}), "utf-8")
    listed = [{"id": f"S{n}", "title": f"Story {n}", "files": [f"S{n}.md"]} for n in range(stories)]
    (repo / "epic.yaml").write_text(yaml.safe_dump({"id": EPIC, "title": EPIC, "stories": listed}), "utf-8")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Begin"]):
        who = ["-c", "user.name=b", "-c", "user.email=b@localhost"]
        subprocess.run(["git", *who, *words], cwd=repo, check=True)
    return repo


async def hammer(repo: Path, seconds: float, clients: int, tally: Tally) -> None:
    """All clients at once, until the time is up."""
    command = ["-c", "from mcp_server.cli.entry import main; main()", "serve"]
    server = StdioServerParameters(command=sys.executable, args=command, cwd=repo, env=dict(os.environ))
    started = anyio.Event()

    async def edit(number: int) -> None:
        async with Client(server, mode="auto" if number % 2 else "legacy") as client:
            editor = Editor(number, client, clients, tally)
            if number == 0:
                await editor.call("plan_epic", epic_file="epic.yaml")
                await editor.call("start_wave", epic=EPIC, through="all", strategy="agent-teams", slots=clients)
                started.set()
            await started.wait()
            until_s = anyio.current_time() + seconds
            while anyio.current_time() < until_s:
                await editor.turn()

    async with anyio.create_task_group() as group:
        for number in range(clients):
            group.start_soon(edit, number)


def compare(journal: Path, tally: Tally) -> None:
    """What was given out is what is on record."""
    with closing(SqliteJournal(journal)) as opened:
        facts = list(opened.replay())
    leased = Counter((f.attempt.story, f.attempt.number) for f in facts if isinstance(f, AttemptLeased))
    if leased != tally.attempts:
        tally.lose(
            f"on record but told to nobody, or the reverse: {leased - tally.attempts}, {tally.attempts - leased}"
        )


def report(tally: Tally, seconds: float, clients: int) -> None:
    """The figures."""
    print(f"{clients} clients, {tally.stories} stories, {seconds:.0f} s, load {os.getloadavg()[0]:.1f}")
    for tool, took in sorted(tally.calls.items()):
        ranks = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
        print(f"  {tool}: {len(took)} calls, p50 {ranks[49] * 1e3:.1f} ms, p99 {ranks[98] * 1e3:.1f} ms")
    print(f"claims: {sum(tally.attempts.values())}, merged: {len(tally.merged)}")
    print(f"calls: {sum(map(len, tally.calls.values()))}, losses: {len(tally.losses)}")


def door_of(repo: Path) -> Door | None:
    """Of the engine process that the clients have shared."""
    return read_door(str(repo / ".git" / "epicwave"))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--stories", type=int, default=40)
    asked = parser.parse_args()
    os.environ["EPICWAVE_IDLE_S"] = "20"
    with tempfile.TemporaryDirectory(prefix="hammer-") as folder:
        repo = make_repository(Path(folder), asked.stories, asked.clients)
        tally = Tally(asked.stories)
        try:
            anyio.run(hammer, repo, asked.seconds, asked.clients, tally)
        finally:
            door = door_of(repo)
            if door is not None:
                with suppress(psutil.NoSuchProcess):
                    engine = psutil.Process(door.pid)
                    engine.terminate()
                    engine.wait(60)
        compare(repo / ".git" / "epicwave" / "journal.db", tally)
    report(tally, asked.seconds, asked.clients)
    print(json.dumps({"calls": sum(map(len, tally.calls.values())), "losses": len(tally.losses)}))
    return 1 if tally.losses or not tally.attempts else 0


if __name__ == "__main__":
    raise SystemExit(main())
