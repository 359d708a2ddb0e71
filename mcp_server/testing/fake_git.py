"""The port `Worktrees` in memory, on a `FakeGit`, for virtual time; `fake_merge.py` has the other git port.

Scripted agents use `write`, `delete` and `commit` of it with the path that `hold` yields or `lend` returns. A host that
makes worktrees of its own: `host_desk`, then `switch` at that desk to the attempt's branch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from mcp_server.adapters.git.names import (
    BASES,
    SETTLED,
    WORK,
    attempt_branch,
    attempt_folder,
    attempt_of_ref,
    attempt_ref,
    base_ref,
    rescue_ref,
    settled_ref,
)
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import (
    Done,
    Lent,
    NoBranch,
    NoCommits,
    Outcome,
    Uncommitted,
    WrongBase,
    WrongPlace,
)
from mcp_server.testing.fake_repository import USER_DESK, Desk, FakeGit

__all__ = ["ROOT", "Desk", "FakeGit", "FakeWorktrees"]

ROOT = Path("/fake-worktrees")


def folder(attempt: AttemptId) -> Path:
    """Where our own worktree of an attempt is, whether or not there is one now."""
    return ROOT / attempt.epic / attempt_folder(attempt)


class FakeWorktrees:
    """The port `Worktrees` in memory. It knows no ignored files, so `.worktreeinclude` means nothing to it."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git
        self._done: dict[AttemptId, Sha] = {}

    @asynccontextmanager
    async def hold(self, attempt: AttemptId, base: Sha) -> AsyncGenerator[Path]:
        """See `Worktrees.hold`."""
        life = self._git.life
        try:
            await self._git.step("hold")
            self._rescue(attempt)
            yield self._make(attempt, base)
        finally:
            if life == self._git.life:
                with anyio.CancelScope(shield=True):
                    await self._git.step("release")
                self._let_go(attempt)

    @asynccontextmanager
    async def retake(self, attempt: AttemptId, base: Sha) -> AsyncGenerator[Path]:
        """See `Worktrees.retake`."""
        life, refs = self._git.life, self._git.refs
        with anyio.CancelScope(shield=True):
            await self._git.step("retake")
        is_held = refs.get(base_ref(attempt)) == base and folder(attempt) in self._git.desks
        if not is_held and (base_ref(attempt) in refs or attempt_ref(attempt) not in refs):
            raise Fault(FaultCause.GIT, f"{folder(attempt)} is no worktree of {attempt} any more.")
        try:
            yield folder(attempt)
        finally:
            if life == self._git.life:
                with anyio.CancelScope(shield=True):
                    await self._git.step("release")
                self._let_go(attempt)

    async def inspect(self, attempt: AttemptId, base: Sha) -> Outcome:
        """See `Worktrees.inspect`."""
        await self._git.step("inspect")
        tip = self._git.refs.get(attempt_ref(attempt)) if base_ref(attempt) not in self._git.refs else None
        if tip is None and folder(attempt) not in self._git.desks:
            raise Fault(FaultCause.GIT, f"{folder(attempt)} is no worktree any more.")
        self._done.pop(attempt, None)
        outcome = self._measured(folder(attempt), base) if tip is None else self._committed(tip, base)
        if isinstance(outcome, Done):
            self._done[attempt] = outcome.head
        return outcome

    async def lend(self, attempt: AttemptId, base: Sha, *, ours: bool) -> Path | None:
        """See `Worktrees.lend`."""
        await self._git.step("lend")
        self._rescue(attempt)
        if ours:
            return self._make(attempt, base)
        self._begin(attempt, base)
        return None

    async def inspect_lent(self, attempt: AttemptId, base: Sha, at: Path | None) -> Lent:
        """See `Worktrees.inspect_lent`."""
        await self._git.step("inspect_lent")
        place = place_of(self._git, attempt)
        if place is not None:
            return WrongPlace(place) if place == USER_DESK else self._measured(place, base)
        tip = self._git.refs.get(attempt_ref(attempt))
        if tip is not None:
            return self._committed(tip, base)
        around = [path for path in self._git.desks if at and at.is_relative_to(path)]
        innermost = max(around, key=lambda path: len(path.parts), default=None)
        head = self._git.desks[innermost].head if innermost else None
        return NoBranch(head, self._git.fork(base, head) if head else None)

    async def touched_s(self, attempt: AttemptId) -> float | None:
        """See `Worktrees.touched_s`."""
        await self._git.step("touched_s")
        place = place_of(self._git, attempt)
        desk = self._git.desks.get(place) if place else None
        return desk.touched_s if desk else None

    async def give_back(self, attempt: AttemptId, head: Sha) -> None:
        """See `Worktrees.give_back`."""
        await self._git.step("give_back")
        refs = self._git.refs
        known = base_ref(attempt) in refs or attempt_ref(attempt) in refs
        self._save(attempt, head)
        self._clear(attempt)
        if known:
            refs[settled_ref(attempt)] = head
            if not elsewhere(self._git, attempt):
                refs[attempt_ref(attempt)] = head

    async def rescue(self, attempt: AttemptId) -> str | None:
        """See `Worktrees.rescue`."""
        await self._git.step("rescue")
        return self._rescue(attempt)

    async def free_mb(self) -> float:
        """See `Worktrees.free_mb`."""
        return self._git.free_mb

    async def weight_mb(self, worktree: Path) -> float:
        """See `Worktrees.weight_mb`. A character of a file is a byte."""
        await self._git.step("weight_mb")
        desk = self._git.desks.get(worktree)
        return sum(map(len, desk.files.values())) / 1e6 if desk else 0.0

    async def held(self) -> list[AttemptId]:
        """See `Worktrees.held`."""
        await self._git.step("held")
        ours = (attempt_of_ref(ref) for ref in self._git.refs if ref.startswith((WORK, BASES, SETTLED)))
        return sorted({attempt for attempt in ours if attempt})

    def _begin(self, attempt: AttemptId, base: Sha) -> None:
        if base not in self._git.commits:
            raise Fault(FaultCause.GIT, f"There is no commit {base}.")
        self._git.refs[base_ref(attempt)] = base

    def _make(self, attempt: AttemptId, base: Sha) -> Path:
        if had := elsewhere(self._git, attempt):
            raise Fault(FaultCause.BRANCH_CHECKED_OUT, f"{attempt_branch(attempt)} is checked out in {told(had)}.")
        self._begin(attempt, base)
        self._git.check_out(folder(attempt), base, attempt_ref(attempt))
        return folder(attempt)

    def _measured(self, path: Path, base: Sha) -> Outcome:
        desk, left = self._git.desks[path], self._git.dirty(path)
        outcome, unfinished = self._committed(desk.head, base), desk.rebasing or desk.merging
        return Uncommitted(left) if left and (unfinished or not isinstance(outcome, WrongBase)) else outcome

    def _committed(self, head: Sha, base: Sha) -> Done | NoCommits | WrongBase:
        if not self._git.is_ancestor(base, head):
            return WrongBase(head, self._git.fork(base, head))
        return NoCommits() if head == base else Done(head, self._git.changed(base, head))

    def _let_go(self, attempt: AttemptId) -> None:
        done = self._done.pop(attempt, None)
        if done is None:
            self._rescue(attempt)
            return
        self._save(attempt, done)
        self._clear(attempt)
        self._git.refs.pop(settled_ref(attempt), None)
        if not elsewhere(self._git, attempt):
            self._git.refs[attempt_ref(attempt)] = done

    def _rescue(self, attempt: AttemptId) -> str | None:
        self._done.pop(attempt, None)
        self._save(attempt, self._git.refs.get(settled_ref(attempt)))
        self._clear(attempt)
        leave_branch(self._git, attempt)
        return rescue_ref(attempt) if rescue_ref(attempt) in self._git.refs else None

    def _clear(self, attempt: AttemptId) -> None:
        self._git.desks.pop(folder(attempt), None)
        self._git.refs.pop(base_ref(attempt), None)

    def _save(self, attempt: AttemptId, known: Sha | None) -> None:
        save(self._git, attempt, known)


