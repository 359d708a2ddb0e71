"""The contract of the port `Worktrees` once more, with worktrees that earlier attempts had, and left in a mess."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.core.spec import AttemptId
from tests.contracts.git_worlds import PooledWorld, git
from tests.contracts.test_worktrees import *  # noqa: F403 - its tests, with the world below

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(tmp_path: Path, no_user_config: None) -> PooledWorld:
    world = await PooledWorld.make(tmp_path)
    assert isinstance(world, PooledWorld)
    one, two = (world.worktrees.hold(AttemptId("earlier", "S1", number), world.first) for number in (1, 2))
    async with one as first, two as second:
        for path in (first, second):
            (path / "a.txt").write_text("someone else's\n")
            (path / "dir" / "c.txt").unlink()
            (path / "dir" / "junk").mkdir()
            (path / "late.txt").write_text("someone else's\n")
            git(path, "checkout", "-q", "-b", f"strange-{path.name}")
    assert len(world.pool.idle) == 2
    for ref in git(world.top, "for-each-ref", "--format=%(refname)", "refs/epicwave", "refs/heads/strange*").split():
        git(world.top, "update-ref", "-d", ref)
    return world
