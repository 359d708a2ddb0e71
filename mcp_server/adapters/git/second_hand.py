"""A worktree that an attempt has left, and what has to be done before another one may have it.

What a later attempt can see of an earlier one is in four places: files, the index, git's private folder, and processes
that are still at home. Files are put right by git, or moved out of the way; of the private folder only what every
worktree has is left; an index with flags, somebody at home or a lock is a doubt.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import anyio.to_thread
import psutil

from mcp_server.adapters.git.command import Answer
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.include import INCLUDE_FILE
from mcp_server.adapters.git.repository import Repository, text_of
from mcp_server.adapters.git.trash import Trash
from mcp_server.adapters.git.trees import delete, entry_of, leave_empty
from mcp_server.core.spec import Sha

IDLE = "epicwave pool"
"""Why a pooled worktree is locked."""
STRICT = (
    "core.trustCTime=true",
    "core.checkStat=default",
    "core.untrackedCache=false",
    "core.sparseCheckout=false",
    "core.ignoreStat=false",
)
"""A file's times may be set back; only that of its last change cannot be. Git compares it by whole seconds: what is
changed and set back within the second in which its index was written is beyond this, as it is beyond `git status`."""
_EVERY_ENTRY_HAS = ("HEAD", "commondir", "gitdir", "index", "locked")
_DOUBTS = ("modules", "config.worktree", "info")
"""Submodules, settings and a sparse checkout of the worktree's own: not put right, but done without."""
_FLAGGED = re.compile(rb"(?:\A|\0)[^H?] [0-7]{6} [0-9a-f]+ \d\t")
_STRANGE = re.compile(rb"(?:\A|(?<=\0))\? ([^\0]+)")
_SUBMODULE = re.compile(rb"(?:\A|(?<=\0)). 160000 [0-9a-f]+ \d\t([^\0]+)")
_SHA = re.compile(r"[0-9a-f]{40,64}")


class SecondHand:
    """Stores how worktrees are brought to where another attempt may have them."""

    def __init__(self, repository: Repository, trash: Trash, keep: tuple[str, ...]) -> None:
        self._repository = repository
        self._git = replace(repository.git, config=(*repository.git.config, *STRICT))
        self._trash = trash
        self._keep = keep

    async def restored(self, idle: Path, base: Sha) -> bool:
        """Have exactly the files of a commit in it, and of others those that are kept. False when it is doubtful.

        Raises `Fault` where git or the disk does not go along with it.
        """
        common_dir = self._repository.common_dir
        entry = await anyio.to_thread.run_sync(idle_entry, common_dir, idle)
        if entry is None or special(common_dir) or not await anyio.to_thread.run_sync(_cleared, entry, idle):
            return False
        attributes = ("diff-index", "--quiet", base, "--", ":(top,glob)**/.gitattributes")
        if (await self._alone(idle, *attributes, ok=(0, 1))).code:
            return False  # files that stay would keep the line endings of other attributes
        await self._alone(idle, "checkout", "--force", "--detach", "--quiet", base)
        listed = (await self._alone(idle, "ls-files", "-v", "-s", "--others", "--directory", "-z")).out
        if _FLAGGED.search(listed) or any(_is_filled(idle / os.fsdecode(each)) for each in _SUBMODULE.findall(listed)):
            return False
        found = [os.fsdecode(name) for name in _STRANGE.findall(listed)]
        await anyio.to_thread.run_sync(self._away, idle, await self._strange(idle, found))
        cleared = await anyio.to_thread.run_sync(_cleared, entry, None)
        return cleared and text_of(entry / "HEAD") == base

    async def _alone(self, at: Path, *argv: str, ok: tuple[int, ...] = (0,)) -> Answer:
        """Git in a worktree that nobody else has: not by the door, where it would wait for what others do elsewhere.

        Not tried again, either: a lock that is held means that somebody is in there after all.
        """
        return await self._git.read(*argv, at=at, ok=ok)

    async def _strange(self, idle: Path, found: list[str]) -> list[str]:
        """Of what git does not have there, ignored or not, what is not kept."""
        listing = ("ls-files", "--others", "--directory", "-z")
        kept = [name for name in found if self._is_kept(name)]
        if kept:  # not what git would show to the next attempt, and not what that gets a fresh copy of
            seen = _names(await self._alone(idle, *listing, "--exclude-standard", "--", *_literal(kept)))
            fresh = self._repository.top / INCLUDE_FILE
            if fresh.is_file():
                only = ("--ignored", f"--exclude-from={fresh}", "--", *_literal(kept))
                seen += _names(await self._alone(idle, *listing, *only))
            kept = [name for name in kept if not any(each.startswith(name) or name.startswith(each) for each in seen)]
        return [name for name in found if name not in set(kept)]

    def _is_kept(self, name: str) -> bool:
        bare = name.rstrip("/")
        return any(fnmatch(bare, each) or fnmatch(bare.rpartition("/")[2], each) for each in self._keep)

    def _away(self, idle: Path, names: Iterable[str]) -> None:
        """One folder of the trash takes all of it, however much: a rename each."""
        heap = idle.parent / f"{idle.name}.{secrets.token_hex(2)}"
        with disk_faults(f"{idle} could not be cleared"):
            for number, name in enumerate(names):
                heap.mkdir(exist_ok=True)
                (idle / name.rstrip("/")).rename(heap / str(number))
        if heap.exists():
            self._trash.throw(heap)

    async def put_by(self, path: Path, idle: Path, rest: Sha) -> bool:
        """Have an attempt's worktree in the pool. False when something is doubtful at first sight.

        Raises `Fault`; then it is where it was, or unsound in the pool, which comes to the same.
        """
        common_dir = self._repository.common_dir
        entry = await anyio.to_thread.run_sync(entry_of, common_dir, path)
        if entry is None or special(common_dir):
            return False
        if any((entry / lock).exists() for lock in ("HEAD.lock", "index.lock")):
            return False
        await anyio.to_thread.run_sync(_move_back, entry, path, idle, rest)
        return True


