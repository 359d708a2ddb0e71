"""`LandPort`, real and fake: the user's branch moves from where it was seen to what was composed, or not at all."""

from __future__ import annotations

import pytest

from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.land_port import Candidate, Clash, Desk, How, Reverts, Target, Undo
from tests.contracts.git_worlds import START, World, landed, worked

pytestmark = pytest.mark.anyio

S1, S2, S3 = (AttemptId("e", f"S{n}", 1) for n in (1, 2, 3))
MAIN, TIP = "refs/heads/main", "refs/heads/epicwave/e"
SAVED = "refs/epicwave/recovery/e"


@pytest.fixture
async def tip(world: World) -> Sha:
    """Two stories are on the integration branch."""
    await world.start_epic("e")
    one = await landed(world, S1, world.first, {"a.txt": "1\n"})
    return (await landed(world, S2, one.head, {"new.txt": "2\n"}, {"b.txt": "2\n"})).head


def user_commits(world: World, name: str, text: str) -> Sha:
    world.write(world.top, name, text)
    return world.commit(world.top)


async def composed(world: World, tip: Sha, how: How | None = None) -> tuple[Target, Candidate]:
    target = await world.land.target(None, world.top)
    candidate = await world.land.compose("e", target, tip, how, "The epic\n\n- S1\n")
    assert isinstance(candidate, Candidate), candidate
    return target, candidate


async def refused(world: World, into: str | None = None) -> Refused:
    with pytest.raises(Refused) as told:
        await world.land.target(into, world.top)
    return told.value


BOTH = {**START, "a.txt": "1\n", "b.txt": "2\n", "new.txt": "2\n"}


async def test_the_target_is_the_branch_that_the_checkout_is_on(world: World, tip: Sha) -> None:
    assert await world.land.target(None, world.top) == Target("main", world.first, world.top)
    assert await world.land.target("main", world.top) == Target("main", world.first, world.top)


async def test_a_branch_that_nobody_has_checked_out_has_no_place(world: World, tip: Sha) -> None:
    world.moves("refs/heads/release", world.first)
    assert await world.land.target("release", world.top) == Target("release", world.first, None)


@pytest.mark.parametrize("name", ["nothing", "epicwave/e"])
async def test_no_branch_or_one_of_ours_is_no_target(world: World, tip: Sha, name: str) -> None:
    assert (await refused(world, name)).code is Code.BAD_ARGUMENT


async def test_a_detached_head_is_on_no_branch(world: World, tip: Sha) -> None:
    world.check_out(world.top, world.first)
    assert (await refused(world)).code is Code.DETACHED_HEAD


async def test_a_branch_in_another_worktree_is_left_alone(world: World, tip: Sha) -> None:
    place = world.host_desk("other", world.first)
    told = await refused(world, "worktree-other")
    assert (told.code, str(place) in told.why) == (Code.BRANCH_CHECKED_OUT, True)


async def test_changes_that_are_not_committed_are_named(world: World, tip: Sha) -> None:
    world.write(world.top, "a.txt", "mine\n")
    told = await refused(world)
    assert (told.code, "a.txt" in told.why) == (Code.DIRTY_CHECKOUT, True)


async def test_a_merge_in_progress_is_in_the_way(world: World, tip: Sha) -> None:
    user_commits(world, "a.txt", "mine\n")
    assert world.merge_in(world.top, tip) == ("a.txt",)
    assert (await refused(world)).code is Code.DIRTY_CHECKOUT


async def test_a_rebase_in_progress_is_in_the_way(world: World, tip: Sha) -> None:
    user_commits(world, "a.txt", "mine\n")
    assert world.rebase(world.top, tip) == ("a.txt",)
    assert (await refused(world)).code is Code.DIRTY_CHECKOUT


