"""The port `Probe` in memory, on one `FakeGit`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

from mcp_server.adapters.git.names import integration_branch
from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId
from mcp_server.probe import Look, Seen, Sight
from mcp_server.testing.fake_git import place_of
from mcp_server.testing.fake_repository import HEADS, USER_DESK, FakeGit, Files, changed, merged

Shot = tuple[Files, Files]
"""All files where its history leaves the integration branch, and as they are now."""


class FakeProbe:
    """Whole files conflict, as they do in `FakeMerge`."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git
        self._known: dict[AttemptId, Shot] = {}

    async def look(self, sights: Sequence[Sight], fresh: Collection[AttemptId] | None = None) -> Look:
        """See `Probe.look`."""
        await self._git.glance("look")
        before = self._known
        known: dict[AttemptId, Shot] = {}
        for sight in sights:
            is_due = fresh is None or sight.attempt in fresh or sight.head or sight.attempt not in before
            shot = (self._shot(sight) if is_due else None) or before.get(sight.attempt)
            if shot is not None:
                known[sight.attempt] = shot
        self._known = known
        clashes: dict[AttemptId, list[Clash]] = {attempt: self._with_the_tip(attempt) for attempt in known}
        for a, b in combinations(sorted(known), 2):
            (fork, mine), (_, theirs) = known[a], known[b]
            if paths := tuple(p for p in changed(fork, mine) if p in self._files(b) and mine.get(p) != theirs.get(p)):
                clashes[a].append(Clash(b, paths))
                clashes[b].append(Clash(a, paths))
        seen = {attempt: Seen(self._files(attempt), tuple(clashes[attempt])) for attempt in known}
        return Look(seen, changed=known != before)

    async def close(self) -> None:
        """See `Probe.close`."""
        self._known = {}

    def _files(self, attempt: AttemptId) -> tuple[str, ...]:
        return changed(*self._known[attempt])

    def _with_the_tip(self, attempt: AttemptId) -> list[Clash]:
        tip = self._git.refs.get(f"{HEADS}{integration_branch(attempt.epic)}")
        fork, now = self._known[attempt]
        paths = merged(self._git.commits[tip].files, fork, now)[1] if tip else ()
        return [Clash(None, paths)] if paths else []

    def _shot(self, sight: Sight) -> Shot | None:
        """None when there is nothing to be seen: no worktree, or one in the middle of a rebase."""
        git = self._git
        place = place_of(git, sight.attempt)
        desk = git.desks.get(place) if place and place != USER_DESK else None
        if sight.head is None and (desk is None or desk.rebasing or desk.merging):
            return None
        head = sight.head or (desk.head if desk else sight.base)
        tip = git.refs.get(f"{HEADS}{integration_branch(sight.attempt.epic)}")
        fork = git.fork(head, tip or sight.base) or sight.base
        files = git.commits[head].files if sight.head or desk is None else desk.files
        return git.commits[fork].files, dict(files)
