"""The contract of the port `Worktrees`, kept by real git and by the fake."""

from __future__ import annotations

import sys

import anyio
import anyio.lowlevel
import pytest

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, NoCommits, Uncommitted, WrongBase
from tests.contracts.git_worlds import START, World, worked

pytestmark = pytest.mark.anyio

A1 = AttemptId("e", "S1", 1)
BRANCH = "refs/heads/epicwave-work/e/S1/1"
SAVED = "refs/epicwave/rescue/e/S1/1"
ODD = "dir/sp ace, é 日本.txt" if sys.platform == "win32" else 'dir/sp ace, "quoted"\nnew line, é 日本.txt'


async def test_commits_on_the_base_are_done_and_stay_on_the_attempts_branch(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "new.txt", "1\n")
        world.write(path, "a.txt", "changed\n")
        world.delete(path, "b.txt")
        head = world.commit(path)
        assert await world.worktrees.inspect(A1, world.first) == Done(head, ("a.txt", "b.txt", "new.txt"))
    assert world.sha(BRANCH) == head
    assert world.sha(SAVED) is None
    assert not world.there(path)


async def test_an_untouched_worktree_has_no_commits_and_leaves_nothing(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        assert await world.worktrees.inspect(A1, world.first) == NoCommits()
    assert (world.sha(BRANCH), world.sha(SAVED), world.there(path)) == (None, None, False)
    assert await world.worktrees.held() == []


async def test_uncommitted_work_is_named_whether_or_not_there_are_commits(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "new/deep.txt", "1\n")
        world.delete(path, "b.txt")
        assert await world.worktrees.inspect(A1, world.first) == Uncommitted(("b.txt", "new/deep.txt"))
        world.commit(path)
        world.write(path, "a.txt", "changed\n")
        assert await world.worktrees.inspect(A1, world.first) == Uncommitted(("a.txt",))


async def test_a_head_before_or_beside_the_base_is_the_wrong_base(world: World) -> None:
    base = await worked(world, AttemptId("e", "S0", 1), world.first, {"a.txt": "base\n"})
    async with world.worktrees.hold(A1, base) as path:
        world.check_out(path, world.first)
        assert await world.worktrees.inspect(A1, base) == WrongBase(world.first, world.first)
        world.write(path, "a.txt", "beside\n")
        head = world.commit(path)
        assert await world.worktrees.inspect(A1, base) == WrongBase(head, world.first)
    assert world.files(SAVED) == {**START, "a.txt": "beside\n"}
    assert world.sha(BRANCH) is None


async def test_a_worktree_that_a_killed_engine_held_is_taken_again_as_it_is(world: World) -> None:
    path = await world.crashed(A1, world.first)
    world.write(path, "before.txt", "1\n")
    world.restart()
    async with world.worktrees.retake(A1, world.first) as again:
        assert again == path
        world.write(path, "after.txt", "2\n")
        head = world.commit(path)
        assert await world.worktrees.inspect(A1, world.first) == Done(head, ("after.txt", "before.txt"))
    assert (world.sha(BRANCH), world.sha(SAVED), world.there(path)) == (head, None, False)


async def test_a_worktree_that_was_taken_again_and_not_judged_as_done_is_saved_and_gone(world: World) -> None:
    path = await world.crashed(A1, world.first)
    world.write(path, "a.txt", "unfinished\n")
    world.restart()
    with anyio.CancelScope() as scope:
        async with world.worktrees.retake(A1, world.first):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert world.files(SAVED) == {**START, "a.txt": "unfinished\n"}
    assert (world.sha(BRANCH), world.there(path)) == (None, False)


async def test_what_a_killed_engine_had_let_go_as_done_is_still_done(world: World) -> None:
    """It died before that was on record."""
    head = await worked(world, A1, world.first, {"a.txt": "1\n"})
    world.restart()
    for _ in range(2):
        async with world.worktrees.retake(A1, world.first) as path:
            assert await world.worktrees.inspect(A1, world.first) == Done(head, ("a.txt",))
        assert (world.sha(BRANCH), world.sha(SAVED), world.there(path)) == (head, None, False)


async def test_a_worktree_that_is_gone_is_not_taken_again_and_nothing_changes(world: World) -> None:
    path = await world.crashed(A1, world.first)
    world.write(path, "a.txt", "unfinished\n")
    world.restart()
    saved = await world.worktrees.rescue(A1)
    with pytest.raises(Fault) as caught:
        async with world.worktrees.retake(A1, world.first):
            pytest.fail("there is nothing to take")
    assert caught.value.cause is FaultCause.GIT
    assert await world.worktrees.rescue(A1) == saved


async def test_the_way_into_a_worktree_that_is_taken_again_cannot_be_cancelled(world: World) -> None:
    """Its agent is at work there: whoever takes it has to be told to end it first."""
    path = await world.crashed(A1, world.first)
    world.restart()
    entered = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with world.worktrees.retake(A1, world.first):
            entered = True
    assert (entered, world.there(path)) == (True, False)


async def test_every_attempt_starts_from_the_sha_it_was_given(world: World) -> None:
    newer = await worked(world, AttemptId("e", "S0", 1), world.first, {"a.txt": "newer\n"})
    async with world.worktrees.hold(A1, world.first), world.worktrees.hold(A1._replace(story="S2"), newer) as path:
        assert await world.worktrees.inspect(A1, world.first) == NoCommits()
        assert await world.worktrees.inspect(A1._replace(story="S2"), newer) == NoCommits()
        world.write(path, "a.txt", "a\n")
        world.commit(path)
        assert isinstance(await world.worktrees.inspect(A1._replace(story="S2"), newer), Done)


async def test_all_that_was_not_done_is_restored_exactly_from_the_rescue_ref(world: World) -> None:
    """Committed, modified, deleted and untracked work, under names that need care."""
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "committed.txt", "kept\n")
        world.commit(path)
        world.write(path, "a.txt", "no newline at the end")
        world.delete(path, "dir/c.txt")
        world.write(path, ODD, "ünï\r\n\n")
        outcome = await world.worktrees.inspect(A1, world.first)
        assert outcome == Uncommitted(tuple(sorted(["a.txt", "dir/c.txt", ODD])))
    whole = {"a.txt": "no newline at the end", "b.txt": "b\n", "committed.txt": "kept\n", ODD: "ünï\r\n\n"}
    assert world.files(SAVED) == whole
    assert world.sha(BRANCH) is None
    assert not world.there(path)


