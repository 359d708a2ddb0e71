"""What of ours in a repository nobody needs any more, by what the journal says; and its removal, saved first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from mcp_server.adapters.git.inventory import Inventory, Piece, Rescue, inventory, size_bytes
from mcp_server.adapters.git.names import attempt_branch, integration_branch
from mcp_server.adapters.journal.sqlite import SqliteJournal, backups_of
from mcp_server.core.model import HOLDS_FILES, Ledger, Story, StoryState, is_alive
from mcp_server.core.spec import AttemptId, EpicId
from mcp_server.engine.lifecycle import clear, is_over
from mcp_server.errors import Fault
from mcp_server.server.world import World

DAY_S = 86_400.0
PUT_AWAY_S = 600.0
"""How long the deletion of what was thrown away may take."""


class Item(NamedTuple):
    """One thing that goes."""

    kind: str
    """worktree | branch | base_ref | integration_worktree | pooled_worktree | trash | log | rescue_ref |
    journal_backup"""
    name: str
    size_bytes: int = 0


class Kept(NamedTuple):
    """One thing of ours that stays, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Ages:
    """How old what must be; `rescue`: also rescue refs of stories that are not merged."""

    now_s: float
    older_than_s: float
    rescue: bool = False

    def old(self, since_s: float) -> bool:
        """True when it is older than was asked."""
        return since_s < self.now_s - self.older_than_s


@dataclass(frozen=True, slots=True)
class Garbage:
    """Everything that may go, and what was seen and stays."""

    pieces: tuple[Piece, ...] = ()
    integrations: tuple[tuple[EpicId, Path], ...] = ()
    idle: tuple[Path, ...] = ()
    trash: tuple[Path, ...] = ()
    rescues: tuple[Rescue, ...] = ()
    logs: tuple[Path, ...] = ()
    backups: tuple[Path, ...] = ()
    not_ours: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()

    def items(self) -> list[Item]:
        """What goes, measured now: before the removal."""
        return [
            *(item for piece in self.pieces for item in _items(piece)),
            *(Item("integration_worktree", str(path), size_bytes(path)) for _, path in self.integrations),
            *(Item("pooled_worktree", str(path), size_bytes(path)) for path in self.idle),
            *(Item("trash", str(path), size_bytes(path)) for path in self.trash),
            *(Item("rescue_ref", rescue.ref) for rescue in self.rescues),
            *(Item("log", str(path), size_bytes(path)) for path in self.logs),
            *(Item("journal_backup", str(path), size_bytes(path)) for path in self.backups),
        ]


def _items(piece: Piece) -> Iterator[Item]:
    if piece.folder is not None:
        yield Item("worktree", str(piece.folder), size_bytes(piece.folder))
    if piece.branch and piece.elsewhere is None:
        yield Item("branch", attempt_branch(piece.attempt))
    if piece.base:
        yield Item("base_ref", f"refs/epicwave/base/{piece.attempt}")


def leftovers(ledger: Ledger, seen: Inventory) -> Garbage:
    """What attempts that are over have left, and what is under our names and not the journal's."""
    over = [piece for piece in seen.pieces.values() if is_over(ledger, piece.attempt) and _may_go(piece)]
    closed = [(epic, path) for epic, path in seen.integrations.items() if _is_at_rest(ledger, epic)]
    return Garbage(tuple(over), tuple(closed), not_ours=_not_ours(ledger, seen), kept=tuple(_kept(ledger, seen)))


async def garbage(world: World, ledger: Ledger, root: Path, ages: Ages) -> Garbage:
    """The same, and what is old of merged stories: rescue refs, logs, copies of the journal. Changes nothing."""
    seen = await inventory(world.repository, root)
    left = leftovers(ledger, seen)
    waits = _waits(ledger)
    rescues: list[Rescue] = []
    kept = list(left.kept)
    kept += [Kept(str(path), "it waits for a story of a wave that is alive") for path in seen.idle if waits]
    for rescue in seen.rescues:
        story = story_at(ledger, rescue.attempt)
        if story is None or not ages.old(rescue.saved_s):
            continue
        if story.state is StoryState.MERGED or (ages.rescue and story.state not in HOLDS_FILES):
            rescues.append(rescue)
        else:
            kept.append(Kept(rescue.ref, f"its story is {story.state}, not merged"))
    return Garbage(
        left.pieces,
        left.integrations,
        () if waits else seen.idle,
        seen.trash,
        tuple(rescues),
        tuple(await anyio.to_thread.run_sync(lambda: list(_old_logs(world, ledger, ages)))),
        tuple(path for path in backups_of(world.journal_path) if ages.old(path.stat().st_mtime)),
        left.not_ours,
        tuple(kept),
    )


