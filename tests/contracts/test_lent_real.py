"""What only real git can get wrong about worktrees that a host made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_server.adapters.git import status
from mcp_server.adapters.git.repository import Repository, branches_had
from mcp_server.core.spec import AttemptId
from mcp_server.ports import Done, Landing, NoCommits, Uncommitted, WrongBase, WrongPlace
from tests.contracts.git_worlds import START, RealWorld, git, landed, worked
from tests.contracts.test_lent import A1, BRANCH, NAME, SAVED, commit, judged, lent_to_host, stopped_rebase, traces

pytestmark = pytest.mark.anyio


async def test_a_locked_worktree_whose_folder_is_gone_keeps_no_branch(real: RealWorld) -> None:
    """Git does not call it prunable, because it is locked: Claude Code locks the worktrees of living agents."""
    desk = await lent_to_host(real)
    head = commit(real, desk, a="1")
    assert await real.repository.where_checked_out(NAME) == desk
    shutil.rmtree(desk)
    assert await real.repository.where_checked_out(NAME) is None
    assert await judged(real, desk) == Done(head, ("a.txt",))
    assert await real.worktrees.touched_s(A1) is None
    assert await real.worktrees.rescue(A1) == SAVED
    assert (real.sha(SAVED), traces(real)) == (head, ["rescue"])


async def test_a_rebase_in_a_folder_that_is_gone_keeps_no_branch(real: RealWorld) -> None:
    desk, tip, _ = await stopped_rebase(real)
    shutil.rmtree(desk)
    assert await real.worktrees.rescue(A1) == SAVED
    assert (real.sha(SAVED), traces(real)) == (tip, ["rescue"])


async def test_a_folder_of_the_host_that_became_another_repository_is_not_looked_into(real: RealWorld) -> None:
    desk = await lent_to_host(real)
    head = commit(real, desk, a="1")
    (desk / ".git").unlink()
    git(desk, "init", "-q")
    real.write(desk, "secret.txt", "somebody else's\n")
    assert await judged(real, desk) == Done(head, ("a.txt",))
    assert await real.worktrees.rescue(A1) == SAVED
    assert (real.sha(SAVED), traces(real)) == (head, ["rescue"])
    assert (desk / "secret.txt").exists()


async def test_the_linked_worktree_that_we_were_started_in_is_the_users_too(real: RealWorld, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(real.top, "worktree", "add", "-q", "-b", "side", str(linked))
    world = RealWorld(tmp_path, await Repository.open(linked), real.first)
    await world.worktrees.lend(A1, real.first, ours=False)
    for place in (linked, real.top):
        git(place, "switch", "-q", *(["-c", NAME, real.first] if place == linked else [NAME]))
        assert await judged(world, place) == WrongPlace(place)
        git(place, "switch", "-q", "--detach")


async def test_a_rebase_in_the_users_checkout_keeps_the_branch_and_its_files_are_not_taken(real: RealWorld) -> None:
    onto = await worked(real, A1._replace(story="S0"), real.first, {"a.txt": "theirs\n"})
    await real.worktrees.lend(A1, real.first, ours=False)
    real.switch(real.top, NAME, real.first)
    tip = commit(real, real.top, a="ours")
    assert real.rebase(real.top, onto) == ("a.txt",)
    before = real.seen(real.top)
    assert await judged(real) == WrongPlace(real.top)
    assert await real.worktrees.rescue(A1) == SAVED
    assert (real.sha(SAVED), real.sha(BRANCH), real.seen(real.top)) == (tip, tip, before)


async def test_a_rebase_that_stopped_without_a_conflict_is_not_finished_either(real: RealWorld) -> None:
    desk = await lent_to_host(real)
    commit(real, desk, a="1")
    with pytest.raises(subprocess.CalledProcessError):
        git(desk, "rebase", "-q", "--force-rebase", "--exec", "false", real.first)
    assert await judged(real) == Uncommitted(("(unfinished rebase)",))


async def test_an_unfinished_rebase_is_told_before_the_wrong_base(real: RealWorld) -> None:
    """Another `rebase --onto` would be refused: the first one has to be finished."""
    desk, _, onto = await stopped_rebase(real)
    newer = await worked(real, A1._replace(story="S3"), onto, {"b.txt": "2\n"})
    assert isinstance(await real.worktrees.inspect_lent(A1, newer, desk), Uncommitted)


async def test_a_branch_without_a_commit_is_the_wrong_base(real: RealWorld) -> None:
    desk = real.host_desk("agent-1", real.first)
    await real.worktrees.lend(A1, real.first, ours=False)
    git(desk, "switch", "-q", "--orphan", NAME)
    real.write(desk, "a.txt", "alone\n")
    before = real.seen(desk)
    assert isinstance(await judged(real), WrongBase)
    assert await real.worktrees.rescue(A1) == SAVED
    assert real.files(SAVED) == {"a.txt": "alone\n"}
    assert real.seen(desk) == before


async def test_a_root_of_its_own_has_nothing_in_common_with_the_base(real: RealWorld) -> None:
    desk = real.host_desk("agent-1", real.first)
    await real.worktrees.lend(A1, real.first, ours=False)
    git(desk, "switch", "-q", "--orphan", NAME)
    assert await judged(real) == WrongBase("0" * 40)
    head = commit(real, desk, a="alone")
    assert await judged(real) == WrongBase(head, None)


async def test_ignored_files_are_no_work_and_no_sign_of_life(real: RealWorld) -> None:
    real.write(real.top, ".git/info/exclude", "*.log\n")
    desk = await lent_to_host(real)
    real.grow_old(desk)
    real.write(desk, "build.log", "noise\n")
    assert await judged(real) == NoCommits()
    assert (await real.worktrees.touched_s(A1) or 0) < real.now_s() - 3500


async def test_a_file_from_the_future_is_no_sign_of_life(real: RealWorld) -> None:
    desk = await lent_to_host(real)
    real.grow_old(desk)
    real.write(desk, "a.txt", "1\n")
    os.utime(desk / "a.txt", (real.now_s(), real.now_s() + 10**6))
    assert (await real.worktrees.touched_s(A1) or 0) < real.now_s() - 3500


async def test_the_look_for_signs_of_life_is_bounded_and_begins_with_tracked_files(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await lent_to_host(real)
    for name in "123":
        real.write(desk, f"{name}.txt", "new\n")
    real.write(desk, "b.txt", "changed\n")
    real.grow_old(desk)
    monkeypatch.setattr(status, "TOUCHED_MAX", 2)
    real.write(desk, "2.txt", "newer\n")
    assert (await real.worktrees.touched_s(A1) or 0) < real.now_s() - 3500
    real.write(desk, "b.txt", "newer\n")
    assert (await real.worktrees.touched_s(A1) or 0) > real.now_s() - 60


async def test_the_merges_of_others_do_not_make_a_merge_of_a_rebased_branch(real: RealWorld) -> None:
    """Another story landed by a merge commit; the agent rebased onto it. Its own commits are replayed one by one."""
    await real.start_epic("e")
    first = (await landed(real, A1._replace(story="S2"), real.first, {"b.txt": "1\n"})).head
    merger = A1._replace(story="S3")
    async with real.worktrees.hold(merger, real.first) as path:
        real.write(path, "c.txt", "1\n")
        real.commit(path)
        assert real.merge_in(path, first) == ()
        head = git(path, "rev-parse", "HEAD").strip()
        await real.worktrees.inspect(merger, real.first)
    merge = await real.merge.rebase(merger, real.first, head)
    assert isinstance(merge, Landing)
    assert await real.merge.advance(merger, merge.onto, merge.head)
    assert git(real.top, "rev-list", "--merges", "--count", merge.head).strip() != "0"
    desk = await lent_to_host(real)
    for content in ("1", "2"):
        commit(real, desk, a=content)
    assert real.rebase(desk, merge.head) == ()
    done = await judged(real)
    assert isinstance(done, Done)
    further = (await landed(real, A1._replace(story="S4"), merge.head, {"dir/c.txt": "2\n"})).head
    landing = await real.merge.rebase(A1, real.first, done.head)
    assert isinstance(landing, Landing)
    own = git(real.top, "rev-list", "--parents", f"{further}..{landing.head}").splitlines()
    assert [len(line.split()) for line in own] == [2, 2], "two commits, each with one parent"
    assert landing.files == ("a.txt",)


async def test_whoever_writes_while_our_lent_worktree_is_removed_does_not_stop_it(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await real.worktrees.lend(A1, real.first, ours=True)
    assert path is not None
    rmtree, tries = shutil.rmtree, 0

    def disturbed(folder: Path, **options: Any) -> None:
        nonlocal tries
        tries += folder == path
        if folder == path and tries < 3:
            raise OSError(39, "Directory not empty")
        rmtree(folder, **options)

    monkeypatch.setattr("mcp_server.adapters.git.trees.shutil.rmtree", disturbed)
    assert await real.worktrees.rescue(A1) is None
    assert not real.there(path)


async def test_looking_never_fails_while_agents_of_the_host_commit_and_rebase(real: RealWorld) -> None:
    """Also, the branch is never taken for free: a rebase detaches HEAD and attaches it again."""
    onto = await worked(real, A1._replace(story="S0"), real.first, {"b.txt": "theirs\n"})
    desk = await lent_to_host(real)
    commit(real, desk, a="1")
    looks = 0

    async def look() -> None:
        nonlocal looks
        while True:
            assert await real.repository.where_checked_out(NAME) == desk
            looks += 1

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(look)
        for number in range(8):
            rebase = ("rebase", "-q", "--force-rebase", "--onto", onto if number % 2 else real.first, "HEAD~1")
            await anyio.to_thread.run_sync(git, desk, *rebase)
        group.cancel_scope.cancel()
    assert looks > 8


async def test_a_worktree_of_the_host_inside_another_one_is_told_apart(real: RealWorld) -> None:
    outer = real.host_desk("agent-1", real.first)
    head = commit(real, outer, a="1")
    inner = outer / ".claude" / "worktrees" / "agent-2"
    git(outer, "worktree", "add", "-q", "--detach", str(inner), real.first)
    await real.worktrees.lend(A1, real.first, ours=False)
    heads = [getattr(await judged(real, at), "head", None) for at in (outer, inner, inner / "dir", inner / "gone")]
    assert heads == [head, real.first, real.first, None]


async def test_a_rebase_is_found_behind_a_relative_link(real: RealWorld) -> None:
    """Git 2.48 can write such links between a repository and its worktrees."""
    desk, _, _ = await stopped_rebase(real)
    link = real.top / ".git" / "worktrees" / desk.name / "gitdir"
    link.write_text(f"../../../.claude/worktrees/{desk.name}/.git\n")
    assert branches_had(real.top / ".git") == {None: "refs/heads/main", str(desk): BRANCH}


async def test_the_host_may_have_many_worktrees_and_the_users_checkout_stays_as_it_was(real: RealWorld) -> None:
    real.write(real.top, ".git/info/exclude", ".claude/\n")
    real.write(real.top, "a.txt", "the user's own\n")
    before = real.seen(real.top)
    attempts = [AttemptId("e", f"S{number}", 1) for number in range(4)]
    for number, attempt in enumerate(attempts):
        desk = real.host_desk(f"agent-{number}", real.first)
        await real.worktrees.lend(attempt, real.first, ours=False)
        real.switch(desk, f"epicwave-work/{attempt}", real.first)
        real.write(desk, "b.txt", f"{attempt}\n")
    for attempt in attempts:
        ref = await real.worktrees.rescue(attempt)
        assert ref is not None
        assert real.files(ref) == {**START, "b.txt": f"{attempt}\n"}
    assert real.seen(real.top) == before
