"""How lent attempts end, in real git and in the fake: rescued, or given back and forgotten. Nothing is ever lost."""

from __future__ import annotations

import pytest

from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Done, Landing, Uncommitted
from tests.contracts.git_worlds import START, World, landed
from tests.contracts.test_lent import A1, BASE, BRANCH, NAME, SAVED, commit, judged, lent_to_host, traces

pytestmark = pytest.mark.anyio


# --- rescuing


async def test_rescuing_what_a_host_has_saves_everything_and_touches_nothing(world: World) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="committed")
    world.write(desk, "b.txt", "half\n")
    world.write(desk, "new/x.txt", "untracked\n")
    world.delete(desk, "dir/c.txt")
    before = world.seen(desk)
    assert await world.worktrees.rescue(A1) == SAVED
    assert world.files(SAVED) == {"a.txt": "committed\n", "b.txt": "half\n", "new/x.txt": "untracked\n"}
    assert (world.seen(desk), world.sha(BRANCH), world.sha(BASE)) == (before, head, None)


async def test_a_rescue_is_repeated_without_a_change_and_takes_what_came_to_the_branch(world: World) -> None:
    desk = await lent_to_host(world)
    world.write(desk, "b.txt", "half\n")
    await world.worktrees.rescue(A1)
    saved = world.sha(SAVED)
    world.restart()
    assert [await world.worktrees.rescue(A1) for _ in range(2)] == [SAVED, SAVED]
    assert world.sha(SAVED) == saved
    head = commit(world, desk, b="whole", late="1")
    assert await world.worktrees.rescue(A1) == SAVED
    assert world.files(SAVED) == world.files(head)
    assert world.sha(BRANCH) == head


async def test_rescuing_untouched_work_of_a_host_saves_nothing_however_often(world: World) -> None:
    desk = await lent_to_host(world)
    assert [await world.worktrees.rescue(A1) for _ in range(3)] == [None, None, None]
    assert world.sha(BRANCH) == world.first
    assert await world.worktrees.held() == [A1]
    world.host_clears(desk)
    assert await world.worktrees.rescue(A1) is None
    assert traces(world) == []


@pytest.mark.parametrize("left", ["cleared", "switched away"])
async def test_a_later_rescue_removes_the_branch_and_loses_no_commit(world: World, left: str) -> None:
    desk = await lent_to_host(world)
    commit(world, desk, a="1")
    await world.worktrees.rescue(A1)
    late = commit(world, desk, late="1")
    if left == "cleared":
        world.host_clears(desk)
    else:
        world.check_out(desk, world.first)
    assert await world.worktrees.held() == [A1]
    assert await world.worktrees.rescue(A1) == SAVED
    assert world.sha(SAVED) == late
    assert traces(world) == ["rescue"]
    assert await world.worktrees.held() == []


async def test_rescuing_what_was_lent_but_never_begun_leaves_nothing(world: World) -> None:
    await world.worktrees.lend(A1, world.first, ours=False)
    assert await world.worktrees.rescue(A1) is None
    assert await world.worktrees.held() == []


async def test_rescuing_our_lent_worktree_removes_it(world: World) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    world.write(path, "a.txt", "half\n")
    assert await world.worktrees.rescue(A1) == SAVED
    assert world.files(SAVED) == {**START, "a.txt": "half\n"}
    assert (world.there(path), traces(world), await world.worktrees.held()) == (False, ["rescue"], [])


async def test_what_lies_in_the_users_checkout_is_no_work_of_the_attempt(world: World) -> None:
    await world.worktrees.lend(A1, world.first, ours=False)
    world.switch(world.top, NAME, world.first)
    head = commit(world, world.top, a="1")
    world.write(world.top, "diary.txt", "the user's own\n")
    before = world.seen(world.top)
    assert await world.worktrees.rescue(A1) == SAVED
    assert (world.sha(SAVED), world.sha(BRANCH), world.seen(world.top)) == (head, head, before)
    world.user_switches_to("main")
    assert await world.worktrees.rescue(A1) == SAVED
    assert (world.sha(SAVED), traces(world)) == (head, ["rescue"])


async def test_a_branch_that_a_host_has_cannot_be_made_again(world: World) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="1")
    with pytest.raises(Fault) as caught:
        async with world.worktrees.hold(A1, world.first):
            pytest.fail("the host's agent is on that branch")
    assert caught.value.cause is FaultCause.BRANCH_CHECKED_OUT
    with pytest.raises(Fault):
        await world.worktrees.lend(A1, world.first, ours=True)
    assert (world.sha(BRANCH), world.sha(SAVED)) == (head, head)


# --- giving back and forgetting


async def test_giving_back_ours_removes_the_worktree_and_leaves_the_branch_to_forget(world: World) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    head = commit(world, path, a="1")
    for _ in range(2):
        await world.worktrees.give_back(A1, head)
        assert (world.there(path), world.sha(BRANCH), world.sha(BASE), world.sha(SAVED)) == (False, head, None, None)
    await world.start_epic("e")
    for _ in range(2):
        await world.merge.forget(A1)
        assert (traces(world), await world.worktrees.held()) == ([], [])
    await world.worktrees.give_back(A1, head)
    assert traces(world) == [], "what is forgotten does not come back"


@pytest.mark.parametrize("committed", [True, False])
async def test_giving_back_saves_what_is_beyond_the_head_that_landed(world: World, committed: bool) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    head = commit(world, path, a="1")
    world.write(path, "late.txt", "late\n")
    if committed:
        world.commit(path)
    await world.worktrees.give_back(A1, head)
    assert world.files(SAVED)["late.txt"] == "late\n"
    assert (world.sha(BRANCH), world.there(path)) == (head, False)
    await world.merge.forget(A1)
    assert traces(world) == ["rescue"]


