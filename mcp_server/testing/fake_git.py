"""Git in memory: both git ports on one small model, for virtual time. Whole files merge, lines do not.

A commit is its files and its parents; a worktree is a dict. No path exists on disk: scripted agents use `write`,
`delete` and `commit` with the path that `hold` yields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from mcp_server.adapters.git.names import (
    BASES,
    INTEGRATION_FOLDER,
    WORK,
    attempt_folder,
    attempt_of_ref,
    attempt_ref,
    base_ref,
    integration_branch,
    rescue_ref,
)
from mcp_server.core.model import AttemptId, EpicId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Done, Landing, NoCommits, Outcome, Uncommitted, WrongBase

ROOT = Path("/fake-worktrees")
Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Commit:
    """A whole tree and what it came from."""

    files: Files
    parents: tuple[Sha, ...]


@dataclass(slots=True)
class Desk:
    """A worktree: HEAD, the branch that it is on, and the files as they lie there."""

    head: Sha
    branch: str | None
    files: dict[str, str]


@dataclass(slots=True)
class FakeGit:
    """The repository and everything in it; `calls`, `fail_next`, `delay_s` and `crash` are for the tests."""

    commits: dict[Sha, Commit] = field(default_factory=dict[Sha, Commit])
    refs: dict[str, Sha] = field(default_factory=dict[str, Sha])
    desks: dict[Path, Desk] = field(default_factory=dict[Path, Desk])
    calls: Counter[str] = field(default_factory=Counter[str])
    """Port operations by name; leaving `hold` counts as `release`."""
    delay_s: dict[str, float] = field(default_factory=dict[str, float])
    """How long an operation takes, in virtual seconds."""
    user_branch: str | None = None
    """The branch that the user's checkout is on."""
    life: int = 0
    """Number of crashes so far."""
    _faults: dict[str, list[Fault]] = field(default_factory=dict[str, list[Fault]])

    def fail_next(self, op: str, fault: Fault) -> None:
        """Let the next call of a port operation raise; several queue up."""
        self._faults.setdefault(op, []).append(fault)

    def crash(self) -> None:
        """The process was killed: who holds a worktree now will not clean up. Make new ports on the same repository."""
        self.life += 1

    async def step(self, op: str) -> None:
        """Count an operation, let its time pass, fail it if that was ordered."""
        self.calls[op] += 1
        await anyio.sleep(self.delay_s.get(op, 0))
        if self._faults.get(op):
            raise self._faults[op].pop(0)

    def record(self, files: Files, *parents: Sha) -> Sha:
        """A new commit. Its name is counted, so that runs are repeatable."""
        sha = f"{len(self.commits) + 1:07x}".ljust(40, "f")
        self.commits[sha] = Commit(dict(files), parents)
        return sha

    def start_epic(self, epic: EpicId, sha: Sha) -> None:
        """Make the integration branch, as `Repository.create_branch` does."""
        self.refs[f"refs/heads/{integration_branch(epic)}"] = sha

    def write(self, path: Path, name: str, content: str) -> None:
        """Write a file in a worktree."""
        self.desks[path].files[name] = content

    def delete(self, path: Path, name: str) -> None:
        """Delete a file in a worktree."""
        del self.desks[path].files[name]

    def commit(self, path: Path) -> Sha:
        """Commit all that lies in a worktree."""
        desk = self.desks[path]
        desk.head = self.record(desk.files, desk.head)
        if desk.branch is not None:
            self.refs[desk.branch] = desk.head
        return desk.head

    def check_out(self, path: Path, sha: Sha, branch: str | None = None) -> None:
        """Put a worktree on a commit: on a branch (full ref), or detached."""
        self.desks[path] = Desk(sha, branch, dict(self.commits[sha].files))
        if branch is not None:
            self.refs[branch] = sha

    def is_ancestor(self, older: Sha, newer: Sha) -> bool:
        """True when `newer` has the commit `older`, or is it."""
        if newer not in self.commits:
            raise Fault(FaultCause.GIT, f"There is no commit {newer}.")
        seen, todo = {newer}, [newer]
        while todo:
            todo += (new := set(self.commits[todo.pop()].parents) - seen)
            seen |= new
        return older in seen

    def changed(self, old: Sha, new: Sha) -> tuple[str, ...]:
        """Paths that differ, sorted."""
        return _changed(self.commits[old].files, self.commits[new].files)


