"""All that lies in a repository under our names, and the attempt that each piece belongs to. Read only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from mcp_server.adapters.git.names import (
    BASES,
    INTEGRATION_FOLDER,
    POOL_FOLDER,
    RESCUED,
    SETTLED,
    TRASH_FOLDER,
    WORK,
    attempt_folder,
    attempt_of_folder,
    attempt_of_ref,
    attempt_ref,
    settled_ref,
)
from mcp_server.adapters.git.repository import Repository, Tree, listed
from mcp_server.core.spec import AttemptId, EpicId, Sha
from mcp_server.land_port import Desk

INTEGRATION = "refs/heads/epicwave/"


class Rescue(NamedTuple):
    """A rescue ref; `saved_s` is when its commit was made, in seconds since the epoch."""

    attempt: AttemptId
    ref: str
    sha: Sha
    saved_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """What there is of one attempt that would go when it is over."""

    attempt: AttemptId
    folder: Path | None = None
    """Our worktree of it."""
    missing: bool = False
    """Git has it listed, and the folder is gone."""
    branch: bool = False
    base: bool = False
    elsewhere: Path | None = None
    """A worktree that is not ours has its branch, which stays therefore."""
    dealt_with: bool = False
    """All that the branch has is merged or saved."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One look at a repository."""

    pieces: Mapping[AttemptId, Piece]
    rescues: tuple[Rescue, ...]
    integrations: Mapping[EpicId, Path]
    """Integration worktrees that are there, by epic."""
    branches: tuple[EpicId, ...]
    """Epics that have an integration branch."""
    idle: tuple[Path, ...]
    """Worktrees that wait in the pool, or were on their way there."""
    trash: tuple[Path, ...]
    """What was thrown away and is not deleted yet."""
    strange: tuple[str, ...]
    """Refs and folders under our names that no attempt of any epic could have."""


async def inventory(repository: Repository, root: Path) -> Inventory:
    """Everything below our prefixes and below `root`, where our worktrees are."""
    root = Path(await anyio.Path(root).resolve())
    refs = await repository.refs(WORK, BASES, SETTLED)
    trees = await repository.trees()
    ours = {tree.path: tree for tree in trees if tree.path.is_relative_to(root)}
    folders = sorted({*ours, *await anyio.to_thread.run_sync(_folders, root)})
    idle = tuple(path for path in folders if path.parent == root / POOL_FOLDER)
    trash = tuple(path for path in folders if path.parent == root / TRASH_FOLDER)
    folders = [path for path in folders if path not in {*idle, *trash}]
    by_name = {path: attempt_of_folder(*path.relative_to(root).parts) for path in folders}
    integrations = {path.parent.name: path for path in folders if path.name == INTEGRATION_FOLDER}
    known = {INTEGRATION_FOLDER, *Desk}  # the next landing or rollback clears a desk that a kill has left
    strange = [ref for ref in refs if attempt_of_ref(ref) is None]
    strange += [str(path) for path, whose in by_name.items() if whose is None and path.name not in known]
    found = {attempt for attempt in (*map(attempt_of_ref, refs), *by_name.values()) if attempt is not None}
    others = [tree for tree in trees if tree.path not in ours]
    return Inventory(
        pieces={attempt: _piece(attempt, refs, root, ours, others) for attempt in sorted(found)},
        rescues=await _rescues(repository),
        integrations=integrations,
        branches=tuple(sorted(ref.removeprefix(INTEGRATION) for ref in await repository.refs(INTEGRATION))),
        idle=idle,
        trash=trash,
        strange=tuple(sorted(strange)),
    )


def _folders(root: Path) -> list[Path]:
    return [folder for epic in listed(root) for folder in listed(epic)]


def _piece(
    attempt: AttemptId, refs: Mapping[str, Sha], root: Path, ours: Mapping[Path, Tree], others: list[Tree]
) -> Piece:
    folder, branch = root / attempt.epic / attempt_folder(attempt), attempt_ref(attempt)
    there = folder.exists()
    return Piece(
        attempt,
        folder if there or folder in ours else None,
        missing=folder in ours and not there,
        branch=branch in refs,
        base=f"{BASES}{attempt}" in refs,
        elsewhere=next((tree.path for tree in others if tree.has(branch)), None),
        dealt_with=branch in refs and refs.get(settled_ref(attempt)) == refs[branch],
    )


async def _rescues(repository: Repository) -> tuple[Rescue, ...]:
    answer = await repository.git.read(
        "for-each-ref", "--format=%(refname) %(objectname) %(committerdate:unix)", RESCUED
    )
    found: list[Rescue] = []
    for line in answer.text.splitlines():
        ref, sha, saved_s = line.split(" ")
        attempt = attempt_of_ref(ref)
        if attempt is not None and saved_s:
            found.append(Rescue(attempt, ref, sha, float(saved_s)))
    return tuple(found)


def size_bytes(path: Path) -> int:
    """Of a file, or of all that lies below a folder; links are not followed, what goes meanwhile counts nothing."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(size_bytes(each) for each in path.iterdir())
    except OSError:
        return 0
