"""A whole engine in virtual time: git, agents and journal in memory; it can be closed, killed and opened again."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from mcp_server.adapters.git.names import BASES, WORK, attempt_of_ref, integration_branch
from mcp_server.core.commands import CancelEpic, CancelStory, PlanEpic, StartWave, Through
from mcp_server.core.draft import DraftStory, EpicDraft, Mention
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.model import (
    AttemptId,
    CheckRun,
    EpicId,
    Ledger,
    Policy,
    Process,
    Sha,
    Story,
    StoryId,
    StoryState,
    Strategy,
)
from mcp_server.core.planning import plan
from mcp_server.core.views import is_at_rest
from mcp_server.engine.engine import Engine
from mcp_server.engine.lifecycle import running
from mcp_server.errors import Fault
from mcp_server.ports import AgentCall, Ports, ProcessEnd
from mcp_server.testing.clock import VirtualClock
from mcp_server.testing.fake_git import FakeGit, FakeMerge, FakeWorktrees
from mcp_server.testing.fake_runner import FakeRunner, Play
from mcp_server.testing.memory_journal import MemoryJournal
from mcp_server.testing.truth import Truth

EPIC = "e"
PARALLEL = Policy(strategy=Strategy.ASYNCIO, slots=2, agent="scripted")
CHECK = ("make", "test")
PATIENCE_S = 1e6
USER_DESK = Path("/home/user/checkout")


class Killed(Exception):  # noqa: N818 - it says what happened to the process
    """This process is gone: nothing that it still tries takes effect."""


class Lifeline:
    """Counts what an engine asks of the world, and cuts it off: at a call by number, or when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.dead = False
        self.finishes = True
        """A git command that had been started comes to its end although the engine was killed meanwhile."""
        self.die_at_call = math.inf
        self.on_cut: Callable[[], None] = lambda: None
        self._awaited: list[tuple[int, anyio.Event]] = []

    def touch(self) -> None:
        """The engine asks something of the world. Raises `Killed` from its death on."""
        if not self.dead:
            self.calls += 1
            for number, event in self._awaited:
                if number <= self.calls:
                    event.set()
            if self.calls >= self.die_at_call:
                self.cut()
        if self.dead:
            raise Killed

    async def more_calls(self, number: int) -> None:
        """Wait until the engine has asked so many more things of the world."""
        awaited = self.calls + number, anyio.Event()
        self._awaited.append(awaited)
        try:
            await awaited[1].wait()
        finally:
            self._awaited.remove(awaited)

    def cut(self) -> None:
        """Kill -9."""
        self.dead = True
        self.die_at_call = math.inf
        self.on_cut()


class _Refs(dict[str, Sha]):
    """Refs that tell the truth-keeper where they go."""

    def __init__(self, refs: dict[str, Sha], moved: Callable[[str, Sha | None, Sha], None]) -> None:
        super().__init__(refs)
        self._moved = moved

    def __setitem__(self, ref: str, sha: Sha) -> None:
        before = self.get(ref)
        super().__setitem__(ref, sha)
        self._moved(ref, before, sha)


class MortalGit(FakeGit):
    """The fake git behind a lifeline."""

    def __init__(self, line: Lifeline) -> None:
        super().__init__()
        self.line = line
        self.before_step: Callable[[str], None] = lambda _op: None
        first = self.record({"README": "read me\n"})
        self.refs.update({"refs/heads/main": first, "refs/heads/mine": first, "refs/tags/v1": first})
        self.check_out(USER_DESK, first, "refs/heads/main")

    async def step(self, op: str) -> None:
        """See `FakeGit.step`."""
        self.line.touch()
        self.before_step(op)
        await super().step(op)
        if self.line.dead and not self.line.finishes:
            raise Killed

    def calm(self) -> None:
        """From here on nothing takes time and nothing fails."""
        self.delay_s.clear()
        self._faults.clear()