def _changed(old: Files, new: Files) -> tuple[str, ...]:
    return tuple(sorted(name for name in {*old, *new} if old.get(name) != new.get(name)))


class FakeWorktrees:
    """The port `Worktrees` in memory."""

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

    async def inspect(self, attempt: AttemptId, base: Sha) -> Outcome:
        """See `Worktrees.inspect`."""
        await self._git.step("inspect")
        desk = self._git.desks.get(self._folder(attempt))
        if desk is None:
            raise Fault(FaultCause.GIT, f"{self._folder(attempt)} is no worktree any more.")
        self._done.pop(attempt, None)
        if not self._git.is_ancestor(base, desk.head):
            return WrongBase(desk.head)
        if left := _changed(self._git.commits[desk.head].files, desk.files):
            return Uncommitted(left)
        if desk.head == base:
            return NoCommits()
        self._done[attempt] = desk.head
        return Done(desk.head, self._git.changed(base, desk.head))

    async def rescue(self, attempt: AttemptId) -> str | None:
        """See `Worktrees.rescue`."""
        await self._git.step("rescue")
        return self._rescue(attempt)

    async def held(self) -> list[AttemptId]:
        """See `Worktrees.held`."""
        await self._git.step("held")
        ours = (attempt_of_ref(ref) for ref in self._git.refs if ref.startswith((WORK, BASES)))
        return sorted({attempt for attempt in ours if attempt})

    def _folder(self, attempt: AttemptId) -> Path:
        return ROOT / attempt.epic / attempt_folder(attempt)

    def _make(self, attempt: AttemptId, base: Sha) -> Path:
        if base not in self._git.commits:
            raise Fault(FaultCause.GIT, f"There is no commit {base}.")
        self._git.refs[base_ref(attempt)] = base
        self._git.check_out(self._folder(attempt), base, attempt_ref(attempt))
        return self._folder(attempt)

    def _let_go(self, attempt: AttemptId) -> None:
        done = self._done.pop(attempt, None)
        if done is None:
            self._rescue(attempt)
            return
        last = self._everything(attempt)
        if last is not None and not self._git.is_ancestor(last, done):
            self._keep(attempt, last)
        del self._git.refs[base_ref(attempt)], self._git.desks[self._folder(attempt)]
        self._git.refs[attempt_ref(attempt)] = done

    def _rescue(self, attempt: AttemptId) -> str | None:
        self._done.pop(attempt, None)
        if (last := self._everything(attempt)) is not None:
            self._keep(attempt, last)
        self._git.desks.pop(self._folder(attempt), None)
        for ref in (base_ref(attempt), attempt_ref(attempt)):
            self._git.refs.pop(ref, None)
        return rescue_ref(attempt) if rescue_ref(attempt) in self._git.refs else None

    def _everything(self, attempt: AttemptId) -> Sha | None:
        """One commit that has all there is of an attempt beyond its base; None when there is nothing."""
        refs, commits = self._git.refs, self._git.commits
        base, tip = refs.get(base_ref(attempt)), refs.get(attempt_ref(attempt))
        desk = self._git.desks.get(self._folder(attempt))
        if base is None or desk is None:
            return tip
        stray = [tip] if tip and not self._git.is_ancestor(tip, desk.head) else []
        clean = desk.files == commits[desk.head].files and not stray
        last = desk.head if clean else self._git.record(desk.files, desk.head, *stray)
        return None if self._git.is_ancestor(last, base) else last

    def _keep(self, attempt: AttemptId, last: Sha) -> None:
        before = self._git.refs.get(rescue_ref(attempt))
        if before and not self._git.is_ancestor(before, last):
            last = self._git.record(self._git.commits[last].files, last, before)
        self._git.refs[rescue_ref(attempt)] = last


