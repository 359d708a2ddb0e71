"""The contract of lent attempts, kept by real git and by the fake: who works is outside, maybe in a place of theirs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, NoBranch, NoCommits, Uncommitted, WrongBase, WrongPlace
from mcp_server.testing.clock import VirtualClock, virtual_time
from mcp_server.testing.fake_repository import HandRefused
from tests.contracts.git_worlds import START, FakeWorld, World, worked

pytestmark = pytest.mark.anyio

A1 = AttemptId("e", "S1", 1)
NAME = "epicwave-work/e/S1/1"
BRANCH = f"refs/heads/{NAME}"
SAVED = "refs/epicwave/rescue/e/S1/1"
BASE = "refs/epicwave/base/e/S1/1"
REFS = ("base", "rescue", "settled")


async def lent_to_host(world: World) -> Path:
    """The host's worktree, in which its agent has made the branch of A1."""
    desk = world.host_desk("agent-1", world.first)
    assert await world.worktrees.lend(A1, world.first, ours=False) is None
    world.switch(desk, NAME, world.first)
    return desk


async def judged(world: World, at: Path | None = None) -> object:
    return await world.worktrees.inspect_lent(A1, world.first, at)


def commit(world: World, desk: Path, **files: str) -> Sha:
    for name, content in files.items():
        world.write(desk, f"{name}.txt", f"{content}\n")
    return world.commit(desk)


def traces(world: World) -> list[str]:
    """The attempt's refs that there are, the branch as `branch`."""
    there = [name for name in REFS if world.sha(f"refs/epicwave/{name}/e/S1/1")]
    return there + ["branch"] * (world.sha(BRANCH) is not None)


# --- lending and looking


async def test_our_worktree_is_lent_on_its_branch_and_survives_a_restart(world: World) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    assert await judged(world) == NoCommits()
    head = commit(world, path, a="1", new="1")
    world.restart()
    assert await world.worktrees.held() == [A1]
    assert await judged(world) == Done(head, ("a.txt", "new.txt"))
    assert (world.sha(BRANCH), world.there(path)) == (head, True)


async def test_lending_to_a_host_notes_the_base_and_makes_nothing(world: World) -> None:
    assert await world.worktrees.lend(A1, world.first, ours=False) is None
    assert traces(world) == ["base"]
    assert world.sha(BASE) == world.first
    world.restart()
    assert await world.worktrees.held() == [A1]
    assert await judged(world) == NoBranch(None, None)
    assert await world.worktrees.touched_s(A1) is None


@pytest.mark.parametrize("ours", [True, False])
async def test_a_base_that_is_not_there_is_a_fault_and_lends_nothing(world: World, ours: bool) -> None:
    with pytest.raises(Fault) as caught:
        await world.worktrees.lend(A1, "0123456789" * 4, ours=ours)
    assert caught.value.cause is FaultCause.GIT
    assert await world.worktrees.held() == []


@pytest.mark.parametrize("ours", [True, False])
async def test_lending_again_saves_what_the_first_borrower_left(world: World, ours: bool) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    world.write(path, "a.txt", "half\n")
    again = await world.worktrees.lend(A1, world.first, ours=ours)
    assert world.files(SAVED)["a.txt"] == "half\n"
    assert again == (path if ours else None)
    assert await judged(world) == (NoCommits() if ours else NoBranch(None, None))


async def test_before_there_is_a_branch_the_borrowers_own_head_is_told(world: World) -> None:
    """The host's base is older than ours; two commits were made on the host's branch instead of the attempt's."""
    base = await worked(world, A1._replace(story="S0"), world.first, {"a.txt": "base\n"})
    desk = world.host_desk("agent-1", world.first)
    await world.worktrees.lend(A1, base, ours=False)
    look = world.worktrees.inspect_lent
    assert await look(A1, base, desk) == NoBranch(world.first, world.first)
    head = commit(world, desk, b="1")
    assert await look(A1, base, desk) == NoBranch(head, world.first)
    assert await look(A1, base, desk / "dir") == NoBranch(head, world.first)
    assert await look(A1, base, world.top) == NoBranch(world.first, world.first)
    assert await look(A1, base, Path("/")) == NoBranch(None, None)
    assert await look(A1, base, None) == NoBranch(None, None)


