"""A lead who meddles, by chance: plans, starts, and says to an epic whatever can be said to one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import anyio

from mcp_server.core.commands import DrainWave, PauseEpic, ResumeEpic, RetryStory, SkipStory
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Epic, is_alive
from mcp_server.core.spec import EpicId
from mcp_server.core.views import question
from mcp_server.errors import JournalError, Refused
from mcp_server.testing.fate import AGENTS, Config
from mcp_server.testing.mortal import Killed
from mcp_server.testing.world import World, story

FILES = ("src/a.py", "src/b.py", "src/", "src/*.py", "docs/", "docs/x.md", "**/z.txt", "lib/z.txt")


class Lead:
    """Stores the epics that it has planned."""

    def __init__(self, config: Config, chance: Random, world: World) -> None:
        self.epics: list[EpicId] = []
        self.is_calm = False
        """It wants everything done now."""
        self._config = config
        self._chance = chance
        self._world = world

    def says(self, act: Callable[[], object]) -> None:
        """Whoever talks to an engine may be refused, may see it die, and may be told that nothing can be stored."""
        with suppress(Refused, Killed, JournalError):
            act()

    def plan(self, epic: EpicId) -> None:
        """Plan an epic by chance. Raises as `says` suppresses."""
        chance, config, names = self._chance, self._config, [f"{epic}{n}" for n in range(self._config.stories)]
        self._world.plan(
            *(
                story(
                    name,
                    *(d for d in names[:n] if chance.random() < config.edges),
                    files=" ".join(chance.sample(FILES, chance.randint(1, 2)))
                    if chance.random() < config.footprints
                    else "",
                    critical=chance.random() < config.critical,
                    minutes=float(chance.randint(1, 90)),
                    agent=AGENTS[2] if chance.random() < config.own_agents else None,
                    done=chance.random() < 0.05,
                )
                for n, name in enumerate(names)
            ),
            epic=epic,
        )
        self.epics.append(epic)

    def start_all(self) -> bool:
        """Start or widen a wave in every epic; False when there was nothing to start."""
        started = False
        for name in self.epics:
            epic = self._world.ledger.epics[name]
            asked = [s.spec.id for s in epic.stories.values() if question(s)]
            notes = dict.fromkeys(asked, "the answer") if self._chance.random() < 0.5 else {}
            policy = self._config.calm if self.is_calm else self._config.policy
            settings = {field: getattr(policy, field) for field in policy.__dataclass_fields__}
            with suppress(Refused):
                self._world.start(
                    "all" if self.is_calm else self._chance.choice(["all", "all", "ready", 2]),
                    epic=name,
                    retry=self.is_calm or self._chance.random() < 0.7,
                    notes=notes,
                    **settings | {"strategy": self._strategy(epic)},
                )
                started = True
        return started

    def resume_all(self) -> None:
        """Let everything go on that is held back."""
        for name in self.epics:
            self.says(lambda name=name: self._world.steer(ResumeEpic(name)))

    def _strategy(self, epic: Epic) -> Strategy:
        if epic.wave is not None and is_alive(epic.wave):
            return epic.wave.policy.strategy
        return Strategy.ASYNCIO if self._chance.random() < self._config.changes_mind else self._config.policy.strategy

    async def meddle(self) -> None:
        """One thing that nobody had asked for."""
        chance, world = self._chance, self._world
        epic = chance.choice(self.epics)
        name = chance.choice(list(world.ledger.epics[epic].stories))
        if chance.random() < 0.07:
            await world.close()
            return
        acts: list[Callable[[], object]] = [
            lambda: world.cancel(epic=epic),
            lambda: world.cancel(name, epic=epic),
            lambda: world.cancel(name, epic=epic),
            lambda: self._push(epic),
            lambda: world.steer(PauseEpic(epic, "let me think")),
            lambda: world.steer(PauseEpic(epic, "let me think")),
            lambda: world.steer(ResumeEpic(epic)),
            lambda: world.steer(DrainWave(epic, "enough for today")),
            lambda: self._steer_one(epic, RetryStory, "mind the tests"),
            lambda: self._steer_one(epic, SkipStory, "not needed after all"),
            self.start_all,
            *([lambda: self.plan("f")] if self._config.second_epic and len(self.epics) == 1 else []),
        ]
        self.says(chance.choice(acts))

    def _push(self, epic: EpicId) -> None:
        """Somebody has no patience, and commits to the integration branch."""
        if f"refs/heads/epicwave/{epic}" in self._world.git.refs:
            self._world.truth.push(epic, f"by hand {anyio.current_time()}")

    def _steer_one(self, epic: EpicId, command: type[RetryStory | SkipStory], why: str) -> None:
        """Said to one story after the other until it is taken."""
        names = list(self._world.ledger.epics[epic].stories)
        for name in self._chance.sample(names, len(names)):
            with suppress(Refused):
                self._world.steer(command(epic, name, why))
                return
