"""What a lead says on the way: pause, resume, drain, retry, skip; and what a killed engine makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from mcp_server.core.commands import DrainWave, PauseEpic, ResumeEpic, RetryStory, SkipStory
from mcp_server.core.events import AttemptClaimed, Event
from mcp_server.core.limits import Strategy
from mcp_server.errors import Code, JournalError, Refused
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio


def started(world: World) -> list[str]:
    return sorted(span.attempt.story for span in world.runner.spans)


async def test_a_paused_epic_lets_its_agents_finish_and_starts_nothing_until_it_is_resumed() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"), story("c"))
        world.start()
        await anyio.sleep(10)
        world.steer(PauseEpic("e", "let me think"))
        await anyio.sleep(1000)
        assert world.states() == {"a": "merged", "b": "queued", "c": "merged"}
        assert started(world) == ["a", "c"]
        world.steer(ResumeEpic("e"))
        await world.rest()
        assert world.states()["b"] == "merged"


async def test_a_pause_outlives_the_engine_and_the_next_start_ends_it() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"))
        world.start()
        await anyio.sleep(10)
        world.steer(PauseEpic("e", "let me think"))
        await world.kill()
        await world.open()
        assert world.ledger.epics["e"].paused == "let me think"
        await anyio.sleep(100)
        assert world.states() == {"a": "pending", "b": "pending"}
        world.start()
        await world.rest()
        assert set(world.states().values()) == {"merged"}


async def test_a_paused_epic_offers_nothing_to_sub_agents() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start(strategy=Strategy.AGENT_TEAMS)
        world.steer(PauseEpic("e", ""))
        with pytest.raises(Refused) as refused:
            await SubAgent(world, isolated=False).claim()
        assert refused.value.code is Code.STORY_NOT_OFFERED
        world.steer(ResumeEpic("e"))
        agent = SubAgent(world, isolated=False)
        await agent.claim()
        agent.work()
        assert (await agent.done()).answer == "merged"


async def test_a_drained_wave_ends_with_what_is_alive_and_the_next_one_takes_the_rest() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"))
        world.start()
        await anyio.sleep(10)
        world.steer(DrainWave("e", "enough for today"))
        await world.rest()
        assert world.states() == {"a": "merged", "b": "pending"}
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}


async def test_a_failed_story_that_is_retried_in_the_living_wave_starts_at_once() -> None:
    async with a_world() as world:
        world.does(a=[Play(seconds=5, exit_code=1), world.good()], b=world.good(seconds=500))
        world.plan(story("a"), story("b"))
        world.start(attempts=1)
        await world.until("a", "failed")
        world.steer(RetryStory("e", "a", "mind the tests"))
        await world.until("a", "merged")
        assert "mind the tests" in world.runner.calls[-1].brief
        await world.rest()


async def test_what_builds_on_a_skipped_story_goes_on_without_it() -> None:
    async with a_world() as world:
        world.does(a=Play(seconds=5, exit_code=1))
        world.plan(story("a"), story("b", "a"))
        world.start(attempts=1)
        await world.rest()
        world.steer(SkipStory("e", "a", "not needed"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "skipped", "b": "merged"}
        assert world.truth.landed("e") == {"b": [1]}


async def test_a_skipped_story_is_not_retried_while_what_builds_on_it_is_at_work() -> None:
    """The engine broke its own invariant there and stopped."""
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"))
        world.steer(SkipStory("e", "a", "not needed"))
        world.start()
        await world.until("b", "running")
        with pytest.raises(Refused, match="b went on without story 'a', which was skipped"):
            world.steer(RetryStory("e", "a"))
        await world.until("b", "merged")
        world.steer(RetryStory("e", "a"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}


async def test_a_journal_that_is_full_ends_the_engine_and_the_next_one_goes_on_with_what_is_stored() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start(slots=1)
        await anyio.sleep(10)
        rows = len(world.journal.rows)
        world.full_disk = True
        with pytest.raises(JournalError):
            world.steer(PauseEpic("e", "nobody will know"))
        assert not world.ledger.epics["e"].paused
        await world.engine_gone()
        assert len(world.journal.rows) == rows
        assert world.ledger == world.replayed() or world.ledger.seq == rows
        world.full_disk = False
        await world.open()
        assert world.states() == {"a": "pending", "b": "pending"}
        world.start(slots=1)
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}
        assert world.truth.saved(world.runner.calls[0].attempt)


async def test_an_engine_whose_jobs_are_gone_takes_nothing_more() -> None:
    """It stored the fact and then failed to act on it, while what it left was told past it."""
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        await anyio.sleep(10)
        world.git.delay_s["rescue"] = 30
        world.full_disk = True
        await world.when(lambda: world.of("a").state == "running")
        engine = world.engine
        await anyio.sleep(60)
        world.full_disk = False
        rows = len(world.journal.rows)
        with pytest.raises((Refused, RuntimeError)) as said:
            engine.handle(PauseEpic("e", "too late"))
        assert "has just come to its end" in str(said.value)
        assert len(world.journal.rows) == rows
        await world.engine_gone()
        await world.open()
        world.start()
        await world.rest()


async def test_an_agent_whose_start_cannot_be_stored_is_ended_at_once() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        keep = world.journal.before_append

        def before(events: Sequence[Event]) -> None:
            world.full_disk = any(isinstance(event, AttemptClaimed) for event in events)
            keep(events)

        world.journal.before_append = before
        world.start()
        await world.engine_gone()
        assert world.runner.alive() == []
        world.journal.before_append, world.full_disk = keep, False
        await world.open()
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged"}
        assert len(world.runner.spans) == 2