@pytest.mark.parametrize("how", [None, How.FF])
async def test_a_fast_forward_is_the_very_commit_and_takes_the_checkout_with_it(
    world: World, tip: Sha, how: How | None
) -> None:
    world.write(world.top, "notes.txt", "untracked\n")
    target, candidate = await composed(world, tip, how)
    assert candidate == Candidate(world.first, tip, await world.land.tree(tip))
    ref = await world.land.move("e", target, candidate)
    assert (ref, world.sha(ref), world.sha(MAIN)) == (f"{SAVED}/land-000001", world.first, tip)
    assert await world.land.target(None, world.top) == Target("main", tip, world.top), "clean, and on its branch"
    assert world.files(MAIN) == BOTH
    again, nothing = await composed(world, tip)
    assert nothing.sha == nothing.onto == again.head


async def test_a_squash_is_one_commit_with_the_tree_that_was_proven(world: World, tip: Sha) -> None:
    target, candidate = await composed(world, tip, How.SQUASH)
    assert candidate.tree == await world.land.tree(tip)
    assert candidate.sha != tip
    await world.land.move("e", target, candidate)
    assert world.files(MAIN) == BOTH
    _, nothing = await composed(world, tip, How.SQUASH)
    assert nothing.sha == nothing.onto, "a second one finds it there"


async def test_a_merge_of_a_branch_that_has_not_moved_has_the_proven_tree(world: World, tip: Sha) -> None:
    target, candidate = await composed(world, tip, How.MERGE)
    assert candidate.tree == await world.land.tree(tip)
    await world.land.move("e", target, candidate)
    assert (world.files(MAIN), world.sha(MAIN) != tip) == (BOTH, True)


@pytest.mark.parametrize("how", [None, How.MERGE, How.SQUASH])
async def test_where_both_have_moved_the_merge_has_both_and_nothing_moves_before_it_is_told_to(
    world: World, tip: Sha, how: How | None
) -> None:
    mine = user_commits(world, "mine.txt", "mine\n")
    before = world.seen(world.top)
    target, candidate = await composed(world, tip, how)
    assert candidate.onto == mine
    assert world.files(candidate.sha) == {**BOTH, "mine.txt": "mine\n"}
    assert (world.seen(world.top), world.sha(MAIN)) == (before, mine)
    await world.land.move("e", target, candidate)
    assert world.sha(MAIN) == candidate.sha


async def test_where_both_have_moved_there_is_no_fast_forward(world: World, tip: Sha) -> None:
    user_commits(world, "mine.txt", "mine\n")
    with pytest.raises(Refused) as told:
        await composed(world, tip, How.FF)
    assert told.value.code is Code.NOT_FAST_FORWARD


async def test_a_conflict_names_its_paths_and_changes_nothing(world: World, tip: Sha) -> None:
    mine = user_commits(world, "a.txt", "mine\n")
    before = world.seen(world.top)
    target = await world.land.target(None, world.top)
    assert await world.land.compose("e", target, tip, None, "x") == Clash(("a.txt",))
    assert (world.seen(world.top), world.sha(MAIN), world.sha(TIP)) == (before, mine, tip)


async def test_a_branch_that_was_moved_meanwhile_is_not_moved_by_us(world: World, tip: Sha) -> None:
    target, candidate = await composed(world, tip)
    mine = user_commits(world, "mine.txt", "mine\n")
    with pytest.raises(Refused) as told:
        await world.land.move("e", target, candidate)
    assert (told.value.code, world.sha(MAIN)) == (Code.BRANCH_MOVED, mine)


async def test_a_checkout_that_was_changed_meanwhile_is_not_touched(world: World, tip: Sha) -> None:
    target, candidate = await composed(world, tip)
    world.write(world.top, "b.txt", "mine\n")
    before = world.seen(world.top)
    with pytest.raises(Refused) as told:
        await world.land.move("e", target, candidate)
    assert told.value.code is Code.DIRTY_CHECKOUT
    assert (world.seen(world.top), world.sha(MAIN)) == (before, world.first)


