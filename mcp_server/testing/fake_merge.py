"""The port `MergePort` in memory, on the same `FakeGit` as `FakeWorktrees`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mcp_server.adapters.git.names import (
    INTEGRATION_FOLDER,
    LANDED,
    attempt_of_ref,
    attempt_ref,
    base_ref,
    integration_branch,
    landed_ref,
    next_recovery,
    recovery_refs,
    settled_ref,
)
from mcp_server.core.merge_rules import MergeRule, Way, rule_of
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landed, Landing
from mcp_server.testing.fake_git import ROOT, folder, leave_branch, save, told
from mcp_server.testing.fake_repository import HEADS, USER_DESK, FakeGit

_BENCH = ROOT / "_bench"
"""A desk for a moment: the real one needs no worktree."""


def _settled(rule: MergeRule, here: str, there: str) -> str:
    """The lines of both, or the tip's side."""
    if rule.way is not Way.UNION:
        return here
    return here + "".join(
        line for line in there.splitlines(keepends=True) if line not in here.splitlines(keepends=True)
    )


class FakeMerge:
    """The port `MergePort` in memory."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git

    async def tip(self, epic: EpicId) -> Sha:
        """See `MergePort.tip`."""
        await self._git.step("tip")
        return self._tip(epic)

    async def rebase(
        self, attempt: AttemptId, base: Sha, head: Sha, onto: Sha | None = None, rules: Sequence[MergeRule] = ()
    ) -> Landing | Conflicted:
        """See `MergePort.rebase`. A branch with merge commits of its own is merged, as the real one does."""
        await self._git.step("rebase")
        git, tip = self._git, onto or self._tip(attempt.epic)
        if git.is_ancestor(head, tip):
            return Landing(tip, tip, ())
        settled = {path: rule for path in git.changed(base, head) if (rule := rule_of(rules, path))}
        sides = [git.commits[sha].files for sha in (base, tip, head)]
        for path in [path for path, rule in settled.items() if rule.way is Way.UNION]:
            before, *after = (set(files.get(path, "").splitlines()) for files in sides)
            if not all(before <= lines for lines in after):
                del settled[path]
        made = {path: rule.command for path, rule in settled.items() if rule.way is Way.REGENERATE}
        landed = self._joined(tip, base, head, settled)
        if landed == tip and set(git.changed(base, head)) <= made.keys():
            landed = self._joined(tip, base, head, {path: settled[path] for path in settled.keys() - made.keys()})
        if isinstance(landed, Conflicted):
            return landed
        stale = git.changed(landed, head) if landed != tip else ()
        orders = tuple((path, made[path]) for path in stale if path in made)
        return Landing(tip, landed, git.changed(tip, landed), orders)

    def _joined(self, tip: Sha, base: Sha, head: Sha, settled: Mapping[str, MergeRule]) -> Sha | Conflicted:
        git = self._git
        merges = git.has_merges(head, tip, base)
        git.check_out(_BENCH, tip if merges else head)
        clashes = git.merge(_BENCH, head) if merges else git.rebase(_BENCH, tip)
        while clashes and all(path in settled for path in clashes):
            desk = git.desks[_BENCH]
            here = git.commits[desk.head].files
            for path in clashes:
                git.write(_BENCH, path, _settled(settled[path], here.get(path, ""), desk.files.get(path, "")))
            clashes = () if merges and git.commit(_BENCH) else git.rebase_continue(_BENCH)
        desk = git.desks.pop(_BENCH)
        if not clashes:
            return desk.head
        here, there = (git.commits[sha].files for sha in (desk.head, (*desk.replays, head)[0]))
        named = tuple(path for path in clashes if path not in settled)
        detail = (f"{name}: {here.get(name)!r} here, {there.get(name)!r} there" for name in named)
        return Conflicted(tip, named, "\n".join(detail))

    async def amend(self, attempt: AttemptId, landing: Landing, paths: Sequence[str]) -> Landing:
        """See `MergePort.amend`."""
        await self._git.step("amend")
        git, desk = self._git, self._git.desks[ROOT / attempt.epic / INTEGRATION_FOLDER]
        last = git.commits[landing.head]
        files = {path: text for path, text in last.files.items() if path not in paths}
        files |= {path: desk.files[path] for path in paths if path in desk.files}
        if files == last.files:
            return replace(landing, regenerate=())
        head = git.record(files, *last.parents)
        return Landing(landing.onto, head, git.changed(landing.onto, head))

    async def checkout(self, epic: EpicId, at: Sha | None = None) -> Path:
        """See `MergePort.checkout`."""
        await self._git.step("checkout")
        path = ROOT / epic / INTEGRATION_FOLDER
        if at is not None or path not in self._git.desks:
            self._git.check_out(path, at or self._tip(epic))
        return path

    async def set_up_by(self, epic: EpicId) -> str:
        """See `MergePort.set_up_by`."""
        await self._git.step("set_up_by")
        desk = self._git.desks.get(ROOT / epic / INTEGRATION_FOLDER)
        return desk.set_up_by if desk else ""

    async def note_set_up(self, epic: EpicId, by: str) -> None:
        """See `MergePort.note_set_up`."""
        self._git.desks[await self.checkout(epic)].set_up_by = by

    async def advance(
        self, attempt: AttemptId, onto: Sha, head: Sha, before: Sequence[tuple[AttemptId, Sha]] = ()
    ) -> bool:
        """See `MergePort.advance`."""
        await self._git.step("advance")
        tip, branch = self._tip(attempt.epic), integration_branch(attempt.epic)
        notes = {landed_ref(each): sha for each, sha in (*before, (attempt, head))}
        if self._git.is_ancestor(head, tip):
            for ref, sha in notes.items():
                noted = self._git.refs.get(ref)
                if noted is None or not self._git.is_ancestor(noted, tip):
                    self._git.refs[ref] = sha
            return True
        if not self._git.is_ancestor(onto, head):
            raise Fault(FaultCause.GIT, f"{head} does not descend from {onto}.")
        if had := self._git.where(f"{HEADS}{branch}"):
            raise Fault(FaultCause.BRANCH_CHECKED_OUT, f"{branch} is checked out in {told(had[0])}.")
        if tip == onto:
            was = {ref: sha for ref, sha in self._git.refs.items() if ref.startswith(recovery_refs(attempt.epic))}
            self._git.refs.update(next_recovery(attempt.epic, was, onto))
            self._git.refs.update(notes)
            self._git.refs[f"{HEADS}{branch}"] = head
        return tip == onto

    async def landed(self, epic: EpicId, but: Collection[StoryId] = ()) -> list[Landed]:
        """See `MergePort.landed`."""
        await self._git.step("landed")
        git = self._git
        tip = git.refs.get(f"{HEADS}{integration_branch(epic)}")
        noted = {
            a: sha for ref, sha in git.refs.items() if ref.startswith(f"{LANDED}{epic}/") if (a := attempt_of_ref(ref))
        }
        last = {a.story: (a, noted[a]) for a in sorted(noted) if tip and git.is_ancestor(noted[a], tip)}
        found: list[Landed] = []
        onto: Sha | None = None
        for attempt, head in sorted(last.values(), key=lambda at: (len(git.ancestry(at[1])), at[0])):
            before = onto or git.fork(head, git.desks[USER_DESK].head) or head
            onto = head
            if attempt.story not in but:
                found.append(Landed(attempt, Landing(before, head, git.changed(before, head))))
        return found

    async def contains(self, epic: EpicId, sha: Sha) -> bool:
        """See `MergePort.contains`."""
        await self._git.step("contains")
        return self._git.is_ancestor(sha, self._tip(epic))

    async def forget(self, attempt: AttemptId) -> None:
        """See `MergePort.forget`."""
        await self._git.step("forget")
        refs = self._git.refs
        save(self._git, attempt, refs.get(settled_ref(attempt)) or refs.get(attempt_ref(attempt)))
        self._git.desks.pop(folder(attempt), None)
        refs.pop(base_ref(attempt), None)
        leave_branch(self._git, attempt)

    async def close(self, epic: EpicId) -> None:
        """See `MergePort.close`."""
        await self._git.step("close")
        self._git.desks.pop(ROOT / epic / INTEGRATION_FOLDER, None)

    def _tip(self, epic: EpicId) -> Sha:
        ref = f"{HEADS}{integration_branch(epic)}"
        if ref not in self._git.refs:
            raise Fault(FaultCause.GIT, f"There is no {ref} any more.")
        return self._git.refs[ref]
