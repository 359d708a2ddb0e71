"""Closed or killed at any moment, opened again: merged stories never run again, unfinished work is saved."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause, Refused
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import Killed, World, a_world, assert_same, story

pytestmark = pytest.mark.anyio


async def halfway(world: World) -> None:
    """Story a is merged, b has written something and works on, c waits."""
    world.does(b=Play(seconds=1.0, act=world.truth.scribble, hang=True))
    world.plan(story("a"), story("b", "a"), story("c", "b"))
    world.start()
    await anyio.sleep(90)
    assert world.states() == {"a": "merged", "b": "running", "c": "queued"}


@pytest.mark.parametrize("how", ["close", "kill"])
async def test_the_next_engine_finds_work_saved_and_starts_nothing_by_itself(how: str) -> None:
    async with a_world() as world:
        await halfway(world)
        await (world.close() if how == "close" else world.kill())
        await world.open()
        await anyio.sleep(1000)
        assert world.states() == {"a": "merged", "b": "pending", "c": "pending"}
        assert world.truth.saved(AttemptId("e", "b", 1))
        assert len(world.runner.calls) == 2


@pytest.mark.parametrize("how", ["close", "kill"])
async def test_a_start_after_it_goes_on_and_no_merged_story_runs_again(how: str) -> None:
    async with a_world() as world:
        await halfway(world)
        await (world.close() if how == "close" else world.kill())
        await world.open()
        world.does(b=world.good())
        world.start()
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [2], "c": [1]}
        assert "refs/epicwave/rescue/e/b/1" in world.runner.calls[2].brief


async def test_what_is_in_memory_is_what_the_journal_has_at_every_moment() -> None:
    async with a_world() as world:
        world.does(b=[world.good(exit_code=1), world.good()])
        world.plan(story("a"), story("b"), story("c", "a", "b"))
        world.git.fail_next("hold", Fault(FaultCause.DISK, "full"))
        world.start()
        while world.of("c").state != "merged":
            await anyio.sleep(0.7)
            assert_same(world.replayed(), world.ledger)


async def test_a_killed_agent_that_may_be_alive_is_ended_by_the_next_engine() -> None:
    async with a_world() as world:
        await halfway(world)
        await world.kill()
        await world.open()
        assert world.runner.leftovers == [world.runner.spans[1].process]


async def test_a_merge_in_the_queue_goes_on_by_itself_and_costs_no_new_agent() -> None:
    async with a_world() as world:
        world.runner.check_s = 50.0
        world.plan(story("a"), story("b"))
        world.start()
        await world.until("b", "merging")
        await anyio.sleep(10)
        await world.kill()
        await world.open()
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1]}
        assert len(world.runner.calls) == 2


@pytest.mark.parametrize("calls", range(1, 40))
async def test_killed_at_any_call_of_the_world_it_ends_the_same(calls: int) -> None:
    async with a_world() as world:
        world.does(b=[Play(seconds=20.0, act=world.truth.scribble), world.good()])
        world.plan(story("a", files="x"), story("b", files="x"), story("c", "b"))
        world.line.die_at_call = world.line.calls + calls
        with suppress(Killed):
            world.start()
        await anyio.sleep(1000)
        await world.kill()
        assert_same(world.replayed(), world.ledger)
        await world.open()
        for _ in range(2):  # a merge that was in the queue may let others become ready after the first
            with suppress(Refused):
                world.start(retry=True)
            await world.rest()
        assert sorted(world.truth.landed("e")) == ["a", "b", "c"]


async def test_a_merge_that_git_has_and_the_journal_lost_is_recognised() -> None:
    async with a_world() as world:
        world.git.delay_s["advance"] = 10.0
        world.plan(story("a"))
        world.start()
        await anyio.sleep(66)  # git is on its way
        await world.kill()
        assert (world.truth.landed("e"), world.states()) == ({"a": [1]}, {"a": "merging"})
        await world.open()
        await world.rest()
        assert world.states() == {"a": "merged"}
        assert (len(world.runner.calls), len(world.runner.checks)) == (1, 1)


async def test_a_stopping_merge_that_git_has_is_recognised_after_a_crash() -> None:
    async with a_world() as world:
        world.git.delay_s["advance"] = 10.0
        world.plan(story("a"))
        world.start()
        await anyio.sleep(66)  # git is on its way
        world.cancel()
        await world.kill()
        await world.open()
        assert world.states() == {"a": "merged"}


async def test_what_was_told_to_stop_is_cancelled_after_a_crash() -> None:
    async with a_world() as world:
        world.does(a=Play(seconds=1.0, act=world.truth.scribble, hang=True, dies_in_s=100.0))
        world.plan(story("a"))
        world.start()
        await anyio.sleep(10)
        world.cancel()
        await anyio.sleep(10)
        await world.kill()
        await world.open()
        assert world.states() == {"a": "cancelled"}
        assert world.truth.saved(AttemptId("e", "a", 1))


async def test_a_worktree_that_the_journal_does_not_know_is_left_alone() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        await world.close()
        world.git.refs["refs/heads/epicwave-work/other/s1/1"] = world.git.refs["refs/heads/main"]
        await world.open()
        assert "refs/heads/epicwave-work/other/s1/1" in world.git.refs
        del world.git.refs["refs/heads/epicwave-work/other/s1/1"]
