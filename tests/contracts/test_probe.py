"""The live probe, on the real git and on the fake one: what it sees, when it says nothing, and that nobody notices."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mcp_server.adapters.git.names import attempt_branch
from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.probe import Look, Seen, Sight
from tests.contracts.git_worlds import World, landed, worked

pytestmark = pytest.mark.anyio
A, B, C = (AttemptId("e", name, 1) for name in "abc")


class Stage:
    """Worktrees of `A` and `B`, held, with their first commit as base."""

    def __init__(self, world: World, a: Path, b: Path) -> None:
        self.world = world
        self.a = a
        self.b = b

    async def look(self, *fresh: AttemptId) -> Look:
        return await self.world.probe.look([Sight(A, self.world.first), Sight(B, self.world.first)], fresh or None)


async def staged(world: World, stack: AsyncExitStack) -> Stage:
    await world.start_epic("e")
    a, b = [await stack.enter_async_context(world.worktrees.hold(attempt, world.first)) for attempt in (A, B)]
    return Stage(world, a, b)


async def test_what_is_written_and_not_committed_is_seen(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "new\n")
        world.write(stage.a, "dir/new.txt", "new\n")
        world.delete(stage.a, "b.txt")
        look = await stage.look()
        assert look.seen == {A: Seen(("a.txt", "b.txt", "dir/new.txt"), ()), B: Seen((), ())}
        assert look.changed


async def test_a_second_look_at_the_same_says_that_nothing_has_changed(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "new\n")
        first = await stage.look()
        again = await stage.look()
        assert (again.seen, again.changed) == (first.seen, False)
        world.write(stage.a, "a.txt", "newer\n")
        assert (await stage.look()).changed


async def test_two_who_change_the_same_lines_are_told_both_whether_or_not_they_have_committed(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        world.commit(stage.a)
        world.write(stage.b, "a.txt", "two\n")
        look = await stage.look()
        assert look.seen[A].clashes == (Clash(B, ("a.txt",)),)
        assert look.seen[B].clashes == (Clash(A, ("a.txt",)),)


async def test_a_conflict_that_is_put_back_is_gone(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        world.write(stage.b, "a.txt", "two\n")
        assert (await stage.look()).seen[A].clashes
        world.write(stage.b, "a.txt", "a\n")
        look = await stage.look()
        assert (look.seen[A].clashes, look.seen[B]) == ((), Seen((), ()))


async def test_the_same_change_made_twice_is_no_conflict(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        for path in (stage.a, stage.b):
            world.write(path, "a.txt", "same\n")
        assert (await stage.look()).seen[A] == Seen(("a.txt",), ())


async def test_a_conflict_with_what_is_merged_meanwhile_is_told_and_what_was_merged_is_not_the_storys(
    world: World,
) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        await landed(world, C, world.first, {"a.txt": "landed\n", "b.txt": "landed\n"})
        look = await stage.look()
        assert look.seen[A] == Seen(("a.txt",), (Clash(None, ("a.txt",)),))
        assert look.seen[B] == Seen((), ())


async def test_who_has_rebased_onto_the_tip_has_only_its_own_files(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "dir/c.txt", "one\n")
        world.commit(stage.a)
        landing = await landed(world, C, world.first, {"a.txt": "landed\n"})
        assert world.rebase(stage.a, landing.head) == ()
        assert (await stage.look()).seen[A] == Seen(("dir/c.txt",), ())


async def test_what_waits_in_the_merge_queue_is_compared_by_its_commits(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        head = await worked(world, C, world.first, {"a.txt": "queued\n"})
        world.write(stage.a, "a.txt", "one\n")
        look = await world.probe.look([Sight(A, world.first), Sight(C, world.first, head)])
        assert look.seen[C] == Seen(("a.txt",), (Clash(A, ("a.txt",)),))
        assert look.seen[A].clashes == (Clash(C, ("a.txt",)),)


async def test_only_who_is_asked_for_is_looked_at_again(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        await stage.look()
        world.write(stage.a, "a.txt", "one\n")
        world.write(stage.b, "a.txt", "two\n")
        assert (await stage.look(A)).seen == {A: Seen(("a.txt",), ()), B: Seen((), ())}
        assert (await stage.look(B)).seen[A].clashes == (Clash(B, ("a.txt",)),)


async def test_in_the_middle_of_a_rebase_it_is_told_as_it_was_before(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        world.commit(stage.a)
        landing = await landed(world, C, world.first, {"a.txt": "landed\n"})
        before = await stage.look()
        assert world.rebase(stage.a, landing.head) == ("a.txt",)
        look = await stage.look()
        assert look.seen[A] == before.seen[A]
        world.write(stage.a, "a.txt", "settled\n")
        world.rebase_continue(stage.a)
        assert (await stage.look()).seen[A] == Seen(("a.txt",), ())


async def test_who_was_never_seen_and_has_no_worktree_is_not_told(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        look = await world.probe.look([Sight(A, world.first), Sight(C, world.first)])
        assert set(look.seen) == {A}
        assert stage.b


async def test_a_worktree_that_vanishes_is_told_as_it_was_seen_last(world: World) -> None:
    await world.start_epic("e")
    path = world.host_desk("one", world.first)
    await world.worktrees.lend(A, world.first, ours=False)
    world.switch(path, attempt_branch(A), world.first)
    world.write(path, "a.txt", "one\n")
    before = await world.probe.look([Sight(A, world.first)])
    assert before.seen[A].files == ("a.txt",)
    world.host_clears(path)
    assert (await world.probe.look([Sight(A, world.first)])).seen == before.seen
    await world.worktrees.rescue(A)


async def test_a_worktree_of_the_hosts_counts_while_it_has_the_branch(world: World) -> None:
    await world.start_epic("e")
    path = world.host_desk("one", world.first)
    await world.worktrees.lend(A, world.first, ours=False)
    assert (await world.probe.look([Sight(A, world.first)])).seen == {}
    world.switch(path, attempt_branch(A), world.first)
    world.write(path, "a.txt", "one\n")
    assert (await world.probe.look([Sight(A, world.first)])).seen[A].files == ("a.txt",)
    world.commit(path)
    world.switch(path, "worktree-one")
    world.write(path, "b.txt", "somebody else's\n")
    assert (await world.probe.look([Sight(A, world.first)])).seen[A].files == ("a.txt",)
    await world.worktrees.rescue(A)


async def test_after_it_was_closed_it_begins_anew(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        first = await stage.look()
        await world.probe.close()
        again = await stage.look()
        assert (again.seen, again.changed) == (first.seen, True)


async def test_the_agent_never_notices(world: World) -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(world, stack)
        world.write(stage.a, "a.txt", "one\n")
        world.write(stage.a, "new.txt", "one\n")
        world.write(stage.b, "a.txt", "two\n")
        before: list[object] = [world.seen(path) for path in (stage.a, stage.b, world.top)]
        tips: list[Sha | None] = [world.sha("refs/heads/epicwave/e"), world.sha("refs/heads/main")]
        assert (await stage.look()).seen[A].clashes
        assert [world.seen(path) for path in (stage.a, stage.b, world.top)] == before
        assert [world.sha("refs/heads/epicwave/e"), world.sha("refs/heads/main")] == tips
