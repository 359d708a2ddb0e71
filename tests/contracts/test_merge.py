"""The contract of the port `MergePort`, kept by real git and by the fake."""

from __future__ import annotations

import pytest

from mcp_server.core.model import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landing
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


async def test_the_checkout_is_where_the_rebased_tree_lies(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.rebase(S1, world.first, head)
    path = await world.merge.checkout("e")
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


async def test_forgetting_removes_the_branch_once_and_for_all(world: World) -> None:
    await landed(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.forget(S1)
    await world.merge.forget(S1)
    assert world.sha("refs/heads/epicwave-work/e/S1/1") is None
    assert await world.worktrees.held() == []


async def test_closing_removes_the_worktree_and_the_next_rebase_makes_it_again(world: World) -> None:
    head = await worked(world, S1, world.first, {"a.txt": "1\n"})
    await world.merge.rebase(S1, world.first, head)
    path = await world.merge.checkout("e")
    await world.merge.close("e")
    await world.merge.close("e")
    assert not world.there(path)
    assert world.sha(TIP) == world.first
    assert isinstance(await world.merge.rebase(S1, world.first, head), Landing)
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
