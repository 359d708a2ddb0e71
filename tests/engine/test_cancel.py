"""Cancelling at any moment: nothing is alive afterwards, work is saved, and what git has merged stays merged."""

from __future__ import annotations

import anyio
import pytest

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Refused
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio
A1 = AttemptId("e", "a", 1)


def early_bird(world: World, **fields: object) -> Play:
    """Writes at once and then works on for long."""
    return Play(seconds=1.0, act=world.truth.scribble, hang=True, **fields)  # type: ignore[arg-type]


async def test_cancel_while_offered() -> None:
    async with a_world() as world:
        world.git.delay_s["hold"] = 10.0
        world.plan(story("a"), story("b", "a"))
        world.start()
        await anyio.sleep(5)
        assert world.states() == {"a": "offered", "b": "queued"}
        world.cancel()
        assert world.states() == {"a": "stopping", "b": "cancelled"}
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "cancelled"}
        assert world.runner.calls == []


async def test_cancel_while_running_saves_what_there_is() -> None:
    async with a_world() as world:
        world.does(a=early_bird(world))
        world.plan(story("a", files="a.txt"))
        world.start()
        await anyio.sleep(5)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "cancelled"}
        assert world.runner.spans[0].until_s == 5
        assert world.truth.saved(A1)
        failure = world.of("a").failure
        assert failure is not None
        assert failure.saved_ref == "refs/epicwave/rescue/e/a/1"


async def test_cancelling_one_story_leaves_the_others_alone() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"), story("c", "a"), story("d", "b"))
        world.start(slots=2)
        await anyio.sleep(5)
        world.cancel("a")
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "merged", "c": "pending", "d": "merged"}


async def test_cancel_while_its_checks_run() -> None:
    """The story in the checks and the one behind it in the queue are both cancelled, and nothing moves."""
    async with a_world() as world:
        world.runner.check_s = 100.0
        world.plan(story("a"), story("b"))
        world.start()
        await anyio.sleep(100)
        assert world.states() == {"a": "merging", "b": "merging"}
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "cancelled"}
        assert world.truth.landed("e") == {}
        assert all(world.truth.saved(c.attempt) for c in world.runner.calls)


async def test_cancel_of_one_story_is_refused_while_it_merges() -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        world.plan(story("a"))
        world.start()
        await world.until("a", "merging")
        with pytest.raises(Refused) as refused:
            world.cancel("a")
        assert refused.value.code == Code.TOO_LATE
        await world.rest()
        assert world.states() == {"a": "merged"}


async def test_cancel_while_git_moves_the_branch_comes_too_late() -> None:
    async with a_world() as world:
        world.git.delay_s["advance"] = 10.0
        world.plan(story("a"), story("b", "a"))
        world.start()
        await world.when(lambda: world.of("a").proven is not None)
        await anyio.sleep(5)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "cancelled"}


async def test_cancel_in_the_instant_when_the_checks_end_is_obeyed_before_git_moves() -> None:
    """Else git would move without a proof in the journal, and a crash just then could not tell."""
    async with a_world() as world:
        world.plan(story("a"))
        world.runner.judge = lambda *_: world.cancel() or 0  # type: ignore[func-returns-value]
        world.start()
        await world.rest()
        assert world.states() == {"a": "cancelled"}
        assert world.truth.landed("e") == {}


async def test_cancel_while_a_merge_waits_after_a_fault() -> None:
    async with a_world() as world:
        world.git.user_branch = "epicwave/e"
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").merge_faults == 3)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "cancelled"}
        assert world.truth.saved(A1)


async def test_cancel_finds_a_merge_that_git_has_and_nobody_knew_of() -> None:
    """The engine was killed after git had moved; the next one is told to stop before it could look."""
    async with a_world() as world:
        world.git.delay_s = {"advance": 5.0, "contains": 5.0}
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").proven is not None)
        await anyio.sleep(1)
        await world.kill()
        assert world.truth.landed("e") == {"a": [1]}
        await world.open()
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "merged"}


async def test_cancel_while_queued_is_done_at_once() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start(slots=1)
        world.cancel("b")
        assert world.states() == {"a": "offered", "b": "cancelled"}
        await world.rest()
        assert world.states() == {"a": "merged", "b": "cancelled"}


async def test_what_dies_slowly_holds_its_slot_and_files_until_it_is_gone() -> None:
    async with a_world() as world:
        world.does(a=early_bird(world, dies_in_s=30.0))
        world.plan(story("a", files="x", minutes=90.0), story("b", files="x"), story("c"))
        world.start(slots=1)
        await anyio.sleep(10)
        world.cancel("a")
        assert world.states()["a"] == "stopping"
        await world.rest()
        first = world.runner.spans[0]
        assert first.until_s == 40
        assert min(s.from_s for s in world.runner.spans[1:]) == pytest.approx(40)


async def test_an_agent_that_fails_by_itself_while_it_is_told_to_stop_is_told_as_failed() -> None:
    async with a_world() as world:
        world.git.delay_s["inspect"] = 10.0
        world.does(a=world.good(exit_code=9))
        world.plan(story("a"))
        world.start(attempts=1)
        await anyio.sleep(65)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "failed"}
        failure = world.of("a").failure
        assert failure is not None
        assert "code 9" in failure.detail


async def test_work_that_was_finished_when_the_stop_came_is_saved_and_not_merged() -> None:
    async with a_world() as world:
        world.git.delay_s["inspect"] = 10.0
        world.plan(story("a"))
        world.start()
        await anyio.sleep(65)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "cancelled"}
        assert world.truth.saved(A1)


async def test_a_cancelled_epic_goes_on_when_it_is_asked_to() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"))
        world.start()
        await anyio.sleep(100)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "cancelled"}
        world.start(retry=True)
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [2]}
        assert "refs/epicwave/rescue" not in world.runner.calls[0].brief


async def test_two_epics_are_cancelled_apart() -> None:
    async with a_world() as world:
        for epic in ("e", "f"):
            world.plan(story(f"{epic}1"), epic=epic)
            world.start(epic=epic)
        await anyio.sleep(5)
        world.cancel(epic="f")
        await world.rest()
        assert (world.states("e"), world.states("f")) == ({"e1": "merged"}, {"f1": "cancelled"})
