"""Doing something in a repository that no engine may be in: an idle engine process makes way, a busy one refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio

from mcp_server.errors import Fault, JournalError, Refused
from mcp_server.server.door import in_foreground
from mcp_server.server.host import holding
from mcp_server.server.world import World

Answer = TypeVar("Answer")


async def alone(world: World, repo: Path, name: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do the work with the repository's lock. Editors that are connected are served the state meanwhile.

    Raises what the work raises, `Refused(engine_elsewhere)` and `Refused(unsafe_state)`.
    """
    answers: list[Answer] = []
    errors: list[Refused | Fault | JournalError] = []
    async with anyio.create_task_group() as group:
        try:
            async with in_foreground(world, repo, group, name):
                try:
                    with holding(world.state_dir, name):
                        answers.append(await work())
                except (Refused, Fault, JournalError) as error:  # raised in here it would come out as a group
                    errors.append(error)
        except (Refused, Fault) as error:
            errors.append(error)
        group.cancel_scope.cancel()
    for error in errors:
        raise error
    return answers[0]
