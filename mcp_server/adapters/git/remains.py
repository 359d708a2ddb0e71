"""All there is of one attempt in the repository, and how it comes to its end. Whatever ends it, nothing is lost.

The base ref is the sign that an attempt has life that is not saved. It comes and goes in one transaction with the
branch and the rescue ref, so that a crash at any point leaves a state that the next call can read:

base ref            work is going on, or was when we were killed: save it, then clean
branch, no base     the attempt is done: its commits are all there is; a folder of ours is a remnant
neither             a folder of ours is a remnant

A worktree that is not ours is only read. While one has the branch, the branch stays where it is: without it the
worktree's HEAD would name nothing. The settled ref then says up to which commit the branch has been dealt with, so
that a later call saves what came after it, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.names import attempt_folder, attempt_ref, base_ref, rescue_ref, settled_ref
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.repository import Repository, clear_ref_locks
from mcp_server.adapters.git.saving import committed, saved
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault

Refs = dict[str, Sha]


class Whose(StrEnum):
    """Who made a worktree, and what we may do there."""

    OURS = "ours"
    HOST = "host"
    """A linked worktree that the editor made for its agent: read it, save what is in it, change nothing."""
    USER = "user"
    """The main worktree, or the one that we were started in: what lies there is no attempt's work."""


@dataclass(frozen=True, slots=True)
class Place:
    """The worktree that has an attempt's branch."""

    path: Path
    whose: Whose


class End(StrEnum):
    """What becomes of an attempt's branch, and what of its work has to be saved."""

    DONE = "done"
    """It waits for the merge queue at a given commit; what is beyond that is saved."""
    LANDED = "landed"
    """The same, and the commit is merged."""
    FORGOTTEN = "forgotten"
    """It is merged and removed."""
    RESCUED = "rescued"
    """It is removed; all of it is saved."""


@dataclass(frozen=True, slots=True)
class Remains:
    """One attempt; `folder` is where our own worktree of it is, whether or not there is one now."""

    pool: Pool
    folder: Path
    attempt: AttemptId

    @classmethod
    def of(cls, pool: Pool, attempt: AttemptId) -> Remains:
        """The attempt's own folder is `<root>/<epic>/<story>-<attempt>`."""
        return cls(pool, pool.root / attempt.epic / attempt_folder(attempt), attempt)

    @property
    def repository(self) -> Repository:
        """Where its refs are."""
        return self.pool.repository

    @property
    def reason(self) -> str:
        """Why our worktree is locked; found again when only half of a registration is left."""
        return f"epicwave {self.attempt}"

    async def place(self) -> Place | None:
        """Our worktree, or else whichever one has the branch checked out or is rebasing it."""
        if await self.repository.own(self.folder):
            return Place(self.folder, Whose.OURS)
        return await self.elsewhere()

    async def elsewhere(self) -> Place | None:
        """The same, ours left out."""
        found: Place | None = None
        for number, tree in enumerate(await self.repository.trees()):
            if not tree.has(attempt_ref(self.attempt)) or tree.path == self.folder:
                continue
            if number == 0 or await anyio.Path(tree.path).resolve() == anyio.Path(self.repository.top):
                found = Place(tree.path, Whose.USER)
            elif await self.repository.own(tree.path):
                return Place(tree.path, Whose.HOST)
        return found

    async def end(self, end: End, head: Sha | None = None, *, reuse: bool = False) -> bool:
        """Bring the attempt to its end; `head` goes with DONE and LANDED. Safe to repeat after a crash at any point.

        With `reuse` its worktree may be another attempt's next: for whoever saw the end of all who worked in it.
        Returns whether anything of the attempt is on its rescue ref now.
        """
        old: Refs = {}
        for last_try in (False, False, True):
            old = await self.refs()
            new = await self._outcome(end, head, old)
            try:
                await self.repository.change_refs(old=old, new=new, why=f"{end} {self.attempt}")
            except Fault:
                freed = await anyio.to_thread.run_sync(clear_ref_locks, self.repository.common_dir, list(new))
                if last_try or (not freed and await self.refs() == old):
                    raise
                continue  # a lock of a killed agent's is gone, or a process about to end has moved a ref: look again
            break
        await self.pool.remove(self.folder, self.reason, old.get(base_ref(self.attempt)) if reuse else None)
        return rescue_ref(self.attempt) in await self.refs()

    async def refs(self) -> Refs:
        """All refs of the attempt."""
        names = (name(self.attempt) for name in (base_ref, attempt_ref, rescue_ref, settled_ref))
        return await self.repository.refs(*names)

    async def _outcome(self, end: End, head: Sha | None, old: Refs) -> dict[str, Sha | None]:
        """The refs that have to change, as they have to be."""
        base, branch, settled = (name(self.attempt) for name in (base_ref, attempt_ref, settled_ref))
        elsewhere = await self.elsewhere()
        tip = old.get(branch)
        ended_at = old.get(settled) or tip if end is End.FORGOTTEN else head or old.get(settled)
        last = await self._everything(old, elsewhere)
        if last and ended_at and await self.repository.is_ancestor(last, ended_at):
            last = None  # all of it is where it belongs
        new: dict[str, Sha | None] = {base: None, **await self._kept(old, last)}
        match end:
            case End.DONE:
                new |= {branch: head, settled: None}
            case End.LANDED if base in old or tip:
                new |= {branch: head, settled: head}
            case End.LANDED:  # it was forgotten already
                pass
            case End.FORGOTTEN | End.RESCUED:
                new |= {branch: None, settled: tip if elsewhere else None}
        if elsewhere:
            new.pop(branch, None)
        return new

    async def _everything(self, old: Refs, elsewhere: Place | None) -> Sha | None:
        """One commit that has all there is of the attempt beyond its base; None when there is nothing."""
        base, tip = old.get(base_ref(self.attempt)), old.get(attempt_ref(self.attempt))
        if base is None:
            return tip
        path = self.folder
        if not await anyio.Path(path).is_dir() and elsewhere and elsewhere.whose is Whose.HOST:
            path = elsewhere.path
        head = await self.repository.resolve("HEAD", at=path) if await self.repository.own(path) else None
        parents = [head or tip or base]
        if tip and not await self.repository.is_ancestor(tip, parents[0]):
            parents.append(tip)  # the agent moved HEAD away from commits that it had made
        if await anyio.Path(path).is_dir():
            last = await saved(self.repository, path, parents, f"unfinished work of {self.attempt}")
        elif len(parents) == 1:
            last = parents[0]
        else:
            last = await committed(self.repository, f"{parents[0]}^{{tree}}", parents, f"commits of {self.attempt}")
        return None if await self.repository.is_ancestor(last, base) else last

    async def _kept(self, old: Refs, last: Sha | None) -> Refs:
        """The rescue ref as it has to be to hold `last` and all that it holds already."""
        ref = rescue_ref(self.attempt)
        before = old.get(ref)
        if last is None or (before and await self.repository.is_ancestor(last, before)):
            return {}
        if before and not await self.repository.is_ancestor(before, last):
            last = await committed(self.repository, f"{last}^{{tree}}", [last, before], f"both lives of {self.attempt}")
        return {ref: last}
