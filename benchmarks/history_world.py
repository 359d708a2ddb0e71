"""One window of a real history as an epic in a synthetic tree, and agents that work on it in virtual minutes.

What a story does to a file is lines of its own, so that in the end every order of the stories gives the same tree:

- `sqrt(lines)` places that nobody else touches (measured: so many hunks has a change of so many lines);
- for each story that replaces lines of it (`deps`) one line that both write, one after the other;
- with each other story, by chance, one pair of lines with nothing between them: side by side that is a conflict.

The chance is `0.05 + 0.01 * hunks * hunks`, at most 0.4: measured by `history_chance.py` in the history of this project
on consecutive changes to a file of which the later one replaces no line of the earlier one. It gives 20 % for pairs of
such commits, where 19 % of 152 conflicted in truth.

An agent whose brief tells of a conflict does what the brief says: it brings its saved commits to the new base with the
command that is given there, writes its lines anew in the files where git stops, and goes on. That is a change of its
own: it takes what a story takes that has as many lines as this one has in those files. Or it is asked to begin again.
"""

from __future__ import annotations

import math
import random
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import trio

from mcp_server.core.draft import DraftStory, EpicDraft, Mention
from mcp_server.core.model import NO_PORTS, CheckRun, Process, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.ports import AgentCall, Ended, Left, ProcessEnd

APART = 3
"""Lines that nobody touches between two places."""
CHECK_S = 10.0
"""What the check of a merged tree takes."""
PICK = re.compile(r"Start with `git (cherry-pick [^`]+)`")
"""How a brief says where to begin with mending a conflict."""


def minutes_for(lines: float) -> float:
    """What an agent works for on a change of so many lines."""
    return 2.0 + 0.5 * math.sqrt(lines)


@dataclass(frozen=True, slots=True)
class Change:
    """One commit of a window, as a story."""

    files: tuple[str, ...]
    lines: int
    deps: tuple[int, ...]

    @property
    def minutes(self) -> float:
        """What its agent works for."""
        return minutes_for(self.lines)

    @property
    def hunks(self) -> int:
        """Places in each of its files."""
        return max(1, round(math.sqrt(self.lines / max(1, len(self.files)))))


def read_window(found: Sequence[dict[str, Any]]) -> list[Change]:
    """A window as it is stored: a list of objects with files, add, dele and deps."""
    return [Change(tuple(c["files"]), c["add"] + c["dele"], tuple(c["deps"])) for c in found]


def name(number: int) -> str:
    """The story of a commit."""
    return f"S{number + 1}"


@dataclass(slots=True)
class History:
    """A window with its files, and what each story writes in them: key of a line, and the line."""

    window: list[Change]
    chance_of: Callable[[int], float]
    files: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    writes: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict[str, dict[str, dict[str, str]]])

    def draft(self) -> EpicDraft:
        """The epic; its author knows the files, and how long it takes."""
        stories = [
            DraftStory(
                name(number),
                f"Commit {number + 1}",
                depends_on=tuple(Mention(name(d)) for d in change.deps),
                files=tuple(Mention(_path(file)) for file in change.files),
                minutes=change.minutes,
            )
            for number, change in enumerate(self.window)
        ]
        return EpicDraft(tuple(stories), id="history", title="A history")

    def lay_out(self, dice: random.Random) -> None:
        """Decide who writes where."""
        users: dict[str, list[int]] = {}
        for number, change in enumerate(self.window):
            for file in change.files:
                users.setdefault(_path(file), []).append(number)
        for path, numbers in users.items():
            self._file(path, numbers, dice)

    def _file(self, path: str, numbers: list[int], dice: random.Random) -> None:
        places: list[list[tuple[int, ...]]] = [
            [(number,)] for number in numbers for _ in range(self.window[number].hunks)
        ]
        behind = [self._all_deps(number) for number in numbers]
        for at, later in enumerate(numbers):
            for earlier in numbers[:at]:
                if earlier in self.window[later].deps:
                    places.append([(earlier, later)])
                elif earlier not in behind[at]:
                    product = self.window[later].hunks * self.window[earlier].hunks
                    if dice.random() < self.chance_of(product):
                        places.append([(earlier,), (later,)])
        dice.shuffle(places)
        lines: list[str] = []
        for place in places:
            for writers in place:
                key = f"{len(lines):05}"
                lines.append(f"{key}: as it was")
                for writer in writers:
                    mine = self.writes.setdefault(name(writer), {}).setdefault(path, {})
                    mine[key] = f"{key}: by {name(writer)}"
            lines += [f"{len(lines) + n:05}, untouched" for n in range(APART)]
        self.files[path] = lines

    def _all_deps(self, number: int) -> set[int]:
        """All that a story builds on: it never runs beside these."""
        found: set[int] = set()
        rest = [*self.window[number].deps]
        while rest:
            found.add(each := rest.pop())
            rest += [d for d in self.window[each].deps if d not in found]
        return found

    def work(self, story: str, tree: Path) -> None:
        """What its agent does in a worktree, and the commit."""
        for path in self.writes.get(story, {}):
            self._write(story, path, tree)
        if story not in self.writes:
            (tree / f"{story}.txt").write_text(f"{story} has no file\n", "utf-8")
        for words in (["add", "-A"], ["commit", "-q", "-m", story]):
            subprocess.run(["git", *words], cwd=tree, check=True)

    def picked(self, tree: Path, command: str) -> list[str]:
        """Bring saved commits into a worktree; the files in which git stops, which have the base's side then."""
        picked = subprocess.run(["git", *shlex.split(command)], cwd=tree, capture_output=True, check=False)
        if picked.returncode == 0:
            return []
        words = ["git", "diff", "--name-only", "--diff-filter=U", "-z"]
        named = subprocess.run(words, cwd=tree, stdout=subprocess.PIPE, check=True, text=True).stdout
        paths = [path for path in named.split("\0") if path]
        subprocess.run(["git", "checkout", "-q", "--ours", "--", *paths], cwd=tree, check=True)
        return paths

    def mend(self, story: str, tree: Path, paths: Sequence[str]) -> None:
        """Both intents hold in these files, and the rest of the saved commits is there as it was."""
        if paths:
            for path in paths:
                self._write(story, path, tree)
            for words in (["add", "-A"], ["-c", "core.editor=true", "cherry-pick", "--continue"]):
                subprocess.run(["git", *words], cwd=tree, check=True, stdout=subprocess.DEVNULL)

    def _write(self, story: str, path: str, tree: Path) -> None:
        file, lines = tree / path, self.writes[story][path]
        now = file.read_text("utf-8").splitlines()
        file.write_text("\n".join(lines.get(line[:5], line) for line in now) + "\n", "utf-8")


