"""The port `MergePort` on real git: rebase without a worktree, or in one of our own; compare-and-set the branch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from mcp_server.adapters.git import trees
from mcp_server.adapters.git.conflicts import detail, real_paths
from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.include import include
from mcp_server.adapters.git.names import (
    INTEGRATION_FOLDER,
    LANDED,
    attempt_of_ref,
    integration_branch,
    landed_ref,
    next_recovery,
    recovery_refs,
)
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.remains import End, Remains
from mcp_server.adapters.git.repository import Repository, text_of
from mcp_server.adapters.git.saving import committed, tree_with
from mcp_server.adapters.git.settling import Shared, by_settings, shared
from mcp_server.adapters.git.submodules import heeded
from mcp_server.adapters.git.weave import NotHere, Weave, cut, parents_of, rewritten, tree_of
from mcp_server.core.merge_rules import MergeRule
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landed, Landing

_RERERE = ("-c", "rerere.enabled=true", "-c", "rerere.autoUpdate=true")
_REPLAYS = 200
"""Times that a rebase goes on after git remembered how a conflict was settled."""
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

    async def rebase(
        self, attempt: AttemptId, base: Sha, head: Sha, onto: Sha | None = None, rules: Sequence[MergeRule] = ()
    ) -> Landing | Conflicted:
        """See `MergePort.rebase`.

        Commits that the tip has already, under another sha too, are dropped. A branch that has merge commits of its own
        is merged and not rebased: flattening would drop what was settled in them. Those of others, which are in it when
        its agent rebased it onto an earlier tip, do not count.

        A branch of which the rules would leave nothing, because all it does is to change files that are made anew, is
        in conflict: what its author meant by that no command knows.
        """
        tip = onto or await self.tip(attempt.epic)
        if await self._repository.is_ancestor(head, tip):
            return Landing(tip, tip, ())
        merges = await self._git.read("rev-list", "--merges", "--max-count=1", head, f"^{tip}", f"^{base}")
        message = f"Merge {attempt}" if merges.out else None
        has = await shared(self._repository, tip, head, rules, has_merges=bool(message))
        landed = await self._joined(attempt.epic, tip, head, message, has)
        if landed == tip and has.only:
            has = has.without_regenerated()
            landed = await self._joined(attempt.epic, tip, head, message, has)
        if isinstance(landed, Conflicted):
            return landed
        made = has.regenerated if landed != tip else {}
        stale = await self._repository.changed(landed, head) if made else ()
        orders = tuple((path, made[path]) for path in stale if path in made)
        return Landing(tip, landed, await self._repository.changed(tip, landed), orders)

    async def _joined(self, epic: EpicId, tip: Sha, head: Sha, message: str | None, has: Shared) -> Sha | Conflicted:
        """The branch on top of the tip, if possible without a worktree; merged when there is a message for it."""
        weave = Weave(self._repository, tip, has)
        try:
            woven = await (weave.merged(head, message) if message else weave.replayed(head))
        except NotHere:
            woven = None
        if woven is not None and not (isinstance(woven, Conflicted) and await self._remembers()):
            return woven
        return await self._in_worktree(epic, tip, head, message, has)

    async def _in_worktree(
        self, epic: EpicId, tip: Sha, head: Sha, message: str | None, has: Shared
    ) -> Sha | Conflicted:
        """The same in the integration worktree, for old gits, and for all that git does only there."""
        path = await self._ready(epic, tip)
        if message:
            step = ("merge", "--no-ff", "--no-edit", "--no-verify", "-m", message, head)
        else:
            await self._checkout(path, head)
            step = ("rebase", "--no-fork-point", "--no-verify", "--empty=drop", tip)
        heed = await heeded(self._repository, head)
        recall = _RERERE if await self._remembers() else ()
        async with by_settings(self._repository, has) as settings:
            ended = await self._git.write(*settings, *heed, *recall, *step, at=path, ok=(0, 1, 128))
            for _ in range(_REPLAYS if recall else 0):
                if ended.code == 0 or not await self._is_settled(path):
                    break
                go_on = ("commit", "--no-edit", "--no-verify") if message else ("rebase", "--continue")
                ended = await self._git.write(*settings, *heed, *recall, *go_on, at=path, ok=(0, 1, 128))
        if ended.code:
            conflict = await self._conflict(path, tip, ended.text)
            await self._ready(epic, tip)
            if conflict:
                return conflict
            raise Fault(FaultCause.GIT, f"`git {step[0]}` of {head[:10]} ended with {ended.code}: {ended.err[-2000:]}")
        return (await self._git.read("rev-parse", "HEAD", at=path)).text

    async def _remembers(self) -> bool:
        """True when the user has git remember how conflicts were settled; we never switch that on for them."""
        asked = ("config", "--show-scope", "--type=bool", "--get-all", "rerere.enabled")
        lines = (await self._git.read(*asked, ok=(0, 1))).text.splitlines()
        said = [line for line in lines if not line.startswith("command")]  # by ourselves
        if said:
            return said[-1].endswith("true")
        return await anyio.Path(self._repository.common_dir, "rr-cache").is_dir()

    async def _is_settled(self, path: Path) -> bool:
        """True in the middle of a rebase or merge that stopped, when nothing is left to settle."""
        git_dir = (await self._git.read("rev-parse", "--absolute-git-dir", at=path)).path
        stopped = [name for name in _UNFINISHED if await anyio.Path(git_dir / name).exists()]
        return bool(stopped) and not (await self._git.read("ls-files", "--unmerged", at=path)).out

    async def amend(self, attempt: AttemptId, landing: Landing, paths: Sequence[str]) -> Landing:
        """See `MergePort.amend`. What else lies in the worktree is left out. At worst it is a commit of its own."""
        path = self._folder(attempt.epic)
        tree = await tree_with(self._repository, path, landing.head, paths)
        raw = (await self._git.read("cat-file", "commit", landing.head)).out
        if tree == tree_of(raw):
            return replace(landing, regenerate=())
        try:
            head = await rewritten(self._repository, raw, tree, tuple(parents_of(raw)))
        except NotHere:  # a commit that cannot be written again as it is
            head = await committed(self._repository, tree, [landing.head], f"made anew: {', '.join(paths)}")
        return Landing(landing.onto, head, await self._repository.changed(landing.onto, head))

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

        The branch comes last: of the refs in one transaction git writes the first one first, a note whose commit the
        branch does not have counts for nothing, and so does a recovery ref with the commit that it still is at.
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
        was = await self._repository.refs(recovery_refs(epic))
        new = {**next_recovery(epic, was, onto), **notes, ref: head}
        try:
            await self._repository.change_refs(old={**old, ref: onto}, new=new, why="merged")
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

    async def _conflict(self, path: Path, tip: Sha, said: str) -> Conflicted | None:
        """What the stopped rebase or merge stands on; None when it did not stop for a conflict."""
        argv = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=none")
        paths = (await self._git.read(*argv, "--name-only", "--diff-filter=U", "-z", at=path)).names
        hunks = (await self._git.read("-c", "core.quotePath=false", *argv, at=path)).text
        return Conflicted(tip, real_paths(paths), cut(detail(said, hunks))) if paths else None


def _reason(epic: EpicId) -> str:
    return f"epicwave {epic} integration"
