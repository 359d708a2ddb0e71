"""Taking landed stories off an integration branch: reverts made in a worktree of ours, and one step for all refs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_server.adapters.git.desks import Desks, recovery_ref
from mcp_server.adapters.git.names import LANDED, ROLLED, integration_branch, rescue_ref, rolled_refs
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.saving import committed
from mcp_server.core.spec import AttemptId, EpicId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.land_port import Clash, Desk, Reverts, Undo


@dataclass(frozen=True, slots=True)
class Reverting:
    """The half of `LandPort` that takes back."""

    repository: Repository
    desks: Desks

    async def revert(self, epic: EpicId, undos: Sequence[Undo], reason: str) -> Reverts | Clash:
        """See `LandPort.revert`. A story that landed with a merge commit is undone against its first parent."""
        onto = tip = await self._tip(epic)
        for undo in undos:
            start = await self._start(epic, undo)
            if start == undo.head:
                continue  # all of it was there already when it landed
            tree = await self._without(epic, tip, start, undo.head)
            if isinstance(tree, Clash):
                return tree
            why = f"take {undo.attempt} back\n\nThis reverts {start}..{undo.head}.\n{reason}"
            tip = await committed(self.repository, tree, [tip], why)
        return Reverts(onto, tip)

    async def _without(self, epic: EpicId, tip: Sha, start: Sha, head: Sha) -> str | Clash:
        """The tree of `tip` without what came from `start` to `head`.

        A three-way merge whose base is `head`, one side the tip, the other `start`: three commits beside all history
        have git do just that, in every version of it.
        """
        base = await committed(self.repository, f"{head}^{{tree}}", [], "base of a revert")
        ours = await committed(self.repository, f"{tip}^{{tree}}", [base], "what is there")
        theirs = await committed(self.repository, f"{start}^{{tree}}", [base], "what was before")
        return await self.desks.merged(epic, Desk.ROLLBACK, ours, theirs)

    async def _start(self, epic: EpicId, undo: Undo) -> Sha:
        """The commit before the first of the story's own: the nearest one where another change ended.

        `git log --first-parent` from its head back, to where another story landed, or was taken back, or where the
        journal says that this one began.
        """
        refs = await self.repository.refs(f"{LANDED}{epic}/", f"{ROLLED}{epic}/")
        own = f"{LANDED}{undo.attempt}"
        ends = {sha for ref, sha in refs.items() if ref != own}
        if undo.onto is None and undo.head in ends:
            return undo.head
        fork = undo.onto or await self.repository.fork(undo.head, await self.repository.head_sha())
        ends |= {fork} if fork else set[Sha]()
        ends.discard(undo.head)
        line = await self.repository.git.read("rev-list", "--first-parent", undo.head)
        start = next((sha for sha in line.text.splitlines() if sha in ends), None)
        if start is None:
            raise Fault(FaultCause.GIT, f"Git does not say where the commits of {undo.attempt} begin.")
        return start

    async def take_back(self, epic: EpicId, undos: Sequence[Undo], reverts: Reverts) -> dict[AttemptId, str] | None:
        """See `LandPort.take_back`."""
        branch, tip = f"refs/heads/{integration_branch(epic)}", await self._tip(epic)
        is_there = await self.repository.is_ancestor(reverts.head, tip)
        if not is_there:
            if tip != reverts.onto:
                return None
            place = await self.repository.where_checked_out(integration_branch(epic))
            if place is not None:
                why = f"{integration_branch(epic)} is checked out in {place}; switch that to another branch."
                raise Fault(FaultCause.BRANCH_CHECKED_OUT, why)
        stories = [f"{LANDED}{epic}/{undo.attempt.story}/" for undo in undos]
        kept = [rescue_ref(undo.attempt) for undo in undos]
        rolled = [ref for undo in undos for ref in rolled_refs(undo.attempt)]
        old = await self.repository.refs(*stories, *kept, *rolled)
        new: dict[str, Sha | None] = {ref: None for ref in old if ref.startswith(LANDED)}
        for undo in undos:
            new[rescue_ref(undo.attempt)] = await self._kept(undo, old.get(rescue_ref(undo.attempt)))
            new |= dict(zip(rolled_refs(undo.attempt), (undo.head, reverts.head), strict=True))
        if not is_there:
            new |= {branch: reverts.head, await recovery_ref(self.repository, epic, "rollback"): reverts.onto}
        try:
            await self.repository.change_refs(old={**old, branch: tip}, new=new, why=f"rolled back in {epic}")
        except Fault:
            if await self._tip(epic) == tip:
                raise  # not a race that we lost
            return await self.take_back(epic, undos, reverts)
        return {undo.attempt: rescue_ref(undo.attempt) for undo in undos}

    async def _kept(self, undo: Undo, before: Sha | None) -> Sha:
        """What the rescue ref has to be to hold the story's commits, and what it holds already."""
        if before is None or await self.repository.is_ancestor(before, undo.head):
            return undo.head
        if await self.repository.is_ancestor(undo.head, before):
            return before
        why = f"both lives of {undo.attempt}"
        return await committed(self.repository, f"{undo.head}^{{tree}}", [undo.head, before], why)

    async def _tip(self, epic: EpicId) -> Sha:
        sha = await self.repository.resolve(f"refs/heads/{integration_branch(epic)}")
        if sha is None:
            raise Fault(FaultCause.GIT, f"There is no branch {integration_branch(epic)} any more.")
        return sha
