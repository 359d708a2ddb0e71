"""`epicwave status`: what the journal says, whoever runs the engine."""

from __future__ import annotations

from pathlib import Path

import typer

from mcp_server.cli.follow import Following
from mcp_server.cli.screen import NOTHING_PLANNED
from mcp_server.cli.show import epic_line, story_table
from mcp_server.cli.terminal import open_console
from mcp_server.server.onlooker import Onlooker
from mcp_server.server.wire_whole import whole
from mcp_server.server.world import World


async def show_status(repo: Path, epic_id: str | None, *, as_json: bool = False) -> None:
    """Print it. Raises `Refused` for an unknown epic or a folder that is no repository."""
    world = await World.open(repo)
    look = await Following(Onlooker(world, repo), world, epic_id).look(everything=True)
    if as_json:
        said = whole(look.ledger, look.epics, look.now_s, look.times, look.lines)
        typer.echo(said.model_dump_json(indent=2))
        return
    console = open_console()
    if not look.epics:
        console.print(NOTHING_PLANNED)
    for epic in look.epics:
        console.print(epic_line(look.ledger, epic))
        console.print(story_table(look.ledger, epic, look.now_s))
