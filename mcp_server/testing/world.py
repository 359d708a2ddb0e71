"""A whole engine in virtual time: git, agents and journal in memory; it can be closed, killed and opened again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from trio.lowlevel import current_task

from mcp_server.adapters.git.names import BASES, SETTLED, WORK, attempt_of_ref, integration_branch
from mcp_server.core.commands import CancelEpic, CancelStory, PlanEpic, StartWave, SteerCommand, Through
from mcp_server.core.draft import DraftStory, EpicDraft, Mention
from mcp_server.core.events import AttemptSucceeded, Event, WaveInterrupted
from mcp_server.core.evolve import evolve
from mcp_server.core.invariants import check
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import LIVE, Ledger, Story, StoryState, is_alive, is_team
from mcp_server.core.planning import plan
from mcp_server.core.spec import AttemptId, EpicId, StoryId
from mcp_server.core.views import is_at_rest
from mcp_server.engine.engine import Engine
from mcp_server.engine.leasing import Leasing
from mcp_server.engine.lifecycle import running
from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.ports import Ports
from mcp_server.testing.agreement import assert_same, check_thoroughly
from mcp_server.testing.breach import Broken
from mcp_server.testing.clock import VirtualClock
from mcp_server.testing.fake_git import FakeWorktrees, folder
from mcp_server.testing.fake_landing import FakeLand
from mcp_server.testing.fake_merge import FakeMerge
from mcp_server.testing.fake_probe import FakeProbe
from mcp_server.testing.fake_repository import HOST_ROOT, USER_DESK
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.memory_journal import MemoryJournal, full_disk
from mcp_server.testing.mortal import Actors, Killed, Lifeline, MortalGit, Refs
from mcp_server.testing.truth import Truth

__all__ = ["EPIC", "Killed", "NoServer", "World", "a_world", "assert_same", "story"]

EPIC = "e"
PARALLEL = Policy(strategy=Strategy.ASYNCIO, slots=2, agent="scripted")
CHECK = ("make", "test")
PATIENCE_S = 1e6


class NoServer(Exception):  # noqa: N818 - it says what the caller meets
    """There is no engine to talk to, or it went away during the call."""


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

    def __init__(self, group: anyio.abc.TaskGroup, *, goes_on: bool = False) -> None:
        self._group = group
        self.goes_on = goes_on
        """The work of the engines that are opened from now on goes on after their end."""
        self.told: list[str] = []
        """What engines said that found something left."""
        self.clock = VirtualClock()
        self.line = Lifeline()
        self.git = MortalGit(self.line, self.clock)
        self.truth = Truth(self.git)
        self.git.refs = Refs(self.git.refs, self.truth.moved)
        self.journal = MemoryJournal()
        self.journal.before_append = self._append
        self.runner = Actors(self.line, self.truth)
        self.runner.ledger = lambda: self.ledger
        self.runner.stage = group
        self.engines: list[Engine] = []
        self._tokens = 0
        self.leasing = Leasing(self._token)
        """What the server of the moment knows of claims that are under way; dies with it."""
        self.full_disk = False
        """Nothing can be stored in the journal now: an engine that meets it ends, and nobody is told."""
        self._was_full = False
        self.line.on_cut = self._on_cut
        self._calls: dict[anyio.CancelScope, anyio.Event] = {}
        """Tool calls that are under way, and what is set when each has ended."""
        self._folded = Ledger()

    # --- lives and deaths

    @property
    def engine(self) -> Engine:
        """The engine that is alive, or was the last."""
        return self.engines[-1]

    @property
    def is_up(self) -> bool:
        """True while an engine is alive."""
        return not self._gone.is_set() and not self.line.dead

    @asynccontextmanager
    async def call(self) -> AsyncGenerator[Engine]:
        """A tool call: it has the engine, and ends with it. Raises `NoServer` then, or when there is none."""
        if not self.is_up or self.is_closing or not self._up.is_set():
            raise NoServer
        scope, ended, task = anyio.CancelScope(), anyio.Event(), current_task()
        self._calls[scope] = ended
        self.line.mortals.add(task)
        try:
            with scope:
                yield self.engine
        except (Killed, JournalError):
            raise NoServer from None
        except Refused as refused:
            if refused.code is not Code.ENGINE_ELSEWHERE:
                raise
            raise NoServer from None
        finally:
            self.line.mortals.discard(task)
            del self._calls[scope]
            ended.set()
        if scope.cancelled_caught:
            raise NoServer

    @property
    def is_leaving(self) -> bool:
        """True when there is an engine that takes no facts any more, or whose jobs are on their way out."""
        if not self.is_up or not self.engines:
            return False
        return self.engine._is_over or self.engine._group.cancel_scope.cancel_called  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    @property
    def is_closing(self) -> bool:
        """True from the order to close on. A kill then may catch the engine with more in the journal than in memory."""
        return self._close.is_set()

    async def open(self) -> None:
        """Start an engine on what is there; returns when it is up, or when that failed (see `is_up`)."""
        self.line.dead = False
        self.leasing = Leasing(self._token)
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
        self.runner.crash()
        self._scope.cancel()
        self._cut_off()

    def _cut_off(self) -> None:
        for scope in self._calls:
            scope.cancel()

    def _append(self, events: Sequence[Event]) -> None:
        """A fact is about to be stored. What it says of a story that was told to stop ends the lease, too."""
        self.line.touch()
        if self.full_disk:
            self._was_full = True
            full_disk(events)
        for event in events if self.engines else ():
            self._had_ended(event)
            self.truth.witness.hears(event, self.ledger)
            attempt = getattr(event, "attempt", None)
            if isinstance(attempt, AttemptId) and self.of(attempt.story, attempt.epic).state is StoryState.STOPPING:
                self.truth.holders.over(attempt)
            if isinstance(event, AttemptSucceeded):
                self.truth.queued(event.attempt, event.head)

    def _had_ended(self, event: Event) -> None:
        """An engine that opens and goes on looks at what is on record of those who have ended."""
        if isinstance(event, WaveInterrupted) and event.goes_on and not self._up.is_set():
            put_back = (s for s in self.ledger.epics[event.epic].stories.in_state(StoryState.RUNNING))
            lost = {_attempt(event.epic, s) for s in put_back if s.spec.id not in event.adopted}
            self.truth.witness.had_ended(sorted(lost & self.runner.recorded()))

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:06x}"

    async def _host(self) -> None:
        self.line.mortals.add(current_task())
        try:
            with self._scope:
                ports = Ports(
                    self.clock, self.journal, *self._git_ports(), self.runner, FakeLand(self.git), FakeProbe(self.git)
                )
                tell = self.told.append
                async with running(ports, check_thoroughly, goes_on=self.goes_on, tell=tell) as engine:
                    self.engines.append(engine)
                    self._up.set()
                    await self._close.wait()
                    self._cut_off()
        except* Killed:
            pass
        except* JournalError:
            if not self._was_full:
                raise
            self._close.set()  # what cannot be stored ends an engine in good order, with its agents
        except* Fault:
            if self._up.is_set():
                raise  # an engine that is up takes no fault of the world's; one that opens may refuse to
        finally:
            self.line.mortals.clear()
            self._cut_off()
            self.runner.crash()  # whom it had not come to follow yet
            for ended in list(self._calls.values()):
                await ended.wait()
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

    def start(
        self,
        through: Through = "all",
        *,
        epic: EpicId = EPIC,
        retry: bool = False,
        notes: Mapping[StoryId, str] | None = None,
        **policy: Any,
    ) -> None:
        """Start or widen a wave: two slots side by side, unless `policy` says otherwise."""
        settings = replace(PARALLEL, **policy)
        base = self.git.refs["refs/heads/main"]
        if f"refs/heads/{integration_branch(epic)}" not in self.git.refs:
            self.git.start_epic(epic, base)
        told = tuple((notes or {}).items())
        self.engine.handle(StartWave(epic, through, settings, base, bool(policy), retry, told))

    def steer(self, command: SteerCommand) -> Event:
        """Say anything else to an epic. Raises `Refused`."""
        return self.engine.handle(command)

    def cancel(self, name: StoryId | None = None, *, epic: EpicId = EPIC) -> None:
        """Cancel a story, or the whole epic when none is named."""
        reason = "changed my mind"
        self.engine.handle(CancelEpic(epic, reason) if name is None else CancelStory(epic, name, reason))
        for attempt in self.truth.holders.alive():
            if attempt.epic == epic and name in (None, attempt.story):
                self.truth.holders.over(attempt)

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
        await self.when(lambda: all(is_at_rest(self.ledger, epic) for epic in self.ledger.epics.values()))

    async def settle(self) -> None:
        """Let everybody run who can run now; no time passes."""
        for _ in range(50):
            await anyio.lowlevel.checkpoint()

    def verify(self) -> None:
        """What holds whenever an engine is gone in good order: nothing left, nothing lost, the journal says it all.

        What is in the merge queue or with sub-agents is there, and what the host has checked out.
        """
        check(self.ledger)
        assert_same(self.replayed(), self.ledger)
        used = {_attempt(e, s) for e, s in self._stories() if s.state is StoryState.MERGING}
        used |= {_attempt(e, s) for e, s in self._stories() if s.state in LIVE and self._with_sub_agents(e)}
        at_hosts = {attempt_of_ref(d.branch or d.rebasing or "") for p, d in self.git.desks.items() if is_hosts(p)}
        left = {attempt_of_ref(ref) for ref in self.git.refs if ref.startswith((WORK, BASES, SETTLED))}
        assert left <= used | at_hosts, f"branches are left: {left - used - at_hosts}"
        desks = {path for path in self.git.desks if not is_hosts(path)} - {folder(attempt) for attempt in used}
        assert desks == {USER_DESK}, f"worktrees are left: {desks}"
        assert not self.runner.alive(), f"agents are left: {self.runner.alive()}"
        alive = [a for e, s in self._stories() if s.process is not None for a in [_attempt(e, s)]]
        assert not alive, f"the ledger has processes: {alive}"
        if problems := self.truth.problems(self.ledger):
            raise Broken(problems)

    async def tidy(self) -> None:
        """The host clears its desks, and one more engine comes and goes: it takes what the desks had kept back."""
        desks = [path for path in self.git.desks if is_hosts(path)]
        for path in desks:
            self.truth.host_clears(path)
        if desks:
            await self.open()
            await self.close()
            self.verify()

    def _with_sub_agents(self, epic: EpicId) -> bool:
        return is_team(self.ledger.epics[epic]) and is_alive(self.ledger.epics[epic].wave)

    def replayed(self, seq: int | None = None) -> Ledger:
        """What the journal tells; or told up to a fact, folded on from the last one, which must not lie ahead."""
        ledger = Ledger() if seq is None else self._folded
        for event in self.journal.replay()[ledger.seq : seq]:
            ledger = evolve(ledger, event)
        self._folded = self._folded if seq is None else ledger
        return ledger

    def _stories(self) -> list[tuple[EpicId, Story]]:
        return [(e, s) for e, epic in self.ledger.epics.items() for s in epic.stories.values()]


def is_hosts(path: Path) -> bool:
    """True for a worktree that the host made."""
    return path.is_relative_to(HOST_ROOT)


def _attempt(epic: EpicId, of: Story) -> AttemptId:
    return AttemptId(epic, of.spec.id, of.attempt)


@asynccontextmanager
async def a_world(*, goes_on: bool = False) -> AsyncGenerator[World]:
    """A world with its engine up. On the way out the engine is closed and everything is verified, twice with a host."""
    async with anyio.create_task_group() as group:
        world = World(group, goes_on=goes_on)
        await world.open()
        yield world
        await world.close()
        world.verify()
        await world.tidy()
