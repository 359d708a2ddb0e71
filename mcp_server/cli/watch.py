"""`epicwave watch`: what moves, as it moves, whoever runs the engine. It starts nothing and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mcp_server.cli.exits import INTERRUPTED
from mcp_server.cli.follow import Following
from mcp_server.cli.screen import open_screen
from mcp_server.core.steer import epic_of
from mcp_server.server.groups import plainly
from mcp_server.server.onlooker import Onlooker, looking_on
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World


@dataclass(frozen=True, slots=True)
class Watched:
    """The words of the command line."""

    epic: str | None = None
    forever: bool = False
    as_json: bool = False


async def watch(repo: Path, asked: Watched) -> int:
    """Watch until nothing moves any more; the result is the exit code. Raises `Refused`."""
    world = await World.open(repo)
    if asked.epic is not None:
        epic_of(Onlooker(world, repo).ledger(), asked.epic)
    code = INTERRUPTED
    with open_screen(as_json=asked.as_json) as screen:
        async with plainly(), ended_by_signal(), looking_on(world, repo) as eye:
            code = await Following(eye, world, asked.epic, forever=asked.forever).to_the_end(screen)
    return code
