"""Kills in the middle of a merge: what git noted as landed is what the branch has, and nothing lands unnoted."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mcp_server.adapters.git.command import Answer, Git
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import Landing
from tests.contracts.git_worlds import RealWorld, worked
from tests.contracts.test_git_crashes import quiet
from tests.contracts.test_lent_crashes import Doom, doom, killed_everywhere

__all__ = ["doom"]

pytestmark = pytest.mark.anyio

S1 = AttemptId("e", "S1", 1)


async def test_a_merge_that_is_killed_at_any_change_lands_once_and_is_noted(real: RealWorld, doom: Doom) -> None:
    await real.start_epic("e")

    async def prepare(attempt: AttemptId) -> Landing:
        tip = await real.merge.tip("e")
        head = await worked(real, attempt, tip, {"a.txt": f"{attempt.number}\n"})
        landing = await real.merge.rebase(attempt, tip, head)
        assert isinstance(landing, Landing)
        prepared[attempt] = landing
        return landing

    async def act(attempt: AttemptId) -> None:
        landing = prepared[attempt]
        noted = {at.attempt: at.landing.head for at in await real.merge.landed("e")}
        moved = await real.merge.contains("e", landing.head)
        assert (noted.get(attempt) == landing.head) == moved, "no merge without its note, no note without its merge"
        assert await real.merge.advance(attempt, landing.onto, landing.head)

    async def then(attempt: AttemptId, landing: Landing) -> None:
        assert await real.merge.tip("e") == landing.head
        assert [at.attempt for at in await real.merge.landed("e")] == [attempt]

    prepared: dict[AttemptId, Landing] = {}
    assert await killed_everywhere(real, doom, prepare, act, then) >= 2


def the_hook(real: RealWorld, body: str) -> Path:
    """A hook of ours that sees each step of a change of refs. It lies where no hook of the user's is looked for."""
    hook = real.repository.state_dir / "no-hooks" / "reference-transaction"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{body}\n")
    hook.chmod(0o755)
    return hook


@pytest.mark.skipif(sys.platform == "win32", reason="a hook is a shell script")
@pytest.mark.parametrize("state", ["prepared", "committed"])
async def test_git_killed_in_the_middle_of_a_merge_leaves_no_merge_without_its_note(
    real: RealWorld, state: str
) -> None:
    """Killed with every lock taken and nothing moved, or with everything moved and nobody told."""
    await real.start_epic("e")
    head = await worked(real, S1, real.first, {"a.txt": "1\n"})
    hook = the_hook(real, f'[ "$1" != {state} ] || kill -9 $PPID')
    with suppress(Fault):  # it sees for itself whether git had moved
        await real.merge.advance(S1, real.first, head)
    hook.unlink()
    await quiet(real.top)
    moved = real.sha("refs/heads/epicwave/e") == head
    assert moved == (state == "committed")
    noted = [at.attempt for at in await real.merge.landed("e")]
    assert noted == ([S1] if moved else [])
    for lock in (real.top / ".git" / "refs").rglob("*.lock"):
        lock.unlink()  # a human's move: the fault named the file
    real.restart()
    assert await real.merge.advance(S1, real.first, head)
    assert [at.attempt for at in await real.merge.landed("e")] == [S1]


async def test_of_the_two_refs_of_a_merge_the_note_is_written_first(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git writes them one after the other; a kill between them must not leave a merge that nobody noted."""
    await real.start_epic("e")
    head = await worked(real, S1, real.first, {"a.txt": "1\n"})
    orders: list[bytes] = []
    write = Git.write

    async def seen(git: Git, *argv: str, stdin: bytes = b"", **more: Any) -> Answer:
        orders.extend([stdin] if argv[0] == "update-ref" else [])
        return await write(git, *argv, stdin=stdin, **more)

    monkeypatch.setattr(Git, "write", seen)
    assert await real.merge.advance(S1, real.first, head)
    assert len(orders) == 1, "one transaction"
    assert orders[0].index(b"refs/epicwave/landed/e/S1/1") < orders[0].index(b"refs/heads/epicwave/e")


async def test_half_a_merge_the_note_without_the_branch_is_made_whole(real: RealWorld) -> None:
    await real.start_epic("e")
    head = await worked(real, S1, real.first, {"a.txt": "1\n"})
    real.moves("refs/epicwave/landed/e/S1/1", head)
    real.restart()
    assert await real.merge.landed("e") == [], "the branch does not have it"
    assert await real.merge.advance(S1, real.first, head)
    assert [at.attempt for at in await real.merge.landed("e")] == [S1]
