"""What is not committed in a worktree, and what a user should know about their checkout before a run. Read only."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.raw import FILES, untouched

UNFINISHED = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
"""Files and folders by which git remembers an operation that has not come to its end."""
TOUCHED_MAX = 4000
"""Changed and new files whose age is looked at; more say no more about whether somebody is at work."""
_FIELDS = {b"1": 8, b"u": 10, b"?": 1}
"""Spaces before the path in a line of `git status --porcelain=v2`, by the kind of line."""


@dataclass(frozen=True, slots=True)
class Status:
    """What `git status` says of one worktree."""

    changed: tuple[str, ...]
    """Tracked paths that differ from HEAD, staged or not, sorted."""
    untracked: tuple[str, ...]
    unfinished: str | None
    """The operation that has not come to its end: `rebase`, `merge`, `cherry-pick` or `revert`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Everything that is not committed, sorted."""
        return tuple(sorted({*self.changed, *self.untracked}))

    @property
    def left(self) -> tuple[str, ...]:
        """The same, and first, in brackets, the operation that is not finished: it may leave no path to tell of it."""
        return (f"(unfinished {self.unfinished})", *self.paths) if self.unfinished else self.paths


async def status(git: Git, folder: Path) -> Status:
    """Untracked files inside a submodule are not counted: they are no work on this repository.

    Nor are files that nobody touched: git lists those too whose stored form is not what attributes ask for by now.
    """
    argv = ("status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=untracked")
    answer = await git.read(*argv, at=folder)
    lines = [line for line in answer.out.split(b"\0") if line[:1] in _FIELDS]
    fields = [line.split(b" ", _FIELDS[line[:1]]) for line in lines]
    changed = {told[-1] for told in fields if told[0] != b"?"}
    changed -= set(await untouched(git, folder, {told[-1]: told[7].decode() for told in fields if _maybe_same(told)}))
    untracked = [told[-1] for told in fields if told[0] == b"?"]
    return Status(_names(changed), _names(untracked), await _unfinished(git, folder))


def _maybe_same(told: list[bytes]) -> bool:
    """A file that is not staged and differs in its content, or in what git would make of it."""
    return told[:3] == [b"1", b".M", b"N..."] and told[4] == told[5] in FILES


def _names(found: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(sorted(name.decode("utf-8", "replace") for name in found))


async def _unfinished(git: Git, folder: Path) -> str | None:
    git_dir = anyio.Path(await _git_dir(git, folder))
    for name in UNFINISHED:
        if await (git_dir / name).exists():
            return "rebase" if name.startswith("rebase") else name.removesuffix("_HEAD").lower().replace("_", "-")
    return None


async def _git_dir(git: Git, folder: Path) -> Path:
    return (await git.read("rev-parse", "--absolute-git-dir", at=folder)).path


async def touched_s(git: Git, folder: Path) -> float:
    """When something last changed in a worktree: HEAD, the index, or what is not committed. Seconds since the epoch."""
    now = await status(git, folder)
    git_dir = await _git_dir(git, folder)
    paths = itertools.islice(itertools.chain(now.changed, now.untracked), TOUCHED_MAX)
    looked_at = [*(git_dir / name for name in ("HEAD", "index", "logs/HEAD")), *(folder / path for path in paths)]
    return await anyio.to_thread.run_sync(_newest_s, looked_at)


def _newest_s(paths: Iterable[Path]) -> float:
    """A file that claims to be from the future says nothing. What was deleted is as old as the folder it was in."""
    ages_s = [age_s for path in paths if (age_s := _age_s(path)) <= time.time()]
    return max(ages_s, default=0.0)


def _age_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return _age_s(path.parent) if path != path.parent else 0.0


async def notices(git: Git, top: Path) -> tuple[str, ...]:
    """One sentence for each thing in the user's checkout that the run leaves alone."""
    now = await status(git, top)
    said: list[str] = []
    if now.changed:
        said.append(
            f"{_files(now.changed)} in your checkout changed and not committed: left alone, and not part of the run."
        )
    if now.untracked:
        said.append(f"{_files(now.untracked)} in your checkout untracked: left alone, and not part of the run.")
    if now.unfinished:
        said.append(f"A {now.unfinished} is in progress in your checkout: left alone; the run starts from HEAD.")
    head = await git.read("symbolic-ref", "--quiet", "HEAD", at=top, ok=(0, 1))
    if head.code:
        said.append("HEAD is detached: the run starts from that commit.")
    if await anyio.Path(top / ".gitmodules").exists():
        said.append("The repository has submodules: they are not checked out in the worktrees of the run.")
    return tuple(said)


def _files(names: tuple[str, ...]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names)} files are"