async def test_the_work_is_found_in_whichever_worktree_has_the_branch(world: World) -> None:
    other = world.host_desk("agent-0", world.first)
    desk = await lent_to_host(world)
    assert await judged(world, other) == NoCommits()
    world.write(desk, "new/x.txt", "1\n")
    world.delete(desk, "b.txt")
    assert await judged(world, other) == Uncommitted(("b.txt", "new/x.txt"))
    head = world.commit(desk)
    assert await judged(world) == Done(head, ("b.txt", "new/x.txt"))


async def test_the_wrong_base_is_told_with_the_last_commit_in_common(world: World) -> None:
    base = await worked(world, A1._replace(story="S0"), world.first, {"a.txt": "base\n"})
    desk = world.host_desk("agent-1", world.first)
    await world.worktrees.lend(A1, base, ours=False)
    world.switch(desk, NAME, world.first)
    head = commit(world, desk, b="1")
    assert await world.worktrees.inspect_lent(A1, base, desk) == WrongBase(head, world.first)
    assert world.rebase(desk, base, world.first) == ()
    done = await world.worktrees.inspect_lent(A1, base, desk)
    assert isinstance(done, Done)
    assert done.files == ("b.txt",)
    assert world.files(done.head) == {**START, "a.txt": "base\n", "b.txt": "1\n"}


async def test_a_branch_that_no_worktree_has_is_judged_by_its_tip(world: World) -> None:
    desk = await lent_to_host(world)
    world.check_out(desk, world.first)
    assert await judged(world, desk) == NoCommits()
    world.switch(desk, NAME)
    head = commit(world, desk, a="1")
    world.host_clears(desk)
    assert await judged(world, desk) == Done(head, ("a.txt",))
    newer = await worked(world, A1._replace(story="S0"), world.first, {"b.txt": "2\n"})
    assert await world.worktrees.inspect_lent(A1, newer, desk) == WrongBase(head, world.first)


async def test_the_users_own_checkout_is_the_wrong_place(world: World) -> None:
    await world.worktrees.lend(A1, world.first, ours=False)
    world.switch(world.top, NAME, world.first)
    commit(world, world.top, a="1")
    assert await judged(world, world.top) == WrongPlace(world.top)


async def test_looking_changes_nothing(world: World) -> None:
    desk = await lent_to_host(world)
    commit(world, desk, a="1")
    world.write(desk, "b.txt", "half\n")
    world.grow_old(desk)
    before = world.seen(desk), traces(world)
    assert isinstance(await judged(world), Uncommitted)
    await world.worktrees.touched_s(A1)
    await world.worktrees.held()
    assert (world.seen(desk), traces(world)) == before


# --- in the middle of a rebase


async def stopped_rebase(world: World) -> tuple[Path, Sha, Sha]:
    """The agent was told to rebase and is in a conflict: its worktree, its branch, what it rebases onto."""
    onto = await worked(world, A1._replace(story="S0"), world.first, {"a.txt": "theirs\n"})
    desk = await lent_to_host(world)
    tip = commit(world, desk, a="ours", new="1")
    assert world.rebase(desk, onto) == ("a.txt",)
    return desk, tip, onto


async def test_a_rebase_that_is_not_finished_is_uncommitted_work_of_that_attempt(world: World) -> None:
    desk, _, onto = await stopped_rebase(world)
    assert await judged(world) == Uncommitted(("(unfinished rebase)", "a.txt", "new.txt"))
    world.write(desk, "a.txt", "settled\n")
    assert world.rebase_continue(desk) == ()
    outcome = await world.worktrees.inspect_lent(A1, onto, desk)
    assert isinstance(outcome, Done)
    assert outcome.files == ("a.txt", "new.txt")
    assert world.sha(BRANCH) == outcome.head


