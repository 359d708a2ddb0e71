"""`epicwave run`: the engine in the foreground, an epic to its end, and the state of it in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
from rich.console import Console

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.cli.allow import must_be_allowed
from mcp_server.cli.exits import INTERRUPTED
from mcp_server.cli.follow import Following, Screen
from mcp_server.cli.screen import open_screen
from mcp_server.cli.terminal import open_console
from mcp_server.core.commands import Through
from mcp_server.core.forecast import Times
from mcp_server.core.model import Ledger, Story, StoryState
from mcp_server.core.planning import Plan, plan
from mcp_server.core.spec import EpicId
from mcp_server.engine.engine import Engine
from mcp_server.engine.landed import adopt
from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.server.door import in_foreground
from mcp_server.server.host import Host, journal_error
from mcp_server.server.launch import Launch, launch
from mcp_server.server.mirror import Mirror
from mcp_server.server.onlooker import Onlooker
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    epic_file: Path
    strategy: str | None = None
    slots: int | None = None
    agent: str | None = None
    through: str = "all"
    redo: bool = False
    as_json: bool = False
    allow_checks: bool = False

    def launch(self, epic: EpicId) -> Launch:
        """The same as a request. Whoever runs an epic again wants what failed or was cancelled tried again."""
        through = through_of(self.through)
        return Launch(epic, through, self.strategy, self.slots, self.agent, retry=True, has_agents=False)


def through_of(word: str) -> Through:
    """What `--through` says. Raises `Refused`."""
    if word == "all" or word == "ready":  # noqa: PLR1714 - the type checker narrows these, not a set
        return word
    if word.isdigit() and int(word) > 0:
        return int(word)
    raise Refused(Code.BAD_ARGUMENT, f"--through {word!r} is not understood.", "Use 'all', 'ready' or a wave's number.")


async def run_epic(repo: Path, asked: Asked, console: Console | None = None) -> int:
    """Run it; the result is the exit code. Raises `Refused` before anything has changed."""
    notes = console or open_console(to_errors=asked.as_json)
    world = await World.open(repo)
    planned = await planned_epic(world, asked, notes)
    outcome = _Outcome()
    with open_screen(console, as_json=asked.as_json) as screen:
        try:
            async with ended_by_signal(lambda: _interrupted(outcome, notes)), anyio.create_task_group() as group:
                try:
                    async with in_foreground(world, repo, group, "epicwave run") as host:
                        outcome.code = await _run(host, planned, asked, screen, notes)
                except (Refused, Fault) as error:
                    outcome.error = error
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            outcome.error = journal_error(errors)
            if outcome.error is None:
                raise
        if outcome.error is not None:
            raise outcome.error
        if outcome.code == INTERRUPTED:
            await _last_words(world, planned.spec.id, screen, notes)
    return outcome.code


async def planned_epic(world: World, asked: Asked, console: Console) -> Plan:
    """Read the file and plan it, and say what a user should know first. Raises `Refused`."""
    reading = read_epic(asked.epic_file)
    known = await world.known(_seen(world))
    planned = plan(reading.draft, redo=asked.redo, config_checks=bool(world.settings().epic.checks), known=known)
    for note in (*planned.warnings, *reading.notes, *await world.notices()):
        console.print(f"note: {note}")
    must_be_allowed(world, planned.spec, console, yes=asked.allow_checks)
    return planned


def _seen(world: World) -> Ledger:
    """What the journal says; one that cannot be read is refused by the engine, in better words."""
    try:
        return Mirror(world.journal_path).ledger()
    except Refused:
        return Ledger()


@dataclass(slots=True)
class _Outcome:
    """How the run ended, as the tasks of its group tell it."""

    error: Refused | Fault | JournalError | None = None
    code: int = INTERRUPTED


def _interrupted(outcome: _Outcome, console: Console) -> None:
    outcome.code = INTERRUPTED
    console.print("Stopping: agents are being ended and their work saved.")


class _Inside:
    """The state as the engine in this process has it."""

    is_told = True

    def __init__(self, engine: Engine, path: Path) -> None:
        self.times = Times()
        self._engine = engine
        self._mirror = Mirror(path, self.times.note)

    def ledger(self) -> Ledger:
        """The engine's."""
        self._mirror.ledger()
        return self._engine.ledger

    async def wait(self, seq: int, limit_s: float) -> None:
        """Until there is a fact behind number `seq`, or the time is up."""
        await self._engine.wait_for(lambda now: now.seq > seq, limit_s)


async def _run(host: Host, planned: Plan, asked: Asked, screen: Screen, console: Console) -> int:
    epic_id = planned.spec.id
    async with host.engine() as engine:
        if any(s.state is StoryState.MERGING for s in _stories(engine, epic_id)):
            console.print("An earlier run left finished stories in the merge queue; they are merged first.")
            await engine.wait_for(lambda _: all(s.state is not StoryState.MERGING for s in _stories(engine, epic_id)))
        await adopt(engine, planned)
        try:
            await launch(host.world, engine, asked.launch(epic_id))
        except Refused as refused:
            if refused.code is not Code.NOTHING_READY:
                raise
            console.print(f"{refused.why} {refused.remedy}")
        eye = _Inside(engine, host.world.journal_path)
        return await Following(eye, host.world, epic_id).to_the_end(screen)


def _stories(engine: Engine, epic_id: EpicId) -> list[Story]:
    epic = engine.ledger.epics.get(epic_id)
    return list(epic.stories.values()) if epic is not None else []


async def _last_words(world: World, epic_id: EpicId, screen: Screen, console: Console) -> None:
    """Where everything is after an interruption; nothing when it came before the epic was so much as planned."""
    left = Onlooker(world, world.repository.top)
    if epic_id not in left.ledger().epics:
        return
    screen.close(await Following(left, world, epic_id).look(), interrupted=True)
    console.print("Interrupted: every agent was stopped and its work saved. Run the same command to go on.")
