"""Agents that fail by no fault of their stories: the profile is paused, one probe looks, and no story fails for it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcp_server.core.commands import ResumeEpic
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Cause
from mcp_server.errors import Refused
from mcp_server.ports import AgentCall
from mcp_server.testing.fake_runner import Play, Span
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio

API_ERROR = Play(seconds=5, trouble=Cause.API_ERROR, exit_code=1)
FOUR = (story("a"), story("b"), story("c"), story("d"))
BREAKER: dict[str, Any] = {"breaker_faults": 2, "cooldown_s": 100.0, "cooldown_cap_s": 400.0, "probe_s": 50.0}
TEAM: dict[str, Any] = {**BREAKER, "strategy": Strategy.AGENT_TEAMS, "lease_s": 60.0}

LONGER: dict[str, Any] = {**TEAM, "probe_s": 65.0}


def outage(world: World, until_s: float, *profiles: str, play: Play = API_ERROR) -> list[tuple[float, str]]:
    """Agents of these profiles fail until then. Returns when agents were started, and of which profile."""
    started: list[tuple[float, str]] = []

    def play_of(call: AgentCall) -> Play:
        started.append((anyio.current_time(), call.profile))
        is_out = call.profile in profiles and anyio.current_time() < until_s
        return play if is_out else world.good(seconds=20)

    world.runner.play_of = play_of  # type: ignore[method-assign]
    return started


def spans(world: World, name: str) -> list[Span]:
    return [span for span in world.runner.spans if span.attempt.story == name]


@pytest.mark.parametrize("play", [API_ERROR, Play(seconds=5, trouble=Cause.CRASH, exit_code=139), Play(fault="gone")])
async def test_in_an_outage_one_probe_after_each_cooldown_is_all_that_starts_and_every_story_is_merged(
    play: Play,
) -> None:
    async with a_world() as world:
        started = outage(world, 600, "scripted", play=play)
        world.plan(*FOUR)
        world.start(**BREAKER)
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        lasts_s = 0 if play.fault else 5
        in_outage = [at_s for at_s, _ in started if at_s < 600]
        first_s, second_s = lasts_s + 100, lasts_s + 100 + lasts_s + 200
        assert in_outage == pytest.approx([0, 0, lasts_s, first_s, second_s]), "the third took the slot of the first"


async def test_while_the_breaker_is_half_open_one_agent_works_and_its_success_lets_the_others_start() -> None:
    async with a_world() as world:
        started = outage(world, 10, "scripted")
        world.plan(*FOUR)
        world.start(**BREAKER, slots=4)
        await world.rest()
        at_s = [at_s for at_s, _ in started]
        assert at_s[:4] == [0, 0, 0, 0]
        probe, *others = at_s[4:]
        assert probe == pytest.approx(105)
        assert others == pytest.approx([125, 125, 125])


async def test_a_probe_that_works_for_long_enough_lets_the_others_start_before_it_ends() -> None:
    async with a_world() as world:
        world.does(a=[API_ERROR, world.good(seconds=500)], b=[API_ERROR, world.good(seconds=500)])
        world.plan(story("a"), story("b"))
        world.start(**BREAKER)
        await world.rest()
        first, second = sorted(span.from_s for span in world.runner.spans[2:])
        assert second - first == pytest.approx(50)


async def test_an_agent_that_fails_honestly_opens_nothing() -> None:
    async with a_world() as world:
        world.does(a=Play(seconds=5, exit_code=1), b=Play(seconds=5, exit_code=1))
        world.plan(*FOUR)
        world.start(**BREAKER, attempts=3, fail_fast=False)
        await world.rest()
        assert world.states() == {"a": "failed", "b": "failed", "c": "merged", "d": "merged"}
        assert not any(breaker.opened for breaker in world.ledger.breakers.values())


async def test_while_its_profile_is_paused_a_story_goes_to_the_fallback() -> None:
    async with a_world() as world:
        started = outage(world, 1e6, "scripted")
        world.plan(*FOUR)
        world.start(**BREAKER, fallback="second", epic_timeout_s=300.0)
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert [profile for _, profile in started][:2] == ["scripted", "scripted"]
        assert sum(profile == "second" for _, profile in started) == 4


async def test_a_rate_limit_parks_the_whole_profile_until_the_time_that_it_named_and_costs_no_attempt() -> None:
    async with a_world() as world:
        limited = Play(seconds=10, trouble=Cause.RATE_LIMIT, exit_code=1, resumes_in_s=1000, act=world.truth.work)
        world.does(a=[limited, world.good()], b=world.good(seconds=15))
        world.plan(*FOUR)
        world.start(attempts=1)
        await world.until("b", "merged")
        assert (world.states()["a"], world.states()["c"]) == ("queued", "queued")
        assert world.ledger.breakers["scripted"].parked_until_s == pytest.approx(world.clock.now_s() + 994, abs=1)
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert [round(span.from_s) for span in world.runner.spans] == [0, 0, 1010, 1010, 1070]
        failure = world.of("a").failure
        assert failure is None
        assert world.git.refs["refs/epicwave/rescue/e/a/1"], "what it had done is kept"


async def test_a_rate_limit_that_names_no_end_parks_for_longer_each_time() -> None:
    async with a_world() as world:
        limited = Play(seconds=10, trouble=Cause.RATE_LIMIT, exit_code=1)
        world.does(a=[limited, limited, world.good()])
        world.plan(story("a"))
        world.start(attempts=1)
        await world.rest()
        first, second, third = spans(world, "a")
        assert 30 <= second.from_s - (first.until_s or 0) < 60
        assert 60 <= third.from_s - (second.until_s or 0) < 120


async def test_resume_lets_a_probe_through_at_once() -> None:
    async with a_world() as world:
        started = outage(world, 20, "scripted")
        world.plan(*FOUR)
        world.start(**BREAKER)
        await anyio.sleep(30)
        world.steer(ResumeEpic("e"))
        await world.rest()
        assert [round(at_s) for at_s, _ in started[:4]] == [0, 0, 5, 30]
        assert set(world.states().values()) == {"merged"}


async def test_an_open_breaker_outlives_the_engine() -> None:
    async with a_world() as world:
        started = outage(world, 600, "scripted")
        world.plan(*FOUR)
        world.start(**BREAKER)
        await anyio.sleep(30)
        await world.kill()
        await world.open()
        world.start(**BREAKER)
        await anyio.sleep(60)
        assert len(started) == 3
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert started[3][0] == pytest.approx(105)


# --- sub-agents of the editor


async def silent(world: World, number: int) -> None:
    """So many sub-agents claim a story each and are never heard of again."""
    for _ in range(number):
        await SubAgent(world, isolated=False).claim()
    await anyio.sleep(61)


async def test_lost_leases_in_a_row_pause_the_claims_and_then_one_sub_agent_is_let_through() -> None:
    async with a_world() as world:
        world.plan(*FOUR)
        world.start(**TEAM)
        await silent(world, 2)
        with pytest.raises(Refused, match="to be claimed now"):
            await SubAgent(world, isolated=False).claim()
        await anyio.sleep(100)
        probe = SubAgent(world, isolated=False)
        await probe.claim()
        with pytest.raises(Refused, match="to be claimed now"):
            await SubAgent(world, isolated=False).claim()
        probe.work()
        await probe.done()
        other = SubAgent(world, isolated=False)
        await other.claim()
        other.work()
        await other.done()
        world.cancel()
        await world.rest()


async def test_a_probe_that_waited_long_for_somebody_to_claim_it_is_a_probe_all_the_same() -> None:
    """It was closed at once: the time since the offer was taken for work."""
    async with a_world() as world:
        world.plan(*FOUR)
        world.start(**TEAM)
        await silent(world, 2)
        await anyio.sleep(500)
        await SubAgent(world, isolated=False).claim()
        breaker = world.ledger.breakers["agent-teams"]
        assert breaker.opened == 1
        assert breaker.probe is not None
        world.cancel()
        await world.rest()


async def test_a_probe_whose_lease_is_over_closes_nothing_while_its_work_is_saved() -> None:
    async with a_world() as world:
        world.plan(*FOUR)
        world.start(**LONGER)
        await silent(world, 2)
        await anyio.sleep(100)
        world.git.delay_s["rescue"] = 20
        await SubAgent(world, isolated=False).claim()
        await anyio.sleep(70)
        assert world.ledger.breakers["agent-teams"].opened == 1
        await anyio.sleep(20)
        assert world.ledger.breakers["agent-teams"].opened == 2
        world.cancel()
        await world.rest()
