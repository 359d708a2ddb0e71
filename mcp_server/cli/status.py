"""`epicwave status`: what the journal says, whoever runs the engine."""

from __future__ import annotations

from pathlib import Path

from mcp_server.cli.show import epic_line, story_table
from mcp_server.cli.terminal import open_console
from mcp_server.core.steer import epic_of
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World


async def show_status(repo: Path, epic_id: str | None) -> None:
    """Print it. Raises `Refused` for an unknown epic or a folder that is no repository."""
    world = await World.open(repo)
    ledger = Mirror(world.journal_path).ledger()
    console = open_console()
    if not ledger.epics:
        console.print("No epic is planned in this repository. Start with: epicwave run EPIC")
    for epic in ledger.epics.values() if epic_id is None else [epic_of(ledger, epic_id)]:
        console.print(epic_line(ledger, epic))
        console.print(story_table(ledger, epic, world.clock.now_s()))