async def test_an_untracked_file_is_never_written_over(world: World, tip: Sha) -> None:
    world.write(world.top, "new.txt", "mine\n")
    target, candidate = await composed(world, tip)
    before = world.seen(world.top)
    with pytest.raises(Refused) as told:
        await world.land.move("e", target, candidate)
    assert (told.value.code, "new.txt" in told.value.why) == (Code.DIRTY_CHECKOUT, True)
    assert (world.seen(world.top), world.sha(MAIN)) == (before, world.first)


async def test_a_branch_that_nobody_has_is_moved_without_the_checkout(world: World, tip: Sha) -> None:
    world.moves("refs/heads/release", world.first)
    before = world.seen(world.top)
    target = await world.land.target("release", world.top)
    candidate = await world.land.compose("e", target, tip, None, "x")
    assert isinstance(candidate, Candidate)
    await world.land.move("e", target, candidate)
    assert (world.sha("refs/heads/release"), world.sha(MAIN), world.seen(world.top)) == (tip, world.first, before)
    other = await world.land.target("release", world.top)
    world.moves("refs/heads/release", world.first)
    with pytest.raises(Refused) as told:
        await world.land.move("e", other, Candidate(tip, world.first, "t"))
    assert told.value.code is Code.BRANCH_MOVED


async def test_a_desk_is_at_its_commit_and_gone_when_it_is_closed(world: World, tip: Sha) -> None:
    path = await world.land.desk("e", Desk.LANDING, tip)
    world.write(path, "left.txt", "by a check\n")
    again = await world.land.desk("e", Desk.LANDING, world.first)
    other = await world.land.desk("e", Desk.ROLLBACK, tip)
    assert (again, other == path) == (path, False)
    await world.land.close("e")
    assert not world.there(path)
    assert not world.there(other)


# --- taking back


async def undone(world: World, *undos: Undo) -> Reverts:
    reverts = await world.land.revert("e", undos, "it broke")
    assert isinstance(reverts, Reverts), reverts
    return reverts


