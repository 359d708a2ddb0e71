"""Worktrees that come and go while the repository is looked at."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git.repository import listed, text_of
from mcp_server.core.spec import AttemptId
from tests.contracts.git_worlds import RealWorld

pytestmark = pytest.mark.anyio
ROUNDS = 12


async def test_a_folder_that_is_gone_is_an_empty_one(tmp_path: Path) -> None:
    assert listed(tmp_path / "worktrees") == []
    assert text_of(tmp_path / "worktrees" / "S1-1" / "locked") is None


async def test_looking_while_worktrees_come_and_go_never_fails(real: RealWorld) -> None:
    """A launch asks where a branch is checked out while other attempts are being made and removed."""
    await real.start_epic("e")
    looks = 0

    async def come_and_go(story: str) -> None:
        for number in range(1, ROUNDS):
            async with real.worktrees.hold(AttemptId("e", story, number), real.first):
                pass

    async def look() -> None:
        nonlocal looks
        while True:
            assert await real.repository.where_checked_out("epicwave/e") is None
            looks += 1

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(look)
        await come_and_go("S1")  # one at a time: then git's own folder of worktrees comes and goes as well
        group.cancel_scope.cancel()
    assert looks > ROUNDS