def _path(file: str) -> str:
    """Where it is in the synthetic tree: what was a file in one commit may be a folder in another.

    No rule for changelogs and lock files settles its conflicts: all are repaired, which is the conservative way.
    """
    return f"{file}.lines"


def measured_chance(product: int) -> float:
    """How likely two changes with so many pairs of hunks conflict, of which neither replaces lines of the other."""
    return min(0.4, 0.05 + 0.01 * product)


@dataclass(slots=True)
class Actors:
    """The runner: agents that sleep for virtual minutes and then change real files. Counts what they did."""

    history: History
    repair: float | None
    """A conflict is mended by doing the story again in this share of its minutes; by what it is itself if None."""
    started: dict[str, int] = field(default_factory=dict[str, int])
    checks: int = 0
    worked_s: float = 0.0
    mended_s: float = 0.0
    """Of it, what went into repairs."""

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """See `Runner`."""
        del used
        story = call.attempt.story
        claimed(Process(4711, anyio.current_time()))
        self.started[story] = self.started.get(story, 0) + 1
        change, pick = self.history.window[int(story[1:]) - 1], PICK.search(call.brief)
        paths: list[str] = []
        if pick is None:
            work_s = 60.0 * change.minutes
        elif self.repair is not None:
            work_s = 60.0 * change.minutes * self.repair
        else:
            paths = await anyio.to_thread.run_sync(self.history.picked, call.worktree, pick[1])
            work_s = 60.0 * minutes_for(change.lines * len(paths) / max(1, len(change.files)))
        await anyio.sleep(work_s)
        self.worked_s += work_s
        self.mended_s += work_s if pick is not None else 0.0
        if pick is None or self.repair is not None:
            await anyio.to_thread.run_sync(self.history.work, story, call.worktree)
        else:
            await anyio.to_thread.run_sync(self.history.mend, story, call.worktree, paths)
        return ProcessEnd(Ended.EXITED, 0, work_s, "")

    async def run_check(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`. Always green."""
        del attempt, cwd, timeout_s, ports
        self.checks += 1
        await anyio.sleep(CHECK_S)
        return CheckRun(tuple(command), 0, CHECK_S)

    async def run_setup(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`."""
        return await self.run_check(attempt, command, cwd, timeout_s, ports)

    async def look_for(self, attempt: AttemptId, process: Process) -> Left:
        """See `Runner`."""
        del attempt, process
        return Left.GONE

    async def adopt(self, call: AgentCall, process: Process, used: Callable[[Usage], None]) -> ProcessEnd:
        """See `Runner`. There is one engine only."""
        raise NotImplementedError

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """See `Runner`."""


@dataclass(slots=True)
class Run:
    """One window under one policy."""

    minutes: float = 0.0
    repairs: int = 0
    asked_for: int = 0
    """Times that stories waited for a person."""
    conflicts: int = 0
    checks: int = 0
    mended: float = 0.0
    """Share of all minutes of agents that went into repairs."""
    tree: str = ""
    merged: int = 0
    real_s: float = 0.0


@dataclass(slots=True)
class Window:
    """One window under all policies."""

    title: str
    stories: int
    work_min: float
    most: float
    """Speed-up that dependencies and slots alone would allow."""
    runs: dict[str, Run] = field(default_factory=dict[str, Run])

    def faster(self, policy: str) -> float:
        """The speed-up over serial."""
        return self.runs["serial"].minutes / self.runs[policy].minutes


def wrong(window: Window) -> list[str]:
    """What must not be; nothing when all is well."""
    first = next(iter(window.runs.values()))
    return [
        f"{window.title}, {policy}: {what}"
        for policy, run in window.runs.items()
        for what, bad in (
            (f"{run.merged} of {window.stories} stories are merged", run.merged != window.stories),
            (f"its tree {run.tree[:10]} is not {first.tree[:10]}", run.tree != first.tree),
        )
        if bad
    ]


async def move(clock: trio.testing.MockClock) -> None:
    """Let virtual time go on to the next deadline whenever all tasks wait for one, and no thread is at work.

    A clock that jumps by itself sees only the tasks: a git that runs in a thread would take hours of virtual time.
    Looked at twice: what a thread has brought may have let a task go on that starts the next one.
    """
    threads = anyio.to_thread.current_default_thread_limiter()
    while True:
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked(0.0002)
            if threads.borrowed_tokens:
                break
        else:
            wait_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
            assert wait_s != math.inf, "everybody waits, and for nothing"
            clock.jump(max(0.0, wait_s))
