"""The composition root: one repository, its settings, and the real adapter behind each port."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import anyio
from platformdirs import user_state_path

from mcp_server.adapters.agents.output import tail_of
from mcp_server.adapters.agents.profiles import Profile, resolve
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.adapters.agents.tree import root_of
from mcp_server.adapters.clock import SystemClock
from mcp_server.adapters.git.history import GitHistory
from mcp_server.adapters.git.integration import GitMerge
from mcp_server.adapters.git.landing import GitLand
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.probe import GitProbe
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.saving import sweep
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.adapters.journal.sqlite import SqliteJournal, notices
from mcp_server.core.model import Ledger, Process, Story
from mcp_server.core.predict import Known
from mcp_server.core.spec import AttemptId, EpicId
from mcp_server.errors import Fault
from mcp_server.ports import History, Ports
from mcp_server.server.settings import Settings, load_settings

TAIL_BYTES = 16_000


@dataclass(frozen=True, slots=True)
class World:
    """What a host needs to know of the machine and the repository."""

    repository: Repository
    history: History
    clock: SystemClock = field(default_factory=SystemClock)
    agents: dict[str, Profile] = field(default_factory=dict[str, Profile])
    """The configuration's own agents, as last read."""
    pools: list[Pool] = field(default_factory=list[Pool])
    """The worktrees that wait for the next attempts of the last engine that was opened here."""

    @classmethod
    async def open(cls, start: Path) -> Self:
        """Find the repository. Changes nothing. Raises `Refused` for a folder that cannot be worked in."""
        repository = await Repository.open(start)
        return cls(repository, GitHistory(repository))

    @property
    def state_dir(self) -> Path:
        """Journal, logs and lock, in the common git folder: every worktree sees the same, no checkout sees any."""
        return self.repository.state_dir

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.state_dir / "journal.db"

    async def notices(self) -> tuple[str, ...]:
        """One sentence for each thing that a user should know before a run."""
        return (*await self.repository.notices(), *notices(self.journal_path))

    def settings(self) -> Settings:
        """The configuration as it is now. Raises `Refused(bad_config)`."""
        return load_settings(self.repository.top)

    async def known(self, ledger: Ledger) -> Known:
        """What an epic that is planned now can go by. Raises `Refused(bad_config)`."""
        said = self.settings().epic
        return Known(await self.history.past(), ledger.learned, said.overlap, said.footprint_exempt)

    def worktrees_root(self, settings: Settings) -> Path:
        """Where worktrees are made: outside the checkout, so that no tool of the user's walks into them."""
        if settings.worktrees_dir is not None:
            return settings.worktrees_dir
        digest = hashlib.sha256(str(self.repository.common_dir).encode()).hexdigest()[:8]
        name = self.repository.top.name[:24]
        return user_state_path("epicwave", appauthor=False) / "worktrees" / f"{name}-{digest}"

    def ports(self, journal: SqliteJournal) -> Ports:
        """The world for one engine, whose host holds the repository's lock."""
        sweep(self.repository)
        settings = self.settings()
        self._read_agents(settings)
        root = self.worktrees_root(settings)
        pool = Pool(self.repository, root, settings.keeping)
        pool.adopt()
        self.pools[:] = [pool]
        return Ports(
            clock=self.clock,
            journal=journal,
            worktrees=GitWorktrees(self.repository, root, pool),
            merge=GitMerge(self.repository, root, pool),
            runner=self._runner(),
            probe=GitProbe(self.repository, root),
            land=GitLand(self.repository, root, pool),
        )

    async def put_away(self, limit_s: float, *, waits: bool = False) -> None:
        """Delete what was thrown away, and the worktrees that wait, unless an attempt `waits` for them.

        For whoever has the lock. Returns when it is done, or after `limit_s`; what is left then goes at the next start.
        """
        for pool in self.pools:
            if not waits:
                with suppress(Fault):
                    await pool.empty()
            await pool.settle(limit_s)

    def _runner(self) -> ProcessRunner:
        repository = self.repository
        return ProcessRunner(
            self.state_dir / "logs",
            repository.common_dir,
            self.agents,
            top=repository.top,
            identity=repository.agent_env,
        )

    def check_agents(self, names: Iterable[str]) -> None:
        """Take the agents of the configuration as it is now, for a living engine's runner too.

        Raises `Refused(unknown_agent)` for one that is not known or whose program is not installed.
        """
        self._read_agents(self.settings())
        for name in dict.fromkeys(names):
            resolve(name, self.agents).check(self.repository.top)

    def _read_agents(self, settings: Settings) -> None:
        self.agents.clear()
        self.agents.update(settings.agents)

    def is_alive(self, process: Process) -> bool:
        """True while this very process, by pid and start time, exists."""
        return root_of(process) is not None

    def log_path(self, attempt: AttemptId, *, checks: bool = False) -> Path:
        """Where the log of an attempt's agent is, or that of its checks, whether or not there is one."""
        runner = ProcessRunner(self.state_dir / "logs", self.repository.common_dir)
        return runner.checks_log_path(attempt) if checks else runner.log_path(attempt)

    async def log_tail(self, epic: EpicId, story: Story) -> tuple[str, str]:
        """Path and last lines of a story's latest log; empty when it has none yet."""
        if story.attempt == 0:
            return "", ""
        path = anyio.Path(self.log_path(AttemptId(epic, story.spec.id, story.attempt)))
        if not await path.exists():
            return "", ""
        async with await anyio.open_file(path, "rb") as log:
            size = await log.seek(0, 2)
            await log.seek(max(0, size - TAIL_BYTES))
            return str(path), tail_of(await log.read())
