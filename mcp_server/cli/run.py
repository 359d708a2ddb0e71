"""`epicwave run`: the engine in the foreground, an epic to its end, and the state of it in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
from rich.console import Console
from rich.live import Live

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.cli.show import change_line, epic_line, live_table, story_table
from mcp_server.cli.terminal import open_console
from mcp_server.core.commands import Through
from mcp_server.core.model import Epic, EpicId, Ledger, Story, StoryState
from mcp_server.core.planning import Plan, plan
from mcp_server.core.views import EpicState, epic_state, is_at_rest
from mcp_server.core.why import alerts
from mcp_server.engine.engine import Engine
from mcp_server.engine.landed import adopt
from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.server.door import in_foreground
from mcp_server.server.host import Host, journal_error
from mcp_server.server.launch import Launch, launch
from mcp_server.server.mirror import Mirror
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World

DONE, NOT_ALL_MERGED, INTERRUPTED = 0, 1, 130
REDRAW_S = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    epic_file: Path
    strategy: str | None = None
    slots: int | None = None
    agent: str | None = None
    through: str = "all"
    redo: bool = False

    def launch(self, epic: EpicId) -> Launch:
        """The same as a request. Whoever runs an epic again wants what failed or was cancelled tried again."""
        through = _through(self.through)
        return Launch(epic, through, self.strategy, self.slots, self.agent, retry=True, has_agents=False)


def _through(word: str) -> Through:
    if word == "all" or word == "ready":  # noqa: PLR1714 - the type checker narrows these, not a set
        return word
    if word.isdigit() and int(word) > 0:
        return int(word)
    raise Refused(Code.BAD_ARGUMENT, f"--through {word!r} is not understood.", "Use 'all', 'ready' or a wave's number.")


async def run_epic(repo: Path, asked: Asked, console: Console | None = None) -> int:
    """Run it; the result is the exit code. Raises `Refused` before anything has changed."""
    console = console or open_console()
    world = await World.open(repo)
    reading = read_epic(asked.epic_file)
    planned = plan(reading.draft, redo=asked.redo, config_checks=bool(world.settings().epic.checks))
    for note in (*planned.warnings, *reading.notes, *await world.notices()):
        console.print(f"note: {note}")
    outcome = _Outcome()
    try:
        async with ended_by_signal(lambda: _interrupted(outcome, console)), anyio.create_task_group() as group:
            try:
                async with in_foreground(world, repo, group, "epicwave run") as host:
                    await _run(host, planned, asked, console)
            except (Refused, Fault) as error:
                outcome.error = error
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        outcome.error = journal_error(errors)
        if outcome.error is None:
            raise
    if outcome.error is not None:
        raise outcome.error
    ledger = Mirror(world.journal_path).ledger()
    epic = ledger.epics.get(planned.spec.id)
    if epic is None:
        return INTERRUPTED  # before it was so much as planned
    return _report(ledger, epic, console, interrupted=outcome.interrupted)


@dataclass(slots=True)
class _Outcome:
    """How the run ended, as the tasks of its group tell it."""

    error: Refused | Fault | JournalError | None = None
    interrupted: bool = False


def _interrupted(outcome: _Outcome, console: Console) -> None:
    outcome.interrupted = True
    console.print("Stopping: agents are being ended and their work saved.")


async def _run(host: Host, planned: Plan, asked: Asked, console: Console) -> None:
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
        if console.is_terminal:
            await _live(engine, epic_id, console)
        else:
            await _lines(engine, epic_id, console)


def _stories(engine: Engine, epic_id: EpicId) -> list[Story]:
    epic = engine.ledger.epics.get(epic_id)
    return list(epic.stories.values()) if epic is not None else []


async def _live(engine: Engine, epic_id: EpicId, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            ledger = engine.ledger
            live.update(live_table(ledger, ledger.epics[epic_id], engine.now_s()), refresh=True)
            if is_at_rest(ledger, ledger.epics[epic_id]):
                return
            await engine.wait_for(lambda now, seen=ledger.seq: now.seq > seen, REDRAW_S)


async def _lines(engine: Engine, epic_id: EpicId, console: Console) -> None:
    began_s, seen = engine.now_s(), engine.ledger.seq
    for story in engine.ledger.epics[epic_id].stories.values():
        if story.state is StoryState.OFFERED:
            console.print(change_line(engine.ledger.epics[epic_id], story, 0.0))
    while not is_at_rest(engine.ledger, engine.ledger.epics[epic_id]):
        await engine.wait_for(lambda now, seen=seen: now.seq > seen)
        epic = engine.ledger.epics[epic_id]
        for story in sorted(epic.stories.values(), key=lambda s: s.changed):
            if story.changed > seen:
                console.print(change_line(epic, story, story.since_s - began_s))
        if any(breaker.changed > seen for breaker in engine.ledger.breakers.values()):
            for alert in alerts(engine.ledger, epic):
                console.print(f"note: {alert}")
        seen = engine.ledger.seq


def _report(ledger: Ledger, epic: Epic, console: Console, *, interrupted: bool) -> int:
    if not console.is_terminal or interrupted:
        console.print(story_table(ledger, epic, ledger.as_of_s))
    console.print(epic_line(ledger, epic))
    if interrupted:
        console.print("Interrupted: every agent was stopped and its work saved. Run the same command to go on.")
        return INTERRUPTED
    if epic_state(ledger, epic) is EpicState.DONE:
        merged = any(s.merged_as is not None for s in epic.stories.values())
        if merged:
            console.print(f"All stories are merged. Take them over with: git merge epicwave/{epic.spec.id}")
        return DONE
    return NOT_ALL_MERGED
