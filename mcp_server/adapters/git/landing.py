"""The port `LandPort` on real git. The only place that moves a branch of the user's, and it does so when asked.

No hook of the user's runs for a merge or a commit of ours: a hook that hangs, refuses or edits files would make
something else of what was checked. Filters (LFS) do run, and so does the `pre-push` hook of a pull request.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git import pull_request
from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.desks import Desks, recovery_ref, same_folder
from mcp_server.adapters.git.names import integration_branch
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.reverting import Reverting
from mcp_server.adapters.git.status import status
from mcp_server.core.spec import AttemptId, EpicId, Sha
from mcp_server.errors import Code, Fault, Refused
from mcp_server.land_port import Candidate, Clash, Desk, How, Reverts, Target, Undo

SIGN_S = 20.0
"""How long the signature of a commit may take: who is asked for a passphrase there is not there to answer."""
PATHS_SHOWN = 10
_OURS = ("epicwave/", "epicwave-work/")


class GitLand:
    """Stores nothing: each call looks at the repository as it is."""

    def __init__(self, repository: Repository, root: Path, pool: Pool | None = None) -> None:
        self._repository = repository
        self._git = repository.git
        self._desks = Desks(repository, pool or Pool(repository, root))
        self._reverting = Reverting(repository, self._desks)

    # --- landing

    async def target(self, into: str | None, top: Path) -> Target:
        """See `LandPort.target`."""
        branch = await self._branch(into, top)
        head = await self._repository.resolve(f"refs/heads/{branch}")
        if head is None or branch.startswith(_OURS):
            why = "is epicwave's own" if head is not None else "does not exist"
            raise Refused(Code.BAD_ARGUMENT, f"The branch {branch!r} {why}.", "Name a branch of yours with into=...")
        place = await self._repository.where_checked_out(branch)
        if place is None:
            return Target(branch, head, None)
        if not await same_folder(place, top):
            raise Refused(
                Code.BRANCH_CHECKED_OUT,
                f"{branch} is checked out in another worktree, {place}: its files would not be what the branch says.",
                f"Land it from there, or let that go: `git -C {place} switch --detach`.",
            )
        await self._require_clean(place)
        return Target(branch, head, place)

    async def _branch(self, into: str | None, top: Path) -> str:
        if into is not None:
            return into.removeprefix("refs/heads/")
        at = await self._git.read("symbolic-ref", "--quiet", "HEAD", at=top, ok=(0, 1))
        if at.code == 0:
            return at.text.removeprefix("refs/heads/")
        await self._require_no_operation(top)
        raise Refused(
            Code.DETACHED_HEAD,
            f"HEAD of {top} is detached: it is on no branch that could be moved.",
            "Switch to the branch (`git switch NAME`), or name it with into=...",
        )

    async def _require_no_operation(self, place: Path) -> None:
        now = await status(self._git, place)
        if now.unfinished is not None:
            raise Refused(
                Code.DIRTY_CHECKOUT,
                f"A {now.unfinished} is in progress in {place}.",
                f"Finish it (`git {now.unfinished} --continue`) or give it up (`git {now.unfinished} --abort`).",
            )

    async def _require_clean(self, place: Path) -> None:
        await self._require_no_operation(place)
        now = await status(self._git, place)
        if now.changed:
            raise Refused(
                Code.DIRTY_CHECKOUT,
                f"{place} has changes that are not committed: {_some(now.changed)}.",
                "Commit them, or put them aside (`git stash`), then land again.",
            )

    async def tree(self, sha: Sha) -> str:
        """See `LandPort.tree`."""
        return (await self._git.read("rev-parse", "--verify", f"{sha}^{{tree}}")).text

    async def compose(self, epic: EpicId, target: Target, tip: Sha, how: How | None, message: str) -> Candidate | Clash:
        """See `LandPort.compose`."""
        head, repository = target.head, self._repository
        if await repository.is_ancestor(tip, head):
            return Candidate(head, head, await self.tree(head))
        fork = await repository.fork(head, tip)
        if fork is None:
            why = f"{target.branch} and {integration_branch(epic)} have no commit in common."
            raise Refused(Code.NOTHING_TO_LAND, why, "Name the branch that the epic began from with into=...")
        if how is How.FF and fork != head:
            raise Refused(
                Code.NOT_FAST_FORWARD,
                f"{target.branch} has commits that {integration_branch(epic)} does not have.",
                "Land with how='merge' or 'squash': what comes of both is checked first.",
            )
        if how is How.FF or (how is None and fork == head):
            return Candidate(head, tip, await self.tree(tip))
        tree = await self.tree(tip)
        if fork != head:
            merged = await self._desks.merged(epic, Desk.LANDING, head, tip)
            if isinstance(merged, Clash):
                return merged
            tree = merged
        if how is How.SQUASH and tree == await self.tree(head):
            return Candidate(head, head, tree)
        parents = [head] if how is How.SQUASH else [head, tip]
        return Candidate(head, await self._commit(tree, parents, message, target.place), tree)

    async def _commit(self, tree: str, parents: Sequence[Sha], message: str, place: Path | None) -> Sha:
        """A commit for the user's branch, signed when the user signs theirs."""
        plain, at = Git(self._repository.common_dir, ()), place or self._repository.top
        asked = await plain.read("config", "--type=bool", "--get", "commit.gpgSign", at=at, ok=(0, 1, 128))
        signs = ["-S"] if asked.text == "true" else []
        above = [word for parent in parents for word in ("-p", parent)]
        argv = ("commit-tree", *signs, tree, *above, "-F", "-")
        if not signs:
            return (await self._git.write(*argv, stdin=message.encode())).text
        said = f"nothing within {SIGN_S:g} s: it may have asked for a passphrase"
        with anyio.move_on_after(SIGN_S):
            try:
                quiet = {"SSH_ASKPASS_REQUIRE": "never", "GPG_TTY": ""}
                return (await self._git.write(*argv, at=at, env=quiet, stdin=message.encode())).text
            except Fault as fault:
                said = fault.detail
        raise Refused(
            Code.CANNOT_SIGN,
            f"commit.gpgSign is on, and the commit could not be signed: {said}.",
            "Unlock the key (sign anything once), or land with how='ff', which makes no commit.",
        )

    async def desk(self, epic: EpicId, desk: Desk, sha: Sha) -> Path:
        """See `LandPort.desk`."""
        return await self._desks.made(epic, desk, sha)

    async def close(self, epic: EpicId) -> None:
        """See `LandPort.close`."""
        await self._desks.close(epic)

    async def move(self, epic: EpicId, target: Target, candidate: Candidate) -> str:
        """See `LandPort.move`."""
        ref, saved = f"refs/heads/{target.branch}", await recovery_ref(self._repository, epic, "land")
        now = await self.target(target.branch, target.place or self._repository.top)
        if now != target:
            raise _moved(target.branch)
        if target.place is None:
            new = {ref: candidate.sha, saved: target.head}
            try:
                await self._repository.change_refs(old={ref: target.head}, new=new, why=f"landed {epic}")
            except Fault as fault:
                if await self._repository.resolve(ref) == target.head:
                    raise
                raise _moved(target.branch) from fault
            return saved
        await self._require_room(target.place, candidate)
        await self._repository.change_refs(old={}, new={saved: target.head}, why=f"before landing {epic}")
        # git itself looks once more: at HEAD, and at every file that it would write
        argv = ("merge", "--ff-only", "--no-overwrite-ignore", "--no-verify-signatures", "--no-stat", candidate.sha)
        ended = await self._git.write(*argv, at=target.place, ok=(0, 1, 2, 128))
        if await self._repository.resolve(ref) != candidate.sha:
            if ended.code == 0:
                raise _moved(target.branch)
            why = f"git did not move {target.branch}: {' '.join(ended.err.split())[-1000:]}"
            raise Refused(Code.DIRTY_CHECKOUT, why, "Mend what it names, then land again.")
        return saved

    async def _require_room(self, place: Path, candidate: Candidate) -> None:
        """No file of the user's is where a new one has to go, ignored ones counted: git would write over those."""
        argv = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=A")
        new = (await self._git.read(*argv, candidate.onto, candidate.sha)).out.split(b"\0")
        paths = [os.fsdecode(name) for name in new if name]
        there = await anyio.to_thread.run_sync(lambda: [name for name in paths if os.path.lexists(place / name)])
        if there:
            raise Refused(
                Code.DIRTY_CHECKOUT,
                f"Files of {place} that are not in git would be written over: {_some(tuple(there))}.",
                "Move them away, or commit them, then land again.",
            )

    async def offer(self, epic: EpicId, tip: Sha, into: str, title: str, body: str) -> str:
        """See `LandPort.offer`."""
        return await pull_request.offer(self._repository, pull_request.Offer(epic, tip, into, title, body))

    # --- taking back

    async def revert(self, epic: EpicId, undos: Sequence[Undo], reason: str) -> Reverts | Clash:
        """See `LandPort.revert`."""
        return await self._reverting.revert(epic, undos, reason)

    async def take_back(self, epic: EpicId, undos: Sequence[Undo], reverts: Reverts) -> dict[AttemptId, str] | None:
        """See `LandPort.take_back`."""
        return await self._reverting.take_back(epic, undos, reverts)


def _moved(branch: str) -> Refused:
    why = f"{branch} was moved, or its checkout changed, while it was being landed on; it was left as it is."
    return Refused(Code.BRANCH_MOVED, why, "Land again: what comes of it is checked anew.")


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - PATHS_SHOWN
    return ", ".join(names[:PATHS_SHOWN]) + (f" and {more} more" if more > 0 else "")
