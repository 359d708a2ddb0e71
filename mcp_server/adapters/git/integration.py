"""The port `MergePort` on real git: rebase in a worktree of our own, move the branch by compare-and-set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import anyio

from mcp_server.adapters.git import trees
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.include import include
from mcp_server.adapters.git.names import (
    INTEGRATION_FOLDER,
    LANDED,
    attempt_of_ref,
    integration_branch,
    landed_ref,
)
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.remains import End, Remains
from mcp_server.adapters.git.repository import Repository, text_of
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landed, Landing

DETAIL_CHARS = 6000
"""Bound of the conflicted hunks that go into the next brief."""
_UNFINISHED = {"rebase-merge": "rebase", "rebase-apply": "rebase", "MERGE_HEAD": "merge"}


class GitMerge:
    """The integration worktree of an epic is `<root>/<epic>/_integration`, detached; nothing of value is ever in it."""

    def __init__(self, repository: Repository, root: Path, pool: Pool | None = None) -> None:
        """Without `pool` each worktree is made anew."""
        self._repository = repository
        self._git = repository.git
        self._pool = pool or Pool(repository, root)
        self._root = self._pool.root

    async def tip(self, epic: EpicId) -> Sha:
        """See `MergePort.tip`."""
        branch = integration_branch(epic)
        sha = await self._repository.resolve(f"refs/heads/{branch}")
        if sha is None:
            raise Fault(FaultCause.GIT, f"There is no branch {branch} any more.")
        return sha

    async def rebase(self, attempt: AttemptId, base: Sha, head: Sha, onto: Sha | None = None) -> Landing | Conflicted:
        """See `MergePort.rebase`.

        Commits that the tip has already, under another sha too, are dropped. A branch that has merge commits of its own
        is merged and not rebased: flattening would drop what was settled in them. Those of others, which are in it when
        its agent rebased it onto an earlier tip, do not count.
        """
        tip = onto or await self.tip(attempt.epic)
        path = await self._ready(attempt.epic, tip)
        if await self._repository.is_ancestor(head, tip):
            return Landing(tip, tip, ())
        merges = await self._git.read("rev-list", "--merges", "--max-count=1", head, f"^{tip}", f"^{base}")
        if merges.out:
            step = ("merge", "--no-ff", "--no-edit", "--no-verify", "-m", f"Merge {attempt}", head)
        else:
            await self._checkout(path, head)
            step = ("rebase", "--no-fork-point", "--no-verify", "--empty=drop", tip)
        ended = await self._git.write(*step, at=path, ok=(0, 1, 128))
        if ended.code:
            conflict = await self._conflict(path, tip)
            await self._ready(attempt.epic, tip)
            if conflict:
                return conflict
            raise Fault(FaultCause.GIT, f"`git {step[0]}` of {attempt} ended with {ended.code}: {ended.err[-2000:]}")
        landed = (await self._git.read("rev-parse", "HEAD", at=path)).text
        return Landing(tip, landed, await self._repository.changed(tip, landed))

    async def checkout(self, epic: EpicId, at: Sha | None = None) -> Path:
        """See `MergePort.checkout`. Made at the tip when there is none."""
        path = self._folder(epic)
        if at is not None:
            return await self._ready(epic, at)
        return path if await self._repository.own(path) else await self._ready(epic, await self.tip(epic))

    async def set_up_by(self, epic: EpicId) -> str:
        """See `MergePort.set_up_by`."""
        path = self._folder(epic)
        return text_of(await self._set_up_note(path)) or "" if await self._repository.own(path) else ""

    async def note_set_up(self, epic: EpicId, by: str) -> None:
        """See `MergePort.note_set_up`. In git's own folder of the worktree: it goes when the worktree does."""
        note = anyio.Path(await self._set_up_note(await self.checkout(epic)))
        with disk_faults(f"{note} could not be written"):
            await note.write_text(by, "utf-8")

    async def _set_up_note(self, path: Path) -> Path:
        git_dir = (await self._git.read("rev-parse", "--absolute-git-dir", at=path)).path
        return git_dir / "epicwave-set-up"

    async def advance(
        self, attempt: AttemptId, onto: Sha, head: Sha, before: Sequence[tuple[AttemptId, Sha]] = ()
    ) -> bool:
        """See `MergePort.advance`. Moves forward only: Fault `git` when `head` does not descend from `onto`.

        The note comes before the branch: of two refs in one transaction git writes the first one first, and a note
        whose commit the branch does not have counts for nothing.
        """
        epic, branch = attempt.epic, integration_branch(attempt.epic)
        notes = {landed_ref(each): sha for each, sha in (*before, (attempt, head))}
        old = await self._repository.refs(*notes)
        if await self.contains(epic, head):
            lost = {
                note: sha for note, sha in notes.items() if not (note in old and await self.contains(epic, old[note]))
            }
            if lost:
                known = {note: sha for note, sha in old.items() if note in lost}
                await self._repository.change_refs(old=known, new=lost, why=f"landed {attempt}")
            return True
        if not await self._repository.is_ancestor(onto, head):
            raise Fault(FaultCause.GIT, f"{head} does not descend from {onto}.")
        place = await self._repository.where_checked_out(branch)
        if place is not None:
            raise Fault(
                FaultCause.BRANCH_CHECKED_OUT, f"{branch} is checked out in {place}; switch that to another branch."
            )
        ref = f"refs/heads/{branch}"
        try:
            await self._repository.change_refs(old={**old, ref: onto}, new={**notes, ref: head}, why="merged")
        except Fault:
            if await self.tip(epic) == onto:
                raise  # not a race that we lost
            return await self.contains(epic, head)
        return True

    async def landed(self, epic: EpicId, but: Collection[StoryId] = ()) -> list[Landed]:
        """See `MergePort.landed`."""
        branch = await self._repository.resolve(f"refs/heads/{integration_branch(epic)}")
        noted = await self._repository.refs(f"{LANDED}{epic}/", merged=branch) if branch else {}
        attempts = {attempt: sha for ref, sha in noted.items() if (attempt := attempt_of_ref(ref))}
        last = {attempt.story: (attempt, attempts[attempt]) for attempt in sorted(attempts)}
        if branch is None or last.keys() <= set(but):
            return []
        line = (await self._git.read("rev-list", "--first-parent", "--reverse", branch)).text.splitlines()
        place = {sha: number for number, sha in enumerate(line)}
        found: list[Landed] = []
        onto: Sha | None = None
        for attempt, head in sorted(last.values(), key=lambda at: (place.get(at[1], -1), at[0])):
            before = onto or await self._repository.fork(head, await self._repository.head_sha()) or head
            onto = head
            if attempt.story not in but:
                files = await self._repository.changed(before, head)
                found.append(Landed(attempt, Landing(before, head, files)))
        return found

    async def contains(self, epic: EpicId, sha: Sha) -> bool:
        """See `MergePort.contains`. A commit that the repository does not have is contained nowhere."""
        tip = await self.tip(epic)
        return await self._repository.resolve(sha) is not None and await self._repository.is_ancestor(sha, tip)

    async def forget(self, attempt: AttemptId) -> None:
        """See `MergePort.forget`."""
        await Remains.of(self._pool, attempt).end(End.FORGOTTEN)

    async def close(self, epic: EpicId) -> None:
        """See `MergePort.close`."""
        path = self._folder(epic)
        sound = await self._repository.own(path)
        await self._pool.remove(path, _reason(epic), await self._repository.resolve("HEAD", at=path) if sound else None)

    async def _drop(self, epic: EpicId) -> None:
        await self._pool.remove(self._folder(epic), _reason(epic))

    def _folder(self, epic: EpicId) -> Path:
        return self._root / epic / INTEGRATION_FOLDER

    async def _ready(self, epic: EpicId, tip: Sha) -> Path:
        """The worktree, clean and at the tip, whatever a crash or a check left there. Ignored files stay."""
        path = self._folder(epic)
        if await self._repository.own(path):
            try:
                await self._clean(path, tip)
            except Fault:
                await self._drop(epic)  # broken beyond cleaning; nothing of value is in it
            else:
                return path
        else:
            await self._drop(epic)
        await self._pool.add(path, None, _reason(epic), tip)
        await include(self._repository, path)
        return path

    async def _clean(self, path: Path, tip: Sha) -> None:
        git_dir = (await self._git.read("rev-parse", "--absolute-git-dir", at=path)).path
        await trees.clear_locks(git_dir)
        for name, operation in _UNFINISHED.items():
            if await anyio.Path(git_dir / name).exists():
                await self._git.write(operation, "--quit", at=path)
        await self._checkout(path, tip)
        await self._git.write("clean", "-ffdq", at=path)

    async def _checkout(self, path: Path, sha: Sha) -> None:
        """Detached and by force: `reset --hard` would move a branch that a check may have switched to."""
        await self._git.write("checkout", "--force", "--detach", "--quiet", sha, at=path)

    async def _conflict(self, path: Path, tip: Sha) -> Conflicted | None:
        """What the stopped rebase or merge stands on; None when it did not stop for a conflict."""
        argv = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative")
        paths = (await self._git.read(*argv, "--name-only", "--diff-filter=U", "-z", at=path)).names
        hunks = (await self._git.read(*argv, at=path)).text
        cut = hunks if len(hunks) <= DETAIL_CHARS else hunks[:DETAIL_CHARS] + "\n... (cut)"
        return Conflicted(tip, tuple(sorted(set(paths))), cut) if paths else None


def _reason(epic: EpicId) -> str:
    return f"epicwave {epic} integration"
