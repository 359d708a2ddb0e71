"""`.worktreeinclude`: ignored files of the user's that the worktrees of ours get, and that never come into git."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git import include as including
from mcp_server.adapters.git.disk import free_mb, weight_mb
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, NoCommits
from tests.contracts.git_worlds import START, RealWorld, git

pytestmark = pytest.mark.anyio

S1 = AttemptId("e", "S1", 1)
SAVED = "refs/epicwave/rescue/e/S1/1"
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and symlinks")


def ignore(real: RealWorld, *patterns: str, include: str) -> str:
    """The patterns are committed, so that every worktree has them; the user asks for `include`. The new base."""
    real.write(real.top, ".gitignore", "\n".join(patterns) + "\n")
    git(real.top, "add", ".gitignore")
    git(real.top, "commit", "-q", "-m", "ignore")
    real.write(real.top, ".worktreeinclude", include)
    return git(real.top, "rev-parse", "HEAD").strip()


def brought(path: Path) -> set[str]:
    """What the worktree has besides what was committed in it, links and all."""
    found = {str(p.relative_to(path).as_posix()) for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}
    return found - {*START, ".git", ".gitignore"}


async def in_worktree(real: RealWorld, base: str) -> set[str]:
    async with real.worktrees.hold(S1, base) as path:
        return brought(path)


async def test_what_is_named_and_ignored_is_copied_and_nothing_else(real: RealWorld) -> None:
    base = ignore(real, ".env*", "cache/", include="# ours\n.env*\n!.env.other\nuntracked.txt\na.txt\n")
    for name in (".env", ".env.other", "pkg/.env.local", "untracked.txt", "cache/x"):
        real.write(real.top, name, f"{name} of the user\n")
    real.write(real.top, "a.txt", "the user's own change\n")
    async with real.worktrees.hold(S1, base) as path:
        assert brought(path) == {".env", "pkg/.env.local"}
        assert (path / ".env").read_text() == ".env of the user\n"
        assert (path / "a.txt").read_text() == START["a.txt"]


async def test_without_the_file_nothing_is_copied(real: RealWorld) -> None:
    base = ignore(real, ".env", include="")
    real.write(real.top, ".env", "x")
    assert await in_worktree(real, base) == set()
    (real.top / ".worktreeinclude").unlink()
    assert await in_worktree(real, base) == set()


async def test_whole_folders_are_copied_and_patterns_reach_into_ignored_ones(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(including, "TOGETHER", 2)
    base = ignore(real, "node_modules/", "build/", include="node_modules/\n**/deep.json\n")
    inside = {f"node_modules/{name}" for name in ("a/index.js", "a/b/c.js", "z.js")}
    for name in (*inside, "build/x/deep.json", "build/x/other.json"):
        real.write(real.top, name, name)
    assert await in_worktree(real, base) == inside | {"build/x/deep.json"}


async def test_copies_are_no_work_and_come_into_no_branch_and_no_rescue_ref(real: RealWorld) -> None:
    base = ignore(real, ".env", "node_modules/", include=".env\nnode_modules/\n")
    real.write(real.top, ".env", "SECRET=1\n")
    real.write(real.top, "node_modules/a.js", "a")
    async with real.worktrees.hold(S1, base) as path:
        assert brought(path) == {".env", "node_modules/a.js"}
        assert await real.worktrees.inspect(S1, base) == NoCommits()
        real.write(path, "new.txt", "1\n")
        head = real.commit(path)  # git add -A
        assert await real.worktrees.inspect(S1, base) == Done(head, ("new.txt",))
        real.write(path, "half.txt", "2\n")
        await real.worktrees.inspect(S1, base)
    assert set(real.files(SAVED)) == {*START, ".gitignore", "new.txt", "half.txt"}
    assert not path.exists()
    assert (real.top / ".env").read_text() == "SECRET=1\n"


async def test_what_the_commit_in_the_worktree_does_not_ignore_is_left_out(real: RealWorld) -> None:
    """The user has ignored it only since then: there it would end on the attempt's branch."""
    ignore(real, ".env", include=".env\n")
    real.write(real.top, ".env", "SECRET=1\n")
    assert await in_worktree(real, real.first) == set()


async def test_a_tracked_file_is_never_overwritten_though_the_user_has_it_ignored(real: RealWorld) -> None:
    ignore(real, "a.txt", "dir/", include="a.txt\ndir/\n")
    git(real.top, "rm", "-q", "-r", "--cached", "a.txt", "dir")
    git(real.top, "commit", "-q", "-m", "not tracked any more")
    real.write(real.top, "a.txt", "the user's\n")
    real.write(real.top, "dir/c.txt", "the user's\n")
    async with real.worktrees.hold(S1, real.first) as path:
        assert {name: (path / name).read_text() for name in START} == START


@posix
async def test_links_are_copied_as_links_and_modes_are_kept(real: RealWorld, tmp_path: Path) -> None:
    base = ignore(real, "tools/", include="tools/\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private").write_text("p")
    real.write(real.top, "tools/run", "#!/bin/sh\n")
    (real.top / "tools/run").chmod(0o750)
    for name, target in (("out", outside), ("gone", "nowhere"), ("near", "run")):
        (real.top / "tools" / name).symlink_to(target)
    async with real.worktrees.hold(S1, base) as path:
        assert brought(path) == {"tools/run", "tools/out", "tools/gone", "tools/near"}
        assert {name: str((path / "tools" / name).readlink()) for name in ("out", "gone", "near")} == {
            "out": str(outside),
            "gone": "nowhere",
            "near": "run",
        }
        assert (path / "tools/run").stat().st_mode & 0o777 == 0o750
    assert (outside / "private").read_text() == "p"


