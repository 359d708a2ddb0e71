"""`epicwave cancel`: stop what an editor or a run that is gone has left in flight."""

from __future__ import annotations

from pathlib import Path

import anyio

from mcp_server.cli.show import epic_line, story_table
from mcp_server.cli.terminal import open_console
from mcp_server.core.commands import CancelEpic, CancelStory
from mcp_server.core.model import StoryState
from mcp_server.errors import Fault, Refused
from mcp_server.server.host import Host
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

REASON = "cancelled from a terminal"


async def cancel(repo: Path, epic_id: str, story: str | None) -> None:
    """Cancel it, wait until all is stopped and saved, and print what is where. Raises `Refused`.

    While another process has the engine, that one has to be asked: it holds the agents.
    """
    world = await World.open(repo)
    command = CancelEpic(epic_id, REASON) if story is None else CancelStory(epic_id, story, REASON)
    failed: Refused | Fault | None = None
    async with anyio.create_task_group() as group:
        try:
            await _stopped(Host(world, group, "epicwave cancel"), epic_id, command)
        except (Refused, Fault) as error:
            failed = error  # raised in here it would come out as a group
        else:
            console, ledger = open_console(), Mirror(world.journal_path).ledger()
            console.print(epic_line(ledger, ledger.epics[epic_id]))
            console.print(story_table(ledger, ledger.epics[epic_id], world.clock.now_s()))
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _stopped(host: Host, epic_id: str, command: CancelEpic | CancelStory) -> None:
    async with host.engine() as engine:
        engine.handle(command)
        await engine.wait_for(
            lambda ledger: all(s.state is not StoryState.STOPPING for s in ledger.epics[epic_id].stories.values())
        )
