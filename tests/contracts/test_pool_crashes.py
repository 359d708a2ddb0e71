"""Kills around the pool: what they leave is adopted by the next engine, or removed; and nobody else's is touched."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mcp_server.adapters.git.remains import End, Remains
from mcp_server.adapters.git.second_hand import idle_entry
from mcp_server.adapters.git.trash import Trash
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import NoCommits
from tests.contracts.git_worlds import START, PooledWorld, git, worked
from tests.contracts.test_git_crashes import LIFE, quiet
from tests.contracts.test_lent_crashes import Doom, doom
from tests.contracts.test_pool import pooled

__all__ = ["doom", "pooled"]

pytestmark = pytest.mark.anyio


async def cleared(pooled: PooledWorld) -> None:
    """What the next engine does at its start; then there is nothing but sound worktrees in the pool."""
    pooled.restart()
    for attempt in await pooled.worktrees.held():
        await pooled.worktrees.rescue(attempt)
    pooled.restart()
    assert await pooled.pool.settle(20)
    inside = sorted(str(path.relative_to(pooled.root)) for path in pooled.root.glob("*/*"))
    assert inside == pooled.entries(), "folders, and what git knows of"
    assert inside == sorted(str(path.relative_to(pooled.root)) for path in pooled.pool.idle)
    assert all(idle_entry(pooled.top / ".git", path) for path in pooled.pool.idle)
    assert len(list((pooled.top / ".git").glob("worktrees/*"))) == len(inside)
    assert list((pooled.top / ".git" / "epicwave" / "tmp").glob("entry-*")) == []


async def killed_everywhere(
    pooled: PooledWorld,
    doom: Doom,
    prepare: Callable[[AttemptId], Awaitable[object]],
    act: Callable[[AttemptId], Awaitable[object]],
    then: Callable[[AttemptId], None],
) -> int:
    """Kill `act` before and after each of its lasting changes, look each time. Returns how many kills there were."""
    number = 0
    for after in (False, True):
        at = 0
        while True:
            number, at = number + 1, at + 1
            attempt, other = AttemptId("e", "S1", number), AttemptId("e", "S2", number)
            await prepare(attempt)
            async with doom.strikes(at, after=after):
                await act(attempt)
            struck = doom.count >= at
            await cleared(pooled)
            then(attempt)
            async with pooled.worktrees.hold(other, pooled.first) as path:
                assert await pooled.worktrees.inspect(other, pooled.first) == NoCommits()
                assert {name: (path / name).read_text() for name in START} == START
            if not struck:
                break
    return number - 2


async def left_in_a_mess(pooled: PooledWorld, attempt: AttemptId) -> None:
    """One that waits, and has been somebody else's."""
    async with pooled.worktrees.hold(attempt._replace(story="S0"), pooled.first) as path:
        pooled.write(path, "junk.log", "somebody else's\n")
        pooled.write(path, "a.txt", "somebody else's\n")
    assert len(pooled.pool.idle) == 1


