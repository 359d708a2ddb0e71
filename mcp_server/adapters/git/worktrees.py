"""The port `Worktrees` on real git: one worktree, one branch and one base ref an attempt."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git import disk, status
from mcp_server.adapters.git.include import include
from mcp_server.adapters.git.names import (
    BASES,
    SETTLED,
    WORK,
    attempt_branch,
    attempt_of_folder,
    attempt_of_ref,
    attempt_ref,
    base_ref,
    rescue_ref,
)
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.remains import End, Remains, Whose
from mcp_server.adapters.git.repository import Repository, listed
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, Lent, NoBranch, NoCommits, Outcome, Uncommitted, WrongBase, WrongPlace

CLEANUP_S = 60.0
"""Time to save and remove a worktree, cancelled or not. What is left after it is found by `held`."""


class GitWorktrees:
    """Worktrees below `root`, as `<epic>/<story>-<attempt>`; remembers which of the held ones `inspect` called done."""

    def __init__(self, repository: Repository, root: Path, pool: Pool | None = None) -> None:
        """Without `pool` each worktree is made anew."""
        self._repository = repository
        self._pool = pool or Pool(repository, root)
        self._root = self._pool.root
        self._done: dict[AttemptId, Sha] = {}
        self._let_go: dict[AttemptId, Sha] = {}
        """Attempts that were taken again after they had been let go, clean, with the head of their branch."""

    def folder(self, attempt: AttemptId) -> Path:
        """Where the attempt's worktree is, whether or not there is one now."""
        return self._remains(attempt).folder

    @asynccontextmanager
    async def hold(self, attempt: AttemptId, base: Sha) -> AsyncGenerator[Path]:
        """See `Worktrees.hold`. What a crash left of the same attempt is rescued first.

        Raises `Fault` on the way out too, when the work could not be saved or the worktree not removed.
        """
        await self.rescue(attempt)
        try:
            yield await self._make(attempt, base)
        finally:
            await self._leave(attempt)

    @asynccontextmanager
    async def retake(self, attempt: AttemptId, base: Sha) -> AsyncGenerator[Path]:
        """See `Worktrees.retake`. Without a base ref it was let go: a branch that is there then was judged as done."""
        with anyio.CancelScope(shield=True):
            await self._find_again(attempt, base)
        try:
            yield self.folder(attempt)
        finally:
            self._let_go.pop(attempt, None)
            await self._leave(attempt)

    async def _find_again(self, attempt: AttemptId, base: Sha) -> None:
        refs = await self._remains(attempt).refs()
        if base_ref(attempt) not in refs and attempt_ref(attempt) in refs:
            self._let_go[attempt] = refs[attempt_ref(attempt)]
        elif refs.get(base_ref(attempt)) != base or not await self._repository.own(self.folder(attempt)):
            why = (
                f"{self.folder(attempt)}, which an engine that is gone had left, is no worktree of {attempt} any more."
            )
            raise Fault(FaultCause.GIT, why)

    async def _leave(self, attempt: AttemptId) -> None:
        """The end of holding a worktree, cancelled or not."""
        with anyio.move_on_after(CLEANUP_S, shield=True) as bound:
            head = self._done.pop(attempt, None)
            await self._remains(attempt).end(End.DONE if head else End.RESCUED, head, reuse=True)
        if bound.cancelled_caught:
            raise Fault(FaultCause.DISK, f"{self.folder(attempt)} could not be saved and removed in {CLEANUP_S:.0f} s.")

    async def inspect(self, attempt: AttemptId, base: Sha) -> Outcome:
        """See `Worktrees.inspect`. An unfinished rebase or merge is uncommitted work."""
        path, tip = self.folder(attempt), self._let_go.get(attempt)
        if tip is None and not await self._repository.own(path):
            raise Fault(FaultCause.GIT, f"{path} is no worktree of {self._repository.top} any more.")
        outcome = await (self._measured(path, base) if tip is None else self._committed(tip, base))
        if isinstance(outcome, Done):
            self._done[attempt] = outcome.head
        else:
            self._done.pop(attempt, None)
        return outcome

    async def lend(self, attempt: AttemptId, base: Sha, *, ours: bool) -> Path | None:
        """See `Worktrees.lend`. After a `Fault`, too, `rescue` clears what there is."""
        await self.rescue(attempt)
        if ours:
            return await self._make(attempt, base)
        await self._repository.change_refs(old={}, new={base_ref(attempt): base}, why=f"lent {attempt}")
        return None

    async def inspect_lent(self, attempt: AttemptId, base: Sha, at: Path | None) -> Lent:
        """See `Worktrees.inspect_lent`."""
        place = await self._remains(attempt).place()
        if place is not None:
            return WrongPlace(place.path) if place.whose is Whose.USER else await self._measured(place.path, base)
        tip = await self._repository.resolve(attempt_ref(attempt))
        if tip is not None:
            return await self._committed(tip, base)
        head = await self._head_at(at) if at is not None else None
        return NoBranch(head, await self._repository.fork(base, head) if head else None)

    async def touched_s(self, attempt: AttemptId) -> float | None:
        """See `Worktrees.touched_s`."""
        place = await self._remains(attempt).place()
        return await status.touched_s(self._repository.git, place.path) if place else None

    async def give_back(self, attempt: AttemptId, head: Sha) -> None:
        """See `Worktrees.give_back`."""
        await self._remains(attempt).end(End.LANDED, head)

    async def rescue(self, attempt: AttemptId) -> str | None:
        """See `Worktrees.rescue`."""
        self._done.pop(attempt, None)
        saved = await self._remains(attempt).end(End.RESCUED)
        return rescue_ref(attempt) if saved else None

    async def free_mb(self) -> float:
        """See `Worktrees.free_mb`."""
        return await self._pool.free_mb()

    async def weight_mb(self, worktree: Path) -> float:
        """See `Worktrees.weight_mb`."""
        return await anyio.to_thread.run_sync(disk.weight_mb, worktree, abandon_on_cancel=True)

    async def held(self) -> list[AttemptId]:
        """See `Worktrees.held`. Sorted; folders without a registration and base refs without a branch count too."""
        refs = await self._repository.refs(WORK, BASES, SETTLED)
        folders = await self._folders()
        folders += await anyio.to_thread.run_sync(lambda: [f for epic in listed(self._root) for f in listed(epic)])
        inside = [path.relative_to(self._root).parts for path in folders if path.is_relative_to(self._root)]
        found = {attempt_of_ref(ref) for ref in refs} | {attempt_of_folder(*parts) for parts in inside}
        return sorted(attempt for attempt in found if attempt)

    async def _folders(self) -> list[Path]:
        return [tree.path for tree in await self._repository.trees()]

    def _remains(self, attempt: AttemptId) -> Remains:
        return Remains.of(self._pool, attempt)

    async def _make(self, attempt: AttemptId, base: Sha) -> Path:
        remains, new = self._remains(attempt), {base_ref(attempt): base, attempt_ref(attempt): base}
        try:
            await self._repository.change_refs(old={}, new=new, why=f"began {attempt}")
        except Fault as fault:
            if (place := await remains.elsewhere()) is None:
                raise
            had = f"{attempt_branch(attempt)} is checked out in {place.path}; switch that to another branch."
            raise Fault(FaultCause.BRANCH_CHECKED_OUT, had) from fault
        await self._pool.add(remains.folder, attempt_ref(attempt), remains.reason, base)
        await include(self._repository, remains.folder)
        return remains.folder

    async def _measured(self, path: Path, base: Sha) -> Outcome:
        """What a worktree contains. An operation of git's that is not finished comes first: HEAD says nothing then."""
        now = await status.status(self._repository.git, path)
        if now.unfinished:
            return Uncommitted(now.left)
        head = await self._repository.resolve("HEAD", at=path)
        if head is None:  # a branch without a commit
            return WrongBase("0" * len(base))
        outcome = await self._committed(head, base)
        return Uncommitted(now.left) if now.paths and not isinstance(outcome, WrongBase) else outcome

    async def _committed(self, head: Sha, base: Sha) -> Done | NoCommits | WrongBase:
        if not await self._repository.is_ancestor(base, head):
            return WrongBase(head, await self._repository.fork(base, head))
        return NoCommits() if head == base else Done(head, await self._repository.changed(base, head))

    async def _head_at(self, folder: Path) -> Sha | None:
        """HEAD of the worktree that a folder is in; None when it is in none of this repository's."""
        paths = [Path(await anyio.Path(path).resolve()) for path in (folder, *await self._folders())]
        around = [path for path in paths[1:] if paths[0].is_relative_to(path)]
        innermost = max(around, key=lambda path: len(path.parts), default=None)
        there = await anyio.Path(folder).is_dir() and innermost is not None and await self._repository.own(innermost)
        return await self._repository.resolve("HEAD", at=innermost) if there else None