class Actors(FakeRunner):
    """The fake runner behind a lifeline, with the truth-keeper in the audience."""

    def __init__(self, line: Lifeline, truth: Truth) -> None:
        super().__init__(default=Play(act=truth.work), judge=truth.judge)
        self.line = line
        self.truth = truth

    async def run_agent(self, call: AgentCall, claimed: Callable[[Process], None]) -> ProcessEnd:
        """See `Runner`."""
        self.line.touch()

        def began(process: Process) -> None:
            self.truth.began(call, self.alive())
            claimed(process)

        return await super().run_agent(call, began)

    async def run_check(self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float) -> CheckRun:
        """See `Runner`."""
        self.line.touch()
        return await super().run_check(attempt, command, cwd, timeout_s)

    async def end_leftover(self, process: Process) -> None:
        """See `Runner`."""
        self.line.touch()
        await super().end_leftover(process)


def story(name: str, *depends_on: str, files: str = "", **fields: Any) -> DraftStory:
    """A story as a reader found it; `files` are words."""
    return DraftStory(
        name,
        f"Title of {name}",
        depends_on=tuple(Mention(d) for d in depends_on),
        files=tuple(Mention(f) for f in files.split()),
        **fields,
    )


class World:
    """Stores the repository, the journal and the agents, which outlive every engine; and the engine of the moment."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self.clock = VirtualClock()
        self.line = Lifeline()
        self.git = MortalGit(self.line)
        self.truth = Truth(self.git)
        self.git.refs = _Refs(self.git.refs, self.truth.moved)
        self.journal = MemoryJournal()
        self.journal.before_append = lambda _: self.line.touch()
        self.runner = Actors(self.line, self.truth)
        self.engines: list[Engine] = []
        self.line.on_cut = self._on_cut

    # --- lives and deaths

    @property
    def engine(self) -> Engine:
        """The engine that is alive, or was the last."""
        return self.engines[-1]

    @property
    def is_up(self) -> bool:
        """True while an engine is alive."""
        return not self._gone.is_set() and not self.line.dead

    @property
    def is_closing(self) -> bool:
        """True from the order to close on. A kill then may catch the engine with more in the journal than in memory."""
        return self._close.is_set()

    async def open(self) -> None:
        """Start an engine on what is there; returns when it is up, or when that failed (see `is_up`)."""
        self.line.dead = False
        self._scope = anyio.CancelScope()
        self._close, self._up, self._gone = anyio.Event(), anyio.Event(), anyio.Event()
        self._group.start_soon(self._host)
        await self._up.wait()

    async def engine_gone(self) -> None:
        """Wait until the engine is gone."""
        await self._gone.wait()

    async def close(self) -> None:
        """Let the engine come to an orderly end."""
        self._close.set()
        await self._gone.wait()

    async def kill(self) -> None:
        """Kill -9: nothing is cleaned up. What the journal has is what was in memory."""
        if not self.line.dead:
            self.line.cut()
        await self._gone.wait()

    def _on_cut(self) -> None:
        self.git.crash()
        self._scope.cancel()

    async def _host(self) -> None:
        try:
            with self._scope:
                async with running(Ports(self.clock, self.journal, *self._git_ports(), self.runner)) as engine:
                    self.engines.append(engine)
                    self._up.set()
                    await self._close.wait()
        except* Killed:
            pass
        except* Fault:
            if self._up.is_set():
                raise  # an engine that is up takes no fault of the world's; one that opens may refuse to
        finally:
            self._gone.set()
            self._up.set()

    def _git_ports(self) -> tuple[FakeWorktrees, FakeMerge]:
        return FakeWorktrees(self.git), FakeMerge(self.git)

    # --- what a lead does

    def plan(self, *stories: DraftStory, epic: EpicId = EPIC, checks: tuple[tuple[str, ...], ...] = (CHECK,)) -> None:
        """Plan an epic as a reader found it."""
        planned = plan(EpicDraft(stories, id=epic, title=f"Epic {epic}", checks=checks))
        self.truth.know(planned.spec)
        self.engine.handle(PlanEpic(planned))

    def start(self, through: Through = "all", *, epic: EpicId = EPIC, retry: bool = False, **policy: Any) -> None:
        """Start or widen a wave: two slots side by side, unless `policy` says otherwise."""
        settings = replace(PARALLEL, **policy)
        self.truth.slots[epic] = settings.slots
        if not settings.conflict_detection:
            self.truth.careless.add(epic)
        base = self.git.refs["refs/heads/main"]
        if f"refs/heads/{integration_branch(epic)}" not in self.git.refs:
            self.git.start_epic(epic, base)
        self.engine.handle(StartWave(epic, through, settings, base, named=bool(policy), retry=retry))

    def cancel(self, name: StoryId | None = None, *, epic: EpicId = EPIC) -> None:
        """Cancel a story, or the whole epic when none is named."""
        reason = "changed my mind"
        self.engine.handle(CancelEpic(epic, reason) if name is None else CancelStory(epic, name, reason))

    def does(self, **plays: Play | list[Play]) -> None:
        """What the agent of a story does: always, or attempt by attempt (the last one for the rest)."""
        table: dict[tuple[StoryId, int] | StoryId, Play] = dict(self.runner.plays)
        for name, what in plays.items():
            table[name] = what if isinstance(what, Play) else what[-1]
            if isinstance(what, list):
                table |= {(name, number): play for number, play in enumerate(what, start=1)}
        self.runner.plays = table

    def good(self, **fields: Any) -> Play:
        """An agent that does its story."""
        return replace(Play(act=self.truth.work), **fields)

    # --- looking and waiting

    @property
    def ledger(self) -> Ledger:
        """What the engine knows."""
        return self.engine.ledger

    def of(self, name: StoryId, epic: EpicId = EPIC) -> Story:
        """What has become of a story."""
        return self.ledger.epics[epic].stories[name]

    def states(self, epic: EpicId = EPIC) -> dict[StoryId, str]:
        """All stories' states."""
        return {name: str(s.state) for name, s in self.ledger.epics[epic].stories.items()}

    async def when(self, condition: Callable[[], bool]) -> None:
        """Wait until the ledger is so. Raises TimeoutError after more virtual time than anything here takes."""
        if not await self.engine.wait_for(lambda _: condition(), PATIENCE_S):
            raise TimeoutError

    async def until(self, name: StoryId, state: str) -> None:
        """Wait until a story of `EPIC` is in a state. Raises TimeoutError as `when` does."""
        await self.when(lambda: self.of(name).state == state)

    async def rest(self) -> None:
        """Wait until nothing moves any more. Raises TimeoutError as `when` does."""
        await self.when(lambda: all(map(is_at_rest, self.ledger.epics.values())))

    async def settle(self) -> None:
        """Let everybody run who can run now; no time passes."""
        for _ in range(50):
            await anyio.lowlevel.checkpoint()

    def verify(self) -> None:
        """What holds whenever an engine is gone in good order: nothing left, nothing lost, the journal says it all."""
        check(self.ledger)
        assert_same(self.replayed(), self.ledger)
        queue = {a for e, s in self._stories() if s.state is StoryState.MERGING for a in [_attempt(e, s)]}
        left = {attempt_of_ref(ref) for ref in self.git.refs if ref.startswith((WORK, BASES))}
        assert left <= queue, f"branches are left: {left - queue}"
        assert set(self.git.desks) == {USER_DESK}, f"worktrees are left: {list(self.git.desks)}"
        assert not self.runner.alive(), f"agents are left: {self.runner.alive()}"
        alive = [a for e, s in self._stories() if s.process is not None for a in [_attempt(e, s)]]
        assert not alive, f"the ledger has processes: {alive}"
        problems = self.truth.problems(self.ledger)
        assert not problems, "; ".join(problems)

    def replayed(self) -> Ledger:
        """What the journal tells."""
        ledger = Ledger()
        for event in self.journal.replay():
            ledger = evolve(ledger, event)
        return ledger

    def _stories(self) -> list[tuple[EpicId, Story]]:
        return [(e, s) for e, epic in self.ledger.epics.items() for s in epic.stories.values()]


def assert_same(replayed: Ledger, memory: Ledger) -> None:
    """Replay makes what is in memory; only how late it is may differ, for a tick that changes nothing is not stored."""
    for name, epic in memory.epics.items():
        for story_id, there in epic.stories.items():
            again = replayed.epics[name].stories[story_id]
            assert again == there, f"replay has {again}, memory has {there}"
    assert replayed == replace(memory, as_of_s=replayed.as_of_s), "replay differs from memory"


def _attempt(epic: EpicId, of: Story) -> AttemptId:
    return AttemptId(epic, of.spec.id, of.attempt)


@asynccontextmanager
async def a_world() -> AsyncGenerator[World]:
    """A world with its engine up. On the way out the engine is closed and everything is verified."""
    async with anyio.create_task_group() as group:
        world = World(group)
        await world.open()
        yield world
        await world.close()
        world.verify()
