"""One repository to test both git ports against, real or fake, with the hands of agents and users."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Protocol

from mcp_server.adapters.git.integration import GitMerge
from mcp_server.adapters.git.landing import GitLand
from mcp_server.adapters.git.pool import Keeping, Pool
from mcp_server.adapters.git.probe import GitProbe
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.land_port import LandPort
from mcp_server.ports import Done, Landing, MergePort, Worktrees
from mcp_server.probe import Probe
from mcp_server.testing.fake_git import FakeGit, FakeWorktrees
from mcp_server.testing.fake_landing import FakeLand
from mcp_server.testing.fake_merge import FakeMerge
from mcp_server.testing.fake_probe import FakeProbe
from mcp_server.testing.fake_repository import USER_DESK, HandRefused

AN_HOUR_S = 3600.0
START = {"a.txt": "a\n", "b.txt": "b\n", "dir/c.txt": "c\n"}


def git(at: Path, *argv: str) -> str:
    """Run git as a user would, in a folder; fails loudly."""
    return git_bytes(at, *argv).decode()


def git_bytes(at: Path, *argv: str) -> bytes:
    """The same, for what is no text."""
    return subprocess.run(["git", *argv], cwd=at, check=True, capture_output=True).stdout


def new_repository(top: Path, *, identity: bool = True) -> Sha:
    """A repository with `START` as its first commit."""
    top.mkdir(parents=True)
    git(top, "init", "-q", "-b", "main")
    if identity:
        git(top, "config", "user.name", "Ann")
        git(top, "config", "user.email", "ann@example.org")
    for name, content in START.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(content, "utf-8", newline="")
    git(top, "add", "-A")
    git(top, "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "-q", "-m", "first")
    return git(top, "rev-parse", "HEAD").strip()


class World(Protocol):
    """What both kinds of world can do."""

    worktrees: Worktrees
    merge: MergePort
    probe: Probe
    land: LandPort
    first: Sha
    top: Path
    """The user's checkout."""

    async def start_epic(self, epic: str) -> None: ...
    async def crashed(self, attempt: AttemptId, base: Sha) -> Path: ...
    def restart(self) -> None: ...
    def write(self, path: Path, name: str, content: str) -> None: ...
    def delete(self, path: Path, name: str) -> None: ...
    def commit(self, path: Path) -> Sha: ...
    def check_out(self, path: Path, sha: Sha, branch: str | None = None) -> None: ...
    def files(self, rev: Sha) -> dict[str, str]: ...
    def sha(self, ref: str) -> Sha | None: ...
    def there(self, path: Path) -> bool: ...
    def moves(self, ref: str, sha: Sha | None) -> None: ...
    def user_switches_to(self, branch: str) -> None: ...
    def host_desk(self, name: str, sha: Sha) -> Path: ...
    def host_clears(self, path: Path) -> None: ...
    def switch(self, path: Path, branch: str, base: Sha | None = None) -> None: ...
    def merge_in(self, path: Path, other: Sha) -> tuple[str, ...]: ...
    def rebase(self, path: Path, onto: Sha, fork: Sha | None = None) -> tuple[str, ...]: ...
    def rebase_continue(self, path: Path) -> tuple[str, ...]: ...
    def seen(self, path: Path) -> object: ...
    def grow_old(self, path: Path) -> None: ...
    def now_s(self) -> float: ...


