"""The port `Worktrees` on real git: one worktree, one branch and one base ref an attempt.

The base ref is the sign that an attempt has life that is not saved. It comes and goes in one transaction with the
branch and the rescue ref, so that a crash at any point leaves a state that `rescue` can read:

base ref            work is going on, or was when we were killed: save it, then clean
branch, no base     the attempt is done: its commits are all there is; a folder is a remnant
neither             a folder is a remnant
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git import trees
from mcp_server.adapters.git.names import (
    BASES,
    WORK,
    attempt_branch,
    attempt_folder,
    attempt_of_folder,
    attempt_of_ref,
    attempt_ref,
    base_ref,
    rescue_ref,
)
from mcp_server.adapters.git.repository import Repository, listed
from mcp_server.adapters.git.saving import committed, saved
from mcp_server.adapters.git.status import status
from mcp_server.core.model import AttemptId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, NoCommits, Outcome, Uncommitted, WrongBase

CLEANUP_S = 60.0
"""Time to save and remove a worktree, cancelled or not. What is left after it is found by `held`."""


class GitWorktrees:
    """Worktrees below `root`, as `<epic>/<story>-<attempt>`; remembers which of the held ones `inspect` called done."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self._repository = repository
        self._root = root.resolve()
        self._done: dict[AttemptId, Sha] = {}

    def folder(self, attempt: AttemptId) -> Path:
        """Where the attempt's worktree is, whether or not there is one now."""
        return self._root / attempt.epic / attempt_folder(attempt)

    @asynccontextmanager
    async def hold(self, attempt: AttemptId, base: Sha) -> AsyncGenerator[Path]:
        """See `Worktrees.hold`. What a crash left of the same attempt is rescued first.

        Raises `Fault` on the way out too, when the work could not be saved or the worktree not removed.
        """
        await self.rescue(attempt)
        try:
            yield await self._make(attempt, base)
        finally:
            with anyio.move_on_after(CLEANUP_S, shield=True) as bound:
                await self._end(attempt, self._done.pop(attempt, None))
            if bound.cancelled_caught:
                raise Fault(
                    FaultCause.DISK, f"{self.folder(attempt)} could not be saved and removed in {CLEANUP_S:.0f} s."
                )

    async def inspect(self, attempt: AttemptId, base: Sha) -> Outcome:
        """See `Worktrees.inspect`. An unfinished rebase or merge is uncommitted work."""
        outcome = await self._measured(attempt, base)
        if isinstance(outcome, Done):
            self._done[attempt] = outcome.head
        else:
            self._done.pop(attempt, None)
        return outcome

    async def rescue(self, attempt: AttemptId) -> str | None:
        """See `Worktrees.rescue`."""
        self._done.pop(attempt, None)
        saved = await self._end(attempt, None)
        return rescue_ref(attempt) if saved else None

    async def held(self) -> list[AttemptId]:
        """See `Worktrees.held`. Sorted; folders without a registration and base refs without a branch count too."""
        refs = await self._repository.refs(WORK, BASES)
        folders = [tree.path for tree in await self._repository.trees()]
        folders += await anyio.to_thread.run_sync(lambda: [f for epic in listed(self._root) for f in listed(epic)])
        inside = [path.relative_to(self._root).parts for path in folders if path.is_relative_to(self._root)]
        found = {attempt_of_ref(ref) for ref in refs} | {attempt_of_folder(*parts) for parts in inside}
        return sorted(attempt for attempt in found if attempt)

    async def _make(self, attempt: AttemptId, base: Sha) -> Path:
        new = {base_ref(attempt): base, attempt_ref(attempt): base}
        await self._repository.change_refs(old={}, new=new, why=f"began {attempt}")
        path = self.folder(attempt)
        await trees.add(self._repository, path, attempt_branch(attempt), _reason(attempt), base)
        return path

    async def _end(self, attempt: AttemptId, done: Sha | None) -> bool:
        """Leave the branch at `done` (None: remove it), save what came after it or instead of it, remove the worktree.

        Returns whether anything of the attempt is on its rescue ref now.
        """
        for last_try in (False, False, True):
            old = await self._refs(attempt)
            everything = await self._everything(attempt, old)
            over = done is not None and everything is not None and await self._repository.is_ancestor(everything, done)
            kept = {} if over else await self._kept(attempt, old, everything)
            new = {base_ref(attempt): None, attempt_ref(attempt): done, **kept}
            try:
                await self._repository.change_refs(old=old, new=new, why=f"ended {attempt}")
            except Fault:
                freed = await anyio.to_thread.run_sync(trees.clear_ref_locks, self._repository.common_dir, list(new))
                if last_try or (not freed and await self._refs(attempt) == old):
                    raise
                continue  # a lock of a killed agent's is gone, or a process about to end has moved a ref: look again
            break
        await trees.remove(self._repository, self.folder(attempt), _reason(attempt))
        return rescue_ref(attempt) in await self._refs(attempt)

    async def _measured(self, attempt: AttemptId, base: Sha) -> Outcome:
        path, git = self.folder(attempt), self._repository.git
        if not await self._repository.own(path):
            raise Fault(FaultCause.GIT, f"{path} is no worktree of {self._repository.top} any more.")
        head = await self._repository.resolve("HEAD", at=path)
        if head is None:  # a branch without a commit
            return WrongBase("0" * len(base))
        if not await self._repository.is_ancestor(base, head):
            return WrongBase(head)
        now = await status(git, path)
        if now.paths or now.unfinished:
            return Uncommitted(now.paths)
        return NoCommits() if head == base else Done(head, await self._repository.changed(base, head))

    async def _refs(self, attempt: AttemptId) -> dict[str, Sha]:
        return await self._repository.refs(base_ref(attempt), attempt_ref(attempt), rescue_ref(attempt))

    async def _everything(self, attempt: AttemptId, old: dict[str, Sha]) -> Sha | None:
        """One commit that has all there is of an attempt beyond its base; None when there is nothing."""
        base, tip = old.get(base_ref(attempt)), old.get(attempt_ref(attempt))
        if base is None:
            return tip
        path = self.folder(attempt)
        head = await self._repository.resolve("HEAD", at=path) if await self._repository.own(path) else None
        parents = [head or tip or base]
        if tip and not await self._repository.is_ancestor(tip, parents[0]):
            parents.append(tip)  # the agent moved HEAD away from commits that it had made
        if await anyio.Path(path).is_dir():
            last = await saved(self._repository, path, parents, f"unfinished work of {attempt}")
        elif len(parents) == 1:
            last = parents[0]
        else:
            last = await committed(self._repository, f"{parents[0]}^{{tree}}", parents, f"commits of {attempt}")
        return None if await self._repository.is_ancestor(last, base) else last

    async def _kept(self, attempt: AttemptId, old: dict[str, Sha], last: Sha | None) -> dict[str, Sha]:
        """The rescue ref as it has to be to hold `last` and all that it holds already."""
        ref = rescue_ref(attempt)
        before = old.get(ref)
        if last is None or (before and await self._repository.is_ancestor(last, before)):
            return {}
        if before and not await self._repository.is_ancestor(before, last):
            last = await committed(self._repository, f"{last}^{{tree}}", [last, before], f"both lives of {attempt}")
        return {ref: last}


def _reason(attempt: AttemptId) -> str:
    """Why the worktree is locked; found again when only half of a registration is left."""
    return f"epicwave {attempt}"
