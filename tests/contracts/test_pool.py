"""The pool of worktrees on real git: what goes back, what comes out of it again, and that nobody can tell."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git import pool as pools
from mcp_server.adapters.git import trees
from mcp_server.adapters.git.pool import Keeping, Pool
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.spec import AttemptId
from mcp_server.ports import Done, NoCommits
from tests.contracts.git_worlds import START, PooledWorld, RealWorld, git, landed, new_repository, worked

pytestmark = pytest.mark.anyio

S1, S2, S3 = (AttemptId("e", f"S{number}", 1) for number in (1, 2, 3))
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, symlinks and processes")


@pytest.fixture
async def pooled(tmp_path: Path, no_user_config: None) -> PooledWorld:
    world = await PooledWorld.make(tmp_path)
    assert isinstance(world, PooledWorld)
    world.write(world.top, ".git/info/exclude", "*.log\nnode_modules/\nout/\n")
    return world


def entry(path: Path) -> Path:
    return Path(git(path, "rev-parse", "--absolute-git-dir").strip())


def seen(path: Path) -> dict[str, object]:
    """All that an attempt can see of its worktree: files with modes, the index with flags, git's folder, refs, HEAD."""
    inside = [file for file in sorted(path.rglob("*")) if ".git" not in file.relative_to(path).parts]
    listed = git(path, "for-each-ref", "--format=%(refname)", "refs/worktree", "refs/bisect", "refs/rewritten")
    return {
        "files": {
            str(file.relative_to(path)): (oct(file.lstat().st_mode), file.read_bytes() if file.is_file() else None)
            for file in inside
        },
        "index": git(path, "ls-files", "-v", "-f", "-s"),
        "status": git(path, "status", "--porcelain=v2", "--ignored", "--branch"),
        "entry": sorted({each.name for each in entry(path).iterdir()} - {"logs", "ORIG_HEAD"}),
        "refs": listed,
        "reflog": sorted(set(git(path, "reflog", "--format=%H").split())),
    }


async def test_a_worktree_that_was_let_go_is_the_next_attempts(pooled: PooledWorld) -> None:
    """Of whatever epic; in between it is detached, locked, and no attempt's."""
    head = await worked(pooled, S1, pooled.first, {"a.txt": "1\n", "new.txt": "1\n"})
    (idle,) = pooled.pool.idle
    assert git(idle, "branch", "--show-current") == ""
    assert (entry(idle) / "locked").read_text().strip() == "epicwave pool"
    assert await pooled.worktrees.held() == [S1], "by its branch alone"
    inode = idle.stat().st_ino
    async with pooled.worktrees.hold(AttemptId("other", "T1", 1), head) as path:
        assert (path.stat().st_ino, pooled.pool.idle) == (inode, ())
        assert (entry(path) / "locked").read_text().strip() == "epicwave other/T1/1"
        assert git(path, "branch", "--show-current").strip() == "epicwave-work/other/T1/1"
        assert (path / "new.txt").read_text() == "1\n"
        assert pooled.entries() == ["other/T1-1"]


async def test_work_is_saved_before_its_worktree_goes_back(pooled: PooledWorld) -> None:
    async with pooled.worktrees.hold(S1, pooled.first) as path:
        pooled.write(path, "a.txt", "half\n")
        pooled.write(path, "new.txt", "half\n")
    assert len(pooled.pool.idle) == 1
    assert pooled.files("refs/epicwave/rescue/e/S1/1") == {**START, "a.txt": "half\n", "new.txt": "half\n"}


async def test_the_worktree_for_the_checks_comes_from_the_pool_and_goes_back(pooled: PooledWorld) -> None:
    await pooled.start_epic("e")
    await landed(pooled, S1, pooled.first, {"a.txt": "1\n"})
    pooled.write(await pooled.merge.checkout("e"), "out/built.o", "of a check\n")
    assert pooled.entries() == ["e/_integration"]
    await pooled.merge.close("e")
    assert len(pooled.pool.idle) == 1
    async with pooled.worktrees.hold(S2, pooled.first) as path:
        assert pooled.entries() == ["e/S2-1"]
        assert not (path / "out").exists()


Mess = Callable[[Path], object]