async def test_the_files_of_a_done_attempt_have_their_own_spelling(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, ODD, "1\n")
        head = world.commit(path)
        assert await world.worktrees.inspect(A1, world.first) == Done(head, (ODD,))


async def test_commits_without_a_verdict_are_saved_and_their_branch_removed(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "a.txt", "1\n")
        head = world.commit(path)
    assert world.sha(SAVED) == head
    assert world.sha(BRANCH) is None


async def test_a_verdict_is_taken_back_by_the_next_one(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "a.txt", "1\n")
        world.commit(path)
        await world.worktrees.inspect(A1, world.first)
        world.write(path, "a.txt", "2\n")
        assert isinstance(await world.worktrees.inspect(A1, world.first), Uncommitted)
    assert world.files(SAVED)["a.txt"] == "2\n"
    assert world.sha(BRANCH) is None


async def test_what_comes_after_done_is_saved_beside_the_branch(world: World) -> None:
    """A process of the agent's that ends late may still write: the branch is what was inspected, the rest is kept."""
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "a.txt", "1\n")
        head = world.commit(path)
        await world.worktrees.inspect(A1, world.first)
        world.write(path, "late.txt", "late\n")
    assert world.sha(BRANCH) == head
    assert world.files(SAVED)["late.txt"] == "late\n"


async def test_commits_count_when_the_agent_left_its_branch(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.check_out(path, world.first, "feature")
        world.write(path, "a.txt", "1\n")
        head = world.commit(path)
        assert await world.worktrees.inspect(A1, world.first) == Done(head, ("a.txt",))
    assert world.sha(BRANCH) == head
    assert world.sha("refs/heads/feature") == head


async def test_commits_that_head_moved_away_from_are_saved_with_the_rest(world: World) -> None:
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "a.txt", "first try\n")
        stray = world.commit(path)
        world.check_out(path, world.first)
        world.write(path, "a.txt", "second try\n")
        world.commit(path)
    assert world.files(SAVED)["a.txt"] == "second try\n"
    saved = world.sha(SAVED)
    assert saved is not None
    await world.start_epic("e")
    assert await world.merge.advance(A1, world.first, saved)
    assert await world.merge.contains("e", stray)


