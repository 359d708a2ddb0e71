"""Worktrees of ours as they come and go: from a pool of used ones, or from git; back there, or to the trash.

A pooled worktree lies in `<root>/_pool`, detached, and locked for `IDLE`. It is made as good as new there, before it is
anybody's, and comes and goes by a rename; the entry in git's list leads to the attempt's place during it, so that a
kill at any point leaves what the attempt's own remains are cleared with, or what `adopt` finds unsound. Whatever is
doubtful about one is no question: it is thrown away, and git makes a new one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git import disk, second_hand, trees
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.names import POOL_FOLDER, TRASH_FOLDER
from mcp_server.adapters.git.repository import Repository, listed
from mcp_server.adapters.git.second_hand import IDLE, SecondHand
from mcp_server.adapters.git.trash import Trash
from mcp_server.core.spec import Sha
from mcp_server.errors import Fault

LOW_MB = 2000.0
"""With less free on the disk nothing is kept there for later."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How many worktrees wait for the next attempt at most, and what stays in them that git ignores."""

    worktrees: int = 0
    folders: tuple[str, ...] = ()
    """Names or patterns of names, as `node_modules`."""


class Pool:
    """Stores the worktrees that wait for an attempt. One a repository, of whoever has its lock."""

    def __init__(self, repository: Repository, root: Path, keeping: Keeping | None = None) -> None:
        """Without `keeping` there is no pool, and what is removed is deleted before the call returns."""
        self.repository = repository
        self.root = root.resolve()
        self._keeping = keeping or Keeping()
        self._at_once = keeping is None
        self._folder = self.root / POOL_FOLDER
        self._trash = Trash(self.root / TRASH_FOLDER)
        self._idle: list[Path] = []
        self._coming = 0
        """Those that are on their way into the pool."""
        self._processors = anyio.CapacityLimiter(os.cpu_count() or 1)
        self._second_hand = SecondHand(repository, self._trash, self._keeping.folders)

    @property
    def idle(self) -> Sequence[Path]:
        """Those that wait."""
        return tuple(self._idle)

    def adopt(self) -> None:
        """Take over what an engine that is gone has left: sound worktrees stay, all else is about to be deleted."""
        for path in listed(self._folder):
            sound = second_hand.idle_entry(self.repository.common_dir, path) is not None
            if sound and len(self._idle) < self._keeping.worktrees:
                self._idle.append(path)
            else:
                self._throw(path, IDLE)
        for entry in listed(self.repository.common_dir / "worktrees"):
            place = trees.place_of(entry)
            if place is not None and place.parent == self._folder and not place.exists():
                trees.forget(self.repository, entry)
        self._trash.empty_later()

    async def add(self, path: Path, branch: str | None, reason: str, base: Sha) -> None:
        """A worktree at `path` with the files of `base`, locked for `reason`, on `branch`; detached without one.

        The branch (full ref) exists, and is at `base`. Raises `Fault`, also when HEAD is not there afterwards.
        """
        with disk_faults(f"{path.parent} could not be made"):
            await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
        while self._idle:
            if await self._taken(self._idle.pop(), path, branch, reason, base):
                return
        await trees.add(self.repository, path, reason, base)
        await trees.attach(self.repository, path, branch, base)

    async def _taken(self, idle: Path, path: Path, branch: str | None, reason: str, base: Sha) -> bool:
        """Make one as good as new, and have it at `path`. False when it was not fit, and is gone."""
        common_dir = self.repository.common_dir
        try:
            async with self._processors:
                if await self._second_hand.restored(idle, base):
                    await anyio.to_thread.run_sync(second_hand.move_in, common_dir, idle, path, branch, reason)
                    return True
        except Fault:
            pass
        except anyio.get_cancelled_exc_class():
            self._idle.append(idle)  # if it has moved, that is seen when it is wanted
            raise
        await self.throw(idle, IDLE)
        return False

    async def remove(self, path: Path, reason: str, rest: Sha | None = None) -> None:
        """Remove a worktree, and all that a crash can leave of one: folder, registration, half a registration.

        With `rest` it may go to the pool, where HEAD is at that commit. Only for one that nobody is in any more, and
        whose work is saved. Raises `Fault(disk)`.
        """
        if rest is None or not await self._put_by(path, rest):
            await self.throw(path, reason)
        await anyio.to_thread.run_sync(trees.leave_empty, path.parent)

    async def _put_by(self, path: Path, rest: Sha) -> bool:
        """Put it into the pool; False when that is full, or something is doubtful."""
        if len(self._idle) + self._coming >= self._keeping.worktrees:
            return False
        self._coming += 1
        try:
            if await anyio.to_thread.run_sync(disk.free_mb, self.root) < LOW_MB:
                return False
            idle = self._folder / secrets.token_hex(4)
            if await self._second_hand.put_by(path, idle, rest):
                self._idle.append(idle)
                return True
        except Fault:
            pass
        finally:
            self._coming -= 1
        return False

    async def throw(self, path: Path, reason: str) -> None:
        """Remove a worktree that nobody will have again. Its files are deleted later."""
        await anyio.to_thread.run_sync(self._throw, path, reason)
        await anyio.to_thread.run_sync(self._trash.empty if self._at_once else self._trash.empty_later)

    def _throw(self, path: Path, reason: str) -> None:
        stray = trees.entry_said(self.repository.common_dir, path)
        self._trash.throw(path)
        trees.unregister(self.repository, path, reason)
        if stray is not None and trees.is_ours(stray) and (place := trees.place_of(stray)) and not place.exists():
            trees.forget(self.repository, stray)

    async def free_mb(self) -> float:
        """Room on the disk where worktrees are; when that is low, the pool is given up for it."""
        free_mb = await anyio.to_thread.run_sync(disk.free_mb, self.root)
        if free_mb < LOW_MB:
            await self.empty()
        return free_mb

    async def empty(self) -> None:
        """Throw away all that wait."""
        while self._idle:
            await self.throw(self._idle.pop(), IDLE)
        await anyio.to_thread.run_sync(trees.leave_empty, self._folder)

    async def settle(self, limit_s: float) -> bool:
        """Wait until what was thrown away is deleted; False when that takes longer."""
        return await anyio.to_thread.run_sync(self._trash.settle, limit_s)