@contextmanager
def watched(path: Path) -> Generator[Callable[[Path], bool]]:
    """Says whether a folder is this one. It is held open: the number of one that is gone would be given again."""
    held = os.open(path, os.O_RDONLY)
    try:
        yield lambda other: os.path.samestat(os.fstat(held), other.stat())
    finally:
        os.close(held)


def conflict(path: Path) -> None:
    (path / "a.txt").write_text("ours\n")
    git(path, "commit", "-q", "-a", "-m", "ours")
    git(path, "checkout", "-q", "--detach", "HEAD~1")
    (path / "a.txt").write_text("theirs\n")
    git(path, "commit", "-q", "-a", "-m", "theirs")


def rebasing(path: Path) -> None:
    conflict(path)
    subprocess.run(["git", "rebase", "-q", "@{-1}"], cwd=path, capture_output=True, check=False)
    assert (entry(path) / "rebase-merge").exists()


def merging(path: Path) -> None:
    conflict(path)
    subprocess.run(["git", "merge", "-q", "@{-1}"], cwd=path, capture_output=True, check=False)
    assert (entry(path) / "MERGE_HEAD").exists()


def bisecting(path: Path) -> None:
    conflict(path)
    git(path, "bisect", "start", "HEAD", "HEAD~1")
    git(path, "update-ref", "refs/worktree/mine", "HEAD")
    git(path, "stash", "list")


def of_many_kinds(path: Path) -> None:
    (path / "untracked.txt").write_text("x")
    (path / "noise.log").write_text("x")
    (path / "dir" / "out").mkdir()
    (path / "dir" / "out" / "built.o").write_text("x")
    (path / "empty" / "folder").mkdir(parents=True)
    (path / "a.txt").write_text("staged\n")
    git(path, "add", "-A")
    (path / "b.txt").unlink()
    new_repository(path / "inner")


def linked(path: Path) -> None:
    (path / "a.txt").chmod(0o755)
    (path / "b.txt").unlink()
    (path / "b.txt").symlink_to("a.txt")
    shutil.rmtree(path / "dir")
    (path / "dir").symlink_to(path.parent)


def at_the_same_age(path: Path) -> None:
    """Not to be seen where the user has git look at less. Git tells times of change apart by whole seconds."""
    git(path, "config", "core.trustCTime", "false")
    git(path, "config", "core.checkStat", "minimal")
    for content in ("a\n", "z\n"):
        (path / "a.txt").write_text(content)
        os.utime(path / "a.txt", (10**9, 10**9))
        if content == "a\n":
            git(path, "update-index", "-q", "--refresh")
            time.sleep(1.1)
    assert git(path, "status", "--porcelain") == ""


def own_settings(path: Path) -> None:
    git(path, "config", "extensions.worktreeConfig", "true")
    git(path, "config", "--worktree", "core.hooksPath", "/nowhere")


def line_ends(path: Path) -> None:
    (path / ".gitattributes").write_text("*.txt eol=crlf\n")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "line ends")
    for name in ("a.txt", "b.txt"):
        (path / name).unlink()
    git(path, "checkout", "-q", ".")
    assert (path / "b.txt").read_bytes() == b"b\r\n"


def line_ends_uncommitted(path: Path) -> None:
    line_ends(path)
    git(path, "reset", "-q", "--soft", "HEAD~1")


def unborn(path: Path) -> None:
    git(path, "switch", "-q", "--orphan", "island")
    (path / "a.txt").write_text("alone\n")


MESSES: dict[str, tuple[Mess, bool]] = {
    "files of many kinds": (of_many_kinds, True),
    "links and modes": (linked, True),
    "a file as old as it was": (at_the_same_age, True),
    "a rebase": (rebasing, True),
    "a merge": (merging, True),
    "a bisect": (bisecting, True),
    "a branch without a commit": (unborn, True),
    "assumed unchanged": (lambda path: (git(path, "update-index", "--assume-unchanged", "a.txt"), linked(path)), False),
    "skipped": (lambda path: git(path, "update-index", "--skip-worktree", "a.txt"), False),
    "settings of its own": (own_settings, False),
    "sparse": (lambda path: git(path, "sparse-checkout", "set", "--no-cone", "dir"), False),
    "line ends": (line_ends, False),
    "line ends, uncommitted": (line_ends_uncommitted, False),
    "a lock": (lambda path: (entry(path) / "index.lock").touch(), False),
    "no .git": (lambda path: (path / ".git").unlink(), False),
    "another .git": (lambda path: ((path / ".git").unlink(), git(path, "init", "-q")), False),
    "a broken index": (lambda path: (entry(path) / "index").write_bytes(b"junk"), False),
}
"""What an attempt leaves, and whether its worktree is put right; else it is thrown away."""


