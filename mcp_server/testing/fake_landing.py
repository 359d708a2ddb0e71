"""The port `LandPort` in memory, on a `FakeGit`. It knows no remotes: what it was asked to offer is in `offers`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from mcp_server.adapters.git.names import LANDED, RECOVERY, ROLLED, integration_branch, rescue_ref, rolled_refs
from mcp_server.core.spec import AttemptId, EpicId, Sha
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.land_port import Candidate, Clash, Desk, How, Reverts, Target, Undo
from mcp_server.testing.fake_git import ROOT
from mcp_server.testing.fake_repository import HEADS, USER_DESK, FakeGit, merged

OURS = ("epicwave/", "epicwave-work/")


class FakeLand:
    """The user's checkout is the desk `USER_DESK`, where a test puts one there."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git
        self.offers: list[tuple[EpicId, Sha, str, str, str]] = []

    async def target(self, into: str | None, top: Path) -> Target:
        """See `LandPort.target`."""
        await self._git.step("target")
        return self._target(into, top)

    def _target(self, into: str | None, top: Path) -> Target:
        git = self._git
        if into is None:
            desk = git.desks[top]
            if desk.rebasing or desk.merging:
                raise Refused(Code.DIRTY_CHECKOUT, "An operation is in progress.", "Finish it.")
            if desk.branch is None:
                raise Refused(Code.DETACHED_HEAD, "HEAD is detached.", "Switch to a branch, or name it with into=...")
            into = desk.branch.removeprefix(HEADS)
        head = git.refs.get(f"{HEADS}{into}")
        if head is None or into.startswith(OURS):
            raise Refused(Code.BAD_ARGUMENT, f"The branch {into!r} is not there, or ours.", "Name one of yours.")
        places = git.where(f"{HEADS}{into}")
        if not places:
            return Target(into, head, None)
        if top not in places:
            raise Refused(Code.BRANCH_CHECKED_OUT, f"{into} is checked out in {places[0]}.", "Let it go there.")
        if dirty := [name for name in git.dirty(top) if name in git.commits[head].files or name.startswith("(")]:
            raise Refused(Code.DIRTY_CHECKOUT, f"Not committed: {', '.join(dirty)}.", "Commit or stash it.")
        return Target(into, head, top)

    async def tree(self, sha: Sha) -> str:
        """See `LandPort.tree`."""
        await self._git.step("tree")
        return self._tree(sha)

    def _tree(self, sha: Sha) -> str:
        return f"tree-{zlib.crc32(json.dumps(sorted(self._git.commits[sha].files.items())).encode()):08x}"

    async def compose(self, epic: EpicId, target: Target, tip: Sha, how: How | None, message: str) -> Candidate | Clash:  # noqa: ARG002 - commits here have no message
        """See `LandPort.compose`."""
        await self._git.step("compose")
        git, head = self._git, target.head
        if git.is_ancestor(tip, head):
            return Candidate(head, head, self._tree(head))
        fork = git.fork(head, tip)
        if fork is None:
            raise Refused(Code.NOTHING_TO_LAND, "No commit in common.", "Name the branch that the epic began from.")
        if how is How.FF and fork != head:
            raise Refused(Code.NOT_FAST_FORWARD, f"{target.branch} has moved.", "Land with how='merge'.")
        if how is How.FF or (how is None and fork == head):
            return Candidate(head, tip, self._tree(tip))
        files, clashes = merged(git.commits[head].files, git.commits[fork].files, git.commits[tip].files)
        if clashes:
            return Clash(clashes)
        if how is How.SQUASH and files == git.commits[head].files:
            return Candidate(head, head, self._tree(head))
        sha = git.record(files, *([head] if how is How.SQUASH else [head, tip]))
        return Candidate(head, sha, self._tree(sha))

    async def desk(self, epic: EpicId, desk: Desk, sha: Sha) -> Path:
        """See `LandPort.desk`."""
        await self._git.step("desk")
        path = ROOT / epic / desk
        self._git.check_out(path, sha)
        return path

    async def close(self, epic: EpicId) -> None:
        """See `LandPort.close`."""
        await self._git.step("close_desks")
        for desk in Desk:
            self._git.desks.pop(ROOT / epic / desk, None)

    async def move(self, epic: EpicId, target: Target, candidate: Candidate) -> str:
        """See `LandPort.move`."""
        await self._git.step("move")
        git, ref = self._git, f"{HEADS}{target.branch}"
        if self._target(target.branch, target.place or USER_DESK) != target:
            raise Refused(Code.BRANCH_MOVED, f"{target.branch} was moved.", "Land again.")
        if target.place is not None:
            desk, new = git.desks[target.place], git.commits[candidate.sha].files
            there = [name for name in desk.files if name not in git.commits[target.head].files and name in new]
            if there:
                raise Refused(Code.DIRTY_CHECKOUT, f"Would be written over: {', '.join(there)}.", "Move them away.")
            kept = {name: text for name, text in desk.files.items() if name not in git.commits[target.head].files}
            git.check_out(target.place, candidate.sha, ref)
            git.desks[target.place].files.update(kept)
        saved = self._recovery(epic, "land")
        git.refs[saved] = target.head
        git.refs[ref] = candidate.sha
        return saved

    async def offer(self, epic: EpicId, tip: Sha, into: str, title: str, body: str) -> str:
        """See `LandPort.offer`."""
        await self._git.step("offer")
        self.offers.append((epic, tip, into, title, body))
        return f"https://forge.example/pull/{len(self.offers)}"

    async def revert(self, epic: EpicId, undos: Sequence[Undo], reason: str) -> Reverts | Clash:  # noqa: ARG002 - commits here have no message
        """See `LandPort.revert`."""
        await self._git.step("revert")
        git, onto = self._git, self._tip(epic)
        tip = onto
        for undo in undos:
            start = self._start(epic, undo)
            if start == undo.head:
                continue
            files, clashes = merged(git.commits[tip].files, git.commits[undo.head].files, git.commits[start].files)
            if clashes:
                return Clash(clashes)
            tip = git.record(files, tip)
        return Reverts(onto, tip)

    def _start(self, epic: EpicId, undo: Undo) -> Sha:
        git = self._git
        folders = (f"{LANDED}{epic}/", f"{ROLLED}{epic}/")
        own = f"{LANDED}{undo.attempt}"
        ends = {sha for ref, sha in git.refs.items() if ref.startswith(folders) and ref != own}
        if undo.onto is None and undo.head in ends:
            return undo.head
        fork = undo.onto or git.fork(undo.head, git.desks[USER_DESK].head)
        ends |= {fork} if fork else set[Sha]()
        ends.discard(undo.head)
        sha = undo.head
        while sha not in ends:
            if not git.commits[sha].parents:
                raise Fault(FaultCause.GIT, f"Git does not say where the commits of {undo.attempt} begin.")
            sha = git.commits[sha].parents[0]
        return sha

    async def take_back(self, epic: EpicId, undos: Sequence[Undo], reverts: Reverts) -> dict[AttemptId, str] | None:
        """See `LandPort.take_back`."""
        await self._git.step("take_back")
        git, branch, tip = self._git, f"{HEADS}{integration_branch(epic)}", self._tip(epic)
        if not git.is_ancestor(reverts.head, tip):
            if tip != reverts.onto:
                return None
            if had := git.where(branch):
                raise Fault(FaultCause.BRANCH_CHECKED_OUT, f"{branch} is checked out in {had[0]}.")
            git.refs[self._recovery(epic, "rollback")] = reverts.onto
            git.refs[branch] = reverts.head
        for undo in undos:
            for ref in [ref for ref in git.refs if ref.startswith(f"{LANDED}{epic}/{undo.attempt.story}/")]:
                del git.refs[ref]
            before = git.refs.get(rescue_ref(undo.attempt))
            if before is None or git.is_ancestor(before, undo.head):
                git.refs[rescue_ref(undo.attempt)] = undo.head
            elif not git.is_ancestor(undo.head, before):
                both = git.record(git.commits[undo.head].files, undo.head, before)
                git.refs[rescue_ref(undo.attempt)] = both
            git.refs.update(zip(rolled_refs(undo.attempt), (undo.head, reverts.head), strict=True))
        return {undo.attempt: rescue_ref(undo.attempt) for undo in undos}

    def _recovery(self, epic: EpicId, kind: str) -> str:
        before = f"{RECOVERY}{epic}/{kind}-"
        return f"{before}{sum(ref.startswith(before) for ref in self._git.refs) + 1:06}"

    def _tip(self, epic: EpicId) -> Sha:
        ref = f"{HEADS}{integration_branch(epic)}"
        if ref not in self._git.refs:
            raise Fault(FaultCause.GIT, f"There is no {ref} any more.")
        return self._git.refs[ref]