async def test_commits_beside_the_branch_are_given_back_too(world: World) -> None:
    """The agent switched to a branch of its own in our worktree."""
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    world.check_out(path, world.first, "feature")
    head = commit(world, path, a="1")
    assert await judged(world) == Done(head, ("a.txt",))
    await world.worktrees.give_back(A1, head)
    assert (world.sha(BRANCH), world.sha(SAVED)) == (head, None)


async def test_giving_back_what_a_host_has_leaves_its_worktree_and_the_branch(world: World) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="1")
    before = world.seen(desk)
    for _ in range(2):
        await world.worktrees.give_back(A1, head)
        await world.merge.forget(A1)
        assert (world.seen(desk), world.sha(BRANCH), world.sha(BASE), world.sha(SAVED)) == (before, head, None, None)
        assert await world.worktrees.held() == [A1]
    world.host_clears(desk)
    await world.merge.forget(A1)
    assert (traces(world), await world.worktrees.held()) == ([], [])


@pytest.mark.parametrize("given_back", [True, False])
async def test_what_a_living_agent_adds_after_landing_is_not_lost(world: World, given_back: bool) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="1")
    if given_back:
        await world.worktrees.give_back(A1, head)
    await world.merge.forget(A1)
    late = commit(world, desk, late="1")
    world.host_clears(desk)
    await world.merge.forget(A1)
    assert (world.sha(SAVED), traces(world)) == (late, ["rescue"])


async def test_what_lies_uncommitted_at_the_host_when_it_landed_is_saved(world: World) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="1")
    world.write(desk, "late.txt", "late\n")
    await world.worktrees.give_back(A1, head)
    assert world.files(SAVED)["late.txt"] == "late\n"
    assert world.sha(BRANCH) == head
    await world.worktrees.give_back(A1, head)
    world.host_clears(desk)
    await world.merge.forget(A1)
    assert traces(world) == ["rescue"]


async def test_a_later_rescue_of_what_has_landed_saves_nothing(world: World) -> None:
    desk = await lent_to_host(world)
    head = commit(world, desk, a="1")
    await world.worktrees.give_back(A1, head)
    world.host_clears(desk)
    assert await world.worktrees.rescue(A1) is None
    assert traces(world) == []


async def test_forgetting_leaves_a_branch_that_the_user_has_checked_out(world: World) -> None:
    await landed_epic(world)
    world.user_switches_to(NAME)
    before = world.seen(world.top)
    await world.merge.forget(A1)
    assert (world.seen(world.top), await world.worktrees.held()) == (before, [A1])
    world.user_switches_to("main")
    await world.merge.forget(A1)
    assert traces(world) == []


async def landed_epic(world: World) -> None:
    await world.start_epic("e")
    await landed(world, A1, world.first, {"a.txt": "1\n"})


async def test_forgetting_what_was_never_given_back_saves_what_lies_there(world: World) -> None:
    path = await world.worktrees.lend(A1, world.first, ours=True)
    assert path is not None
    commit(world, path, a="1")
    world.write(path, "late.txt", "late\n")
    await world.merge.forget(A1)
    assert world.files(SAVED)["late.txt"] == "late\n"
    assert (world.there(path), traces(world), await world.worktrees.held()) == (False, ["rescue"], [])


# --- from the claim to the merge


async def test_a_repair_lands_after_the_agent_rebased_onto_an_earlier_tip(world: World) -> None:
    await world.start_epic("e")
    desk = await lent_to_host(world)
    commit(world, desk, a="ours", mine="1")
    onto = (await landed(world, A1._replace(story="S2"), world.first, {"a.txt": "theirs\n"})).head
    assert world.rebase(desk, onto) == ("a.txt",)
    world.write(desk, "a.txt", "settled\n")
    assert world.rebase_continue(desk) == ()
    done = await judged(world)
    assert isinstance(done, Done)
    further = (await landed(world, A1._replace(story="S3"), onto, {"b.txt": "further\n"})).head
    landing = await world.merge.rebase(A1, world.first, done.head)
    assert isinstance(landing, Landing)
    assert (landing.onto, landing.files) == (further, ("a.txt", "mine.txt"))
    settled = {**START, "a.txt": "settled\n", "b.txt": "further\n", "mine.txt": "1\n"}
    assert world.files(landing.head) == settled
    assert await world.merge.advance(A1, further, landing.head)
    await world.worktrees.give_back(A1, done.head)
    await world.merge.forget(A1)
    assert (world.sha(BRANCH), world.sha(SAVED)) == (done.head, None)


async def test_a_repair_lands_after_the_agent_merged_an_earlier_tip(world: World) -> None:
    await world.start_epic("e")
    desk = await lent_to_host(world)
    commit(world, desk, a="ours")
    onto = (await landed(world, A1._replace(story="S2"), world.first, {"a.txt": "theirs\n", "c.txt": "1\n"})).head
    assert world.merge_in(desk, onto) == ("a.txt",)
    assert await judged(world) == Uncommitted(("(unfinished merge)", "a.txt", "c.txt"))
    world.write(desk, "a.txt", "settled\n")
    world.commit(desk)
    done = await judged(world)
    assert isinstance(done, Done)
    further = (await landed(world, A1._replace(story="S3"), onto, {"b.txt": "further\n"})).head
    landing = await world.merge.rebase(A1, world.first, done.head)
    assert isinstance(landing, Landing)
    assert (landing.onto, landing.files) == (further, ("a.txt",))
    assert world.files(landing.head) == {**START, "a.txt": "settled\n", "b.txt": "further\n", "c.txt": "1\n"}
