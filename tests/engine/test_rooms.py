"""Sub-agents that work in a worktree of ours find it set up, however long that takes and whoever claims it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcp_server.core.brief import brief
from mcp_server.core.draft import DraftStory
from mcp_server.core.limits import Environment, Strategy
from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.testing.fake_git import folder
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio
INSTALL = ("npm", "ci")
FIRST = AttemptId("e", "a", 1)


def start(world: World, *stories: DraftStory, **policy: Any) -> None:
    world.plan(*stories)
    policy.setdefault("environment", Environment((INSTALL,)))
    world.start(strategy=Strategy.AGENT_TEAMS, **policy)


async def not_claimed(agent: SubAgent) -> Refused:
    with pytest.raises(Refused) as caught:
        await agent.claim()
    assert caught.value.code is Code.STORY_NOT_OFFERED
    return caught.value


def fails(world: World) -> None:
    world.runner.furnish = lambda _attempt, _argv, _cwd: 7


async def done(agent: SubAgent) -> str:
    agent.begin()
    agent.work()
    return (await agent.report()).answer


async def test_a_claim_answers_when_the_worktree_is_set_up() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = SubAgent(world, "one", isolated=False)
        claim = await agent.claim()
        assert [(a, run.command, cwd) for a, run, cwd in world.runner.setups] == [(FIRST, INSTALL, claim.place)]
        assert anyio.current_time() == world.runner.setup_s
        assert await done(agent) == "merged"


async def test_a_worktree_that_the_host_made_is_the_hosts_to_set_up() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = SubAgent(world, "one", isolated=True)
        await agent.claim()
        assert world.runner.setups == []
        assert await done(agent) == "merged"
        assert [cwd for _, _, cwd in world.runner.setups] == [folder(FIRST).parent / "_integration"]


@pytest.mark.parametrize("name", ["one", ""], ids=["the same one", "somebody that nobody knows"])
async def test_a_set_up_that_takes_longer_than_a_call_goes_on_and_a_later_claim_gets_it(name: str) -> None:
    async with a_world() as world:
        world.runner.setup_s = 100.0
        start(world, story("a"))
        agent = SubAgent(world, name, isolated=False)
        told = [await not_claimed(agent) for _ in range(2)]
        assert {(t.why, t.remedy) for t in told} == {
            ("The worktree of story 'a' is being set up.", "Call claim_story again.")
        }
        assert anyio.current_time() == 80
        await agent.claim()
        assert (anyio.current_time(), len(world.runner.setups)) == (100, 1)
        world.runner.setup_s = 1.0
        assert await done(agent) == "merged"


async def test_another_one_meanwhile_gets_another_story_and_each_is_set_up_once() -> None:
    async with a_world() as world:
        world.runner.setup_s = 20.0
        start(world, story("a"), story("b"))
        agents = [SubAgent(world, name, isolated=False) for name in ("one", "two")]
        async with anyio.create_task_group() as group:
            for agent in agents:
                group.start_soon(agent.claim)
        assert sorted(a.story for a, _, _ in world.runner.setups) == ["a", "b"]
        assert {await done(agent) for agent in agents} == {"merged"}


async def test_a_set_up_that_fails_ends_the_attempt_as_setup_and_the_claim_says_so() -> None:
    async with a_world() as world:
        fails(world)
        start(world, story("a"), attempts=1, breaker_faults=0)
        told = await not_claimed(SubAgent(world, "one", isolated=False))
        assert told.why == "The set-up command `npm ci` exited with code 7: npm: 7"
        assert "end your turn" in told.remedy
        failure = world.of("a").failure
        assert failure is not None
        assert (failure.cause, failure.detail, failure.tail) == (Cause.SETUP, told.why, "npm: 7")
        assert folder(FIRST) not in world.git.desks
        world.runner.furnish = lambda _attempt, _argv, _cwd: 0
        await world.when(lambda: world.of("a").attempt == 2)
        agent = SubAgent(world, "two", isolated=False)
        await agent.claim()
        assert await done(agent) == "merged"


async def test_set_ups_that_fail_close_the_door_for_all_sub_agents_until_one_finds_it_works() -> None:
    async with a_world() as world:
        fails(world)
        start(world, story("a"), story("b"), breaker_faults=2, cooldown_s=100.0, cooldown_cap_s=100.0)
        agent = SubAgent(world, "one", isolated=False)
        for _ in range(2):
            await not_claimed(agent)
        assert "is free to be claimed now" in (await not_claimed(agent)).why
        assert len(world.runner.setups) == 2
        breaker = world.ledger.breakers["*"]
        await world.when(lambda: world.ledger.as_of_s >= breaker.until_s)
        await not_claimed(agent)
        assert world.ledger.breakers["*"].opened == 2, "the one that tried opens it again"
        world.runner.furnish = lambda _attempt, _argv, _cwd: 0
        await world.when(lambda: world.ledger.as_of_s >= world.ledger.breakers["*"].until_s)
        await agent.claim()
        assert world.ledger.breakers["*"].opened == 0
        assert await done(agent) == "merged"
        other = SubAgent(world, "two", isolated=False)
        await other.claim()
        assert await done(other) == "merged"


async def test_a_story_that_is_cancelled_while_it_is_set_up_leaves_nothing() -> None:
    async with a_world() as world:
        world.runner.setup_s = 1000.0
        start(world, story("a"))
        agent = SubAgent(world, "one", isolated=False)
        await not_claimed(agent)
        world.cancel("a")
        await world.rest()
        assert str(world.of("a").state) == "cancelled"
        assert folder(FIRST) not in world.git.desks
        assert not await world.engine.wait_for(lambda _: False, 2000)
        assert world.runner.setups == [], "it was ended, not waited for"


@pytest.mark.parametrize("setup_s", [100.0, 45.0], ids=["still being set up", "set up and waiting"])
async def test_whoever_has_a_worktree_of_its_own_takes_the_story_from_a_room_and_loses_nothing_to_it(
    setup_s: float,
) -> None:
    async with a_world() as world:
        world.runner.setup_s = setup_s
        start(world, story("a"))
        await not_claimed(SubAgent(world, "one", isolated=False))
        await world.engine.wait_for(lambda _: False, 10.0)
        other = SubAgent(world, "two", isolated=True)
        world.git.delay_s["rescue"] = 5.0
        await other.claim()
        assert folder(FIRST) not in world.git.desks
        other.begin()
        other.work()
        await world.engine.wait_for(lambda _: False, 200.0)
        world.runner.setup_s = 1.0
        assert (await other.report()).answer == "merged"


async def test_a_set_up_that_fails_while_its_story_is_cancelled_is_told_as_the_stop() -> None:
    async with a_world() as world:
        fails(world)
        start(world, story("a"))
        world.git.delay_s["rescue"] = 5.0
        async with anyio.create_task_group() as group:
            group.start_soon(not_claimed, SubAgent(world, "one", isolated=False))
            await world.engine.wait_for(lambda _: False, 3.0)
            world.cancel("a")
        await world.rest()
        assert str(world.of("a").state) == "cancelled"
        assert world.of("a").failure is None


async def test_what_a_set_up_still_writes_while_its_worktree_goes_is_cleared_too() -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.runner.setup_s = 30.0
        async with anyio.create_task_group() as group:
            group.start_soon(not_claimed, SubAgent(world, "one", isolated=False))
            await world.settle()
            world.git.delay_s["rescue"] = 5.0
            world.cancel("a")
        await world.rest()
        assert world.git.calls["rescue"] >= 2


@pytest.mark.parametrize("op", ["tip", "lend"])
async def test_a_fault_of_git_leaves_the_offer_and_the_next_claim_tries_again(op: str) -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.git.fail_next(op, Fault(FaultCause.GIT, "index.lock"))
        agent = SubAgent(world, "one", isolated=False)
        with pytest.raises(Fault, match=r"index\.lock"):
            await agent.claim()
        assert str(world.of("a").state) == "offered"
        await agent.claim()
        assert await done(agent) == "merged"


async def test_without_room_on_the_disk_nothing_is_claimed_and_the_offer_stands() -> None:
    async with a_world() as world:
        start(world, story("a"))
        world.git.free_mb = 10
        agent = SubAgent(world, "one", isolated=False)
        with pytest.raises(Fault, match="10 MB are free"):
            await agent.claim()
        world.git.free_mb = 10_000
        await agent.claim()
        assert await done(agent) == "merged"


@pytest.mark.parametrize("end", ["kill", "close"])
async def test_an_engine_that_ends_while_it_sets_up_leaves_the_offer_to_the_next_one(end: str) -> None:
    async with a_world() as world:
        world.runner.setup_s = 100.0
        start(world, story("a"))
        agent = SubAgent(world, "one", isolated=False)
        await not_claimed(agent)
        await (world.kill() if end == "kill" else world.close())
        await world.open()
        world.runner.setup_s = 1.0
        await agent.claim()
        assert await done(agent) == "merged"


async def test_the_brief_of_a_sub_agent_has_its_ports_for_no_environment_of_ours_reaches_it() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"), environment=Environment((INSTALL,), port_base=4000, port_block=3))
        claims = [await SubAgent(world, name, isolated=name == "one").claim() for name in ("one", "two")]
        assert [_ports_in_brief(world, claim.attempt) for claim in claims] == [
            "Serve only on ports 4000 to 4002: other stories have others.",
            "Serve only on ports 4003 to 4005: other stories have others.",
        ]
        assert world.runner.ports == {claims[1].attempt: range(4003, 4006)}, "only ours was set up by us"


def _ports_in_brief(world: World, attempt: AttemptId) -> str:
    epic = world.ledger.epics[attempt.epic]
    text = brief(epic, epic.stories[attempt.story], attempt, ())
    return next(line for line in text.splitlines() if line.startswith("Serve only"))
