"""What kills and foreign hands leave behind in a real repository, and that the next start gets over it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import Landing, NoCommits
from tests.contracts.git_worlds import START, RealWorld, git, landed, worked

pytestmark = pytest.mark.anyio

S1, S2 = AttemptId("e", "S1", 1), AttemptId("e", "S2", 1)
SAVED = "refs/epicwave/rescue/e/S1/1"
BRANCH = "refs/heads/epicwave-work/e/S1/1"


async def nothing_left(world: RealWorld) -> bool:
    registered = list((world.top / ".git").glob("worktrees/*"))
    return not registered and await world.worktrees.held() == [] and list(world.root.glob("*/*")) == []


async def test_a_folder_that_lost_its_registration_is_saved(real: RealWorld) -> None:
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    shutil.rmtree(real.top / ".git" / "worktrees" / path.name)
    real.restart()
    assert await real.worktrees.held() == [S1]
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.files(SAVED) == {**START, "a.txt": "half\n"}
    assert await nothing_left(real)


async def test_a_folder_that_lost_its_git_file_is_saved_and_nothing_above_it_is_touched(real: RealWorld) -> None:
    """The worktrees may lie inside the user's checkout: git would find that one, going up."""
    real.root = real.top / "inside"
    real.restart()
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    (path / ".git").unlink()
    with pytest.raises(Fault):
        await real.worktrees.inspect(S1, real.first)
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.files(SAVED) == {**START, "a.txt": "half\n"}
    assert git(real.top, "status", "--porcelain") == ""
    assert await nothing_left(real)


async def test_a_folder_that_was_made_another_repository_is_saved(real: RealWorld) -> None:
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    (path / ".git").unlink()
    git(path, "init", "-q")
    with pytest.raises(Fault):
        await real.worktrees.inspect(S1, real.first)
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.files(SAVED) == {**START, "a.txt": "half\n"}
    assert await nothing_left(real)


async def test_a_broken_index_does_not_stop_the_rescue(real: RealWorld) -> None:
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    (real.top / ".git" / "worktrees" / path.name / "index").write_bytes(b"DIRC junk")
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.files(SAVED) == {**START, "a.txt": "half\n"}


async def test_locks_of_a_killed_git_in_our_worktree_do_not_stop_the_rescue(real: RealWorld) -> None:
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    for name in ("index.lock", "HEAD.lock"):
        (real.top / ".git" / "worktrees" / path.name / name).touch()
    async with real.worktrees.hold(S1, real.first):
        assert await real.worktrees.inspect(S1, real.first) == NoCommits()
    assert real.files(SAVED)["a.txt"] == "half\n"
    assert await nothing_left(real)


async def test_commits_outlive_the_folder(real: RealWorld) -> None:
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "1\n")
    head = real.commit(path)
    shutil.rmtree(path)
    real.restart()
    assert await real.worktrees.held() == [S1]
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.sha(SAVED) == head
    assert await nothing_left(real)


async def test_a_half_made_worktree_is_cleaned_and_can_be_held_again(real: RealWorld) -> None:
    """Killed in `worktree add`, early (a lock and no more) and late (registered, without files)."""
    path = await real.crashed(S1, real.first)
    early = real.top / ".git" / "worktrees" / f"{path.name}9"
    early.mkdir()
    (early / "locked").write_text("epicwave e/S1/1")
    foreign = real.top / ".git" / "worktrees" / f"{path.name}8"
    foreign.mkdir()
    (foreign / "locked").write_text("initializing")
    (path / ".git").unlink()
    async with real.worktrees.hold(S1, real.first) as again:
        assert await real.worktrees.inspect(S1, real.first) == NoCommits()
        assert (again / "a.txt").exists()
    assert not early.exists()
    assert foreign.exists(), "half a worktree of somebody else's"


async def test_a_crash_between_saving_and_removing_keeps_what_was_saved(real: RealWorld) -> None:
    """The folder is half gone by then: its holes are no deletions of the agent's."""
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    await real.worktrees.rescue(S1)
    saved = real.sha(SAVED)
    await real.crashed(S1, real.first)
    for ref in (BRANCH, "refs/epicwave/base/e/S1/1"):
        git(real.top, "update-ref", "-d", ref)
    real.delete(path, "b.txt")
    real.restart()
    assert await real.worktrees.held() == [S1]
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.sha(SAVED) == saved
    assert await nothing_left(real)


