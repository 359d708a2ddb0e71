"""What the tool calls of one client share, and what all clients of one process share: the host of the repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from mcp_server.core.model import Epic, Ledger
from mcp_server.errors import JournalError
from mcp_server.server.errands import Errands
from mcp_server.server.following import Following
from mcp_server.server.host import Host
from mcp_server.server.team import Team
from mcp_server.server.world import World


def report_broken(error: JournalError) -> None:
    """The editor shows a server's standard error; the next tool call opens the engine again."""
    print(f"epicwave: the journal cannot be written, the engine has ended: {error}", file=sys.stderr)  # noqa: T201


def _say_nothing(_: str) -> None:
    """Nobody is there to be told."""


class Hosting:
    """The host of this process's repository, made at the first call that needs it, and seen by each from its place."""

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        name: str,
        broken: Callable[[JournalError], None] | None = report_broken,
        *,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`name` is what others are told of who has the engine. With `tell` waves outlive it: `lifecycle.running`.

        `broken` is as in `Host`.
        """
        self.team = Team()
        self.errands = Errands()
        self._group = group
        self._name = name
        self._broken = broken
        self._tell = tell
        self._host: Host | None = None
        self._opening = anyio.Lock()

    async def host(self, start: Path) -> Host:
        """The host as seen from this folder. Raises `Refused` when it is no repository to work in."""
        world = await World.open(start)
        async with self._opening:
            if self._host is None:
                goes_on = self._tell is not None
                self._host = Host(
                    world, self._group, self._name, self._broken, goes_on=goes_on, tell=self._tell or _say_nothing
                )
                return self._host
            return self._host.seen_from(world)


@dataclass(slots=True)
class Session:
    """One client's view of one repository."""

    start: Path
    """The folder that it works in; relative paths in its requests are read from here."""
    hosting: Hosting
    following: Following
    plugin: str = field(default_factory=lambda: os.environ.get("CLAUDE_PLUGIN_ROOT", ""))
    """Where the host has our plugin; empty without it."""
    leave: Callable[[], str] | None = None
    """Ends the process when nothing is alive in it, and says why not; None where the client is all there is."""
    _host: Host | None = None
    _opening: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def team(self) -> Team:
        """The editor's sub-agents."""
        return self.hosting.team

    @property
    def errands(self) -> Errands:
        """Landings and rollbacks that are under way."""
        return self.hosting.errands

    def words(self, ledger: Ledger, epic: Epic, client: str) -> dict[str, Any]:
        """How many sub-agents the lead has to spawn now and how: `spawn` and `instruction` of a reply, if any."""
        return self.team.words(ledger, epic, client, plugin=bool(self.plugin))

    async def host(self) -> Host:
        """The host. Raises `Refused` when the folder is no repository to work in; asked again, it looks again."""
        async with self._opening:
            if self._host is None:
                self._host = await self.hosting.host(self.start)
            return self._host
