"""Following epics until they are at rest: the state goes to a screen whenever it has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from mcp_server.cli.exits import DONE, NOT_ALL_MERGED
from mcp_server.core.forecast import Times
from mcp_server.core.model import Epic, Ledger, StoryState
from mcp_server.core.spec import EpicId, StoryId
from mcp_server.core.steer import epic_of
from mcp_server.core.views import EpicState, epic_state, is_at_rest
from mcp_server.server.holder import holder_of
from mcp_server.server.world import World

SILENT_S = 5.0
"""Work that is under way and nobody who tells of it: after so long somebody looks for the engine."""
GONE = "Nobody has the engine. What was under way goes on with the next one: `epicwave run FILE --attach`."


class Eye(Protocol):
    """Where the state comes from: the engine in this process, or the journal of another one's."""

    times: Times
    is_told: bool
    """True while an engine is known to be there."""

    def ledger(self) -> Ledger:
        """The state now. Raises `Refused` when it cannot be read."""
        ...

    async def wait(self, seq: int, limit_s: float) -> None:
        """Until there is a fact behind number `seq`, or the time is up."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What a screen shows: the state at one moment."""

    ledger: Ledger
    epics: tuple[Epic, ...]
    """Those that are followed."""
    now_s: float
    times: Times
    lines: Mapping[tuple[EpicId, StoryId], str]
    """Last line of the log of each running story."""
    note: str = ""
    """What the user should know of the engine."""


class Screen(Protocol):
    """Where the state is shown."""

    every_s: float
    """It is drawn again so often, also when nothing has changed, in seconds."""

    def show(self, look: Look) -> None:
        """Show it."""
        ...

    def close(self, look: Look, *, interrupted: bool = False) -> None:
        """Show how it ended, or how it was when somebody stopped looking."""
        ...


class Following:
    """Stores which epics are followed: the named one, or all that move, and those that did while one looked."""

    def __init__(self, eye: Eye, world: World, epic: EpicId | None = None, *, forever: bool = False) -> None:
        self._eye = eye
        self._world = world
        self._epic = epic
        self._forever = forever
        self._seen: dict[EpicId, None] = {}

    async def to_the_end(self, screen: Screen) -> int:
        """Show each change until nothing that is followed moves any more. The result is the exit code.

        Raises `Refused` for an epic that is not planned, and when the journal cannot be read.
        """
        while True:
            look = await self.look()
            screen.show(look)
            if not self._forever and all(is_at_rest(look.ledger, epic) for epic in look.epics):
                screen.close(look)
                done = all(epic_state(look.ledger, epic) is EpicState.DONE for epic in look.epics)
                return DONE if done else NOT_ALL_MERGED
            await self._eye.wait(look.ledger.seq, screen.every_s)

    async def look(self, *, everything: bool = False) -> Look:
        """The state now; with `everything` of all epics, if none is named, whether they move or not."""
        now_s = self._world.clock.now_s()
        stored = self._eye.ledger()
        ledger = replace(stored, as_of_s=max(stored.as_of_s, now_s))  # what time alone changes is counted down
        followed = ledger.epics.values() if everything and self._epic is None else self._followed(ledger)
        epics = tuple(followed)
        lines: dict[tuple[EpicId, StoryId], str] = {}
        for epic in epics:
            for story in epic.stories.in_state(StoryState.RUNNING):
                _, tail = await self._world.log_tail(epic.spec.id, story)
                lines[epic.spec.id, story.spec.id] = tail.rstrip("\n").rpartition("\n")[2]
        moves = any(not is_at_rest(ledger, epic) for epic in epics)
        silent = moves and not self._eye.is_told and now_s - stored.as_of_s > SILENT_S
        return Look(ledger, epics, now_s, self._eye.times, lines, self._who_is_gone() if silent else "")

    def _who_is_gone(self) -> str:
        """A note when nobody has the engine; an editor's server that has it all to itself tells nobody of changes."""
        holder = holder_of(self._world.state_dir)
        return "" if holder is not None and holder.alive else GONE

    def _followed(self, ledger: Ledger) -> list[Epic]:
        if self._epic is not None:
            return [epic_of(ledger, self._epic)]
        self._seen |= {name: None for name, epic in ledger.epics.items() if not is_at_rest(ledger, epic)}
        if not self._seen and not self._forever:
            return list(ledger.epics.values())
        return [epic for name, epic in ledger.epics.items() if name in self._seen]
