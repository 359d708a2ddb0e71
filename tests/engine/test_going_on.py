"""Engines whose work goes on after their end: agents are adopted, nothing runs twice, and nobody is left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from mcp_server.core.commands import PauseEpic, ResumeEpic
from mcp_server.core.limits import Budget, Strategy
from mcp_server.core.model import Cause, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.engine.lifecycle import RESUME_S
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall
from mcp_server.testing.fake_git import folder
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio


async def at_work(world: World, **policy: Any) -> None:
    """Three agents at work, a minute each, one of them on a story that the last one builds on."""
    world.plan(story("a"), story("b"), story("c"), story("d", "a"))
    world.start(**dict[str, Any]({"slots": 3, **policy}))
    await anyio.sleep(20)
    assert world.states() == {"a": "running", "b": "running", "c": "running", "d": "queued"}


def call_of(world: World, name: str) -> AgentCall:
    """The first call for a story."""
    return next(call for call in world.runner.calls if call.attempt.story == name)


def number(world: World) -> int:
    """Agents that were ever started."""
    return len(world.runner.calls)


async def crash(world: World, away_s: float = 1.0) -> None:
    """Kill -9, and the next engine after a while."""
    await world.kill()
    await anyio.sleep(away_s)
    await world.open()


async def test_agents_that_outlive_their_engine_are_adopted_and_nothing_runs_twice() -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        world.truth.scribble(call_of(world, "a"))
        await crash(world)
        assert world.states() == {"a": "running", "b": "running", "c": "running", "d": "queued"}
        assert world.told == ["Epic 'e' goes on after the end of its engine: adopted a, b, c."]
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1], "c": [1], "d": [1]}
        assert (number(world), len(world.runner.adoptions), world.runner.leftovers) == (4, 3, [])


async def test_an_agent_that_ended_while_no_engine_was_there_is_judged_and_not_run_again() -> None:
    async with a_world(goes_on=True) as world:
        world.does(b=world.good(exit_code=3, tail="no luck"))
        await at_work(world)
        await crash(world, away_s=60)
        assert not world.runner.alive()
        await world.until("a", "merged")
        assert world.truth.landed("e")["a"] == [1]
        failure = world.of("b").failure
        assert failure is not None
        assert (failure.cause, failure.tail) == (Cause.AGENT_FAILED, "no luck")


async def test_agents_that_nobody_came_for_start_again_at_no_cost_with_their_work_saved() -> None:
    async with a_world(goes_on=True) as world:
        world.does(b=[Play(seconds=40.0, act=world.truth.scribble, hang=True), world.good()])
        await at_work(world, attempts=1)
        await crash(world, away_s=200)
        assert world.states()["b"] == "queued"
        assert world.told == ["Epic 'e' goes on after the end of its engine: adopted a, c; ended and saved b."]
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [2], "c": [1], "d": [1]}
        assert world.truth.saved(AttemptId("e", "b", 1))
        assert "refs/epicwave/rescue/e/b/1" in next(c.brief for c in world.runner.calls if c.attempt.number == 2)


async def test_a_wave_whose_engine_closes_goes_on_with_the_next_one() -> None:
    """Its agents are stopped and their work saved: an engine that ends in good order leaves nobody."""
    async with a_world(goes_on=True) as world:
        await at_work(world)
        await world.close()
        assert not world.runner.alive()
        assert set(world.states().values()) == {"queued"}
        await world.open()
        await world.rest()
        assert world.truth.landed("e") == {"a": [2], "b": [2], "c": [2], "d": [1]}
        assert world.told == []


async def test_the_limits_of_an_adopted_agent_count_from_its_own_start() -> None:
    async with a_world(goes_on=True) as world:
        world.does(a=Play(seconds=5000.0))
        world.plan(story("a"))
        world.start(attempt_timeout_s=100.0, attempts=1)
        await anyio.sleep(50)
        await crash(world, away_s=20)
        await anyio.sleep(29)
        assert world.states() == {"a": "running"}
        await anyio.sleep(2)
        failure = world.of("a").failure
        assert failure is not None
        assert (world.states(), failure.cause) == ({"a": "failed"}, Cause.TIMEOUT)


async def test_what_an_adopted_agent_has_cost_counts_all_of_it() -> None:
    async with a_world(goes_on=True) as world:
        world.does(a=world.good(seconds=60.0, usage=Usage(6.0, 10), tells=2))
        world.plan(story("a"))
        world.start(budget=Budget(story_usd=5.0))
        await anyio.sleep(30)
        assert world.of("a").using == Usage(3.0, 5)
        await crash(world)
        assert world.of("a").using == Usage(3.0, 5)
        await world.until("a", "failed")
        assert world.of("a").using == Usage(6.0, 10)


async def test_what_was_told_to_stop_is_stopped_though_its_engine_died() -> None:
    async with a_world(goes_on=True) as world:
        world.does(a=Play(seconds=5000.0, dies_in_s=50.0))
        await at_work(world)
        world.cancel("a")
        await anyio.sleep(10)
        await crash(world)
        assert (world.states()["a"], world.truth.holders.alive()) == ("cancelled", [])
        assert AttemptId("e", "a", 1) not in world.runner.alive()
        assert world.told == ["Epic 'e' goes on after the end of its engine: adopted b, c; ended and saved a."]


async def test_an_adopted_agent_is_stopped_like_any_other() -> None:
    async with a_world(goes_on=True) as world:
        world.does(a=Play(seconds=5000.0, act=world.truth.work))
        await at_work(world)
        await crash(world)
        world.truth.scribble(call_of(world, "a"))
        world.cancel("a")
        await world.until("a", "cancelled")
        assert AttemptId("e", "a", 1) not in world.runner.alive()
        assert world.truth.saved(AttemptId("e", "a", 1))


async def test_one_that_is_told_to_stop_in_the_moment_of_its_adoption_is_ended_before_its_work_is_saved() -> None:
    """The time of its wave ran out while nobody was there."""
    async with a_world(goes_on=True) as world:
        world.does(a=Play(seconds=5000.0, dies_in_s=5.0))
        world.plan(story("a"))
        world.start(epic_timeout_s=60.0)
        await anyio.sleep(50)
        world.truth.scribble(world.runner.calls[0])
        await crash(world, away_s=20)
        assert world.states() == {"a": "stopping"}
        await anyio.sleep(3)
        assert (world.states(), folder(AttemptId("e", "a", 1)) in world.git.desks) == ({"a": "stopping"}, True)
        await world.until("a", "cancelled")
        assert not world.runner.alive()
        assert world.truth.saved(AttemptId("e", "a", 1))


async def test_one_whose_worktree_is_gone_is_ended_and_starts_again() -> None:
    async with a_world(goes_on=True) as world:
        world.does(a=[Play(seconds=5000.0), world.good()])
        await at_work(world)
        await world.kill()
        del world.git.desks[folder(AttemptId("e", "a", 1))]
        await world.open()
        await anyio.sleep(10)
        failure = world.of("a").failure
        assert failure is not None
        assert (failure.cause, world.of("a").attempt) == (Cause.FAULT, 2)
        assert AttemptId("e", "a", 1) not in world.runner.alive()
        await world.rest()
        assert world.truth.landed("e") == {"a": [2], "b": [1], "c": [1], "d": [1]}


async def test_after_long_nothing_starts_by_itself_and_a_lead_has_it_go_on() -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        await crash(world, away_s=RESUME_S + 100)
        paused = world.ledger.epics["e"].paused
        assert "no engine was there for" in paused
        assert world.told[0] == f"Epic 'e' is paused: {paused}."
        await anyio.sleep(5000)
        assert number(world) == 3
        assert world.truth.landed("e") == {"a": [1], "b": [1], "c": [1]}, "what they had finished is merged"
        world.steer(ResumeEpic("e"))
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1], "c": [1], "d": [1]}


async def test_a_long_quiet_time_before_the_crash_is_no_absence() -> None:
    """An agent that still runs proves that an engine was there a moment ago."""
    async with a_world(goes_on=True) as world:
        world.does(a=world.good(seconds=1500.0))
        world.plan(story("a"), story("b", "a"))
        world.start(attempt_timeout_s=5000.0, stall_timeout_s=5000.0)
        await anyio.sleep(RESUME_S + 200)
        await crash(world)
        assert (world.ledger.epics["e"].paused, world.states()["a"]) == ("", "running")
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1]}


async def test_an_epic_of_sub_agents_is_not_paused_for_it() -> None:
    """Those start nothing by themselves: the editor's lead has them claim."""
    async with a_world(goes_on=True) as world:
        world.plan(story("a"))
        world.start(strategy=Strategy.AGENT_TEAMS)
        await crash(world, away_s=RESUME_S + 100)
        assert (world.ledger.epics["e"].paused, world.states()) == ("", {"a": "offered"})