class FakeWorld:
    """The fake, behind the same hands."""

    def __init__(self) -> None:
        self.git = FakeGit()
        self.top = USER_DESK
        self.first = self.git.record(START)
        self.git.check_out(USER_DESK, self.first, "refs/heads/main")
        self.restart()

    def restart(self) -> None:
        self.worktrees: Worktrees = FakeWorktrees(self.git)
        self.merge: MergePort = FakeMerge(self.git)
        self.probe: Probe = FakeProbe(self.git)
        self.land: LandPort = FakeLand(self.git)

    async def start_epic(self, epic: str) -> None:
        self.git.start_epic(epic, self.first)

    async def crashed(self, attempt: AttemptId, base: Sha) -> Path:
        return FakeWorktrees(self.git)._make(attempt, base)  # pyright: ignore[reportPrivateUsage] - a kill skips the rest

    def write(self, path: Path, name: str, content: str) -> None:
        self.git.write(path, name, content)

    def delete(self, path: Path, name: str) -> None:
        self.git.delete(path, name)

    def commit(self, path: Path) -> Sha:
        return self.git.commit(path)

    def check_out(self, path: Path, sha: Sha, branch: str | None = None) -> None:
        self.git.check_out(path, sha, f"refs/heads/{branch}" if branch else None)

    def files(self, rev: Sha) -> dict[str, str]:
        return dict(self.git.commits[self.git.refs.get(rev, rev)].files)

    def sha(self, ref: str) -> Sha | None:
        return self.git.refs.get(ref)

    def there(self, path: Path) -> bool:
        return path in self.git.desks

    def moves(self, ref: str, sha: Sha | None) -> None:
        """The user moves a ref by hand, or removes it."""
        self.git.refs.pop(ref, None)
        if sha is not None:
            self.git.refs[ref] = sha

    def user_switches_to(self, branch: str) -> None:
        self.git.switch(USER_DESK, branch)

    def host_desk(self, name: str, sha: Sha) -> Path:
        return self.git.host_desk(name, sha)

    def host_clears(self, path: Path) -> None:
        self.git.host_clears(path)

    def switch(self, path: Path, branch: str, base: Sha | None = None) -> None:
        self.git.switch(path, branch, base)

    def merge_in(self, path: Path, other: Sha) -> tuple[str, ...]:
        return self.git.merge(path, other)

    def rebase(self, path: Path, onto: Sha, fork: Sha | None = None) -> tuple[str, ...]:
        return self.git.rebase(path, onto, fork)

    def rebase_continue(self, path: Path) -> tuple[str, ...]:
        return self.git.rebase_continue(path)

    def seen(self, path: Path) -> object:
        return repr(self.git.desks[path])

    def grow_old(self, path: Path) -> None:
        self.git.desks[path].touched_s -= AN_HOUR_S

    def now_s(self) -> float:
        return self.git.clock.now_s()


class RealWorld:
    """A real repository below a temporary folder."""

    def __init__(self, folder: Path, repository: Repository, first: Sha) -> None:
        self.root = folder / "trees"
        self.repository = repository
        self.top = repository.top
        self.first = first
        self.restart()

    @classmethod
    async def make(cls, folder: Path) -> RealWorld:
        first = new_repository(folder / "repo")
        return cls(folder, await Repository.open(folder / "repo"), first)

    def restart(self) -> None:
        self.worktrees: Worktrees = GitWorktrees(self.repository, self.root)
        self.merge: MergePort = GitMerge(self.repository, self.root)
        self.probe: Probe = GitProbe(self.repository, self.root)
        self.land: LandPort = GitLand(self.repository, self.root)

    async def start_epic(self, epic: str) -> None:
        await self.repository.create_branch(f"epicwave/{epic}", self.first)

    async def crashed(self, attempt: AttemptId, base: Sha) -> Path:
        ports = GitWorktrees(self.repository, self.root)
        return await ports._make(attempt, base)  # pyright: ignore[reportPrivateUsage] - a kill skips the rest

    def write(self, path: Path, name: str, content: str) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content, "utf-8", newline="")

    def delete(self, path: Path, name: str) -> None:
        (path / name).unlink()

    def commit(self, path: Path) -> Sha:
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", "work")
        return git(path, "rev-parse", "HEAD").strip()

    def check_out(self, path: Path, sha: Sha, branch: str | None = None) -> None:
        git(path, "checkout", "-q", "-f", *(["-b", branch] if branch else ["--detach"]), sha)

    def files(self, rev: Sha) -> dict[str, str]:
        names = git(self.top, "ls-tree", "-r", "-z", "--name-only", rev).split("\0")
        return {name: git(self.top, "show", f"{rev}:{name}") for name in names if name}

    def sha(self, ref: str) -> Sha | None:
        return git(self.top, "for-each-ref", "--format=%(objectname)", ref).strip() or None

    def there(self, path: Path) -> bool:
        """The folder or a registration of it."""
        return path.exists() or os.fspath(path) in git(self.top, "worktree", "list", "--porcelain")

    def moves(self, ref: str, sha: Sha | None) -> None:
        git(self.top, "update-ref", *([ref, sha] if sha is not None else ["-d", ref]))

    def user_switches_to(self, branch: str) -> None:
        git(self.top, "checkout", "-q", branch)

    def host_desk(self, name: str, sha: Sha) -> Path:
        """As Claude Code does it: below the user's checkout, and locked."""
        path = self.top / ".claude" / "worktrees" / name
        argv = ("worktree", "add", "-q", "-b", f"worktree-{name}", "--lock", "--reason", f"claude {name}")
        git(self.top, *argv, str(path), sha)
        return path

    def host_clears(self, path: Path) -> None:
        git(self.top, "worktree", "unlock", str(path))
        git(self.top, "worktree", "remove", "--force", str(path))

    def switch(self, path: Path, branch: str, base: Sha | None = None) -> None:
        self._hand(path, "switch", "-q", *(["-c", branch, base] if base else [branch]))

    def merge_in(self, path: Path, other: Sha) -> tuple[str, ...]:
        return self._merging(path, "merge", "-q", "--no-edit", other)

    def rebase(self, path: Path, onto: Sha, fork: Sha | None = None) -> tuple[str, ...]:
        return self._merging(path, "rebase", "-q", *(["--onto", onto, fork] if fork else [onto]))

    def rebase_continue(self, path: Path) -> tuple[str, ...]:
        git(path, "add", "-A")
        return self._merging(path, "-c", "core.editor=true", "rebase", "--continue")

    def seen(self, path: Path) -> object:
        """Every byte of a worktree and of git's private folder for it, and when each file was written."""
        git_dir = Path(git(path, "rev-parse", "--absolute-git-dir").strip())
        private = (
            [git_dir / name for name in ("HEAD", "index", "logs/HEAD")] if path == self.top else git_dir.rglob("*")
        )
        inside = [file for file in path.rglob("*") if not {".git", ".claude"} & set(file.relative_to(path).parts)]
        files = [file for file in (*private, *inside) if file.is_file()]
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    def grow_old(self, path: Path) -> None:
        git_dir = Path(git(path, "rev-parse", "--absolute-git-dir").strip())
        for file in (path, *path.rglob("*"), *git_dir.rglob("*")):
            then_s = file.stat().st_mtime - AN_HOUR_S
            os.utime(file, (then_s, then_s))

    def now_s(self) -> float:
        return time.time()

    def _hand(self, path: Path, *argv: str) -> None:
        try:
            git(path, *argv)
        except subprocess.CalledProcessError as refused:
            raise HandRefused(refused.stderr.decode()) from refused

    def _merging(self, path: Path, *argv: str) -> tuple[str, ...]:
        try:
            git(path, *argv)
        except subprocess.CalledProcessError:
            return tuple(git(path, "diff", "--name-only", "--diff-filter=U").split())
        return ()


