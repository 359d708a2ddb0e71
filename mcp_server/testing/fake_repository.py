"""A git repository in memory, with the hands of those who are not ours: agents, the host that lends them a desk, users.

A commit is its files and its parents; a worktree is a desk. No path exists on disk. Whole files merge, lines do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from mcp_server.adapters.git.names import integration_branch
from mcp_server.core.spec import EpicId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Clock
from mcp_server.testing.clock import VirtualClock

USER_DESK = Path("/home/user/checkout")
HOST_ROOT = USER_DESK / ".claude" / "worktrees"
HEADS = "refs/heads/"
Files = Mapping[str, str]


class HandRefused(Exception):  # noqa: N818 - git says no to an agent or a user, not to us
    """What git would not let somebody do at a desk, in its words."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A whole tree and what it came from."""

    files: Files
    parents: tuple[Sha, ...]


@dataclass(slots=True)
class Desk:
    """A worktree: HEAD, the branch that it is on (full ref), and the files as they lie there."""

    head: Sha
    branch: str | None
    files: dict[str, str]
    touched_s: float = 0.0
    """When something there last changed, in seconds since the epoch."""
    rebasing: str | None = None
    """The branch that is being rebased here; HEAD is detached meanwhile."""
    merging: Sha | None = None
    """The commit that is being merged here; its clashes are not settled yet."""
    replays: list[Sha] = field(default_factory=list[Sha])
    """Commits that the rebase has not replayed yet; the first is the one that it stopped at."""
    set_up_by: str = ""
    """What is noted of how it was set up."""


def changed(old: Files, new: Files) -> tuple[str, ...]:
    """Paths that differ, sorted."""
    return tuple(sorted(name for name in {*old, *new} if old.get(name) != new.get(name)))


def merged(here: Files, before: Files, after: Files) -> tuple[dict[str, str], tuple[str, ...]]:
    """`here` with what changed from `before` to `after`, and the paths where that clashes; theirs is taken there."""
    moved = changed(before, after)
    clashes = tuple(name for name in moved if here.get(name) not in (before.get(name), after.get(name)))
    result = {name: text for name, text in here.items() if name not in moved}
    return result | {name: after[name] for name in moved if name in after}, clashes


