"""A client as a lead uses it: it asks, waits, and reads refusals."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import jsonschema
from mcp import Client, StdioServerParameters
from mcp.client import Transport
from mcp.server import MCPServer
from mcp_types import CallToolResult, TextContent

from mcp_server.errors import Code
from tests.tokens import BUDGET, count

Era = Literal["auto", "legacy"]
ERAS: tuple[Era, ...] = ("auto", "legacy")
"""Protocol 2026-07-28, and the one with `initialize`."""


class Lead:
    """One client. Every reply is held against its tool's schema, every refusal against our form, both to the budget."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._schemas: dict[str, dict[str, Any]] = {}

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The reply of a call that succeeds."""
        if not self._schemas:
            listed = await self.client.list_tools()
            self._schemas = {t.name: t.output_schema or {} for t in listed.tools}
        result = await self.client.call_tool(tool, arguments)
        said = text_of(result)
        assert not result.is_error, said
        assert result.structured_content is not None
        assert json.loads(said) == result.structured_content, "what a model reads is what a program reads"
        assert "whole" in arguments or count(said) <= BUDGET, said
        jsonschema.validate(result.structured_content, self._schemas[tool])
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The text of a call that is refused: a code, what and why, the next move, and nothing of the machinery."""
        result = await self.client.call_tool(tool, arguments)
        said = text_of(result)
        assert result.is_error, said
        code, _, words = said.partition(": ")
        assert code in set(Code), said
        assert len(re.findall(r"[.?!](?:\s|$)", words)) >= 2, f"what and why, then the next move: {said}"
        assert count(said) <= BUDGET, said
        for machinery in ("Traceback", "pydantic", "Error executing", "validation error", "object at 0x"):
            assert machinery not in said
        return said

    async def pages(self, tool: str, **arguments: Any) -> list[dict[str, Any]]:
        """All pages of a reply, from the first to the last."""
        found = [await self.ask(tool, **arguments)]
        while "more_offset" in found[-1]:
            assert f"offset={found[-1]['more_offset']}" in found[-1]["next"], "a model is told how to go on"
            found.append(await self.ask(tool, **arguments, offset=found[-1]["more_offset"]))
        return found

    async def stories(self, epic: str = "notes") -> dict[str, dict[str, Any]]:
        """The line of each story."""
        pages = await self.pages("story_status", epic=epic)
        return {line["story"]: line for page in pages for line in page.get("stories", [])}

    async def event(self, event: str, agent: str) -> dict[str, str]:
        """What a hook of the editor is answered: the text itself is its output."""
        result = await self.client.call_tool("agent_event", {"event": event, "agent": agent, "cwd": "/nowhere"})
        assert result.structured_content is None
        return json.loads(text_of(result))

    async def states(self, epic: str = "notes") -> dict[str, str]:
        """State of each story."""
        return {name: line["state"] for name, line in (await self.stories(epic)).items()}

    async def watch(self, until: Callable[[dict[str, str]], bool], epic: str = "notes", limit_s: float = 30) -> None:
        """Look often, as a lead never does, until its stories are so: steps on the way wake nobody."""
        with anyio.fail_after(limit_s):
            while not until(await self.states(epic)):
                await self.ask("story_status", epic=epic, wait_s=0.1)

    async def until_rest(self, epic: str = "notes") -> dict[str, str]:
        """Follow the epic until nothing moves."""
        status = await self.ask("story_status", epic=epic, wait_s=0)
        with anyio.fail_after(40):
            while status["epics"][0]["state"] == "active":
                status = await self.ask("story_status", epic=epic, since=status["cursor"], wait_s=20)
        return await self.states(epic)


@asynccontextmanager
async def leading(
    server: MCPServer[Any] | StdioServerParameters | Transport, era: Era = "auto"
) -> AsyncGenerator[Lead]:
    """A lead that is connected to the server."""
    async with Client(server, mode=era) as client:
        yield Lead(client)


def text_of(result: CallToolResult) -> str:
    """What the model gets to read."""
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def all_are(state: str) -> Callable[[dict[str, str]], bool]:
    """True when every story is in this state."""
    return lambda states: set(states.values()) == {state}


async def until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    """Look at real processes and files until they are so."""
    with anyio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - nobody tells us when a process is there
            await anyio.sleep(0.02)


def crowd() -> float:
    """How many wait for each processor, one at least: a promise in seconds is for a machine that has time for us."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 1.0
