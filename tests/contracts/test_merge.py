"""The contract of the port `MergePort`, kept by real git and by the fake."""

from __future__ import annotations

import pytest

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landed, Landing
from tests.contracts.git_worlds import START, World, landed, worked

pytestmark = pytest.mark.anyio

S1, S2, S3 = (AttemptId("e", name, 1) for name in ("S1", "S2", "S3"))
TIP = "refs/heads/epicwave/e"


@pytest.fixture(autouse=True)
async def begun(world: World) -> None:
    await world.start_epic("e")


async def test_a_branch_on_the_tip_lands_as_it_is(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    assert await world.merge.rebase(S1, world.first, head) == Landing(world.first, head, ("a.txt",))
    assert await world.merge.advance(S1, world.first, head)
    assert await world.merge.tip("e") == head == world.sha(TIP)


async def test_a_branch_behind_the_tip_is_replayed_onto_it(world: World) -> None:
    head = await worked(world, S2, world.first, {"b.txt": "2\n"}, {"new.txt": "3\n"})
    onto = (await landed(world, S1, world.first, {"a.txt": "1\n"})).head
    landing = await world.merge.rebase(S2, world.first, head)
    assert isinstance(landing, Landing)
    assert (landing.onto, landing.files) == (onto, ("b.txt", "new.txt"))
    assert world.files(landing.head) == {"a.txt": "1\n", "b.txt": "2\n", "dir/c.txt": "c\n", "new.txt": "3\n"}
    assert world.sha(TIP) == onto, "a rebase moves nothing"
    assert await world.merge.advance(S2, onto, landing.head)


async def test_the_rebase_moves_no_branch_of_the_attempt(world: World) -> None:
    head = await worked(world, S2, world.first, {"b.txt": "2\n"})
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.rebase(S2, world.first, head)
    assert world.sha("refs/heads/epicwave-work/e/S2/1") == head


async def test_two_sides_of_one_file_are_a_conflict_with_both_in_its_detail(world: World) -> None:
    head = await worked(world, S2, world.first, {"new.txt": "fine\n"}, {"a.txt": "theirs\n", "b.txt": "2\n"})
    onto = (await landed(world, S1, world.first, {"a.txt": "ours\n"})).head
    conflict = await world.merge.rebase(S2, world.first, head)
    assert isinstance(conflict, Conflicted)
    assert (conflict.onto, conflict.paths) == (onto, ("a.txt",))
    assert "ours" in conflict.detail
    assert "theirs" in conflict.detail
    assert len(conflict.detail) < 7000
    assert world.sha(TIP) == onto


async def test_after_a_conflict_the_next_branch_lands(world: World) -> None:
    head2 = await worked(world, S2, world.first, {"a.txt": "theirs\n", "left.txt": "behind?\n"})
    head3 = await worked(world, S3, world.first, {"b.txt": "3\n"})
    onto = (await landed(world, S1, world.first, {"a.txt": "ours\n"})).head
    assert isinstance(await world.merge.rebase(S2, world.first, head2), Conflicted)
    landing = await world.merge.rebase(S3, world.first, head3)
    assert isinstance(landing, Landing)
    assert landing.onto == onto
    assert world.files(landing.head) == {**START, "a.txt": "ours\n", "b.txt": "3\n"}


async def test_one_side_deletes_what_the_other_changes_is_a_conflict(world: World) -> None:
    async with world.worktrees.hold(S2, world.first) as path:
        world.delete(path, "a.txt")
        head = world.commit(path)
        await world.worktrees.inspect(S2, world.first)
    await landed(world, S1, world.first, {"a.txt": "ours\n"})
    conflict = await world.merge.rebase(S2, world.first, head)
    assert isinstance(conflict, Conflicted)
    assert conflict.paths == ("a.txt",)


async def test_what_is_merged_already_lands_as_nothing(world: World) -> None:
    """A crash between the merge and the journal: the same branch comes again."""
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.advance(S1, world.first, head)
    assert await world.merge.rebase(S1, world.first, head) == Landing(head, head, ())


async def test_what_is_merged_already_under_another_sha_lands_as_nothing(world: World) -> None:
    head = await worked(world, S2, world.first, {"b.txt": "2\n"}, {"b.txt": "3\n"})
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    landing = await world.merge.rebase(S2, world.first, head)
    assert isinstance(landing, Landing)
    assert landing.head != head
    await world.merge.advance(S2, landing.onto, landing.head)
    world.restart()
    assert await world.merge.rebase(S2, world.first, head) == Landing(landing.head, landing.head, ())


async def test_the_rebased_tree_can_be_checked_out(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    landing = await world.merge.rebase(S1, world.first, head)
    assert isinstance(landing, Landing)
    path = await world.merge.checkout("e", landing.head)
    assert world.there(path)
    world.write(path, "proof.txt", "checked\n")
    tree = world.files(world.commit(path))
    assert tree == {**START, "a.txt": "1\n", "proof.txt": "checked\n"}


async def test_the_branch_is_not_moved_when_it_is_elsewhere(world: World) -> None:
    head1 = await worked(world, S1, world.first, {"a.txt": "1\n"})
    head2 = await worked(world, S2, world.first, {"b.txt": "2\n"})
    assert await world.merge.advance(S1, world.first, head1)
    assert not await world.merge.advance(S2, world.first, head2)
    assert world.sha(TIP) == head1


async def test_moving_the_branch_twice_is_moving_it_once(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    assert [await world.merge.advance(S1, world.first, head) for _ in range(2)] == [True, True]
    further = (await landed(world, S2, head, {"b.txt": "2\n"})).head
    assert await world.merge.advance(S1, world.first, head)
    assert world.sha(TIP) == further


async def test_the_branch_never_moves_to_what_does_not_descend_from_it(world: World) -> None:
    head1 = (await landed(world, S1, world.first, {"a.txt": "1\n"})).head
    head2 = await worked(world, S2, world.first, {"b.txt": "2\n"})
    with pytest.raises(Fault):
        await world.merge.advance(S2, head1, head2)
    assert world.sha(TIP) == head1


async def test_a_branch_that_a_checkout_has_is_not_moved(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    world.user_switches_to("epicwave/e")
    with pytest.raises(Fault, match="epicwave/e is checked out in") as caught:
        await world.merge.advance(S1, world.first, head)
    assert caught.value.cause is FaultCause.BRANCH_CHECKED_OUT
    assert world.sha(TIP) == world.first
    world.user_switches_to("main")
    assert await world.merge.advance(S1, world.first, head)


async def test_contains_knows_what_is_merged(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    assert await world.merge.contains("e", world.first)
    assert not await world.merge.contains("e", head)
    assert not await world.merge.contains("e", "0123456789" * 4)
    await world.merge.advance(S1, world.first, head)
    assert await world.merge.contains("e", head)


RECOVERY = "refs/epicwave/recovery/e/{:06}"


async def test_every_commit_that_the_branch_has_been_at_is_on_a_recovery_ref_or_is_the_tip(world: World) -> None:
    """In order, also over a restart, a user's own move, and a batch that lands in one step."""
    one = await landed(world, S1, world.first, {"a.txt": "1\n"})
    world.restart()
    two = await landed(world, S2, one.head, {"b.txt": "2\n"})
    head = await worked(world, S3, two.head, {"a.txt": "3\n"})
    other = S3._replace(number=2)
    last = await worked(world, other, head, {"b.txt": "3\n"})
    assert await world.merge.advance(other, two.head, last, [(S3, head)])
    been = [world.first, one.head, two.head]
    assert [world.sha(RECOVERY.format(number)) for number in range(1, 5)] == [*been, None]
    world.moves(TIP, one.head)
    again = await landed(world, S3._replace(number=3), one.head, {"new.txt": "4\n"})
    assert [world.sha(RECOVERY.format(number)) for number in range(1, 6)] == [*been, one.head, None]
    assert world.sha(TIP) == again.head


async def test_a_move_that_does_not_happen_leaves_no_recovery_ref(world: World) -> None:
    head1 = await worked(world, S1, world.first, {"a.txt": "1\n"})
    head2 = await worked(world, S2, world.first, {"b.txt": "2\n"})
    assert await world.merge.advance(S1, world.first, head1)
    assert not await world.merge.advance(S2, world.first, head2)
    assert await world.merge.advance(S1, world.first, head1)
    assert [world.sha(RECOVERY.format(number)) for number in (1, 2)] == [world.first, None]


async def test_a_recovery_ref_that_a_crash_left_without_its_move_is_not_made_twice(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    world.moves(RECOVERY.format(1), world.first)
    assert await world.merge.advance(S1, world.first, head)
    assert [world.sha(RECOVERY.format(number)) for number in (1, 2)] == [world.first, None]


NOTE = "refs/epicwave/landed/e/{}/{}"


async def test_git_notes_what_has_landed_with_the_merge_and_only_then(world: World) -> None:
    head1 = await worked(world, S1, world.first, {"a.txt": "1\n"})
    head2 = await worked(world, S2, world.first, {"b.txt": "2\n"})
    assert await world.merge.landed("e") == []
    assert await world.merge.advance(S1, world.first, head1)
    assert not await world.merge.advance(S2, world.first, head2)
    assert (world.sha(NOTE.format("S1", 1)), world.sha(NOTE.format("S2", 1))) == (head1, None)
    assert await world.merge.landed("e") == [Landed(S1, Landing(world.first, head1, ("a.txt",)))]


async def test_what_has_landed_is_told_in_the_order_of_the_branch(world: World) -> None:
    """Also after the branch went on, and after the branches and worktrees of the attempts are gone."""
    S3_2 = S3._replace(number=2)  # noqa: N806 - a name like the others
    one = await landed(world, S3_2, world.first, {"a.txt": "3\n"})
    two = await landed(world, S1, one.head, {"b.txt": "1\n"}, {"new.txt": "1\n"})
    three = await landed(world, S2, two.head, {"a.txt": "2\n"})
    for attempt in (S1, S2, S3_2):
        await world.merge.forget(attempt)
    world.restart()
    assert await world.merge.landed("e") == [Landed(S3_2, one), Landed(S1, two), Landed(S2, three)]
    assert await world.merge.landed("e", ["S1", "S3"]) == [Landed(S2, three)]
    assert await world.merge.landed("e", ["S1", "S2", "S3"]) == []
    assert await world.merge.landed("f") == []


async def test_the_last_attempt_of_a_story_is_the_one_that_counts(world: World) -> None:
    """A later one landed too, in another life of the journal."""
    one = await landed(world, S1, world.first, {"a.txt": "1\n"})
    S1_10 = S1._replace(number=10)  # noqa: N806 - a name like the others
    two = await landed(world, S1_10, one.head, {"a.txt": "2\n"})
    assert [at.attempt for at in await world.merge.landed("e")] == [S1_10]
    assert (await world.merge.landed("e"))[0].landing.head == two.head


async def test_what_is_on_the_branch_already_is_noted_when_it_lands_as_nothing(world: World) -> None:
    head = await worked(world, S2, world.first, {"b.txt": "2\n"})
    landing = await landed(world, S1, world.first, {"b.txt": "2\n"}, {"a.txt": "1\n"})
    nothing = await world.merge.rebase(S2, world.first, head)
    assert nothing == Landing(landing.head, landing.head, ())
    assert await world.merge.advance(S2, landing.head, landing.head)
    assert {at.attempt for at in await world.merge.landed("e")} == {S1, S2}
    assert world.sha(TIP) == landing.head


async def test_a_note_whose_commit_the_branch_does_not_have_counts_for_nothing_and_is_written_anew(
    world: World,
) -> None:
    """The user threw the branch away and began again, with the same numbers."""
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.forget(S1)
    world.moves(TIP, world.first)
    assert await world.merge.landed("e") == []
    again = await landed(world, S1, world.first, {"a.txt": "again\n"})
    assert await world.merge.landed("e") == [Landed(S1, again)]
    world.moves(TIP, None)
    assert await world.merge.landed("e") == []


async def test_a_note_of_another_life_is_written_anew_where_the_work_is_there_already(world: World) -> None:
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.forget(S1)
    world.moves(TIP, world.first)
    other = await landed(world, S2, world.first, {"b.txt": "2\n"})
    assert await world.merge.advance(S1, other.head, other.head)
    assert world.sha(NOTE.format("S1", 1)) == other.head


async def test_a_note_is_no_attempt_and_stays_when_its_attempt_is_forgotten(world: World) -> None:
    landing = await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.forget(S1)
    await world.merge.close("e")
    assert await world.worktrees.held() == []
    assert await world.worktrees.rescue(S1) is None
    assert world.sha(NOTE.format("S1", 1)) == landing.head


async def test_forgetting_removes_the_branch_once_and_for_all(world: World) -> None:
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.forget(S1)
    await world.merge.forget(S1)
    assert world.sha("refs/heads/epicwave-work/e/S1/1") is None
    assert await world.worktrees.held() == []


async def test_a_merge_without_checks_makes_no_worktree(world: World) -> None:
    head = await worked(world, S2, world.first, {"a.txt": "theirs\n"})
    other = await worked(world, S3, world.first, {"b.txt": "3\n"}, {"b.txt": "4\n"})
    await landed(world, S1, world.first, {"a.txt": "ours\n"})
    assert isinstance(await world.merge.rebase(S2, world.first, head), Conflicted)
    landing = await world.merge.rebase(S3, world.first, other)
    assert isinstance(landing, Landing)
    assert await world.merge.advance(S3, landing.onto, landing.head)
    place = await world.merge.checkout("f", landing.head)
    assert not world.there(place.parents[1] / "e" / place.name)


async def test_closing_removes_the_worktree_and_the_next_checkout_makes_it_again(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    path = await world.merge.checkout("e", head)
    await world.merge.close("e")
    await world.merge.close("e")
    assert not world.there(path)
    assert world.sha(TIP) == world.first
    assert isinstance(await world.merge.rebase(S1, world.first, head), Landing)
    assert await world.merge.checkout("e") == path
    assert world.there(path)


async def test_the_integration_worktree_is_no_attempt(world: World) -> None:
    await world.merge.checkout("e")
    assert await world.worktrees.held() == []


async def test_two_epics_do_not_disturb_each_other(world: World) -> None:
    await world.start_epic("f")
    head_e = await worked(world, S1, world.first, {"a.txt": "e\n"})
    head_f = await worked(world, S1._replace(epic="f"), world.first, {"a.txt": "f\n"})
    for attempt, head in ((S1, head_e), (S1._replace(epic="f"), head_f)):
        assert await world.merge.rebase(attempt, world.first, head) == Landing(world.first, head, ("a.txt",))
    assert await world.merge.checkout("e") != await world.merge.checkout("f")
    assert await world.merge.advance(S1, world.first, head_e)
    assert (await world.merge.tip("e"), await world.merge.tip("f")) == (head_e, world.first)
    await world.merge.close("f")
    assert world.there(await world.merge.checkout("e"))


async def test_an_epic_without_its_branch_is_a_fault(world: World) -> None:
    with pytest.raises(Fault):
        await world.merge.tip("unknown")
