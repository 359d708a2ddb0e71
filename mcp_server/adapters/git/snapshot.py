"""One worktree as a commit, committed or not, made beside it: neither its index, its files nor its refs are touched.

What is new is written to a store of objects of our own, which reads the repository's as its alternate: nothing that
is looked at becomes garbage in the user's repository.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.status import UNFINISHED
from mcp_server.core.spec import Sha

PATHS_MAX = 4000
"""Uncommitted files of one worktree that are looked into; of more, the tracked ones come first."""
BIG_BYTES = 8_000_000
"""Files above this are not read: whoever changes the same one conflicts with it, as with any binary file."""
_STATUS = (
    *("status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "--untracked-files=all"),
    *("--no-renames", "--ignore-submodules=dirty"),
)
_FIELDS = {b"1": 8, b"u": 10, b"?": 1}
"""Spaces before the path in a line of it, by the kind of line."""


class Store(NamedTuple):
    """Where snapshots are kept, and how git is told so."""

    folder: Path
    env: dict[str, str]

    @classmethod
    def at(cls, folder: Path, common_dir: Path) -> Store:
        """Make it, or find it there. Raises `Fault(disk)`."""
        objects = folder / "objects"
        with disk_faults(f"{folder} could not be made"):
            (objects / "info").mkdir(parents=True, exist_ok=True)
            (objects / "info" / "alternates").write_bytes(os.fsencode(common_dir / "objects") + b"\n")
        who = {f"GIT_{role}_{what}": "epicwave" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {f"GIT_{role}_DATE": "1000000000 +0000" for role in ("AUTHOR", "COMMITTER")}
        return cls(folder, {"GIT_OBJECT_DIRECTORY": str(objects), **who, **when})  # what is the same has the same name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is of an attempt, against where its history leaves the integration branch."""

    commit: Sha
    fork: Sha
    """That commit; its base when the two have none in common."""
    files: frozenset[str]
    """Paths that differ; both names of what was renamed."""
    new: frozenset[str]
    gone: frozenset[str]
    big: frozenset[str] = frozenset()
    """Among the files: those that were not read."""


class Now(NamedTuple):
    """What `git status` says of a worktree, and by which it is known again."""

    head: Sha
    branch: str
    """Without `refs/heads/`; `(detached)`."""
    add: tuple[bytes, ...]
    """Paths whose content is not what the index has."""
    drop: tuple[bytes, ...]
    """Paths that the index has and the worktree has not."""
    big: tuple[bytes, ...]
    is_clean: bool
    """Nothing differs from HEAD, in the index neither."""
    mark: tuple[object, ...]


def git_dir_of(folder: Path) -> Path | None:
    """Git's private folder of a linked worktree; None when there is none, or while it is only half made."""
    try:
        link = (folder / ".git").read_bytes()
    except OSError:
        return None
    prefix = b"gitdir: "
    git_dir = folder / os.fsdecode(link.removeprefix(prefix).rstrip(b"\r\n"))
    return git_dir if link.startswith(prefix) and (git_dir / "HEAD").exists() else None


def is_between(git_dir: Path) -> bool:
    """True in the middle of a rebase or a merge: what lies there is nobody's work yet."""
    return any((git_dir / name).exists() for name in UNFINISHED)


async def status_of(git: Git, folder: Path) -> Now | None:
    """What is there now, without a lock; None on a branch without a commit."""
    answer = await git.read(*_STATUS, at=folder)
    return await anyio.to_thread.run_sync(_now, answer.out, folder)