class PooledWorld(RealWorld):
    """The same with a pool, as an engine has it; `restart` finds what a killed one has left."""

    size, keep = 4, ("node_modules",)

    def restart(self) -> None:
        self.pool = Pool(self.repository, self.root, Keeping(self.size, self.keep))
        self.pool.adopt()
        self.worktrees: Worktrees = GitWorktrees(self.repository, self.root, self.pool)
        self.merge: MergePort = GitMerge(self.repository, self.root, self.pool)

    async def crashed(self, attempt: AttemptId, base: Sha) -> Path:
        ports = GitWorktrees(self.repository, self.root, self.pool)
        return await ports._make(attempt, base)  # pyright: ignore[reportPrivateUsage] - a kill skips the rest

    def entries(self) -> list[str]:
        """Worktrees that git knows, the user's left out, as they lie below the root."""
        places = git(self.top, "worktree", "list", "--porcelain").split("\n\n")[1:]
        paths = [place.splitlines()[0].removeprefix("worktree ") for place in places if place.strip()]
        return sorted(os.path.relpath(path, self.root) for path in paths)


async def worked(world: World, attempt: AttemptId, base: Sha, *changes: dict[str, str]) -> Sha:
    """An attempt that commits each change and is done; its head."""
    async with world.worktrees.hold(attempt, base) as path:
        for change in changes:
            for name, content in change.items():
                world.write(path, name, content)
            world.commit(path)
        outcome = await world.worktrees.inspect(attempt, base)
        assert isinstance(outcome, Done), outcome
        return outcome.head


async def landed(world: World, attempt: AttemptId, base: Sha, *changes: dict[str, str]) -> Landing:
    """An attempt that is done and merged."""
    head = await worked(world, attempt, base, *changes)
    landing = await world.merge.rebase(attempt, base, head)
    assert isinstance(landing, Landing), landing
    assert await world.merge.advance(attempt, landing.onto, landing.head)
    return landing