def elsewhere(git: FakeGit, attempt: AttemptId) -> Path | None:
    """A worktree that is not ours and has the attempt's branch: the host's, or else the user's."""
    found = [path for path in git.where(attempt_ref(attempt)) if path != folder(attempt)]
    return min(found, key=lambda path: path == USER_DESK, default=None)


def place_of(git: FakeGit, attempt: AttemptId) -> Path | None:
    """Our worktree of the attempt, or else the one that has its branch."""
    return folder(attempt) if folder(attempt) in git.desks else elsewhere(git, attempt)


def leave_branch(git: FakeGit, attempt: AttemptId) -> None:
    """Remove the branch, or say up to where it is dealt with while a worktree that is not ours has it."""
    tip = git.refs.get(attempt_ref(attempt))
    if elsewhere(git, attempt) and tip:
        git.refs[settled_ref(attempt)] = tip
        return
    for ref in (attempt_ref(attempt), settled_ref(attempt)):
        git.refs.pop(ref, None)


def save(git: FakeGit, attempt: AttemptId, known: Sha | None) -> None:
    """Put on the rescue ref what there is of an attempt beyond its base and beyond `known`."""
    last = _everything(git, attempt)
    if last is None or (known and git.is_ancestor(last, known)):
        return
    before = git.refs.get(rescue_ref(attempt))
    if before and git.is_ancestor(last, before):
        return
    if before and not git.is_ancestor(before, last):
        last = git.record(git.commits[last].files, last, before)
    git.refs[rescue_ref(attempt)] = last


def _everything(git: FakeGit, attempt: AttemptId) -> Sha | None:
    """One commit that has all there is of an attempt beyond its base; None when there is nothing."""
    base, tip = git.refs.get(base_ref(attempt)), git.refs.get(attempt_ref(attempt))
    if base is None:
        return tip
    place = place_of(git, attempt)
    desk = git.desks.get(place) if place and place != USER_DESK else None
    if desk is None:
        return tip if tip and not git.is_ancestor(tip, base) else None
    stray = [tip] if tip and not git.is_ancestor(tip, desk.head) else []
    clean = desk.files == git.commits[desk.head].files and not stray
    last = desk.head if clean else git.record(desk.files, desk.head, *stray)
    return None if git.is_ancestor(last, base) else last


def told(path: Path) -> str:
    return "the user's checkout" if path == USER_DESK else str(path)