async def test_a_lock_that_goes_away_is_waited_for(real: RealWorld) -> None:
    await real.start_epic("e")
    head = await worked(real, S1, real.first, {"a.txt": "1\n"})
    lock = real.top / ".git/refs/heads/epicwave/e.lock"
    lock.touch()

    async def let_go() -> None:
        await anyio.sleep(0.15)  # longer than the 0.1 s that git itself waits
        lock.unlink()

    async with anyio.create_task_group() as group:
        group.start_soon(let_go)
        assert await real.merge.advance(S1, real.first, head)


@pytest.mark.parametrize("ref", ["refs/heads/epicwave/e", "refs/epicwave/landed/e/S1/1"])
async def test_a_lock_that_a_killed_git_left_on_a_ref_of_ours_goes(real: RealWorld, ref: str) -> None:
    """Else no story of the epic could ever be merged again."""
    await real.start_epic("e")
    head = await worked(real, S1, real.first, {"a.txt": "1\n"})
    lock = real.top / ".git" / f"{ref}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    assert await real.merge.advance(S1, real.first, head)
    assert real.sha("refs/heads/epicwave/e") == head
    assert not lock.exists()


async def test_a_lock_of_the_whole_repository_is_not_ours_and_is_named(real: RealWorld) -> None:
    await real.start_epic("e")
    await worked(real, S1, real.first, {"a.txt": "1\n"})
    lock = real.top / ".git/packed-refs.lock"
    lock.touch()
    with pytest.raises(Fault, match=r"packed-refs\.lock"):
        await real.merge.forget(S1)
    assert lock.exists()
    lock.unlink()
    await real.merge.forget(S1)


def leave_junk(path: Path, kind: str, head: str) -> None:
    """What a killed rebase, a check or a curious human can leave in the integration worktree."""
    git_dir = Path(git(path, "rev-parse", "--absolute-git-dir").strip())
    match kind:
        case "a rebase in conflict" | "a merge in conflict":
            git(path, "checkout", "-q", head)
            argv = ["rebase", "epicwave/e"] if "rebase" in kind else ["merge", "epicwave/e"]
            with pytest.raises(subprocess.CalledProcessError):
                git(path, *argv)
        case "stale locks":
            (git_dir / "index.lock").touch()
            (git_dir / "HEAD.lock").touch()
        case "files in the way":
            (path / "new.txt").write_text("made by a check\n")
            (path / "a.txt").unlink()
            (path / "a.txt").mkdir()
            git(path, "init", "-q", "a.txt")
            (path / "b.txt").write_text("changed by a check\n")
        case "a branch":
            git(path, "checkout", "-q", "-b", "curious")
        case "no .git file":
            (path / ".git").unlink()
        case "a broken index":
            (git_dir / "index").write_bytes(b"junk")
        case "no folder":
            shutil.rmtree(path)
        case _:
            shutil.rmtree(git_dir)


@pytest.mark.parametrize(
    "kind",
    [
        "a rebase in conflict",
        "a merge in conflict",
        "stale locks",
        "files in the way",
        "a branch",
        "no .git file",
        "a broken index",
        "no folder",
        "no registration",
    ],
)
async def test_the_integration_worktree_is_mended_whatever_was_left_in_it(real: RealWorld, kind: str) -> None:
    await real.start_epic("e")
    clash = await worked(real, S2, real.first, {"a.txt": "theirs\n"})
    head = await worked(real, S2._replace(number=2), real.first, {"new.txt": "new\n", "b.txt": "2\n"})
    onto = (await landed(real, S1, real.first, {"a.txt": "ours\n"})).head
    leave_junk(await real.merge.checkout("e"), kind, clash)
    real.restart()
    landing = await real.merge.rebase(S2._replace(number=2), real.first, head)
    assert isinstance(landing, Landing)
    expected = {**START, "a.txt": "ours\n", "b.txt": "2\n", "new.txt": "new\n"}
    assert real.files(landing.head) == expected
    path = await real.merge.checkout("e", landing.head)
    assert {name: (path / name).read_text() for name in expected} == expected
    assert git(path, "status", "--porcelain") == ""
    assert real.sha("refs/heads/epicwave/e") == onto
    assert real.sha("refs/heads/curious") in (None, onto), "no branch of somebody else's is moved"