def idle_entry(common_dir: Path, idle: Path) -> Path | None:
    """Git's private folder of a pooled worktree; None when it is not as one has to be."""
    entry = entry_of(common_dir, idle)
    if entry is None or text_of(entry / "locked") != IDLE:
        return None
    return entry if _SHA.fullmatch(text_of(entry / "HEAD") or "") else None


def move_in(common_dir: Path, idle: Path, path: Path, branch: str | None, reason: str) -> None:
    """Have a pooled worktree at an attempt's place, on its branch. Its entry leads there first.

    So the attempt's own end clears what a kill leaves of it.
    """
    entry = entry_of(common_dir, idle)
    with disk_faults(f"{path} could not be made"):
        if entry is None:
            raise FileNotFoundError(2, "no sound worktree any more", str(idle))
        _write(entry / "locked", reason)
        _write(entry / "gitdir", f"{path / '.git'}\n")
        idle.rename(path)
        if branch is not None:
            _write(entry / "HEAD", f"ref: {branch}\n")
    leave_empty(idle.parent)


def _move_back(entry: Path, path: Path, idle: Path, rest: Sha) -> None:
    with disk_faults(f"{path} could not be put by"):
        _write(entry / "HEAD", f"{rest}\n")
        idle.parent.mkdir(parents=True, exist_ok=True)
        path.rename(idle)
        _write(entry / "locked", IDLE)
        _write(entry / "gitdir", f"{idle / '.git'}\n")


def special(common_dir: Path) -> bool:
    """True where used worktrees are no match for new ones, or HEAD is no file.

    A sparse checkout of the user's, and other settings of it alone, are handed on by git to new worktrees only.
    """
    return any((common_dir / name).exists() for name in ("config.worktree", "info/sparse-checkout", "reftable"))


def _cleared(entry: Path, home: Path | None) -> bool:
    """Leave in git's private folder what every worktree has there. False when there is a doubt, and nothing is done."""
    names = {path.name for path in entry.iterdir()}
    if names & set(_DOUBTS) or any(name.endswith(".lock") for name in names):
        return False
    if home is not None and somebody_in(home):
        return False
    for name in names:
        if name not in _EVERY_ENTRY_HAS and not name.startswith("sharedindex."):
            delete(entry / name)
    return True


def somebody_in(folder: Path) -> bool:
    """True when a process of ours is at home below a folder: what it writes would be the next attempt's."""
    real = Path(os.path.realpath(folder))
    return any(Path(cwd).is_relative_to(real) for cwd in _homes())


def _homes() -> Iterable[str]:
    for process in psutil.process_iter():
        try:
            yield process.cwd()
        except (psutil.Error, OSError):
            continue


def _is_filled(folder: Path) -> bool:
    return folder.is_symlink() or (folder.is_dir() and next(folder.iterdir(), None) is not None)


def _names(answer: Answer) -> list[str]:
    return [os.fsdecode(name) for name in answer.out.split(b"\0") if name]


def _literal(names: list[str]) -> list[str]:
    return [f":(top,literal){name.rstrip('/')}" for name in names]


def _write(path: Path, text: str) -> None:
    """At once: git reads it whole, before or after."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, "utf-8")
    new.replace(path)
