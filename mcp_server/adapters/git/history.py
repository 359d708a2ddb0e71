"""What git has of a repository: its files at HEAD, and those of its last commits. Read only, and kept by HEAD."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from mcp_server.adapters.git.repository import Repository
from mcp_server.core.predict import NO_PAST, Past
from mcp_server.core.spec import Sha
from mcp_server.errors import Fault

COMMITS = 500
"""Enough to know what belongs together; older ones tell of another code base."""
LIMIT_S = 10.0
"""What planning waits for it. 500 commits of a repository with 50,000 files take about a second."""
_COMMIT = "\x01"


@dataclass(slots=True)
class GitHistory:
    """The history of one repository. Stores the last answer, since HEAD seldom moves between two plans."""

    repository: Repository
    _known: tuple[Sha, Past] | None = field(default=None, init=False)

    async def past(self) -> Past:
        """As of HEAD. Empty when git cannot say in time: a guess is not worth a refusal."""
        try:
            head = await self.repository.head_sha()
            if self._known is not None and self._known[0] == head:
                return self._known[1]
            found = Past()
            with anyio.move_on_after(LIMIT_S):
                found = await self._read(head)
                self._known = head, found
        except Fault:
            return NO_PAST
        return found

    async def _read(self, head: Sha) -> Past:
        git, top = self.repository.git, self.repository.top
        env = {"GIT_NO_LAZY_FETCH": "1"}  # of a partial clone: what is not here is not fetched for a guess
        files = await git.read("ls-tree", "-r", "-z", "--name-only", "--full-tree", head, at=top, env=env)
        log = await git.read(
            *("-c", "core.quotePath=false", "-c", "log.showSignature=false", "-c", "diff.renames=false"),
            *("log", "-z", "--no-merges", f"--max-count={COMMITS}", "--name-only", "--format=%x01", "--no-renames"),
            *("--no-ext-diff", "--no-textconv", "--ignore-submodules=none", head, "--"),
            at=top,
            env=env,
        )
        return Past(frozenset(files.names), tuple(_changes(log.out.decode("utf-8", "replace"))))


def _changes(text: str) -> list[frozenset[str]]:
    """The files of each commit, of `log -z --format=%x01 --name-only`, where names end with NUL."""
    commits = text.split(_COMMIT)[1:]
    return [frozenset(name for name in commit.replace("\0\n", "\0").split("\0") if name) for commit in commits]
