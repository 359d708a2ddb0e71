"""Single worktrees of our own: made, found in git's list, taken off it, deleted. `pool.py` says when."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import anyio

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository, listed, text_of
from mcp_server.core.spec import Sha
from mcp_server.errors import Fault, FaultCause


async def add(repository: Repository, path: Path, reason: str, base: Sha) -> None:
    """Check out a commit in a new worktree, detached and locked for `reason`. Raises `Fault`.

    Detached, so that git has no upstream to write into the user's configuration, where 48 at once fail 5 times.
    """
    with disk_faults(f"{path.parent} could not be made"):
        await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
    await repository.git.write("worktree", "add", "--detach", "--lock", "--reason", reason, str(path), base)


async def attach(repository: Repository, path: Path, branch: str | None, base: Sha) -> None:
    """Put a detached worktree on a branch (full ref; None: on none). Raises `Fault` when HEAD is not `base` then."""
    if branch is not None:
        await repository.git.write("symbolic-ref", "-m", "epicwave: began", "HEAD", branch, at=path)
    head = await repository.resolve("HEAD", at=path)
    if head != base:
        raise Fault(FaultCause.GIT, f"The new worktree {path} is at {head} and not at {base}.")


async def clear_locks(git_dir: Path) -> None:
    """Remove the lock files that a killed git left in the private folder of a worktree of ours."""
    for lock in [lock async for lock in anyio.Path(git_dir).glob("*.lock")]:
        await lock.unlink(missing_ok=True)


def place_of(entry: Path) -> Path | None:
    """The worktree that an entry below `.git/worktrees` is for, whether or not it is there; None for half an entry."""
    link = text_of(entry / "gitdir")
    return Path(os.path.realpath((entry / link).parent)) if link else None


def entry_said(common_dir: Path, path: Path) -> Path | None:
    """The entry that a folder says is its own; None when it says nothing of the kind."""
    said = path / ".git"
    if path.is_symlink() or said.is_symlink() or not said.is_file():
        return None
    word, _, link = (text_of(said) or "").partition(": ")
    entry = Path(os.path.realpath(path / link))
    return entry if word == "gitdir" and entry.parent == Path(os.path.realpath(common_dir / "worktrees")) else None


def entry_of(common_dir: Path, path: Path) -> Path | None:
    """Git's private folder of a worktree, when the two lead to each other; None for anything doubtful."""
    entry = entry_said(common_dir, path)
    return entry if entry is not None and place_of(entry) == Path(os.path.realpath(path)) else None


def is_ours(entry: Path) -> bool:
    """True for an entry that is locked for a reason of ours."""
    return (text_of(entry / "locked") or "").startswith("epicwave ")


def unregister(repository: Repository, path: Path, reason: str) -> None:
    """Take a worktree of ours off git's list, and nobody else's: `git worktree prune` would ask no owner.

    An entry goes in one step, so that a kill leaves none by halves. What `worktree add` leaves when it is killed
    between its first files is half an entry, locked for our reason; git does not list it. Raises `Fault(disk)`.
    """
    real, entries = Path(os.path.realpath(path)), repository.common_dir / "worktrees"
    for entry in listed(entries):
        place = place_of(entry)
        half = place is None and entry.name.startswith(path.name) and text_of(entry / "locked") in {reason, None}
        if place == real or half:
            forget(repository, entry)
    with suppress(OSError):  # others are there
        entries.rmdir()


def forget(repository: Repository, entry: Path) -> None:
    """Remove one entry below `.git/worktrees`. Raises `Fault(disk)`."""
    gone = repository.state_dir / "tmp" / f"entry-{secrets.token_hex(4)}"
    with disk_faults(f"{entry} could not be removed"):
        try:
            gone.parent.mkdir(parents=True, exist_ok=True)
            entry.rename(gone)
        except OSError:  # our folder is on another disk, or that one is full
            shutil.rmtree(entry)
    shutil.rmtree(gone, ignore_errors=True)


def leave_empty(folder: Path) -> None:
    """Remove an epic's folder when nothing is left in it."""
    if folder.is_dir() and not listed(folder):
        with suppress(OSError):  # another attempt of the epic has just moved in
            folder.rmdir()


def delete(path: Path) -> None:
    """A folder and all below it, the read-only parts too; never what a link points to. Raises `Fault(disk)`.

    Tried again when it fails: whoever was lent the worktree may still be writing in it.
    """
    for last_try in (False, False, True):
        try:
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
        except OSError as error:
            if last_try:
                raise Fault(FaultCause.DISK, f"The worktree {path} could not be removed: {error}") from error
            if isinstance(error, PermissionError):
                _make_writable(path)
        else:
            return


def _make_writable(top: Path) -> None:
    """So that a module cache without write permission can be deleted; on Windows that goes for files too."""
    with suppress(OSError):  # gone meanwhile; what really cannot be changed is told by whoever removes it
        top.chmod(0o700)
        for path in top.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o700)
