"""Turning whatever lies in a folder into a commit, without moving a branch or touching the folder's own index."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.command import Answer
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import Sha

_GITLINK = b"160000"


async def saved(repository: Repository, folder: Path, parents: Sequence[Sha], why: str) -> Sha:
    """A commit with the folder's content on top of `parents`; the parent itself when that has all of it already.

    Ignored files are left out unless they were added by force. Raises `Fault`, and nothing has changed then.
    """
    sound = await repository.own(folder)
    index = (await repository.git.read("rev-parse", "--absolute-git-dir", at=folder)).path / "index" if sound else None
    with disk_faults(f"{folder} could not be saved"):
        tree = await _tree_of(repository, folder, index, parents[0])
    if len(parents) == 1 and tree == (await repository.git.read("rev-parse", f"{parents[0]}^{{tree}}")).text:
        return parents[0]
    return await committed(repository, tree, parents, why)


async def committed(repository: Repository, tree: str, parents: Sequence[Sha], why: str) -> Sha:
    """A new commit of a tree, on no branch."""
    above = [word for parent in parents for word in ("-p", parent)]
    return (await repository.git.write("commit-tree", tree, *above, "-m", f"epicwave: {why}")).text


async def tree_with(repository: Repository, folder: Path, sha: Sha, paths: Sequence[str]) -> str:
    """The commit's tree, with these paths as they lie in a worktree. The worktree's own index is not touched."""
    with disk_faults(f"{folder} could not be read"):
        place = await anyio.to_thread.run_sync(scratch_folder, repository)
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            here = _Scratch(repository, folder, folder, Path(scratch) / "index")
            await here.write("read-tree", sha)
            names = b"".join(os.fsencode(path) + b"\0" for path in paths)
            argv = ("add", "--all", "--force", "--sparse", "--pathspec-from-file=-", "--pathspec-file-nul")
            await here.write(*argv, stdin=names, env={"GIT_LITERAL_PATHSPECS": "1"})
            return (await here.write("write-tree")).text


async def _tree_of(repository: Repository, folder: Path, index: Path | None, parent: Sha | None) -> str:
    """Write the folder's content as a tree.

    It starts from a copy of the worktree's index (`index`), which knows what was added by force and what a sparse
    checkout leaves out; without a sound worktree (`index` None) from the parent's files.
    """
    place = await anyio.to_thread.run_sync(scratch_folder, repository)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        here = _Scratch(repository, folder, folder if index else None, Path(scratch) / "index")
        if index is None or not await anyio.to_thread.run_sync(_copied, index, here.index):
            await here.write("read-tree", *([parent] if parent else ["--empty"]))
        # 1: a file could not be read, or there is a repository of its own inside, which is looked at below
        added = await here.write("add", "--all", "--sparse", "--ignore-errors", ok=(0, 1, 128) if index else (0, 1))
        if added.code == 128:  # noqa: PLR2004 - git's code for `fatal`: the index is broken
            return await _tree_of(repository, folder, None, parent)
        for inner in await here.repositories_inside(parent):
            tree = await _tree_of(repository, folder / inner, None, None)
            await here.write("update-index", "--force-remove", "-z", "--stdin", stdin=os.fsencode(inner))
            await here.write("read-tree", f"--prefix={inner}/", tree)
        return (await here.write("write-tree")).text


def sweep(repository: Repository) -> None:
    """Remove what a kill -9 left while work was being saved. Only for whoever holds the repository's lock."""
    shutil.rmtree(repository.state_dir / "tmp", ignore_errors=True)


def scratch_folder(repository: Repository) -> Path:
    """Where what is needed for a moment lies; `sweep` clears it."""
    place = repository.state_dir / "tmp"
    place.mkdir(parents=True, exist_ok=True)
    return place


@dataclass(frozen=True, slots=True)
class _Scratch:
    """A folder looked at through an index of our own."""

    repository: Repository
    folder: Path
    at: Path | None
    """The folder again when it is a sound worktree; else it is taken as content of the repository."""
    index: Path

    async def write(
        self, *argv: str, stdin: bytes = b"", ok: tuple[int, ...] = (0,), env: Mapping[str, str] | None = None
    ) -> Answer:
        env = {"GIT_INDEX_FILE": str(self.index), **(env or {})}
        content = None if self.at else self.folder
        return await self.repository.git.write(*argv, at=self.at, content=content, env=env, stdin=stdin, ok=ok)

    async def repositories_inside(self, parent: Sha | None) -> list[str]:
        """Folders that are repositories of their own, and new: git would save a pointer to them, or nothing at all."""
        before = parent or (await self.write("mktree")).text
        others = (await self.write("ls-files", "-z", "--others", "--exclude-standard")).out.split(b"\0")
        diff = await self.write("diff-index", "--cached", "-z", "--raw", "--no-renames", "--diff-filter=A", before)
        new = diff.out.split(b"\0")
        inside = [name.rstrip(b"/") for name in others if name.endswith(b"/")]
        inside += [name for told, name in zip(new[::2], new[1::2], strict=False) if told.split(b" ")[1] == _GITLINK]
        return [
            name for name in map(os.fsdecode, sorted(inside)) if await anyio.Path(self.folder / name / ".git").exists()
        ]


def _copied(source: Path, target: Path) -> bool:
    """False when there is no index to copy."""
    try:
        shutil.copy2(source, target)  # as old as it was: git tells by that which files it has to read again
    except FileNotFoundError:
        return False
    return True
