"""The MCP server: its tools, its instructions, and what else it offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp.server import MCPServer
from mcp.server.caching import CacheHint

from mcp_server import __version__
from mcp_server.server import resources, subscriptions
from mcp_server.server.expose import expose
from mcp_server.server.following import Following
from mcp_server.server.prompts import add_prompts
from mcp_server.server.session import Hosting, Session
from mcp_server.server.tools_epic import cancel_epic, plan_epic, start_wave
from mcp_server.server.tools_hooks import agent_event, engine_leave, engine_news
from mcp_server.server.tools_land import land_epic
from mcp_server.server.tools_status import story_status
from mcp_server.server.tools_steer import steer_epic
from mcp_server.server.tools_team import claim_story, report_story
from mcp_server.server.unlisted import QuietServer

INSTRUCTIONS = """\
epicwave runs an epic (stories with dependencies and the files they touch) to a merged, checked branch. \
plan_epic(epic_file=...) reads and validates it; start_wave(epic=...) starts the ready stories (through='all' runs to \
the end) and answers at once; follow its instruction to the letter if it has one; story_status(epic=..., wait_s=45, \
since=cursor) waits until a story has ended and says why one is not running; cancel_epic stops everything and saves \
unfinished work; steer_epic pauses, resumes, drains, retries, skips or rolls back. Each story works in its own git \
worktree; what passes the checks is merged to the branch epicwave/<epic>. The user's checkout is never touched, but by \
land_epic, which brings that branch to the user's: only when the user asks for it. claim_story and \
report_story are for sub-agents that were told to use them."""

UNLISTED = frozenset({"agent_event", "engine_leave", "engine_news"})
"""Tools that the editor's hooks and our own fronts call, and no model."""


def build(start: Path) -> QuietServer:
    """The server for the repository that `start` lies in. Nothing is opened before a tool or a resource needs it.

    Whoever gives it streams may give each of them a session of its own; this one is for a client that is alone.
    """

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Session]) -> AsyncGenerator[Session]:
        async with anyio.create_task_group() as group:
            yield Session(start, Hosting(group, "epicwave serve"), Following(group))
            group.cancel_scope.cancel()

    server = QuietServer(
        "epicwave",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="public")},
        middleware=[subscriptions.overhear],
        tools=[
            expose(plan_epic, title="Plan an epic"),
            expose(start_wave, title="Start a wave"),
            expose(story_status, title="Status", read_only=True),
            expose(cancel_epic, title="Cancel an epic", destructive=True),
            expose(steer_epic, title="Steer an epic"),
            expose(land_epic, title="Land an epic", destructive=True),
            expose(claim_story, title="Claim a story"),
            expose(report_story, title="Report on a story"),
            expose(agent_event, title="For hooks"),
            expose(engine_leave, title="For fronts"),
            expose(engine_news, title="For fronts"),
        ],
    )
    server.unlisted = UNLISTED
    add_prompts(server)
    inner = server._lowlevel_server  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - MCPServer's lists are static
    resources.attach(inner)
    subscriptions.attach(inner)
    return server
