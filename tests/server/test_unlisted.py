"""A tool for hooks: called by name, and shown to no model."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import Context
from pydantic import BaseModel

from mcp_server.server.app import UNLISTED, build
from mcp_server.server.ask import client_name
from mcp_server.server.expose import expose
from mcp_server.server.unlisted import QuietServer
from tests.server.lead import ERAS, Era
from tests.server.scene import Scene

pytestmark = pytest.mark.anyio


class Reply(BaseModel):
    """What the example tools answer."""

    heard: str


async def claim(ctx: Context[Any]) -> Reply:
    """An example of a tool that a model is told of."""
    return Reply(heard=client_name(ctx))


async def event(ctx: Context[Any], agent: str) -> Reply:
    """An example of a tool that hooks call."""
    return Reply(heard=f"{client_name(ctx)} {agent}".strip())


@pytest.mark.parametrize("era", ERAS)
async def test_it_is_called_by_name_and_not_listed(era: Era) -> None:
    server: QuietServer = QuietServer("example", tools=[expose(claim, title="Claim"), expose(event, title="Event")])
    server.unlisted = frozenset({"event"})
    async with Client(server, mode=era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["claim"]
        result = await client.call_tool("event", {"agent": "a1"})
        assert result.structured_content == {"heard": "mcp a1"}
        refused = await client.call_tool("event", {"agnt": "a1"})
        assert refused.is_error, "it is as strict as any other"
        assert (await client.call_tool("events", {})).is_error
        assert [tool.name for tool in (await client.list_tools()).tools] == ["claim"]


async def test_ours_keeps_the_hooks_tool_to_itself(scene: Scene) -> None:
    server = build(scene.repo)
    assert server.unlisted == UNLISTED == {"agent_event", "engine_leave", "engine_news"}
    async with Client(server) as client:
        assert UNLISTED.isdisjoint(tool.name for tool in (await client.list_tools()).tools)
