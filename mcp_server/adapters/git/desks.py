"""Worktrees of ours for landing and rolling back: new each time, and gone afterwards. Merges are made in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio

from mcp_server.adapters.git.include import include
from mcp_server.adapters.git.names import RECOVERY
from mcp_server.adapters.git.pool import Pool
from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import EpicId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.land_port import Clash, Desk


@dataclass(frozen=True, slots=True)
class Desks:
    """`<root>/<epic>/_landing` and `_rollback`, detached; nothing of value is ever in them."""

    repository: Repository
    pool: Pool

    async def made(self, epic: EpicId, desk: Desk, sha: Sha) -> Path:
        """The worktree, new and at the commit."""
        path = self._folder(epic, desk)
        await self.pool.remove(path, _reason(epic, desk))
        await self.pool.add(path, None, _reason(epic, desk), sha)
        await include(self.repository, path)
        return path

    async def close(self, epic: EpicId) -> None:
        """Remove both."""
        for desk in Desk:
            await self.pool.remove(self._folder(epic, desk), _reason(epic, desk))

    async def merged(self, epic: EpicId, desk: Desk, ours: Sha, theirs: Sha) -> str | Clash:
        """The tree of both together, made as `git merge` makes it; no commit, no ref."""
        path, git = await self.made(epic, desk, ours), self.repository.git
        step = ("merge", "--no-commit", "--no-ff", "--no-verify", "--no-verify-signatures", "-m", "epicwave", theirs)
        ended = await git.write(*step, at=path, ok=(0, 1, 128))
        if ended.code:
            diff = await git.read("diff", "--no-relative", "--name-only", "--diff-filter=U", "-z", at=path)
            if diff.names:
                return Clash(tuple(sorted(set(diff.names))))
            raise Fault(FaultCause.GIT, f"`git merge` in {path} ended with {ended.code}: {ended.err[-2000:]}")
        return (await git.write("write-tree", at=path)).text

    def _folder(self, epic: EpicId, desk: Desk) -> Path:
        return self.pool.root / epic / desk


def _reason(epic: EpicId, desk: Desk) -> str:
    return f"epicwave {epic} {desk}"


async def recovery_ref(repository: Repository, epic: EpicId, kind: str) -> str:
    """A new name below `refs/epicwave/recovery/<epic>/`, counted: `land-000001`."""
    before = f"{RECOVERY}{epic}/{kind}-"
    taken = [ref.removeprefix(before) for ref in await repository.refs(f"{RECOVERY}{epic}/") if ref.startswith(before)]
    number = max((int(last) for last in taken if last.isascii() and last.isdigit()), default=0) + 1
    return f"{before}{number:06}"


async def same_folder(one: Path, other: Path) -> bool:
    """True when both are the same place, through whatever links."""
    return await anyio.Path(one).resolve() == await anyio.Path(other).resolve()