@dataclass(slots=True)
class FakeGit:
    """The repository and everything in it; `calls`, `fail_next`, `delay_s` and `crash` are for the tests."""

    commits: dict[Sha, Commit] = field(default_factory=dict[Sha, Commit])
    refs: dict[str, Sha] = field(default_factory=dict[str, Sha])
    desks: dict[Path, Desk] = field(default_factory=dict[Path, Desk])
    """Ours, the host's (`host_desk`) and, when a test puts one there, the user's (`USER_DESK`)."""
    calls: Counter[str] = field(default_factory=Counter[str])
    """Port operations by name; leaving `hold` counts as `release`."""
    delay_s: dict[str, float] = field(default_factory=dict[str, float])
    """How long an operation takes, in virtual seconds."""
    user_branch: str | None = None
    """The branch that the user's checkout is on, where there is no desk for it."""
    life: int = 0
    """Number of crashes so far."""
    free_mb: float = float("inf")
    """Room on the disk."""
    clock: Clock = field(default_factory=VirtualClock)
    """Tells the desks when they were touched."""
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

    async def glance(self, op: str) -> None:
        """As `step`, of an operation that only looks, and that so much is asked of that it may not count as a call."""
        await FakeGit.step(self, op)

    # --- the repository

    def record(self, files: Files, *parents: Sha) -> Sha:
        """A new commit. Its name is counted, so that runs are repeatable, and parents come before their children."""
        sha = f"{len(self.commits) + 1:07x}".ljust(40, "f")
        self.commits[sha] = Commit(dict(files), parents)
        return sha

    def start_epic(self, epic: EpicId, sha: Sha) -> None:
        """Make the integration branch, as `Repository.create_branch` does."""
        self.refs[f"{HEADS}{integration_branch(epic)}"] = sha

    def ancestry(self, sha: Sha) -> set[Sha]:
        """The commit and all that it came from."""
        if sha not in self.commits:
            raise Fault(FaultCause.GIT, f"There is no commit {sha}.")
        seen, todo = {sha}, [sha]
        while todo:
            todo += (new := set(self.commits[todo.pop()].parents) - seen)
            seen |= new
        return seen

    def is_ancestor(self, older: Sha, newer: Sha) -> bool:
        """True when `newer` has the commit `older`, or is it."""
        return older in self.ancestry(newer)

    def fork(self, one: Sha, other: Sha) -> Sha | None:
        """Last commit that the two have in common; None when there is none."""
        return max(self.ancestry(one) & self.ancestry(other), default=None)

    def changed(self, old: Sha, new: Sha) -> tuple[str, ...]:
        """Paths that differ, sorted."""
        return changed(self.commits[old].files, self.commits[new].files)

    def own_commits(self, base: Sha, head: Sha) -> list[Sha]:
        """Commits that head has and base has not, along first parents, oldest first; a root has nothing to replay."""
        found: list[Sha] = []
        known = self.ancestry(base)
        while self.commits[head].parents and head not in known:
            found.insert(0, head)
            head = self.commits[head].parents[0]
        return found

    def patch(self, sha: Sha) -> tuple[tuple[str, str | None, str | None], ...]:
        """What a commit changes: path, before, after."""
        before, after = self.commits[self.commits[sha].parents[0]].files, self.commits[sha].files
        return tuple((name, before.get(name), after.get(name)) for name in changed(before, after))

    def has_merges(self, head: Sha, *others: Sha) -> bool:
        """True when one of the commits that head has and the others have not is a merge."""
        own = self.ancestry(head).difference(*map(self.ancestry, others))
        return any(len(self.commits[sha].parents) > 1 for sha in own)

    def where(self, ref: str) -> list[Path]:
        """Desks that have the branch, or are rebasing it."""
        found = [path for path, desk in self.desks.items() if ref in (desk.branch, desk.rebasing)]
        if self.user_branch is not None and ref == f"{HEADS}{self.user_branch}" and USER_DESK not in found:
            found.append(USER_DESK)
        return found

    # --- hands at a desk: agents, users

    def write(self, path: Path, name: str, content: str) -> None:
        """Write a file in a worktree."""
        self.desks[path].files[name] = content
        self._touch(path)

    def delete(self, path: Path, name: str) -> None:
        """Delete a file in a worktree."""
        del self.desks[path].files[name]
        self._touch(path)

    def commit(self, path: Path) -> Sha:
        """`git add -A && git commit`: all that lies in a worktree; this also ends a merge."""
        desk = self.desks[path]
        also = (desk.merging,) if desk.merging else ()
        self._move(desk, self.record(desk.files, desk.head, *also))
        desk.merging = None
        self._touch(path)
        return desk.head

    def check_out(self, path: Path, sha: Sha, branch: str | None = None) -> None:
        """Put a worktree on a commit, by force: on a branch (full ref), or detached."""
        before = self.desks.get(path)
        self.desks[path] = Desk(sha, branch, dict(self.commits[sha].files))
        if before is not None:
            self.desks[path].set_up_by = before.set_up_by
        self._touch(path)
        if branch is not None:
            self.refs[branch] = sha

    def dirty(self, path: Path) -> tuple[str, ...]:
        """Paths at a desk that are not committed, sorted; an unfinished operation is named first, in brackets."""
        desk = self.desks[path]
        left = changed(self.commits[desk.head].files, desk.files)
        unfinished = "rebase" if desk.rebasing else "merge" if desk.merging else None
        return (f"(unfinished {unfinished})", *left) if unfinished else left

    def switch(self, path: Path, branch: str, base: Sha | None = None) -> None:
        """`git switch -c <branch> <base>`; without a base `git switch <branch>`. Uncommitted changes come along.

        `branch` is a name without `refs/heads/`. Raises `HandRefused` as git would.
        """
        desk, ref = self.desks[path], f"{HEADS}{branch}"
        if base is not None and ref in self.refs:
            raise HandRefused(f"fatal: a branch named {branch!r} already exists")
        if base is None and ref not in self.refs:
            raise HandRefused(f"fatal: invalid reference: {branch}")
        if any(other != path for other in self.where(ref)):
            raise HandRefused(f"fatal: {branch!r} is already checked out")
        if desk.rebasing or desk.merging:
            raise HandRefused("fatal: cannot switch branch while rebasing or merging")
        target = base or self.refs[ref]
        if target not in self.commits:
            raise HandRefused(f"fatal: not a valid object name: {target!r}")
        files, clashes = merged(self.commits[target].files, self.commits[desk.head].files, desk.files)
        if clashes:
            raise HandRefused(f"error: your local changes would be overwritten: {', '.join(clashes)}")
        desk.head, desk.branch, desk.files = target, ref, files
        self.refs[ref] = target
        self._touch(path)

    def merge(self, path: Path, other: Sha) -> tuple[str, ...]:
        """`git merge <commit>`: committed when nothing clashes, else the paths that do.

        Settle those by `write`, then `commit`.
        """
        if self.dirty(path):
            raise HandRefused("error: commit your changes before you merge")
        desk = self.desks[path]
        fork = self.fork(desk.head, other)
        before = self.commits[fork].files if fork else dict[str, str]()
        desk.files, clashes = merged(desk.files, before, self.commits[other].files)
        desk.merging = other
        self._touch(path)
        if not clashes:
            self.commit(path)
        return clashes

    def rebase(self, path: Path, onto: Sha, fork: Sha | None = None) -> tuple[str, ...]:
        """`git rebase <onto>`, or with `fork` `git rebase --onto <onto> <fork>`; () when it went through.

        Else the paths that clash: it stopped there, HEAD is detached, and the desk is in the middle of a rebase.
        Settle them by `write`, then `rebase_continue`; or `rebase_abort`.
        """
        if self.dirty(path):
            raise HandRefused("error: cannot rebase: You have unstaged changes.")
        desk = self.desks[path]
        if fork is None and self.is_ancestor(onto, desk.head) and not self.has_merges(desk.head, onto):
            return ()  # up to date
        there = {self.patch(sha) for sha in self.own_commits(desk.head, onto)}
        desk.replays = [sha for sha in self.own_commits(fork or onto, desk.head) if self.patch(sha) not in there]
        desk.rebasing, desk.branch = desk.branch or "detached HEAD", None
        desk.head, desk.files = onto, dict(self.commits[onto].files)
        return self._replay(path)

    def rebase_continue(self, path: Path) -> tuple[str, ...]:
        """`git add -A && git rebase --continue`: what lies there settles the commit that it stopped at, if anything."""
        desk = self.desks[path]
        if changed(self.commits[desk.head].files, desk.files):
            desk.head = self.record(desk.files, desk.head)
        desk.replays.pop(0)
        return self._replay(path)

    def rebase_abort(self, path: Path) -> None:
        """`git rebase --abort`: the branch is where it was."""
        ref = self.desks[path].rebasing
        assert ref in self.refs, "only a branch's rebase can be aborted here"
        self.check_out(path, self.refs[ref], ref)

    def _replay(self, path: Path) -> tuple[str, ...]:
        desk = self.desks[path]
        self._touch(path)
        while desk.replays:
            commit = self.commits[desk.replays[0]]
            desk.files, clashes = merged(desk.files, self.commits[commit.parents[0]].files, commit.files)
            if clashes:
                return clashes
            if changed(self.commits[desk.head].files, desk.files):
                desk.head = self.record(desk.files, desk.head)
            desk.replays.pop(0)
        desk.branch, desk.rebasing = desk.rebasing if desk.rebasing in self.refs else None, None
        self._move(desk, desk.head)
        return ()

    # --- hands of the host

    def host_desk(self, name: str, sha: Sha) -> Path:
        """The host makes a worktree for its agent, on a branch of its own at a commit that may be the wrong one."""
        path = HOST_ROOT / name
        self.check_out(path, sha, f"{HEADS}worktree-{name}")
        return path

    def host_clears(self, path: Path) -> None:
        """The host removes its worktree and what lies there uncommitted; branches stay."""
        del self.desks[path]

    def _move(self, desk: Desk, head: Sha) -> None:
        desk.head = head
        if desk.branch is not None:
            self.refs[desk.branch] = head

    def _touch(self, path: Path) -> None:
        self.desks[path].touched_s = self.clock.now_s()
