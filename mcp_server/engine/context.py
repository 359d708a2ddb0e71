"""What every job knows, and how the work of an attempt that will not land is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from mcp_server.core.checks import checks_of
from mcp_server.core.events import Fact
from mcp_server.core.limits import Policy
from mcp_server.core.model import Epic, Story
from mcp_server.core.spec import Argv, AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import Ports

PATHS_SHOWN = 10
"""Paths that a reason names."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a job may know: the story as it was when the job started, the world, and a way to report on the way."""

    epic: Epic
    story: Story
    attempt: AttemptId
    policy: Policy
    ports: Ports
    report: Callable[[Fact], bool]
    """Tells a fact on the way; False when it comes too late."""
    now_s: Callable[[], float]
    """The engine's time, which is never before the last fact."""
    goes_on: bool = False
    """What it starts may outlive the engine."""
    behind: tuple[AttemptId, ...] = ()
    """Attempts of the same epic that may land together with this one, in the order of the queue."""

    @property
    def checks(self) -> tuple[Argv, ...]:
        """All checks of the story."""
        return checks_of(self.epic, self.story, self.policy)


async def saved_work(ports: Ports, attempt: AttemptId) -> str | None:
    """Rescue what is left of an attempt. When even that fails, the work stays where it is until the next start."""
    try:
        with anyio.CancelScope(shield=True):
            return await ports.worktrees.rescue(attempt)
    except Fault:
        return None
