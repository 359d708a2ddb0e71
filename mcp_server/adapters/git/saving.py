"""Turning whatever lies in a folder into a commit, without moving a branch or touching the folder's own index."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.scratch import BROKEN, Scratch
from mcp_server.core.spec import Sha


async def saved(repository: Repository, folder: Path, parents: Sequence[Sha], why: str) -> Sha:
    """A commit with the folder's content on top of `parents`; the parent itself when that has all of it already.

    Ignored files are left out unless they were added by force. What was done in a submodule, which may be nowhere else,
    is one more parent: a commit of the submodule's own. Raises `Fault`, and nothing has changed then.
    """
    sound = await repository.own(folder)
    index = (await repository.git.read("rev-parse", "--absolute-git-dir", at=folder)).path / "index" if sound else None
    with disk_faults(f"{folder} could not be saved"):
        content = await _content_of(repository, folder, index, parents[0])
        inner = [await _work_in(repository, folder / name, why) for name in content.submodules]
    parents = [*parents, *(sha for sha in inner if sha)]
    if len(parents) == 1 and content.tree == (await repository.git.read("rev-parse", f"{parents[0]}^{{tree}}")).text:
        return parents[0]
    return await committed(repository, content.tree, parents, why)


async def _work_in(repository: Repository, submodule: Path, why: str) -> Sha | None:
    """A commit with what lies in a submodule, on top of its own commits; None when all of it was published before."""
    if not await _is_repository(repository, submodule):
        return None
    head = await repository.resolve("HEAD", at=submodule)
    changes = ("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
    clean = not (await repository.git.read(*changes, at=submodule)).out
    if head and clean and not await _unpublished(repository, submodule, head):
        return None
    if head:
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        await repository.git.write("fetch", *options, str(submodule), head, ok=(0, 1, BROKEN))  # a shallow one cannot
        head = await repository.resolve(head)
        if head and clean:
            return head
    content = await _content_of(repository, submodule, None, None)
    return await committed(
        repository, content.tree, [head] if head else [], f"{why}, in its submodule {submodule.name}"
    )


async def _is_repository(repository: Repository, folder: Path) -> bool:
    top = await repository.git.read("rev-parse", "--show-toplevel", at=folder, ok=(0, BROKEN))
    return top.code == 0 and await anyio.Path(top.path).resolve() == await anyio.Path(folder).resolve()


async def _unpublished(repository: Repository, submodule: Path, head: Sha) -> bool:
    argv = ("rev-list", "--max-count=1", head, "--not", "--remotes")
    return bool((await repository.git.read(*argv, at=submodule)).out)


async def committed(repository: Repository, tree: str, parents: Sequence[Sha], why: str) -> Sha:
    """A new commit of a tree, on no branch."""
    above = [word for parent in parents for word in ("-p", parent)]
    return (await repository.git.write("commit-tree", tree, *above, "-m", f"epicwave: {why}")).text


async def tree_with(repository: Repository, folder: Path, sha: Sha, paths: Sequence[str]) -> str:
    """The commit's tree, with these paths as they lie in a worktree. The worktree's own index is not touched."""
    with disk_faults(f"{folder} could not be read"):
        place = await anyio.to_thread.run_sync(scratch_folder, repository)
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            here = Scratch(repository, folder, folder, Path(scratch) / "index")
            await here.write("read-tree", sha)
            names = b"".join(os.fsencode(path) + b"\0" for path in paths)
            argv = ("add", "--all", "--force", "--sparse", "--pathspec-from-file=-", "--pathspec-file-nul")
            await here.write(*argv, stdin=names, env={"GIT_LITERAL_PATHSPECS": "1"})
            return (await here.write("write-tree")).text


class _Content(NamedTuple):
    tree: str
    submodules: tuple[str, ...]
    """Paths of those that are checked out."""


async def _content_of(repository: Repository, folder: Path, index: Path | None, parent: Sha | None) -> _Content:
    """Write the folder's content as a tree.

    It starts from a copy of the worktree's index (`index`), which knows what was added by force and what a sparse
    checkout leaves out; without a sound worktree (`index` None) from the parent's files.
    """
    place = await anyio.to_thread.run_sync(scratch_folder, repository)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        here = Scratch(repository, folder, folder if index else None, Path(scratch) / "index")
        if index is None or not await anyio.to_thread.run_sync(_copied, index, here.index):
            await here.write("read-tree", *([parent] if parent else ["--empty"]))
        if not await here.add_all(parent):
            return await _content_of(repository, folder, None, parent)
        new, submodules = await here.repositories_inside(parent)
        for inner in new:
            tree = (await _content_of(repository, folder / inner, None, None)).tree
            await here.write("update-index", "--force-remove", "-z", "--stdin", stdin=os.fsencode(inner))
            await here.write("read-tree", f"--prefix={inner}/", tree)
        return _Content((await here.write("write-tree")).text, tuple(submodules))


def sweep(repository: Repository) -> None:
    """Remove what a kill -9 left while work was being saved. Only for whoever holds the repository's lock."""
    shutil.rmtree(repository.state_dir / "tmp", ignore_errors=True)


def scratch_folder(repository: Repository) -> Path:
    """Where what is needed for a moment lies; `sweep` clears it."""
    place = repository.state_dir / "tmp"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _copied(source: Path, target: Path) -> bool:
    """False when there is no index to copy."""
    try:
        shutil.copy2(source, target)  # as old as it was: git tells by that which files it has to read again
    except FileNotFoundError:
        return False
    return True
