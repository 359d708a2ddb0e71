"""The server dies or ends while its sub-agents live: leases count as they were told, nothing is lost or doubled."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import pytest

from mcp_server.adapters.git.names import attempt_ref, base_ref
from mcp_server.core.events import AttemptLeased
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Refused
from mcp_server.testing.fake_git import folder
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import NoServer, World, a_world, assert_same, story
from tests.engine.test_team import FIRST, LEASE_S, at_work, both_desks, lease_of, next_brief, refused, start

pytestmark = [pytest.mark.anyio]
ends = pytest.mark.parametrize("how", ["close", "kill"])
T = TypeVar("T")


async def end(world: World, how: str) -> None:
    """The server ends; what was in memory is what the journal tells."""
    await (world.close() if how == "close" else world.kill())
    assert_same(world.replayed(), world.ledger)


async def insist(world: World, call: Callable[[], Awaitable[T]]) -> T:
    """Call until there is an answer; the host starts its server again when that is gone."""
    while True:
        try:
            return await call()
        except NoServer:
            await world.kill()
            assert_same(world.replayed(), world.ledger)
            await world.open()


# --- leases over restarts --------------------------------------------------------------------------------------------


@ends
@both_desks
async def test_the_wave_and_its_leases_outlive_the_server(how: str, *, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"), story("c", "a"))
        agent = await at_work(world, isolated=isolated)
        agent.touch()
        before = world.states()
        await end(world, how)
        await anyio.sleep(100)
        await world.open()
        await anyio.sleep(100)
        assert (world.states(), before) == (before, {"a": "running", "b": "offered", "c": "queued"})
        agent.commit()
        assert (await agent.done()).answer == "merged"
        assert (await at_work(world, "two", "c")).holds.base == world.of("a").merged_as


@ends
@both_desks
@pytest.mark.parametrize("down_s", [10.0, LEASE_S * 3])
async def test_a_lease_runs_out_at_its_deadline_or_when_the_next_server_comes(
    how: str, down_s: float, *, isolated: bool
) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.touch()
        await anyio.sleep(50)
        await end(world, how)
        await anyio.sleep(down_s)
        await world.open()
        await world.when(lambda: world.of("a").attempt == 2)
        assert anyio.current_time() == max(LEASE_S, 50 + down_s)
        assert world.truth.saved(FIRST)
        assert "not heard of" in next_brief(world)


@ends
async def test_what_changed_while_no_server_was_there_is_a_sign_of_life(how: str) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        await end(world, how)
        await anyio.sleep(LEASE_S - 1)
        agent.work()
        await anyio.sleep(LEASE_S - 2)
        await world.open()
        await world.settle()
        assert world.of("a").attempt == 1
        assert (await agent.done()).answer == "merged"


@ends
@both_desks
async def test_what_was_handed_in_is_merged_by_the_next_server_and_its_holder_is_told(
    how: str, *, isolated: bool
) -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        assert (await agent.report()).answer == "checking"
        await end(world, how)
        await world.open()
        assert (await agent.report()).answer == "checking"
        await anyio.sleep(100)
        assert (await agent.report()).answer == "merged"
        assert world.truth.landed("e") == {"a": [1]}


@ends
async def test_a_refusal_that_came_while_its_holder_could_not_ask_is_told_by_the_next_server(how: str) -> None:
    async with a_world() as world:
        world.truth.rotten.add(FIRST)
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await agent.report()
        await anyio.sleep(100)
        await end(world, how)
        await world.open()
        reply = await agent.report()
        assert reply.answer == "repair"
        agent.mend(reply)
        assert (await agent.done()).answer == "merged"


async def test_a_claim_whose_answer_was_lost_is_answered_again_with_the_same_story() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        agent = SubAgent(world, "one")
        agent.reply_s = 10.0
        async with anyio.create_task_group() as group:
            group.start_soon(_unheard, agent)
            await anyio.sleep(5)
            await world.kill()
        await world.open()
        assert (await agent.claim()).attempt == FIRST
        assert [e.attempt for e in world.journal.replay() if isinstance(e, AttemptLeased)] == [FIRST]


async def _unheard(agent: SubAgent) -> None:
    with pytest.raises(NoServer):
        await agent.claim()


@ends
@both_desks
@pytest.mark.parametrize("stubborn", [True, False], ids=["git goes on", "git is cancelled"])
async def test_a_claim_that_ended_half_way_is_offered_again_and_can_be_claimed(
    how: str, *, isolated: bool, stubborn: bool
) -> None:
    """A call that nobody waits for any more leases nothing, also when git has done its part."""
    async with a_world() as world:
        world.git.delay_s["lend"] = 10.0
        world.git.stubborn = stubborn
        start(world, story("a"))
        agent = SubAgent(world, "one", isolated=isolated)
        async with anyio.create_task_group() as group:
            group.start_soon(_unheard, agent)
            await anyio.sleep(5)
            await end(world, how)
        assert (base_ref(FIRST) in world.git.refs) is stubborn
        await world.open()
        assert world.states() == {"a": "offered"}
        await agent.claim()
        agent.begin()
        agent.work()
        assert (await agent.done()).answer == "merged"


@both_desks
async def test_what_a_half_made_claim_left_goes_when_its_story_is_cancelled(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.line.die_at_call = world.line.calls + 3  # tip, lend, and the journal
        with pytest.raises(NoServer):
            await SubAgent(world, "one", isolated=isolated).claim()
        assert base_ref(FIRST) in world.git.refs
        await world.kill()
        await world.open()
        world.cancel()
        await world.until("a", "cancelled")
        assert not [ref for ref in world.git.refs if ref.endswith("e/a/1")]
        assert folder(FIRST) not in world.git.desks


@ends
async def test_the_end_of_a_lease_that_was_on_record_stands_after_a_restart(how: str) -> None:
    async with a_world() as world:
        world.git.delay_s["rescue"] = 50.0
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await anyio.sleep(LEASE_S + 10)
        assert lease_of(world).ended is not None
        await end(world, how)
        await world.open()
        agent.work()
        await refused(agent, Code.LEASE_LOST)
        await world.when(lambda: world.of("a").attempt == 2)
        assert world.truth.saved(FIRST)


@ends
@both_desks
async def test_a_cancel_that_was_under_way_is_finished_by_the_next_server(how: str, *, isolated: bool) -> None:
    async with a_world() as world:
        world.git.delay_s["rescue"] = 50.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.touch()
        await anyio.sleep(10)
        world.cancel()
        await anyio.sleep(10)
        await end(world, how)
        await world.open()
        await world.until("a", "cancelled")
        assert world.truth.saved(FIRST)
        assert (await agent.report("progress")).answer == "stop"


# --- killed at any call ----------------------------------------------------------------------------------------------


async def whole_life(world: World, *, isolated: bool) -> None:
    """One story is done, with a repair; one is given up; one falls silent; whoever comes next does the rest."""
    world.truth.rotten.add(FIRST)
    one, two, three = (SubAgent(world, name, isolated=isolated) for name in ("one", "two", "three"))
    for agent, name in ((one, "a"), (two, "b"), (three, "c")):
        await insist(world, lambda agent=agent, name=name: agent.claim(name))
        agent.begin()
        agent.work()
    reply = await insist(world, one.done)
    assert reply.answer == "repair"
    one.mend(reply)
    two.touch()
    with suppress(Refused):  # it was taken, and the answer was lost
        assert (await insist(world, lambda: two.report("failed"))).answer == "ended"
    assert (await insist(world, one.done)).answer == "merged"
    await anyio.sleep(LEASE_S)
    for number in range(4):
        agent = SubAgent(world, f"next-{number}", isolated=isolated)
        try:
            await insist(world, agent.claim)
        except Refused:
            await insist(world, _nothing_alive(world))
            continue
        agent.begin()
        agent.work()
        await insist(world, agent.done)
    world.line.die_at_call = math.inf


def _nothing_alive(world: World) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        async with world.call() as engine:
            await engine.wait_for(lambda _: engine.alive == 0, 1000)

    return wait


CALLS = 73
"""What the engine asks of the world in the whole life, and some more."""


@both_desks
async def test_the_whole_life_has_no_more_calls_than_the_kills_below(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"), story("c"), slots=3)
        began = world.line.calls
        await whole_life(world, isolated=isolated)
        assert world.truth.landed("e") == {"a": [1], "b": [2], "c": [2]}
        assert CALLS - 10 < world.line.calls - began < CALLS


@both_desks
@pytest.mark.parametrize("finishes", [True, False], ids=["git finishes", "git dies"])
@pytest.mark.parametrize("calls", range(1, CALLS))
async def test_killed_at_any_call_of_the_world_it_ends_the_same(calls: int, *, finishes: bool, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"), story("c"), slots=3)
        world.line.finishes = finishes
        world.line.die_at_call = world.line.calls + calls
        await whole_life(world, isolated=isolated)
        assert world.truth.landed("e") == {"a": [1], "b": [2], "c": [2]}
        for name in ("b", "c"):
            assert world.truth.saved(AttemptId("e", name, 1))
        assert (attempt_ref(FIRST) in world.git.refs) is isolated


@both_desks
@pytest.mark.parametrize("at_s", range(0, 100, 7))
async def test_closed_at_any_moment_it_ends_the_same(at_s: int, *, isolated: bool) -> None:
    async with a_world() as world:
        world.git.delay_s.update(lend=5.0, inspect_lent=3.0, rebase=2.0, rescue=4.0, give_back=3.0, touched_s=5.0)
        world.runner.check_s = 20.0
        start(world, story("a"), story("b"), story("c"), slots=3)
        async with anyio.create_task_group() as group:
            group.start_soon(_closes, world, at_s)
            await whole_life(world, isolated=isolated)
        assert world.truth.landed("e") == {"a": [1], "b": [2], "c": [2]}


async def _closes(world: World, at_s: int) -> None:
    await anyio.sleep(at_s)
    await world.close()
