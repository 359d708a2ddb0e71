"""Tools that can be called by name and are not in `tools/list`: for hooks, which know the name, and not for models."""

from __future__ import annotations

from mcp.server import MCPServer
from mcp_types import Tool

from mcp_server.server.session import Session


class QuietServer(MCPServer[Session]):
    """A server that keeps some of its tools to itself."""

    unlisted: frozenset[str] = frozenset()
    """Names that are left out of `tools/list`; a call of them is like any other."""

    async def list_tools(self) -> list[Tool]:
        """What a model is told of."""
        return [tool for tool in await super().list_tools() if tool.name not in self.unlisted]
