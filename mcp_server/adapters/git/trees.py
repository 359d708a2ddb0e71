"""Making and removing worktrees of our own. The only place that deletes folders."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository, listed, text_of
from mcp_server.core.spec import Sha
from mcp_server.errors import Fault, FaultCause


async def add(repository: Repository, path: Path, what: str, reason: str, expected: Sha) -> None:
    """Check out `what` (a branch, or a sha to be detached at) in a new worktree, locked for `reason`.

    The branch exists already, so that git has no upstream to write into the user's config. Raises `Fault`, also when
    HEAD is not `expected` afterwards.
    """
    with disk_faults(f"{path.parent} could not be made"):
        await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
    detach = ["--detach"] if what == expected else []
    await repository.git.write("worktree", "add", *detach, "--lock", "--reason", reason, str(path), what)
    head = await repository.resolve("HEAD", at=path)
    if head != expected:
        raise Fault(FaultCause.GIT, f"The new worktree {path} is at {head} and not at {expected}.")


async def remove(repository: Repository, path: Path, reason: str) -> None:
    """Remove a worktree and all that a crash can leave of one: folder, registration, half a registration.

    The folder first, outside git's door: deleting a big one takes seconds, and several go side by side.
    """
    await anyio.to_thread.run_sync(_delete, path)
    if await _registered(repository, path):
        try:
            await repository.git.write("worktree", "unlock", str(path), ok=(0, 128))  # 128: it was not locked
            await repository.git.write("worktree", "remove", "--force", str(path))
        except Fault:
            if await _registered(repository, path):
                raise
            # killed on its way: what is left of the registration is swept up below
    await anyio.to_thread.run_sync(_sweep, repository.common_dir, path, reason)


async def _registered(repository: Repository, path: Path) -> bool:
    return any(tree.path == path for tree in await repository.trees())


async def clear_locks(git_dir: Path) -> None:
    """Remove the lock files that a killed git left in the private folder of a worktree of ours."""
    for lock in [lock async for lock in anyio.Path(git_dir).glob("*.lock")]:
        await lock.unlink(missing_ok=True)


def _delete(path: Path) -> None:
    """A folder and all below it, the read-only parts too; never what a link points to.

    Tried again when it fails: whoever was lent the worktree may still be writing in it.
    """
    for last_try in (False, False, True):
        try:
            if path.is_symlink():
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


def _sweep(common_dir: Path, path: Path, reason: str) -> None:
    """What `worktree add` leaves when it is killed between its first files, or `worktree remove` between its last ones.

    Git lists neither. The one is locked for our reason, the other not at all any more; a living worktree has a gitdir.
    """
    for half in listed(common_dir / "worktrees"):
        ours = half.name.startswith(path.name) and text_of(half / "locked") in {reason, None}
        if ours and not (half / "gitdir").exists():
            shutil.rmtree(half)
    if path.parent.is_dir() and not listed(path.parent):
        try:
            path.parent.rmdir()
        except OSError:
            return  # another attempt of the epic has just moved in