async def remove(world: World, ledger: Ledger, found: Garbage) -> list[str]:
    """Remove it; unsaved work is saved first. Returns what could not be removed, with why.

    The caller has the repository's lock, and `found` was looked for under it.
    """
    left: list[str] = []
    with closing(SqliteJournal(world.journal_path)) as journal:
        ports = world.ports(journal)
        for rescue in found.rescues:
            try:
                await world.repository.change_refs(
                    old={rescue.ref: rescue.sha}, new={rescue.ref: None}, why=f"gc {rescue.attempt}"
                )
            except Fault as fault:
                left.append(f"{rescue.ref}: {fault.detail}")
        for piece in found.pieces:
            await clear(ledger, ports, piece.attempt)
        for epic, path in found.integrations:
            try:
                await ports.merge.close(epic)
            except Fault as fault:
                left.append(f"{path}: {fault.detail}")
        await world.put_away(PUT_AWAY_S, waits=_waits(ledger))
        left += [f"{path}: the disk did not let it go" for path in (*found.idle, *found.trash) if path.exists()]
        still = set(await ports.worktrees.held())
        stuck = [piece.attempt for piece in found.pieces if piece.attempt in still and piece.elsewhere is None]
        left += [f"{attempt}: git or the disk did not let it go" for attempt in stuck]
    return left + await anyio.to_thread.run_sync(_unlink, (*found.logs, *found.backups))


def _unlink(paths: tuple[Path, ...]) -> list[str]:
    left: list[str] = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            left.append(f"{path}: {error.strerror}")
    return left


def story_at(ledger: Ledger, attempt: AttemptId) -> Story | None:
    """The story of an attempt; None when the journal knows none, or has not come to that attempt."""
    epic = ledger.epics.get(attempt.epic)
    story = epic.stories.get(attempt.story) if epic is not None else None
    return story if story is not None and attempt.number <= story.attempt else None


def _may_go(piece: Piece) -> bool:
    """False for what a worktree of the host's keeps in place, when all of it is saved or merged."""
    return piece.elsewhere is None or not piece.dealt_with or piece.folder is not None or piece.base


def _waits(ledger: Ledger) -> bool:
    return any(is_alive(epic.wave) for epic in ledger.epics.values())


def _is_at_rest(ledger: Ledger, epic_id: EpicId) -> bool:
    epic = ledger.epics.get(epic_id)
    return epic is not None and not is_alive(epic.wave)


def _not_ours(ledger: Ledger, seen: Inventory) -> tuple[str, ...]:
    attempts = [piece for piece in seen.pieces.values() if story_at(ledger, piece.attempt) is None]
    names = [item.name for piece in attempts for item in _items(piece)]
    names += [rescue.ref for rescue in seen.rescues if story_at(ledger, rescue.attempt) is None]
    names += [str(path) for epic, path in seen.integrations.items() if epic not in ledger.epics]
    names += [integration_branch(epic) for epic in seen.branches if epic not in ledger.epics]
    return tuple(sorted({*names, *seen.strange}))


def _kept(ledger: Ledger, seen: Inventory) -> Iterator[Kept]:
    for piece in seen.pieces.values():
        story = story_at(ledger, piece.attempt)
        if story is None:
            continue
        if not is_over(ledger, piece.attempt):
            ends = f"`epicwave cancel {piece.attempt.epic} {piece.attempt.story}` ends it"
            yield Kept(str(piece.attempt), f"its story is {story.state}; {ends}")
        elif piece.elsewhere is not None:
            yield Kept(attempt_branch(piece.attempt), f"checked out in {piece.elsewhere}")


def _old_logs(world: World, ledger: Ledger, ages: Ages) -> Iterator[Path]:
    for name, epic in ledger.epics.items():
        for story in epic.stories.values():
            folder = world.log_path(AttemptId(name, story.spec.id, 1)).parent
            if story.state is StoryState.MERGED and folder.is_dir():
                yield from (path for path in sorted(folder.glob("attempt-*")) if ages.old(path.stat().st_mtime))