def _now(out: bytes, folder: Path) -> Now | None:
    said = {b"branch.oid": b"", b"branch.head": b""}
    tracked: list[tuple[bytes, bytes]] = []
    untracked: list[tuple[bytes, bytes]] = []
    for line in out.split(b"\0"):
        kind = line[:1]
        if kind == b"#":
            _, key, value = line.split(b" ", 2)
            said[key] = value
        elif kind in _FIELDS:
            (untracked if kind == b"?" else tracked).append((line, line.split(b" ", _FIELDS[kind])[-1]))
    head = said[b"branch.oid"].decode()
    if len(head) < 40:  # noqa: PLR2004 - `(initial)`, where a name has 40 or 64
        return None
    add: list[bytes] = []
    drop: list[bytes] = []
    big: list[bytes] = []
    ages: list[object] = []
    for line, path in (*tracked, *untracked)[:PATHS_MAX]:
        if line[:1] == b"1" and line[3:4] == b".":
            continue  # staged as it is: the copy of the index has it
        ages.append(_sorted_in(folder, line, path, add, drop, big))
    branch = os.fsdecode(said[b"branch.head"])
    is_clean = not (tracked or untracked)
    return Now(head, branch, tuple(add), tuple(drop), tuple(big), is_clean, (out, *ages))


def _sorted_in(
    folder: Path, line: bytes, path: bytes, add: list[bytes], drop: list[bytes], big: list[bytes]
) -> tuple[object, ...]:
    """Put a path where it belongs; what tells whether it has changed again."""
    is_tracked = line[:1] != b"?"
    full = os.path.join(os.fsencode(folder), path)  # noqa: PTH118 - bytes: a name need not be text
    try:
        seen = os.lstat(full)
    except OSError:
        seen = None
    if seen is None or line[3:4] == b"D":
        if is_tracked:
            drop.append(path)
        return (path, None)
    if stat.S_ISDIR(seen.st_mode):
        if is_tracked and line.split(b" ", 3)[2].startswith(b"S"):
            add.append(path)  # a submodule: the commit that it is at
    elif not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode)):
        pass  # a pipe or a socket: git does not keep it
    elif seen.st_size > BIG_BYTES:
        big.append(path)
    elif stat.S_ISLNK(seen.st_mode) or os.access(full, os.R_OK):
        add.append(path)
    return (path, seen.st_size, seen.st_mtime_ns, seen.st_mode)


async def taken(git: Git, store: Store, folder: Path, git_dir: Path, now: Now, name: str) -> Sha:
    """The tree of what is there. `name` tells its scratch index from others. Raises `Fault`, as when files vanish."""
    index = store.folder / f"{name}.index"
    env = {**store.env, "GIT_INDEX_FILE": str(index)}
    try:
        with disk_faults(f"the index of {folder} could not be copied"):  # as old as it was: git goes by that
            await anyio.to_thread.run_sync(shutil.copy2, git_dir / "index", index)
        for option, paths in (("--force-remove", now.drop), ("--replace", now.add)):
            if paths:
                argv = ("update-index", "--add", "--remove", option, "-z", "--stdin")
                await git.read(*argv, at=folder, env=env, stdin=b"\0".join(paths) + b"\0")
        return (await git.read("write-tree", at=folder, env=env)).text
    finally:
        index.unlink(missing_ok=True)
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)


async def snapshot(git: Git, store: Store, tree: str, parent: Sha, fork: Sha, big: frozenset[str]) -> Snapshot:
    """The tree on top of `parent`, measured against `fork`."""
    commit = (await git.read("commit-tree", tree, "-p", parent, "-m", "probe", env=store.env)).text
    return await measured(git, store, commit, fork, big)


async def measured(git: Git, store: Store, commit: Sha, fork: Sha, big: frozenset[str] = frozenset()) -> Snapshot:
    """What a commit has changed since `fork`."""
    answer = await git.read("diff-tree", "-r", "-z", "--no-renames", "--name-status", fork, commit, env=store.env)
    told = [word.decode("utf-8", "replace") for word in answer.out.split(b"\0")]
    how = dict(zip(told[1::2], told[::2], strict=False))
    new, gone = (frozenset(path for path, letter in how.items() if letter == kind) for kind in "AD")
    return Snapshot(commit, fork, frozenset(how) | big, new, gone, big)