@posix
async def test_nothing_is_written_through_a_link_that_the_commit_has(real: RealWorld, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (real.top / "cfg").symlink_to(outside)
    git(real.top, "add", "cfg")
    base = ignore(real, "cfg/", "dir/c.txt/", include="cfg/\ndir/\n")
    (real.top / "cfg").unlink()
    real.write(real.top, "cfg/local.json", "{}")
    (real.top / "dir/c.txt").unlink()
    real.write(real.top, "dir/c.txt/x", "a folder where the commit has a file")
    assert await in_worktree(real, base) == {"cfg"}
    assert list(outside.iterdir()) == []


async def test_a_repository_inside_is_copied_and_somebody_elses_worktree_is_not(real: RealWorld) -> None:
    base = ignore(real, "vendor/", ".claude/", include="vendor/\n.claude/\n")
    real.write(real.top, "vendor/lib/code.c", "c")
    git(real.top / "vendor" / "lib", "init", "-q")
    git(
        real.top / "vendor" / "lib", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"
    )
    real.host_desk("agent-1", base)
    found = await in_worktree(real, base)
    assert "vendor/lib/code.c" in found
    assert "vendor/lib/.git/HEAD" in found
    assert not any(name.startswith(".claude") for name in found)
    assert git(real.top, "worktree", "list").count("\n") == 2


async def test_names_that_need_care_are_copied(real: RealWorld) -> None:
    odd = "sp ace, é 日本.env" if sys.platform == "win32" else 'sp ace, "q"\nline, é 日本.env'
    base = ignore(real, "*.env", include="*.env\n")
    real.write(real.top, f"d ü/{odd}", "x")
    assert await in_worktree(real, base) == {f"d ü/{odd}"}


async def test_lent_worktrees_and_the_integration_worktree_get_them_too(real: RealWorld) -> None:
    base = ignore(real, ".env", include=".env\n")
    real.write(real.top, ".env", "x")
    lent = await real.worktrees.lend(S1, base, ours=True)
    assert lent is not None
    assert brought(lent) == {".env"}
    await real.repository.create_branch("epicwave/e", base)
    place = await real.merge.checkout("e")
    assert brought(place) == {".env"}
    await real.merge.rebase(S1, base, base)
    assert brought(place) == {".env"}, "cleaning leaves what is ignored"
    await real.worktrees.rescue(S1)
    assert real.sha(SAVED) is None


async def test_whoever_is_told_to_stop_while_files_are_copied_leaves_no_worktree(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ignore(real, "many/", include="many/\n")
    for number in range(10):
        real.write(real.top, f"many/{number}", "x")
    monkeypatch.setattr(including, "TOGETHER", 1)
    copied: list[Path] = []
    with anyio.CancelScope() as scope:

        def counted(names: list[str], top: Path, worktree: Path) -> None:
            copied.append(worktree)
            if len(copied) == 3:
                anyio.from_thread.run_sync(scope.cancel)

        monkeypatch.setattr(including, "_copy", counted)
        async with real.worktrees.hold(S1, base):
            pytest.fail("it was told to stop")
    assert len(copied) == 3
    assert await real.worktrees.held() == []
    assert not copied[0].exists()


@posix
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_cannot_be_read_is_a_fault_that_names_it(real: RealWorld) -> None:
    base = ignore(real, ".env", include=".env\n")
    real.write(real.top, ".env", "x")
    (real.top / ".env").chmod(0)
    with pytest.raises(Fault, match=r"\.env could not be copied") as caught:
        await in_worktree(real, base)
    assert caught.value.cause is FaultCause.DISK


async def test_a_file_that_goes_while_we_look_is_left_out_and_one_that_cannot_be_written_is_a_fault(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ignore(real, ".env*", include=".env*\n")
    for name in (".env.1", ".env.2"):
        real.write(real.top, name, "x")
    copy = including._copy  # pyright: ignore[reportPrivateUsage]

    def late(names: list[str], top: Path, worktree: Path) -> None:
        (top / ".env.1").unlink(missing_ok=True)
        copy(names, top, worktree)

    monkeypatch.setattr(including, "_copy", late)
    assert await in_worktree(real, base) == {".env.2"}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(including, "_copied", full)
    with pytest.raises(Fault, match="No space left on device") as caught:
        await in_worktree(real, base)
    assert caught.value.cause is FaultCause.DISK
    assert await real.worktrees.held() == []


async def test_a_worktree_weighs_what_its_files_take_without_what_git_keeps(real: RealWorld) -> None:
    async with real.worktrees.hold(S1, real.first) as path:
        before = await real.worktrees.weight_mb(path)
        real.write(path, "deep/er/big.bin", "x" * 3_000_000)
        real.write(path, "sub/.git/objects/pack", "x" * 3_000_000)
        if sys.platform != "win32":
            (path / "link").symlink_to(path)
        assert 3.0 <= await real.worktrees.weight_mb(path) - before < 3.1
    assert await real.worktrees.weight_mb(path) == 0


async def test_room_is_that_of_the_disk_where_worktrees_will_be(real: RealWorld, tmp_path: Path) -> None:
    assert not real.root.exists()
    assert 0 < await real.worktrees.free_mb() == pytest.approx(free_mb(tmp_path), abs=500)
    assert weight_mb(tmp_path / "nothing") == 0