async def test_an_epic_that_is_paused_already_keeps_its_reason() -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        world.steer(PauseEpic("e", "lunch"))
        await crash(world, away_s=RESUME_S + 100)
        assert world.ledger.epics["e"].paused == "lunch"


async def test_an_engine_whose_work_does_not_go_on_ends_what_another_one_left() -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        await world.kill()
        world.goes_on = False
        await world.open()
        assert set(world.states().values()) == {"pending"}
        assert not world.runner.alive()
        assert number(world) == 3


async def test_agents_of_an_engine_whose_work_does_not_go_on_cannot_be_adopted() -> None:
    async with a_world() as world:
        await at_work(world)
        await world.kill()
        world.goes_on = True
        await world.open()
        assert set(world.states().values()) == {"queued"}
        await world.rest()
        assert world.truth.landed("e") == {"a": [2], "b": [2], "c": [2], "d": [1]}


async def test_an_engine_that_cannot_open_leaves_the_agents_to_the_next_one() -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        await world.kill()
        world.git.fail_next("held", Fault(FaultCause.GIT, "not now"))
        await world.open()
        assert not world.is_up
        assert len(world.runner.alive()) == 3
        await world.open()
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1], "c": [1], "d": [1]}


@pytest.mark.parametrize("calls", range(1, 36))
async def test_killed_at_any_call_while_it_adopts_the_next_one_adopts(calls: int) -> None:
    async with a_world(goes_on=True) as world:
        await at_work(world)
        await world.kill()
        world.line.die_at_call = world.line.calls + calls
        await world.open()
        await anyio.sleep(100)
        await crash(world)
        await world.rest()
        assert {name: len(tries) for name, tries in world.truth.landed("e").items()} == dict.fromkeys("abcd", 1)
        begun = Counter(call.attempt.story for call in world.runner.calls)
        assert (begun["a"], begun["b"], begun["c"]) == (1, 1, 1), "no agent was started again"