class FakeMerge:
    """The port `MergePort` in memory."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git

    async def tip(self, epic: EpicId) -> Sha:
        """See `MergePort.tip`."""
        await self._git.step("tip")
        return self._tip(epic)

    async def rebase(self, attempt: AttemptId, base: Sha, head: Sha) -> Landing | Conflicted:
        """See `MergePort.rebase`."""
        await self._git.step("rebase")
        tip, path = self._tip(attempt.epic), ROOT / attempt.epic / INTEGRATION_FOLDER
        self._git.check_out(path, head if self._git.is_ancestor(tip, head) else tip)
        for commit in self._between(base, head, tip):
            here, before = (self._git.commits[sha].files for sha in (self._git.desks[path].head, commit.parents[0]))
            moved = _changed(before, commit.files)
            clashes = tuple(name for name in moved if here.get(name) not in (before.get(name), commit.files.get(name)))
            if clashes:
                self._git.check_out(path, tip)
                detail = (f"{name}: {here.get(name)!r} here, {commit.files.get(name)!r} there" for name in clashes)
                return Conflicted(tip, clashes, "\n".join(detail))
            result = {name: text for name, text in here.items() if name not in moved}
            result |= {name: commit.files[name] for name in moved if name in commit.files}
            if result != here:
                self._git.check_out(path, self._git.record(result, self._git.desks[path].head))
        landed = self._git.desks[path].head
        return Landing(tip, landed, self._git.changed(tip, landed))

    async def checkout(self, epic: EpicId) -> Path:
        """See `MergePort.checkout`."""
        await self._git.step("checkout")
        path = ROOT / epic / INTEGRATION_FOLDER
        if path not in self._git.desks:
            self._git.check_out(path, self._tip(epic))
        return path

    async def advance(self, epic: EpicId, onto: Sha, head: Sha) -> bool:
        """See `MergePort.advance`."""
        await self._git.step("advance")
        tip, branch = self._tip(epic), integration_branch(epic)
        if self._git.is_ancestor(head, tip):
            return True
        if not self._git.is_ancestor(onto, head):
            raise Fault(FaultCause.GIT, f"{head} does not descend from {onto}.")
        if self._git.user_branch == branch:
            raise Fault(FaultCause.BRANCH_CHECKED_OUT, f"{branch} is checked out in the user's checkout.")
        if tip == onto:
            self._git.refs[f"refs/heads/{branch}"] = head
        return tip == onto

    async def contains(self, epic: EpicId, sha: Sha) -> bool:
        """See `MergePort.contains`."""
        await self._git.step("contains")
        return self._git.is_ancestor(sha, self._tip(epic))

    async def forget(self, attempt: AttemptId) -> None:
        """See `MergePort.forget`."""
        await self._git.step("forget")
        for ref in (base_ref(attempt), attempt_ref(attempt)):
            self._git.refs.pop(ref, None)

    async def close(self, epic: EpicId) -> None:
        """See `MergePort.close`."""
        await self._git.step("close")
        self._git.desks.pop(ROOT / epic / INTEGRATION_FOLDER, None)

    def _tip(self, epic: EpicId) -> Sha:
        ref = f"refs/heads/{integration_branch(epic)}"
        if ref not in self._git.refs:
            raise Fault(FaultCause.GIT, f"There is no {ref} any more.")
        return self._git.refs[ref]

    def _between(self, base: Sha, head: Sha, tip: Sha) -> list[Commit]:
        """Commits of base..head whose changes the tip does not have, oldest first; none when head is on the tip."""
        there = {self._patch(commit) for commit in self._line(base, tip)}
        mine = [] if self._git.is_ancestor(tip, head) else self._line(base, head)
        return [commit for commit in mine if self._patch(commit) not in there]

    def _line(self, base: Sha, head: Sha) -> list[Commit]:
        """Commits of base..head along first parents, oldest first."""
        found: list[Commit] = []
        while self._git.commits[head].parents and not self._git.is_ancestor(head, base):
            found.insert(0, self._git.commits[head])
            head = self._git.commits[head].parents[0]
        return found

    def _patch(self, commit: Commit) -> tuple[tuple[str, str | None, str | None], ...]:
        before = self._git.commits[commit.parents[0]].files
        return tuple((name, before.get(name), commit.files.get(name)) for name in _changed(before, commit.files))
