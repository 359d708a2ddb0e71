"""`.worktreeinclude`: ignored files of the user's checkout that every worktree of ours gets a copy of.

As Claude Code has it: patterns in the syntax of `.gitignore`; what is copied matches one and is ignored by git.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository

INCLUDE_FILE = ".worktreeinclude"
TOGETHER = 200
"""Files that are copied before somebody who has been told to stop is heard."""


async def include(repository: Repository, worktree: Path) -> None:
    """Copy what the file at the top of the user's checkout names into a new worktree. Raises `Fault` (git, disk).

    Never over anything, never through a link, and only what git ignores in the worktree too: there another commit is
    checked out, and what it does not ignore would end on the attempt's branch. A link is copied as a link. A folder
    without files is left out, and so is another worktree of a repository.
    """
    top = repository.top
    if not await anyio.Path(top / INCLUDE_FILE).is_file():
        return
    argv = ("ls-files", "--others", "--ignored", f"--exclude-from={top / INCLUDE_FILE}", "-z")
    found = (await repository.git.read(*argv, at=top)).out.split(b"\0")
    named = [os.fsdecode(name) for name in found if name]
    ignored = await repository.ignored(named, top)
    new = await anyio.to_thread.run_sync(_new, ignored, worktree)
    wanted = iter(await repository.ignored(new, worktree))
    while some := list(itertools.islice(wanted, TOGETHER)):
        await anyio.to_thread.run_sync(_copy, some, top, worktree)


def _new(names: Sequence[str], worktree: Path) -> list[str]:
    """Those whose place in the worktree is free and lies in real folders; git would not answer for others."""
    free: dict[Path, bool] = {Path(): True}

    def is_free(folder: Path) -> bool:
        if folder not in free:
            at = worktree / folder
            free[folder] = is_free(folder.parent) and not at.is_symlink() and (at.is_dir() or not at.exists())
        return free[folder]

    return [name for name in names if is_free(Path(name).parent) and not os.path.lexists(worktree / name)]


def _copy(names: Sequence[str], top: Path, worktree: Path) -> None:
    for name in names:
        source, target = top / name, worktree / name
        with disk_faults(f"{source} could not be copied into {worktree}"):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _copied(source, target)
            except FileNotFoundError:
                if os.path.lexists(source):
                    raise
                # gone since git listed it


def _copied(source: Path, target: Path) -> None:
    """One file or link, or a repository inside the checkout, which git lists as one entry."""
    if source.is_symlink() or not source.is_dir():
        shutil.copy2(source, target, follow_symlinks=False)
    elif (source / ".git").is_dir():  # a file there would lead to somebody else's worktree
        shutil.copytree(source, target, symlinks=True)