async def test_what_the_checks_keep_in_ignored_folders_stays_warm(real: RealWorld) -> None:
    """A stale lock is no reason to begin anew; and all that is not ignored goes, a repository of its own too."""
    real.write(real.top, ".git/info/exclude", "node_modules/\n")
    await real.start_epic("e")
    onto = (await landed(real, S1, real.first, {"a.txt": "1\n"})).head
    path = await real.merge.checkout("e")
    real.write(path, "node_modules/x.js", "warm\n")
    git(path, "init", "-q", "left-by-a-test")
    (real.top / ".git" / "worktrees" / path.name / "index.lock").touch()
    assert await real.merge.checkout("e", onto) == path
    assert (path / "node_modules" / "x.js").exists()
    assert not (path / "left-by-a-test").exists()


async def test_an_ignored_file_in_the_way_of_a_tracked_one_gives_way(real: RealWorld) -> None:
    real.write(real.top, ".git/info/exclude", "out/\n")
    await real.start_epic("e")
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "out/file", "tracked\n")
        git(path, "add", "-f", "out/file")
        head = real.commit(path)
        await real.worktrees.inspect(S1, real.first)
    await landed(real, S2, real.first, {"a.txt": "1\n"})
    real.write(await real.merge.checkout("e"), "out/file", "built by a check\n")
    landing = await real.merge.rebase(S1, real.first, head)
    assert isinstance(landing, Landing)
    assert real.files(landing.head)["out/file"] == "tracked\n"
    path = await real.merge.checkout("e", landing.head)
    assert (path / "out/file").read_text() == "tracked\n"


LIFE = """
import sys, anyio
from contextlib import asynccontextmanager
from pathlib import Path
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.model import AttemptId

async def one(ports, base, number):
    attempt = AttemptId("e", "S1", number)
    async with ports.hold(attempt, base) if number % 2 else lent(ports, attempt, base) as path:
        (path / "a.txt").write_text(f"half {number}\\n")
        print(number, flush=True)
        await anyio.sleep(0.05)

@asynccontextmanager
async def lent(ports, attempt, base):
    yield await ports.lend(attempt, base, ours=True)
    await ports.rescue(attempt)

async def main():
    repository = await Repository.open(Path(sys.argv[1]))
    ports = GitWorktrees(repository, Path(sys.argv[2]))
    base = await repository.head_sha()
    async with anyio.create_task_group() as group:
        for number in range(1, 5):
            group.start_soon(one, ports, base, number)

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("seed", range(3))
async def test_a_kill_at_any_moment_loses_no_work_and_leaks_nothing(real: RealWorld, seed: int) -> None:
    """What an agent wrote before it was told of is on a rescue ref, wherever the kill fell."""
    told = killed_life(real, random.Random(seed).uniform(0, 0.4))  # noqa: S311 - any moment will do
    await quiet(real.top)
    for attempt in await real.worktrees.held():
        await real.worktrees.rescue(attempt)
    for number in told:
        assert real.files(f"refs/epicwave/rescue/e/S1/{number}") == {**START, "a.txt": f"half {number}\n"}
    assert await nothing_left(real)
    assert git(real.top, "status", "--porcelain") == ""


def killed_life(real: RealWorld, after_s: float) -> list[int]:
    """Attempts that were told to have written their work, of a process that is killed some time after the first."""
    argv = [sys.executable, "-c", LIFE, str(real.top), str(real.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline())]
        time.sleep(after_s)  # the moment of the kill is what is tried here
        process.send_signal(signal.SIGKILL)
        return told + [int(line) for line in process.stdout.read().split()]


async def quiet(top: Path) -> None:
    """Wait until no git that the killed process had started is at work in the repository any more.

    Three looks in a row: a process that is just being started has no arguments to know it by.
    """
    looks = 0
    with anyio.fail_after(20):
        while looks < 3:
            looks = 0 if busy(top) else looks + 1
            await anyio.sleep(0.02)


def busy(top: Path) -> bool:
    return str(top) in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


async def test_a_lock_that_a_killed_agent_left_on_its_branch_keeps_nothing_from_being_saved(real: RealWorld) -> None:
    """Its git was ended in the middle of a commit."""
    await real.start_epic("e")
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "half.txt", "half\n")
        lock = real.top / ".git" / "refs" / "heads" / "epicwave-work" / "e" / "S1" / "1.lock"
        lock.touch()
    assert await real.worktrees.rescue(S1) == "refs/epicwave/rescue/e/S1/1"
    assert not lock.exists()
    assert await real.worktrees.held() == []
