"""`epicwave run --attach`: the epic is run by the engine process, and this terminal looks on and may leave."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mcp_server.cli.exits import INTERRUPTED
from mcp_server.cli.follow import Following
from mcp_server.cli.run import Asked, planned_epic, through_of
from mcp_server.cli.screen import open_screen
from mcp_server.cli.terminal import open_console
from mcp_server.core.limits import Strategy
from mcp_server.core.model import is_alive
from mcp_server.core.spec import EpicId
from mcp_server.errors import Code, Refused
from mcp_server.server.caller import Caller, calling
from mcp_server.server.groups import plainly
from mcp_server.server.launch import no_editor
from mcp_server.server.mirror import Mirror
from mcp_server.server.onlooker import looking_on
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World


async def run_attached(repo: Path, asked: Asked) -> int:
    """Have it run, and follow it to its end; the result is the exit code. Raises `Refused` before anything has changed.

    Whoever interrupts this leaves the epic as it is: the engine process goes on.
    """
    notes = open_console(to_errors=asked.as_json)
    world = await World.open(repo)
    through_of(asked.through)
    epic = (await planned_epic(world, asked, notes)).spec.id
    strategy = _strategy(world, asked, epic)
    code, started = INTERRUPTED, False
    with open_screen(as_json=asked.as_json) as screen:
        async with plainly(), ended_by_signal():
            async with calling(world.state_dir, repo, lambda note: notes.print(f"note: {note}")) as caller:
                await _plan(caller, asked, notes)
                await _start(caller, asked, strategy, epic, notes)
                started = True
            async with looking_on(world, repo, starts=True) as eye:
                code = await Following(eye, world, epic).to_the_end(screen)
    if code == INTERRUPTED and started:
        notes.print(f"Epic {epic} goes on without this terminal. Follow it with: epicwave watch {epic}")
        notes.print(f"Stop it with: epicwave cancel {epic}")
    return code


async def _plan(caller: Caller, asked: Asked, console: Console) -> None:
    try:
        await caller.ask("plan_epic", epic_file=str(asked.epic_file.absolute()), redo=asked.redo)
    except Refused as refused:
        if refused.code is not Code.EPIC_BUSY:
            raise
        console.print("note: The epic is under way; it goes on as it was planned, whatever the file says now.")


async def _start(caller: Caller, asked: Asked, strategy: str | None, epic: EpicId, console: Console) -> None:
    words = {"strategy": strategy, "slots": asked.slots, "agent": asked.agent}
    try:
        await caller.ask("start_wave", epic=epic, through=through_of(asked.through), retry=True, **words)
    except Refused as refused:
        if refused.code is not Code.NOTHING_READY:
            raise
        console.print(f"{refused.why} {refused.remedy}")


def _strategy(world: World, asked: Asked, epic: EpicId) -> str | None:
    """Who is to do the work, said in so many words: else a wave goes to an editor that had the one before.

    A wave that is under way has its own.
    """
    before = Mirror(world.journal_path).ledger().epics.get(epic)
    strategy = asked.strategy
    if strategy is None and (before is None or not is_alive(before.wave)):
        strategy = str(world.settings().policy().strategy)
    if strategy == Strategy.AGENT_TEAMS:
        raise no_editor()
    return strategy
