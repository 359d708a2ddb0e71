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
from mcp.server import MCPServer
from mcp_types import CallToolResult, TextContent

from mcp_server.errors import Code

Era = Literal["auto", "legacy"]
ERAS: tuple[Era, ...] = ("auto", "legacy")
"""Protocol 2026-07-28, and the one with `initialize`."""
REPLY_MAX_BYTES = 8_000
"""2,000 tokens of four bytes."""


class Lead:
    """One client. Every reply is held against the schema that the tool promises, every refusal against our form."""

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
        assert len(said) < 4_000
        for machinery in ("Traceback", "pydantic", "Error executing", "validation error", "object at 0x"):
            assert machinery not in said
        return said

    async def states(self, epic: str = "notes") -> dict[str, str]:
        """State of each story."""
        status = await self.ask("story_status", epic=epic)
        return {line["story"]: line["state"] for line in status["stories"]}

    async def watch(self, until: Callable[[dict[str, str]], bool], epic: str = "notes", limit_s: float = 30) -> None:
        """Follow the epic as the instructions say, by `since` and `wait_s`, until its stories are so."""
        since: int | None = None
        with anyio.fail_after(limit_s):
            while not until(await self.states(epic)):
                more = {} if since is None else {"since": since}
                since = (await self.ask("story_status", epic=epic, wait_s=10, **more))["cursor"]

    async def until_rest(self, epic: str = "notes") -> dict[str, str]:
        """Follow the epic until nothing moves."""
        status = await self.ask("story_status", epic=epic, wait_s=0)
        with anyio.fail_after(40):
            while status["epics"][0]["state"] == "active":
                status = await self.ask("story_status", epic=epic, since=status["cursor"], wait_s=20)
        return await self.states(epic)


@asynccontextmanager
async def leading(server: MCPServer[Any] | StdioServerParameters, era: Era = "auto") -> AsyncGenerator[Lead]:
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
