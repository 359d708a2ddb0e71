"""The MCP server: its tools and its instructions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp.server import MCPServer
from mcp.server.caching import CacheHint

from mcp_server import __version__
from mcp_server.server.expose import expose
from mcp_server.server.session import Session
from mcp_server.server.tools_epic import cancel_epic, plan_epic, start_wave
from mcp_server.server.tools_status import story_status

INSTRUCTIONS = """\
epicwave runs an epic (stories with dependencies and the files they touch) to a merged, checked branch. \
plan_epic(epic_file=...) reads and validates it; start_wave(epic=...) starts the ready stories (through='all' runs \
to the end) and answers at once; story_status(epic=..., wait_s=45, since=cursor) waits for the next change and says \
why a story is not running; cancel_epic stops everything and saves unfinished work. Each story works in its own git \
worktree; what passes the checks is merged to the branch epicwave/<epic>. The user's checkout is never touched."""


def build(start: Path) -> MCPServer[Session]:
    """The server for the repository that `start` lies in. Nothing is opened before a tool needs it."""

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Session]) -> AsyncGenerator[Session]:
        async with anyio.create_task_group() as group:
            yield Session(start, group)
            group.cancel_scope.cancel()

    return MCPServer(
        "epicwave",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="public")},
        tools=[
            expose(plan_epic, title="Plan an epic"),
            expose(start_wave, title="Start a wave"),
            expose(story_status, title="Status", read_only=True),
            expose(cancel_epic, title="Cancel an epic", destructive=True),
        ],
    )