async def test_a_story_of_two_commits_is_reverted_as_a_whole_and_no_ref_moves(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    assert world.files(reverts.head) == {**START, "a.txt": "1\n"}
    assert (reverts.onto, world.sha(TIP)) == (tip, tip)


async def test_a_story_below_another_goes_and_the_other_stays(world: World, tip: Sha) -> None:
    first = world.sha("refs/epicwave/landed/e/S1/1") or ""
    reverts = await undone(world, Undo(S1, first, world.first))
    assert world.files(reverts.head) == {**START, "b.txt": "2\n", "new.txt": "2\n"}


async def test_it_is_moved_with_its_note_and_its_commits_are_kept(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    assert await world.land.take_back("e", [Undo(S2, tip)], reverts) == {S2: "refs/epicwave/rescue/e/S2/1"}
    assert world.sha(TIP) == reverts.head
    assert world.sha("refs/epicwave/rescue/e/S2/1") == tip
    assert world.sha(f"{SAVED}/rollback-000001") == tip
    assert [at.attempt for at in await world.merge.landed("e")] == [S1]


async def test_to_take_it_back_again_changes_nothing(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    first = await world.land.take_back("e", [Undo(S2, tip)], reverts)
    world.restart()
    assert await world.land.take_back("e", [Undo(S2, tip)], reverts) == first
    assert (world.sha(TIP), world.sha(f"{SAVED}/rollback-000002")) == (reverts.head, None)


async def test_a_note_that_a_crash_left_goes_with_the_second_call(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    world.moves(TIP, reverts.head)
    assert await world.land.take_back("e", [Undo(S2, tip)], reverts) is not None
    assert world.sha("refs/epicwave/landed/e/S2/1") is None


async def test_a_branch_that_has_moved_on_is_left_alone(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    third = await landed(world, S3, tip, {"c.txt": "3\n"})
    assert await world.land.take_back("e", [Undo(S2, tip)], reverts) is None
    assert (world.sha(TIP), world.sha("refs/epicwave/landed/e/S2/1")) == (third.head, tip)


async def test_a_branch_that_somebody_has_checked_out_is_a_fault(world: World, tip: Sha) -> None:
    reverts = await undone(world, Undo(S2, tip))
    world.user_switches_to("epicwave/e")
    with pytest.raises(Fault) as fault:
        await world.land.take_back("e", [Undo(S2, tip)], reverts)
    assert fault.value.cause is FaultCause.BRANCH_CHECKED_OUT
    assert world.sha(TIP) == tip


async def test_a_branch_that_is_gone_is_a_fault(world: World, tip: Sha) -> None:
    world.moves(TIP, None)
    with pytest.raises(Fault):
        await world.land.revert("e", [Undo(S2, tip)], "x")


async def test_all_of_it_in_one_go_is_the_beginning_again(world: World, tip: Sha) -> None:
    first = world.sha("refs/epicwave/landed/e/S1/1") or ""
    undos = [Undo(S2, tip, first), Undo(S1, first, world.first)]
    reverts = await undone(world, *undos)
    assert world.files(reverts.head) == START
    saved = await world.land.take_back("e", undos, reverts)
    assert saved is not None
    assert list(saved) == [S2, S1]
    assert await world.merge.landed("e") == []


async def test_what_a_later_story_changed_too_is_a_clash(world: World, tip: Sha) -> None:
    third = await landed(world, S3, tip, {"b.txt": "3\n"})
    assert await world.land.revert("e", [Undo(S2, tip)], "x") == Clash(("b.txt",))
    assert world.sha(TIP) == third.head


async def test_the_range_ends_where_an_earlier_rollback_did(world: World, tip: Sha) -> None:
    """Without the journal too: S3 is its own commit, not the revert of S2 before it."""
    reverts = await undone(world, Undo(S2, tip))
    await world.land.take_back("e", [Undo(S2, tip)], reverts)
    third = await landed(world, S3, reverts.head, {"c.txt": "3\n"})
    again = await undone(world, Undo(S3, third.head))
    assert world.files(again.head) == {**START, "a.txt": "1\n"}


async def test_a_story_that_landed_with_a_merge_of_its_own_is_undone_as_a_whole(world: World, tip: Sha) -> None:
    async with world.worktrees.hold(S3, tip) as path:
        world.switch(path, "side", tip)
        world.write(path, "side.txt", "s\n")
        side = world.commit(path)
        world.switch(path, "epicwave-work/e/S3/1")
        world.write(path, "own.txt", "o\n")
        world.commit(path)
        world.merge_in(path, side)
        outcome = await world.worktrees.inspect(S3, tip)
    world.moves("refs/heads/side", None)
    await landed(world, S1._replace(number=2), tip, {"c.txt": "between\n"})
    landing = await world.merge.rebase(S3, tip, outcome.head)  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue]
    assert await world.merge.advance(S3, landing.onto, landing.head)  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue]
    head = world.sha(TIP) or ""
    reverts = await undone(world, Undo(S3, head))
    assert world.files(reverts.head) == {**BOTH, "c.txt": "between\n"} | {"dir/c.txt": "c\n"}


async def test_what_was_all_there_when_it_landed_needs_no_revert(world: World, tip: Sha) -> None:
    assert await world.merge.advance(S3, tip, tip)
    reverts = await undone(world, Undo(S3, tip))
    assert reverts == Reverts(tip, tip)
    await world.land.take_back("e", [Undo(S3, tip)], reverts)
    assert (world.sha("refs/epicwave/landed/e/S3/1"), world.sha(TIP)) == (None, tip)


async def test_what_was_saved_of_an_attempt_before_is_kept_beside_what_had_landed(world: World, tip: Sha) -> None:
    other = await worked(world, S3, tip, {"left.txt": "l\n"})
    world.moves("refs/epicwave/rescue/e/S2/1", other)
    world.moves("refs/epicwave/rescue/e/S1/1", world.first)
    third = Undo(S2, world.sha("refs/epicwave/landed/e/S1/1") or "")  # beside it, not below
    await world.land.take_back("e", [third], Reverts(tip, tip))
    assert "left.txt" in world.files(other)
    assert world.sha("refs/epicwave/rescue/e/S2/1") == other, "it has all of that already"