async def test_an_error_in_the_block_saves_the_work_and_goes_on_up(world: World) -> None:
    async def fails() -> None:
        async with world.worktrees.hold(A1, world.first) as path:
            world.write(path, "a.txt", "half\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert world.files(SAVED)["a.txt"] == "half\n"
    assert (world.sha(BRANCH), await world.worktrees.held()) == (None, [])


async def test_cancellation_saves_the_work_and_removes_the_worktree(world: World) -> None:
    with anyio.CancelScope() as scope:
        async with world.worktrees.hold(A1, world.first) as path:
            world.write(path, "a.txt", "half\n")
            scope.cancel()
            await anyio.sleep_forever()
    assert world.files(SAVED)["a.txt"] == "half\n"
    assert (world.sha(BRANCH), await world.worktrees.held()) == (None, [])


async def test_cancellation_while_the_worktree_is_made_leaves_nothing(world: World) -> None:
    """At each of the points where it can strike."""

    async def cancel_later(scope: anyio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await anyio.sleep(0.001)
        scope.cancel()

    for steps in range(0, 36, 3):
        async with anyio.create_task_group() as group:
            group.start_soon(cancel_later, group.cancel_scope, steps)
            async with world.worktrees.hold(A1, world.first):
                await anyio.sleep_forever()
        assert await world.worktrees.held() == []
        assert world.sha(SAVED) is None


async def test_rescue_is_idempotent_and_knows_what_never_was(world: World) -> None:
    assert await world.worktrees.rescue(A1) is None
    async with world.worktrees.hold(A1, world.first) as path:
        world.write(path, "a.txt", "half\n")
    saved = world.sha(SAVED)
    assert [await world.worktrees.rescue(A1) for _ in range(2)] == [SAVED, SAVED]
    assert world.sha(SAVED) == saved


async def test_rescue_takes_a_done_attempt_off_its_branch(world: World) -> None:
    head = await worked(world, A1, world.first, {"a.txt": "1\n"})
    assert await world.worktrees.held() == [A1]
    assert await world.worktrees.rescue(A1) == SAVED
    assert (world.sha(SAVED), world.sha(BRANCH)) == (head, None)
    assert await world.worktrees.held() == []


async def test_after_a_crash_what_is_held_is_told_and_rescued(world: World) -> None:
    path = await world.crashed(A1, world.first)
    world.write(path, "a.txt", "half\n")
    world.restart()
    assert await world.worktrees.held() == [A1]
    assert await world.worktrees.rescue(A1) == SAVED
    assert world.files(SAVED)["a.txt"] == "half\n"
    assert (world.sha(BRANCH), world.there(path), await world.worktrees.held()) == (None, False, [])


async def test_after_a_crash_with_nothing_done_nothing_is_saved(world: World) -> None:
    path = await world.crashed(A1, world.first)
    assert await world.worktrees.rescue(A1) is None
    assert (world.sha(BRANCH), world.there(path), await world.worktrees.held()) == (None, False, [])


async def test_after_a_crash_the_next_attempt_is_not_disturbed_by_the_last(world: World) -> None:
    world.write(await world.crashed(A1, world.first), "a.txt", "half\n")
    world.restart()
    async with world.worktrees.hold(A1._replace(number=2), world.first) as path:
        assert await world.worktrees.inspect(A1._replace(number=2), world.first) == NoCommits()
        assert await world.worktrees.held() == [A1, A1._replace(number=2)]
        world.write(path, "a.txt", "whole\n")
        world.commit(path)
        await world.worktrees.inspect(A1._replace(number=2), world.first)
    assert await world.worktrees.rescue(A1) == SAVED


async def test_after_a_crash_the_same_attempt_can_be_held_again_and_both_lives_are_saved(world: World) -> None:
    world.write(await world.crashed(A1, world.first), "a.txt", "first life\n")
    world.restart()
    async with world.worktrees.hold(A1, world.first) as path:
        assert await world.worktrees.inspect(A1, world.first) == NoCommits()
        first_life = world.sha(SAVED)
        assert first_life is not None
        world.write(path, "b.txt", "second life\n")
    assert world.files(SAVED)["b.txt"] == "second life\n"
    assert world.files(first_life)["a.txt"] == "first life\n"
    saved = world.sha(SAVED)
    assert saved is not None
    await world.start_epic("e")
    assert await world.merge.advance(A1, world.first, saved)
    assert await world.merge.contains("e", first_life)


async def test_eight_attempts_are_held_at_once_and_do_not_mix(world: World) -> None:
    attempts = [AttemptId("e", f"S{n}", 1) for n in range(8)]
    alive: list[AttemptId] = []
    all_alive = anyio.Event()

    async def one(attempt: AttemptId) -> None:
        async with world.worktrees.hold(attempt, world.first) as path:
            alive.append(attempt)
            if len(alive) == len(attempts):
                all_alive.set()
            await all_alive.wait()
            world.write(path, f"{attempt.story}.txt", "1\n")
            head = world.commit(path)
            assert await world.worktrees.inspect(attempt, world.first) == Done(head, (f"{attempt.story}.txt",))

    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(one, attempt)
    assert await world.worktrees.held() == attempts


async def test_ids_with_dashes_and_dots_are_told_apart(world: World) -> None:
    attempts = [AttemptId("my-epic", "1.1", 1), AttemptId("my-epic", "1.1-2", 1), AttemptId("my-epic", "S-1", 12)]
    for attempt in attempts:
        await world.crashed(attempt, world.first)
    assert await world.worktrees.held() == attempts


async def test_a_base_that_is_not_there_is_a_fault_and_leaves_nothing(world: World) -> None:
    with pytest.raises(Fault) as caught:
        async with world.worktrees.hold(A1, "0123456789" * 4):
            pytest.fail("there is nothing to hold")
    assert caught.value.cause is FaultCause.GIT
    assert await world.worktrees.held() == []


async def test_inspecting_what_is_not_held_is_a_fault(world: World) -> None:
    with pytest.raises(Fault):
        await world.worktrees.inspect(A1, world.first)