async def test_a_kill_while_one_is_taken_leaves_nothing_of_either_attempt(pooled: PooledWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> None:
        await left_in_a_mess(pooled, attempt)

    async def act(attempt: AttemptId) -> None:
        await pooled.crashed(attempt, pooled.first)

    def then(attempt: AttemptId) -> None:
        assert pooled.sha(f"refs/epicwave/rescue/{attempt}") is None, "somebody else's files are no work of this one"

    assert await killed_everywhere(pooled, doom, prepare, act, then) >= 14


async def test_a_kill_while_one_goes_back_loses_no_work(pooled: PooledWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> None:
        pooled.write(await pooled.crashed(attempt, pooled.first), "a.txt", f"half {attempt}\n")

    async def act(attempt: AttemptId) -> None:
        await Remains.of(pooled.pool, attempt).end(End.RESCUED, reuse=True)

    def then(attempt: AttemptId) -> None:
        assert pooled.files(f"refs/epicwave/rescue/{attempt}") == {**START, "a.txt": f"half {attempt}\n"}

    assert await killed_everywhere(pooled, doom, prepare, act, then) >= 10


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("seed", range(2))
async def test_a_kill_9_of_a_pooled_life_loses_no_work_and_leaks_nothing(pooled: PooledWorld, seed: int) -> None:
    """Its six attempts run two by two, so that the later ones have the worktrees of the earlier."""
    life = LIFE.replace("GitWorktrees(repository, Path(sys.argv[2]))", POOLED).replace(*IMPORTS).replace(*IN_TURN)
    assert (life.count("Keeping"), life.count("(1, 5, 9)")) == (2, 1)
    told = killed_after(random.Random(seed).uniform(0, 0.8), life, pooled)  # noqa: S311 - any moment will do
    await quiet(pooled.top)
    await cleared(pooled)
    for number in told:
        assert pooled.files(f"refs/epicwave/rescue/e/S1/{number}") == {**START, "a.txt": f"half {number}\n"}
    assert git(pooled.top, "status", "--porcelain") == ""


def killed_after(after_s: float, life: str, pooled: PooledWorld) -> list[int]:
    argv = [sys.executable, "-c", life, str(pooled.top), str(pooled.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline())]
        time.sleep(after_s)  # the moment of the kill is what is tried here
        process.send_signal(signal.SIGKILL)
        return told + [int(line) for line in process.stdout.read().split()]


POOLED = "GitWorktrees(repository, Path(sys.argv[2]), Pool(repository, Path(sys.argv[2]), Keeping(2)))"
IMPORTS = ("async def main():", "from mcp_server.adapters.git.pool import Keeping, Pool\nasync def main():")
IN_TURN = (
    """    async with anyio.create_task_group() as group:
        for number in range(1, 5):
            group.start_soon(one, ports, base, number)
""",
    """    for first in (1, 5, 9):
        async with anyio.create_task_group() as group:
            for number in (first, first + 2):
                group.start_soon(one, ports, base, number)
""",
)


# --- what was thrown away


async def test_what_a_killed_engine_had_still_to_delete_goes_at_the_next_start(pooled: PooledWorld) -> None:
    for name in ("one/deep/file", "two/file"):
        pooled.write(pooled.root / "_trash", name, "much\n")
    assert await pooled.worktrees.held() == []
    pooled.restart()
    assert await pooled.pool.settle(20)
    assert not (pooled.root / "_trash").exists()


async def test_what_lies_in_the_pool_and_is_no_sound_worktree_goes_at_the_next_start(pooled: PooledWorld) -> None:
    await worked(pooled, AttemptId("e", "S1", 1), pooled.first, {"a.txt": "1\n"})
    (idle,) = pooled.pool.idle
    shutil.copytree(idle, idle.with_name("copy"))
    pooled.write(idle.parent, "heap/0", "moved out of the way\n")
    git(pooled.top, "worktree", "add", "-q", "--detach", str(idle.with_name("foreign")), pooled.first)
    shutil.rmtree(idle.with_name("foreign"))
    await cleared(pooled)
    assert pooled.pool.idle == (idle,)


async def test_a_smaller_pool_gives_up_what_is_beyond_it(pooled: PooledWorld) -> None:
    one, two = (pooled.worktrees.hold(AttemptId("e", f"S{number}", 1), pooled.first) for number in (1, 2))
    async with one, two:
        pass
    pooled.size = 1
    await cleared(pooled)
    assert len(pooled.pool.idle) == 1


async def test_worktrees_of_the_users_that_are_not_there_now_stay_on_gits_list(pooled: PooledWorld) -> None:
    """On a disk that is not mounted: a blanket `git worktree prune` would forget them."""
    far = [pooled.top.parent / "unmounted" / name for name in ("plain", "locked")]
    git(pooled.top, "worktree", "add", "-q", "-b", "side", str(far[0]))
    git(pooled.top, "worktree", "add", "-q", "--detach", "--lock", str(far[1]))
    (pooled.top.parent / "unmounted").rename(pooled.top.parent / "elsewhere")
    before = pooled.entries()
    assert len(before) == 2
    async with pooled.worktrees.hold(AttemptId("e", "S1", 1), pooled.first) as path:
        # its agent points it at one of them
        (path / ".git").write_text(f"gitdir: {pooled.top}/.git/worktrees/plain\n")
    await pooled.worktrees.rescue(AttemptId("e", "S1", 1))
    await cleared_but(pooled, before)
    (pooled.top.parent / "elsewhere").rename(pooled.top.parent / "unmounted")
    assert git(far[0], "branch", "--show-current") == "side\n"


async def cleared_but(pooled: PooledWorld, theirs: list[str]) -> None:
    pooled.restart()
    await pooled.pool.empty()
    assert pooled.entries() == theirs


def test_the_trash_makes_do_without_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file system, or Windows with an open file."""

    def refused(path: Path, to: Path) -> Path:
        raise OSError(18, "Invalid cross-device link", str(path), str(to))

    (tmp_path / "tree" / "deep").mkdir(parents=True)
    monkeypatch.setattr(Path, "rename", refused)
    Trash(tmp_path / "_trash").throw(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_what_cannot_be_deleted_does_not_keep_the_thread_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise Fault(FaultCause.DISK, f"{path} could not be removed")

    (tmp_path / "tree").mkdir()
    trash = Trash(tmp_path / "_trash")
    trash.throw(tmp_path / "tree")
    monkeypatch.setattr("mcp_server.adapters.git.trash.delete", refused)
    trash.empty_later()
    assert trash.settle(20)
    assert len(list(trash.folder.iterdir())) == 1
    monkeypatch.undo()
    trash.empty_later()
    assert trash.settle(20)
    assert not trash.folder.exists()


def test_an_engine_killed_between_the_files_and_their_folder_leaves_no_empty_folder(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "_trash")
    trash.folder.mkdir()
    trash.empty_later()
    assert trash.settle(20)
    assert not trash.folder.exists()
