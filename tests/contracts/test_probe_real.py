"""The live probe on real git alone: odd files, odd moments, an old git, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.adapters.git import probe as probing
from mcp_server.adapters.git import snapshot
from mcp_server.adapters.git.probe import GitProbe
from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.probe import Seen, Sight
from tests.contracts.git_worlds import RealWorld, git

pytestmark = pytest.mark.anyio
A, B = AttemptId("e", "a", 1), AttemptId("e", "b", 1)


async def staged(world: RealWorld, stack: AsyncExitStack) -> tuple[Path, Path]:
    if world.sha("refs/heads/epicwave/e") is None:
        await world.start_epic("e")
    base = world.first
    a, b = [await stack.enter_async_context(world.worktrees.hold(attempt, base)) for attempt in (A, B)]
    return a, b


async def look(world: RealWorld) -> dict[AttemptId, Seen]:
    return dict((await world.probe.look([Sight(A, world.first), Sight(B, world.first)])).seen)


def objects(world: RealWorld) -> set[str]:
    folder = world.repository.common_dir / "objects"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_a_rename_conflicts_with_another_one_of_the_same_file_and_not_with_an_edit(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        (a / "a.txt").rename(a / "moved.txt")
        (b / "a.txt").write_text("edited\n")
        seen = await look(real)
        assert seen[A].files == ("a.txt", "moved.txt")
        assert seen[A].clashes == ()
        (b / "a.txt").write_text("a\n")
        (b / "a.txt").rename(b / "away.txt")
        assert [c.other for c in (await look(real))[A].clashes] == [B]


async def test_a_file_in_a_folder_that_another_one_renames_is_a_conflict_without_a_common_path(
    real: RealWorld,
) -> None:
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        (a / "dir").rename(a / "elsewhere")
        real.write(b, "dir/new.txt", "new\n")
        seen = await look(real)
        assert set(seen[A].files).isdisjoint(seen[B].files)
        assert [c.other for c in seen[A].clashes] == [B]


async def test_a_file_where_another_one_makes_a_folder_is_a_conflict(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        real.write(a, "thing", "a file\n")
        real.write(b, "thing/inside.txt", "in a folder\n")
        assert [c.other for c in (await look(real))[A].clashes] == [B]


async def test_odd_files_are_seen_as_git_would_commit_them(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, _ = await staged(real, stack)
        (a / "a.txt").unlink()
        (a / "a.txt").mkdir()
        (a / "a.txt" / "inside").write_text("a folder where a file was\n")
        (a / "dir" / "c.txt").unlink()
        (a / "dir").rmdir()
        (a / "dir").symlink_to("b.txt")
        (a / "two\nlines ä.txt").write_text("odd\n")
        os.mkfifo(a / "pipe")
        (a / ".gitignore").write_text("*.log\n")
        (a / "noise.log").write_text("ignored\n")
        (a / "inner").mkdir()
        git(a / "inner", "init", "-q")
        (a / "inner" / "own.txt").write_text("of another repository\n")
        git(a, "add", "--intent-to-add", ".gitignore")
        git(a, "rm", "-q", "--cached", "b.txt")
        files = (await look(real))[A].files
        assert files == (".gitignore", "a.txt", "a.txt/inside", "dir", "dir/c.txt", "two\nlines ä.txt")


async def test_a_big_file_is_not_read_and_whoever_changes_it_too_conflicts(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "BIG_BYTES", 100)
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        for path, letter in ((a, "1"), (b, "2")):
            (path / "model.bin").write_text(letter * 101)
        seen = await look(real)
        assert seen[A] == Seen(("model.bin",), (Clash(B, ("model.bin",)),))


async def test_an_unsettled_file_without_an_operation_is_taken_as_it_lies_there(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, _ = await staged(real, stack)
        (a / "a.txt").write_text("stashed\n")
        git(a, "stash", "-q")
        (a / "a.txt").write_text("mine\n")
        git(a, "commit", "-qam", "mine")
        with pytest.raises(subprocess.CalledProcessError):
            git(a, "stash", "pop", "-q")
        assert (await look(real))[A].files == ("a.txt",)


async def test_a_lock_that_the_agent_holds_is_neither_minded_nor_taken(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, _ = await staged(real, stack)
        lock = Path(git(a, "rev-parse", "--absolute-git-dir").strip()) / "index.lock"
        lock.write_text("the agent's")
        (a / "a.txt").write_text("one\n")
        assert (await look(real))[A].files == ("a.txt",)
        assert lock.read_text() == "the agent's"
        lock.unlink()


@pytest.mark.parametrize("broken", ["index", "HEAD"])
async def test_a_worktree_that_git_cannot_read_is_told_as_it_was_seen_last(real: RealWorld, broken: str) -> None:
    async with AsyncExitStack() as stack:
        a, _ = await staged(real, stack)
        (a / "a.txt").write_text("one\n")
        before = await look(real)
        place = Path(git(a, "rev-parse", "--absolute-git-dir").strip()) / broken
        whole = place.read_bytes()
        place.write_bytes(b"torn")
        (a / "b.txt").write_text("two\n")
        assert await look(real) == before
        place.write_bytes(whole)
        assert (await look(real))[A].files == ("a.txt", "b.txt")


async def test_a_branch_that_begins_anew_is_measured_against_its_base(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        git(a, "checkout", "-q", "--orphan", "fresh")
        assert A not in await look(real), "a branch without a commit is not told yet"
        (a / "a.txt").write_text("one\n")
        git(a, "add", "-A")
        git(a, "commit", "-qm", "a root of its own")
        (b / "a.txt").write_text("two\n")
        assert (await look(real))[A] == Seen(("a.txt",), (Clash(B, ("a.txt",)),))


async def test_nothing_comes_into_the_users_repository_and_nothing_is_left_when_it_is_closed(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        (a / "a.txt").write_text("one\n")
        (b / "a.txt").write_text("two\n")
        before = objects(real)
        assert (await look(real))[A].clashes
        kept = real.repository.state_dir / "tmp" / "probe"
        assert objects(real) == before
        assert list(kept.rglob("*.index*")) == []
        assert any(path.is_file() for path in kept.rglob("*"))
        await real.probe.close()
        assert not kept.exists()


async def test_the_store_is_begun_anew_before_it_grows_large(real: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "STORE_LOOKS", 3)
    async with AsyncExitStack() as stack:
        a, _ = await staged(real, stack)
        kept = real.repository.state_dir / "tmp" / "probe" / "objects"
        counts: list[int] = []
        for number in range(9):
            (a / "a.txt").write_text(f"{number}\n")
            assert (await look(real))[A].files == ("a.txt",)
            counts.append(sum(path.is_file() for path in kept.rglob("*")))
        assert max(counts) < 3 * counts[0]


async def test_an_old_git_tells_of_files_that_both_have_changed_as_a_possible_conflict(real: RealWorld) -> None:
    real.probe = GitProbe(replace(real.repository, version=(2, 34)), real.root)
    async with AsyncExitStack() as stack:
        a, b = await staged(real, stack)
        (a / "a.txt").write_text("one\n")
        (b / "a.txt").write_text("two\n")
        (b / "b.txt").write_text("two\n")
        assert (await look(real))[A].clashes == (Clash(B, ("a.txt",), certain=False),)


async def test_without_a_repository_that_git_can_read_it_is_a_fault(real: RealWorld) -> None:
    async with AsyncExitStack() as stack:
        await staged(real, stack)
        head = real.repository.common_dir / "HEAD"
        whole = head.read_bytes()
        head.unlink()
        with pytest.raises(Fault):
            await look(real)
        head.write_bytes(whole)
