"""What all tool calls of one server share: the host of the repository, opened at the first call that needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import anyio.abc

from mcp_server.errors import JournalError
from mcp_server.server.host import Host
from mcp_server.server.team import Team
from mcp_server.server.world import World


def _report(error: JournalError) -> None:
    """The editor shows a server's standard error; the next tool call opens the engine again."""
    print(f"epicwave: the journal cannot be written, the engine has ended: {error}", file=sys.stderr)  # noqa: T201


class Session:
    """One server's view of one repository."""

    def __init__(self, start: Path, group: anyio.abc.TaskGroup) -> None:
        self._start = start
        self._group = group
        self._host: Host | None = None
        self._opening = anyio.Lock()
        self.team = Team()

    async def host(self) -> Host:
        """The host. Raises `Refused` when the folder is no repository to work in; asked again, it looks again."""
        async with self._opening:
            if self._host is None:
                self._host = Host(await World.open(self._start), self._group, "epicwave serve", _report)
            return self._host
