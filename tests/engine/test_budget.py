"""Money, tokens and time: what is spent ends what spends it, says so, and nothing more starts."""

from __future__ import annotations

import anyio
import pytest

from mcp_server.core.commands import RetryStory
from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause, Usage
from mcp_server.core.policy import CALM_S
from mcp_server.errors import Code, Refused
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio


def failure(world: World, name: str) -> tuple[Cause, str]:
    found = world.of(name).failure
    assert found is not None
    return found.cause, found.detail


def ended_s(world: World, name: str) -> float | None:
    (span,) = (span for span in world.runner.spans if span.attempt.story == name)
    return span.until_s


async def test_an_agent_that_has_spent_its_storys_budget_is_stopped_and_the_story_has_failed_with_its_work_saved() -> (
    None
):
    async with a_world() as world:
        world.does(a=world.good(seconds=100, usage=Usage(5.0, 0), tells=10), b=world.good(seconds=50))
        world.plan(story("a"), story("b"))
        world.start(budget=Budget(story_usd=2.0))
        await world.rest()
        assert world.states() == {"a": "failed", "b": "merged"}
        cause, detail = failure(world, "a")
        assert (cause, detail) == (Cause.BUDGET, "2.00 of 2.00 USD are used")
        assert ended_s(world, "a") == pytest.approx(100 * 4 / 11, abs=0.1)


async def test_a_story_whose_attempts_together_cost_too_much_is_not_tried_again_until_the_lead_says_so() -> None:
    async with a_world() as world:
        spender = Play(seconds=5, exit_code=1, usage=Usage(1.2, 0))
        world.does(a=[spender, spender, world.good()])
        world.plan(story("a"))
        world.start(attempts=3, budget=Budget(story_usd=2.0))
        await world.rest()
        assert world.of("a").attempt == 2
        assert failure(world, "a")[0] is Cause.BUDGET
        world.steer(RetryStory("e", "a"))
        world.start(attempts=3, budget=Budget(story_usd=2.0))
        await world.rest()
        assert world.states() == {"a": "merged"}


async def test_when_the_epics_budget_is_spent_its_agents_stop_its_wave_ends_and_a_start_is_refused() -> None:
    async with a_world() as world:
        world.does(
            a=world.good(seconds=100, usage=Usage(0.0, 900), tells=9),
            b=world.good(seconds=100, usage=Usage(0.0, 900), tells=9),
        )
        world.plan(story("a"), story("b"), story("c", "a"))
        budget = Budget(epic_tokens=1000)
        world.start(budget=budget)
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "cancelled", "c": "pending"}
        wave = world.ledger.epics["e"].wave
        assert wave is not None
        assert wave.ended_because == "budget: 1,000 of 1,000 tokens are used"
        with pytest.raises(Refused) as refused:
            world.start(budget=budget, retry=True)
        assert refused.value.code is Code.BUDGET_SPENT


async def test_what_was_used_is_not_forgotten_when_the_engine_is_killed() -> None:
    async with a_world() as world:
        world.does(a=[world.good(seconds=100, usage=Usage(1.0, 0), tells=3), world.good()])
        world.plan(story("a"))
        world.start(budget=Budget(epic_usd=10.0))
        await anyio.sleep(60)
        await world.kill()
        await world.open()
        assert world.ledger.epics["e"].used.usd == pytest.approx(2 / 3), "told after 25 and 50 s"


async def test_a_wave_whose_time_is_up_stops_its_agents_and_merges_what_they_have_handed_in() -> None:
    async with a_world() as world:
        world.runner.check_s = 30
        world.does(a=world.good(seconds=80), b=world.good(seconds=500))
        world.plan(story("a"), story("b"), story("c", "a"))
        world.start(epic_timeout_s=100.0)
        await world.rest()
        assert world.states() == {"a": "merged", "b": "cancelled", "c": "pending"}
        assert ended_s(world, "b") == pytest.approx(100)


async def test_adaptive_slots_are_given_up_under_rate_limits_and_taken_back_when_it_is_calm() -> None:
    async with a_world() as world:
        limited = Play(seconds=5, trouble=Cause.RATE_LIMIT, exit_code=1, resumes_in_s=10)
        world.does(**{name: [limited, world.good(seconds=400)] for name in "abc"})
        world.plan(*(story(name) for name in "abcdef"))
        world.start(slots=3, adaptive_slots=True)
        await anyio.sleep(20)
        wave = world.ledger.epics["e"].wave
        assert wave is not None
        assert wave.fewer == 2
        assert len(world.runner.alive()) == 1
        await anyio.sleep(CALM_S + 20)
        wave = world.ledger.epics["e"].wave
        assert wave is not None
        assert wave.fewer < 2
        await world.rest()
        assert set(world.states().values()) == {"merged"}
