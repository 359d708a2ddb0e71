"""The editor's own sub-agents, as far as the server knows them: who may start, who works where, who has gone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from mcp_server.core.leases import attempt_of, held_by
from mcp_server.core.model import Epic, Ledger
from mcp_server.core.spec import AttemptId, EpicId
from mcp_server.engine.leasing import Leasing
from mcp_server.server.world import World

STARTING_S = 60.0
"""A sub-agent that the host has started and that has claimed nothing yet is waited for so long, in seconds."""


@dataclass(slots=True)
class Team:
    """Stores which claims are under way, which sub-agents have been started, and which were told to report."""

    leasing: Leasing = field(default_factory=Leasing)
    _starting: dict[str, float] = field(default_factory=dict[str, float])
    warned: set[tuple[str, AttemptId]] = field(default_factory=set[tuple[str, AttemptId]])

    def began(self, agent: str) -> None:
        """The host has started a sub-agent; it will claim something."""
        self._starting[agent] = time.monotonic()

    def came(self, agent: str) -> None:
        """It has claimed, or has ended."""
        self._starting.pop(agent, None)

    def to_spawn(self, ledger: Ledger, epic: Epic) -> int:
        """How many more sub-agents there is work for: open offers, less those that are on their way."""
        now_s = time.monotonic()
        self._starting = {a: at_s for a, at_s in self._starting.items() if now_s - at_s < STARTING_S}
        return max(0, len(self.leasing.open_offers(ledger, epic)) - len(self._starting))

    def words(self, ledger: Ledger, epic: Epic, client: str, *, plugin: bool) -> dict[str, Any]:
        """How many sub-agents the lead has to spawn now and how: `spawn` and `instruction` of a reply, if any."""
        number = self.to_spawn(ledger, epic)
        return (
            {"spawn": number, "instruction": spawn_words(epic.spec.id, number, client, plugin=plugin)} if number else {}
        )

    def holders(self, ledger: Ledger, agent: str) -> list[AttemptId]:
        """Attempts that this sub-agent holds and that are not merged."""
        return [attempt_of(epic, story) for epic in ledger.epics.values() for story in held_by(epic, agent, "")]


async def own_worktree(world: World, cwd: str | None) -> Path | None:
    """The worktree that the host made for a sub-agent whose working directory this is.

    None when it has none of its own (the user's checkout, or one that epicwave made, or somewhere else): then it gets
    one of ours, because two agents in one checkout overwrite each other.
    """
    if not cwd:
        return None
    trees = [tree.path for tree in await world.repository.trees() if not tree.missing]
    ours = world.worktrees_root(world.settings())
    return await anyio.to_thread.run_sync(_own, Path(cwd), trees, world.repository.top, ours)


def _own(cwd: Path, trees: Sequence[Path], top: Path, ours: Path) -> Path | None:
    here = Path(os.path.realpath(cwd))
    around = [path for path in trees if here.is_relative_to(os.path.realpath(path))]
    found = max(around, key=lambda path: len(path.parts), default=None)
    if (
        found is None
        or found in (trees[0], top)
        or Path(os.path.realpath(found)).is_relative_to(os.path.realpath(ours))
    ):
        return None
    return found


def spawn_words(epic: EpicId, number: int, client: str, *, plugin: bool) -> str:
    """The exact instruction for the lead, in the words of its host."""
    prompt = f"Claim a story of epic {epic!r} with claim_story(epic={epic!r}, whole=true), do it, report it."
    calls = f"{number} Agent call{'s' if number > 1 else ''}"
    if client.startswith("cursor"):
        return (
            f"In ONE message start {number} subagent{'s' if number > 1 else ''} story-worker (one that fails to start: "
            "again), each with the prompt: "
            f"{prompt} Work only in the worktree that it names."
        )
    kind = "epicwave:story-worker" if plugin else "story-worker"
    return (
        f"In ONE message make {calls} (one that fails: again) with subagent_type {kind!r}, isolation 'worktree', "
        f"no name, description 'epicwave story', prompt: {prompt}"
    )
