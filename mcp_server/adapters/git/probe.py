"""The port `Probe` on real git: snapshots of worktrees, and all pairs of them that may conflict in one `merge-tree`."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from mcp_server.adapters.git.names import attempt_branch, integration_branch
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.remains import Remains, Whose
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.snapshot import (
    Now,
    Snapshot,
    Store,
    git_dir_of,
    is_between,
    measured,
    snapshot,
    status_of,
    taken,
)
from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId, EpicId, Sha
from mcp_server.errors import Fault
from mcp_server.probe import Look, Seen, Sight

TRIES_MERGES = (2, 39)
"""The first git that tries many merges in one `merge-tree --stdin`."""
STORE_LOOKS = 500
"""Snapshots after which the store is begun anew: each leaves some small files in it."""


class _Known(NamedTuple):
    """What a worktree looked like, and what was made of it."""

    mark: object
    shot: Snapshot


@dataclass(frozen=True, slots=True)
class _Side:
    """One of two that are merged for a try."""

    shot: Snapshot
    folders: frozenset[str]
    """All folders above its files."""
    grown: frozenset[str]
    """Folders that it has put files into."""
    emptied: frozenset[str]
    """Folders that it has taken files out of."""

    @classmethod
    def of(cls, shot: Snapshot) -> _Side:
        return cls(shot, _above(shot.files), _above(shot.new), frozenset(p.rpartition("/")[0] for p in shot.gone))

    def may_meet(self, other: _Side) -> bool:
        """False when no merge of the two can conflict: no path in common, none below the other, no folder renamed."""
        mine, theirs = self.shot.files, other.shot.files
        common = mine.isdisjoint(theirs), mine.isdisjoint(other.folders), theirs.isdisjoint(self.folders)
        moved = self.emptied.isdisjoint(other.grown), other.emptied.isdisjoint(self.grown)
        return not all((*common, *moved))


def _above(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(path[:end] for path in paths for end, char in enumerate(path) if char == "/")


class GitProbe:
    """Stores what was seen last, and which merges have been tried, by commit; `root` is that of our worktrees."""

    def __init__(self, repository: Repository, root: Path) -> None:
        self._repository = repository
        self._git = repository.git
        self._pool = Pool(repository, root)  # only to look: it takes and gives nothing
        self._folder = repository.state_dir / "tmp" / "probe"
        self._places: dict[AttemptId, Path] = {}
        self._known: dict[AttemptId, _Known] = {}
        self._tried: dict[tuple[Sha, Sha], tuple[str, ...]] = {}
        self._made = 0
        """Snapshots in the store."""
        self._one = anyio.Lock()

    async def look(self, sights: Sequence[Sight], fresh: Collection[AttemptId] | None = None) -> Look:
        """See `Probe.look`."""
        async with self._one:
            if self._made >= STORE_LOOKS:
                await self._forget()
            store = await anyio.to_thread.run_sync(Store.at, self._folder, self._repository.common_dir)
            before = {attempt: known.shot for attempt, known in self._known.items()}
            tips = await self._tips({sight.attempt.epic for sight in sights})
            for sight in sights:
                seen_before = sight.attempt in self._known
                if fresh is None or sight.attempt in fresh or sight.head or not seen_before:
                    await self._refresh(store, sight, tips.get(sight.attempt.epic))
            there = {sight.attempt for sight in sights}
            self._known = {attempt: known for attempt, known in self._known.items() if attempt in there}
            self._places = {attempt: place for attempt, place in self._places.items() if attempt in there}
            shots = {attempt: known.shot for attempt, known in self._known.items()}
            clashes = await self._clashes(store, shots, tips)
            seen = {a: Seen(tuple(sorted(shot.files)), tuple(clashes[a])) for a, shot in shots.items()}
            return Look(seen, changed=shots != before)

    async def close(self) -> None:
        """See `Probe.close`."""
        async with self._one:
            await self._forget()

    async def _forget(self) -> None:
        self._known, self._tried, self._places, self._made = {}, {}, {}, 0
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))

    async def _tips(self, epics: Collection[EpicId]) -> Mapping[EpicId, Sha]:
        names = {f"refs/heads/{integration_branch(epic)}": epic for epic in epics}
        return {names[ref]: sha for ref, sha in (await self._repository.refs(*names)).items() if ref in names}

    async def _refresh(self, store: Store, sight: Sight, tip: Sha | None) -> None:
        """Look at one again. Who cannot be looked at now stays as it was seen last: it is at work, not gone."""
        try:
            known = await (self._queued(store, sight, tip) if sight.head else self._at_work(store, sight, tip))
        except Fault:
            return
        if known is not None:
            self._known[sight.attempt] = known

    async def _queued(self, store: Store, sight: Sight, tip: Sha | None) -> _Known:
        head, mark = sight.head or "", (sight.head, tip)
        known = self._known.get(sight.attempt)
        if known is not None and known.mark == mark:
            return known
        fork = await self._fork(sight, tip, head)
        return _Known(mark, await measured(self._git, store, head, fork or sight.base))

    async def _at_work(self, store: Store, sight: Sight, tip: Sha | None) -> _Known | None:
        """None when there is no worktree, or nothing in it that could be told yet."""
        folder = await self._place(sight.attempt)
        git_dir = await anyio.to_thread.run_sync(git_dir_of, folder) if folder else None
        if folder is None or git_dir is None or await anyio.to_thread.run_sync(is_between, git_dir):
            return None
        now = await status_of(self._git, folder)
        if now is None or not self._is_its_own(sight.attempt, folder, now):
            return None
        known, mark = self._known.get(sight.attempt), (tip, *now.mark)
        if known is not None and known.mark == mark:
            return known
        return _Known(mark, await self._shot(store, sight, folder, git_dir, now, tip))

    async def _shot(
        self, store: Store, sight: Sight, folder: Path, git_dir: Path, now: Now, tip: Sha | None
    ) -> Snapshot:
        fork = await self._fork(sight, tip, now.head)
        if now.is_clean and fork is not None:
            return await measured(self._git, store, now.head, fork)
        self._made += 1
        name = "-".join((sight.attempt.epic, sight.attempt.story, str(sight.attempt.number)))
        tree = f"{now.head}^{{tree}}"
        if not now.is_clean:
            tree = await taken(self._git, store, folder, git_dir, now, name)
        big = frozenset(path.decode("utf-8", "replace") for path in now.big)
        return await snapshot(self._git, store, tree, now.head if fork else sight.base, fork or sight.base, big)

    async def _fork(self, sight: Sight, tip: Sha | None, head: Sha) -> Sha | None:
        """Where its history leaves the integration branch: it may have been rebased onto a later tip meanwhile."""
        if head in (sight.base, tip):
            return head
        return await self._repository.fork(tip or sight.base, head)

    def _is_its_own(self, attempt: AttemptId, folder: Path, now: Now) -> bool:
        """Our worktree is; the host's as long as the attempt's branch is checked out there."""
        if now.branch == attempt_branch(attempt) or folder == self._remains(attempt).folder:
            return True
        self._places.pop(attempt, None)
        return False

    async def _place(self, attempt: AttemptId) -> Path | None:
        """Where the attempt is worked on: found once, and again when there is nothing any more."""
        place = self._places.get(attempt)
        if place is not None and await anyio.Path(place / ".git").exists():
            return place
        found = await self._remains(attempt).place()
        if found is None or found.whose is Whose.USER:
            self._places.pop(attempt, None)
            return None
        self._places[attempt] = found.path
        return found.path

    def _remains(self, attempt: AttemptId) -> Remains:
        return Remains.of(self._pool, attempt)

    # --- who conflicts with whom

    async def _clashes(
        self, store: Store, shots: Mapping[AttemptId, Snapshot], tips: Mapping[EpicId, Sha]
    ) -> dict[AttemptId, list[Clash]]:
        sides = {attempt: _Side.of(shot) for attempt, shot in shots.items()}
        pairs = [(a, b) for a, b in combinations(sorted(sides), 2) if sides[a].may_meet(sides[b])]
        behind = {a: tips[a.epic] for a, shot in shots.items() if tips.get(a.epic, shot.fork) != shot.fork}
        found: dict[AttemptId, list[Clash]] = {attempt: [] for attempt in shots}
        if self._repository.version < TRIES_MERGES:
            for a, b in pairs:
                _tell(found, a, b, shots[a].files & shots[b].files, certain=False)
            return found
        merges = [(shots[a].commit, shots[b].commit) for a, b in pairs]
        merges += [(tip, shots[a].commit) for a, tip in behind.items()]
        await self._try(store, merges)
        for a, b in pairs:
            both = shots[a].big & shots[b].files | shots[b].big & shots[a].files
            _tell(found, a, b, both.union(self._tried[shots[a].commit, shots[b].commit]))
        for a, tip in behind.items():
            if paths := self._tried[tip, shots[a].commit]:
                found[a].append(Clash(None, tuple(sorted(paths))))
        return found

    async def _try(self, store: Store, merges: Sequence[tuple[Sha, Sha]]) -> None:
        """All merges that have not been tried yet, at once; what nobody asks for any more is forgotten."""
        self._tried = {pair: self._tried[pair] for pair in merges if pair in self._tried}
        new = [pair for pair in dict.fromkeys(merges) if pair not in self._tried]
        if not new:
            return
        orders = "".join(f"{one} {other}\n" for one, other in new).encode()
        argv = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", "--stdin")
        # at the checkout, so that its attributes say which files merge how
        answer = await self._git.read(*argv, at=self._repository.top, env=store.env, stdin=orders)
        self._tried.update(zip(new, _conflicted(answer.out), strict=True))


def _conflicted(out: bytes) -> list[tuple[str, ...]]:
    """For each merge the paths in conflict. A record is a number, the tree, the paths, and an empty word."""
    found: list[tuple[str, ...]] = []
    record: list[bytes] = []
    for word in out.split(b"\0")[:-1]:
        if word:
            record.append(word)
        else:
            found.append(tuple(path.decode("utf-8", "replace") for path in record[2:]))
            record = []
    return found


def _tell(
    found: dict[AttemptId, list[Clash]], a: AttemptId, b: AttemptId, paths: Collection[str], *, certain: bool = True
) -> None:
    """Both sides of a conflict."""
    if paths:
        cut = tuple(sorted(paths))
        found[a].append(Clash(b, cut, certain))
        found[b].append(Clash(a, cut, certain))