async def test_a_rescue_in_the_middle_of_a_rebase_saves_both_and_leaves_the_agent_alone(world: World) -> None:
    desk, tip, onto = await stopped_rebase(world)
    world.write(desk, "extra.txt", "new\n")
    before = world.seen(desk)
    assert await world.worktrees.rescue(A1) == SAVED
    assert (world.seen(desk), world.sha(BRANCH)) == (before, tip)
    assert world.files(SAVED)["extra.txt"] == "new\n"
    await world.start_epic("e")
    saved = world.sha(SAVED)
    assert saved is not None
    assert await world.merge.advance(A1, world.first, saved)
    assert await world.merge.contains("e", tip)
    assert await world.merge.contains("e", onto)
    world.write(desk, "a.txt", "settled\n")
    assert world.rebase_continue(desk) == ()
    assert world.files(BRANCH)["a.txt"] == "settled\n"


# --- signs of life


async def test_every_change_in_the_worktree_is_a_sign_of_life(world: World) -> None:
    desk = await lent_to_host(world)
    for act in (
        lambda: world.write(desk, "a.txt", "changed\n"),
        lambda: world.write(desk, "new/untracked.txt", "1\n"),
        lambda: world.write(desk, "new/untracked.txt", "2\n"),
        lambda: world.delete(desk, "b.txt"),
        lambda: world.commit(desk),
        lambda: world.delete(desk, "dir/c.txt"),
    ):
        world.grow_old(desk)
        touched_s = await world.worktrees.touched_s(A1)
        assert touched_s is not None
        assert touched_s < world.now_s() - 3500
        act()
        assert (await world.worktrees.touched_s(A1) or 0) > world.now_s() - 60


async def test_our_lent_worktree_shows_signs_of_life_too(world: World) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    world.grow_old(path)
    assert (await world.worktrees.touched_s(A1) or 0) < world.now_s() - 3500
    world.write(path, "a.txt", "1\n")
    assert (await world.worktrees.touched_s(A1) or 0) > world.now_s() - 60


@pytest.mark.parametrize("anyio_backend", [pytest.param(virtual_time(), id="virtual")])
async def test_in_virtual_time_the_last_change_is_told_exactly() -> None:
    world, clock = FakeWorld(), VirtualClock()
    world.git.clock = clock
    desk = await lent_to_host(world)
    for act in (
        lambda: world.write(desk, "a.txt", "1\n"),
        lambda: world.delete(desk, "b.txt"),
        lambda: world.commit(desk),
        lambda: world.switch(desk, "feature", world.first),
        lambda: world.switch(desk, NAME),
        lambda: world.rebase(desk, world.git.record({"a.txt": "other\n"}, world.first)),
        lambda: world.rebase_continue(desk),
    ):
        await anyio.sleep(500)
        clock.set_by_s += 10.0
        act()
        acted_s = clock.now_s()
        await anyio.sleep(500)
        if desk in world.git.where(BRANCH):
            assert await world.worktrees.touched_s(A1) == acted_s


async def test_two_agents_of_one_host_do_not_mix(world: World) -> None:
    desks: list[Path] = []
    for number in (1, 2):
        attempt = A1._replace(number=number)
        desks.append(world.host_desk(f"agent-{number}", world.first))
        await world.worktrees.lend(attempt, world.first, ours=False)
        world.switch(desks[-1], f"epicwave-work/{attempt}", world.first)
    with pytest.raises(HandRefused):
        world.switch(desks[0], f"epicwave-work/{A1._replace(number=2)}")
    world.write(desks[0], "a.txt", "one\n")
    assert await judged(world) == Uncommitted(("a.txt",))
    assert await world.worktrees.inspect_lent(A1._replace(number=2), world.first, desks[0]) == NoCommits()
    await world.worktrees.rescue(A1._replace(number=2))
    assert await world.worktrees.held() == [A1, A1._replace(number=2)]
