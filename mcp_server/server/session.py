"""What all tool calls of one server share: the host of the repository, opened at the first call that needs it."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.abc

from mcp_server.server.host import Host
from mcp_server.server.world import World


class Session:
    """One server's view of one repository."""

    def __init__(self, start: Path, group: anyio.abc.TaskGroup) -> None:
        self._start = start
        self._group = group
        self._host: Host | None = None
        self._opening = anyio.Lock()

    async def host(self) -> Host:
        """The host. Raises `Refused` when the folder is no repository to work in; asked again, it looks again."""
        async with self._opening:
            if self._host is None:
                self._host = Host(await World.open(self._start), self._group, "epicwave serve")
            return self._host