@posix
@pytest.mark.parametrize("kind", MESSES)
async def test_nothing_of_an_earlier_attempt_is_visible_to_the_next(pooled: PooledWorld, kind: str) -> None:
    mess, again = MESSES[kind]
    async with GitWorktrees(pooled.repository, pooled.root).hold(S2, pooled.first) as path:
        as_new = seen(path)
    with ExitStack() as stack:
        async with pooled.worktrees.hold(S1, pooled.first) as path:
            is_same = stack.enter_context(watched(path))
            mess(path)
        async with pooled.worktrees.hold(S2, pooled.first) as path:
            assert is_same(path) is again
            assert seen(path) == as_new
            assert await pooled.worktrees.inspect(S2, pooled.first) == NoCommits()
            pooled.write(path, "a.txt", "much longer\n")
            head = pooled.commit(path)
            assert await pooled.worktrees.inspect(S2, pooled.first) == Done(head, ("a.txt",))


@contextmanager
def stays(folder: Path) -> Generator[None]:
    """A process that is at home there."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], cwd=folder, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate(b"\n")


@posix
async def test_a_worktree_that_a_process_is_still_in_is_thrown_away(pooled: PooledWorld) -> None:
    with ExitStack() as stack:
        async with pooled.worktrees.hold(S1, pooled.first) as path:
            is_same = stack.enter_context(watched(path))
            stack.enter_context(stays(path / "dir"))
        assert len(pooled.pool.idle) == 1
        async with pooled.worktrees.hold(S2, pooled.first) as path:
            assert not is_same(path)


@pytest.mark.usefixtures("no_user_config")
async def test_what_lies_in_a_submodules_place_is_not_handed_on(tmp_path: Path) -> None:
    """Git does not look into it: filled by hand, or checked out in the worktree's own modules."""
    new_repository(tmp_path / "library")
    new_repository(tmp_path / "repo")
    allow = ("-c", "protocol.file.allow=always", "submodule", "--quiet")
    git(tmp_path / "repo", *allow, "add", f"{tmp_path}/library", "lib")
    git(tmp_path / "repo", "commit", "-q", "-m", "with a submodule")
    repository = await Repository.open(tmp_path / "repo")
    pooled = PooledWorld(tmp_path, repository, await repository.head_sha())
    for number, mess in enumerate(("clone", "update", "none"), 1):
        async with pooled.worktrees.hold(S1._replace(number=number), pooled.first) as path:
            assert list((path / "lib").iterdir()) == []
            if mess == "clone":
                git(path, "clone", "-q", str(tmp_path / "library"), "lib")
            elif mess == "update":
                git(path, *allow, "update", "--init")
    assert len(pooled.pool.idle) == 1


@posix
async def test_a_sparse_checkout_of_the_users_has_no_pool(pooled: PooledWorld) -> None:
    """Git hands it on to new worktrees only."""
    git(pooled.top, "sparse-checkout", "set", "--cone", "other")
    async with pooled.worktrees.hold(S1, pooled.first) as path:
        assert not (path / "dir").exists()
    assert pooled.pool.idle == ()
    git(pooled.top, "sparse-checkout", "disable")


# --- what is kept


async def test_kept_folders_stay_warm_as_long_as_git_ignores_them(pooled: PooledWorld) -> None:
    async with pooled.worktrees.hold(S1, pooled.first) as path:
        for name in ("node_modules/x.js", "dir/node_modules/y.js", "out/z.o", "new/node_modules/w.js"):
            pooled.write(path, name, "warm\n")
    async with pooled.worktrees.hold(S2, pooled.first) as path:
        there = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
        assert there == sorted([".git", *START, "node_modules/x.js", "dir/node_modules/y.js"])
    pooled.write(pooled.top, ".git/info/exclude", "")
    async with pooled.worktrees.hold(S3, pooled.first) as path:
        assert await pooled.worktrees.inspect(S3, pooled.first) == NoCommits()
        assert not (path / "node_modules").exists(), "it would be taken for unfinished work"


