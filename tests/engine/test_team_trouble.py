"""Lent stories that are cancelled, and a git that fails while it is asked for one: nothing is left, nothing is lost."""

from __future__ import annotations

import anyio
import pytest

from mcp_server.adapters.git.names import attempt_ref
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.testing.fake_git import folder
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story
from tests.engine.test_team import FIRST, at_work, both_desks, refused, start

pytestmark = [pytest.mark.anyio]

# --- cancel ----------------------------------------------------------------------------------------------------------


@both_desks
@pytest.mark.parametrize("what", [None, "a"], ids=["epic", "story"])
async def test_cancel_of_a_leased_story_saves_it_and_tells_its_holder_at_the_next_call(
    what: str | None, *, isolated: bool
) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        agent.touch()
        world.cancel(what)
        await world.until("a", "cancelled")
        assert world.truth.saved(FIRST)
        assert (await agent.report("progress")).answer == "stop"
        assert (await agent.report()).answer == "stop"
        await world.rest()


@both_desks
async def test_a_report_during_which_its_story_is_cancelled_is_told_that_and_not_what_git_says(
    *, isolated: bool
) -> None:
    """Git finds no branch any more when the work was saved meanwhile; nobody is to make it again."""
    async with a_world() as world:
        world.git.delay_s["inspect_lent"] = 10.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        async with anyio.create_task_group() as group:
            group.start_soon(_is_told_to_stop, agent)
            await anyio.sleep(5)
            world.cancel()
        assert (await agent.report()).answer == "stop"


async def _is_told_to_stop(agent: SubAgent) -> None:
    assert "changed my mind" in str(await refused(agent, Code.LEASE_LOST))


async def test_cancel_of_an_offer_leaves_nothing_to_claim() -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.cancel()
        await world.until("a", "cancelled")
        with pytest.raises(Refused) as none:
            await SubAgent(world, "one").claim()
        assert none.value.code is Code.STORY_NOT_OFFERED


@both_desks
async def test_cancel_of_the_epic_takes_a_lent_story_out_of_the_merge_queue(*, isolated: bool) -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        assert (await agent.report()).answer == "checking"
        world.cancel()
        await world.until("a", "cancelled")
        assert (await agent.report()).answer == "stop"
        assert (world.truth.saved(FIRST), world.truth.landed("e")) == (True, {})


@both_desks
@pytest.mark.parametrize("stubborn", [True, False], ids=["git goes on", "git is cancelled"])
@pytest.mark.parametrize("during", ["tip", "lend"])
async def test_cancel_while_a_claim_is_under_way_leaves_nothing_behind(
    during: str, *, isolated: bool, stubborn: bool
) -> None:
    async with a_world() as world:
        world.git.delay_s[during] = 10.0
        world.git.stubborn = stubborn
        start(world, story("a"), story("b"), slots=1)
        agent = SubAgent(world, "one", isolated=isolated)
        async with anyio.create_task_group() as group:
            group.start_soon(agent.claim)
            await anyio.sleep(5)
            world.cancel("a")
        assert agent.holds.attempt == AttemptId("e", "b", 1)  # it gets the next one instead
        assert str(world.of("a").state) == "cancelled"
        assert folder(FIRST) not in world.git.desks
        assert not [ref for ref in world.git.refs if ref.endswith("e/a/1")]


async def test_whoever_wanted_a_story_that_is_cancelled_meanwhile_is_told_so_and_gets_no_other() -> None:
    async with a_world() as world:
        world.git.delay_s["lend"] = 10.0
        start(world, story("a"), story("b"))
        async with anyio.create_task_group() as group:
            group.start_soon(_cancels, world, "a")
            with pytest.raises(Refused, match=r"^story_not_offered: Story 'a' is cancelled, and not offered"):
                await SubAgent(world, "one", isolated=False).claim("a")
        assert world.states() == {"a": "cancelled", "b": "offered"}
        assert folder(FIRST) not in world.git.desks


async def _cancels(world: World, name: str) -> None:
    await anyio.sleep(5)
    world.cancel(name)


async def test_a_sub_agent_that_claims_twice_at_once_gets_one_story_and_leaves_the_other() -> None:
    async with a_world() as world:
        world.git.delay_s["lend"] = 10.0
        start(world, story("a"), story("b"))
        told: list[str] = []

        async def claims() -> None:
            try:
                told.append(str((await SubAgent(world, "one", isolated=False).claim()).attempt.story))
            except Refused as refused:
                told.append(str(refused.code))

        async with anyio.create_task_group() as group:
            group.start_soon(claims)
            group.start_soon(claims)
        (mine,) = {*told} - {"lease_held"}
        (other,) = {"a", "b"} - {mine}
        assert sorted(told) == [mine, "lease_held"]
        assert world.states() == {mine: "running", other: "offered"}
        assert folder(AttemptId("e", mine, 1)) in world.git.desks
        assert folder(AttemptId("e", other, 1)) not in world.git.desks


# --- faults ----------------------------------------------------------------------------------------------------------


@both_desks
@pytest.mark.parametrize("op", ["tip", "lend"])
async def test_a_fault_in_a_claim_leaves_the_offer_to_be_claimed(op: str, *, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.git.fail_next(op, Fault(FaultCause.DISK, "full"))
        agent = SubAgent(world, "one", isolated=isolated)
        with pytest.raises(Fault):
            await agent.claim()
        assert world.states() == {"a": "offered"}
        await agent.claim()
        agent.begin()
        agent.work()
        assert (await agent.done()).answer == "merged"


@both_desks
async def test_a_fault_in_judging_ends_nothing_and_the_report_can_come_again(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        world.git.fail_next("inspect_lent", Fault(FaultCause.GIT, "busy"))
        with pytest.raises(Fault):
            await agent.report()
        assert world.states() == {"a": "running"}
        assert (await agent.done()).answer == "merged"


@both_desks
@pytest.mark.parametrize("op", ["give_back", "forget"])
async def test_a_fault_in_giving_back_undoes_no_merge_and_the_next_start_tidies_up(op: str, *, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        world.git.fail_next(op, Fault(FaultCause.GIT, "busy"))
        assert (await agent.done()).answer == "merged"
        assert attempt_ref(FIRST) in world.git.refs
        await world.close()
        assert (attempt_ref(FIRST) in world.git.refs, folder(FIRST) in world.git.desks) == (isolated, False)


@both_desks
async def test_a_fault_in_saving_ends_the_attempt_and_the_next_start_saves_it(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        agent.touch()
        world.git.fail_next("rescue", Fault(FaultCause.DISK, "full"))
        assert (await agent.report("failed")).answer == "ended"
        assert (world.truth.saved(FIRST), world.of("a").attempt) == (False, 2)
        await world.close()
        assert world.truth.saved(FIRST)


async def test_a_merge_that_the_world_fails_is_tried_again_and_costs_its_holder_no_repair() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        for op in ("rebase", "advance"):
            world.git.fail_next(op, Fault(FaultCause.GIT, "busy"))
        assert (await agent.done()).answer == "merged"
        assert world.of("a").repairs == 0