async def test_what_worktreeinclude_names_is_fresh_each_time_though_it_is_kept(pooled: PooledWorld) -> None:
    pooled.write(pooled.top, ".worktreeinclude", "node_modules/\n*.log\n")
    for name in ("node_modules/x.js", "own.log"):
        pooled.write(pooled.top, name, "the user's\n")
    for attempt in (S1, S2):
        async with pooled.worktrees.hold(attempt, pooled.first) as path:
            for name in ("node_modules/x.js", "own.log"):
                assert (path / name).read_text() == "the user's\n"
                pooled.write(path, name, "an agent's\n")
            pooled.write(path, "node_modules/stale.js", "an agent's\n")
            assert not (path / "other.log").exists()
            pooled.write(path, "other.log", "an agent's\n")
    assert not (path / "node_modules").exists()
    async with pooled.worktrees.hold(S3, pooled.first) as path:
        assert not (path / "node_modules" / "stale.js").exists()


# --- how many


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_no_more_wait_than_are_wanted(real: RealWorld, size: int) -> None:
    pool = Pool(real.repository, real.root, Keeping(size))
    worktrees = GitWorktrees(real.repository, real.root, pool)
    one, two, three = (worktrees.hold(attempt, real.first) for attempt in (S1, S2, S3))
    async with one, two, three:
        pass
    assert len(pool.idle) == size
    assert await pool.settle(20)
    folders = sorted(path.parent.name for path in real.root.glob("*/*"))
    assert (folders, len(list((real.top / ".git").glob("worktrees/*")))) == (["_pool"] * size, size)
    await pool.empty()
    assert await pool.settle(20)
    assert list(real.root.iterdir()) == []
    assert not (real.top / ".git" / "worktrees").exists()


async def test_many_at_once_share_the_pool_and_get_one_each(pooled: PooledWorld) -> None:

    async def one(attempt: AttemptId, held: list[int], together: anyio.Event) -> None:
        async with pooled.worktrees.hold(attempt, pooled.first) as path:
            held.append(path.stat().st_ino)
            if len(held) == 6:
                together.set()
            await together.wait()
            assert await pooled.worktrees.inspect(attempt, pooled.first) == NoCommits()

    for _ in range(2):
        held: list[int] = []
        together = anyio.Event()
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(one, AttemptId("e", f"S{number}", 1), held, together)
        assert len(set(held)) == 6
        assert len(pooled.pool.idle) == 4


async def test_a_worktree_that_was_lent_does_not_go_back(pooled: PooledWorld) -> None:
    """Whoever borrowed it may still be alive."""
    assert await pooled.worktrees.lend(S1, pooled.first, ours=True)
    await pooled.worktrees.rescue(S1)
    path = await pooled.worktrees.lend(S2, pooled.first, ours=True)
    assert path is not None
    pooled.write(path, "a.txt", "1\n")
    await pooled.worktrees.give_back(S2, pooled.commit(path))
    assert pooled.pool.idle == ()


async def test_the_pool_is_given_up_when_room_is_short(pooled: PooledWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (pooled.worktrees.hold(attempt, pooled.first) for attempt in (S1, S2))
    async with one:
        async with two:
            pass
        assert len(pooled.pool.idle) == 1
        monkeypatch.setattr(pools, "LOW_MB", 1e15)
        await pooled.worktrees.free_mb()
        assert pooled.pool.idle == ()
    assert pooled.pool.idle == ()


async def test_an_entry_of_gits_list_goes_where_our_folder_is_on_another_disk(
    pooled: PooledWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = pooled.repository.common_dir / "worktrees" / "S1-1"
    listed.mkdir(parents=True)
    (listed / "gitdir").write_text("/nowhere/.git\n")

    def elsewhere(_path: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", elsewhere)
    trees.forget(pooled.repository, listed)
    assert not listed.exists()
