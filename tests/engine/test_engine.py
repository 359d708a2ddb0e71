"""The one door: durable before visible, loud when it is our own bug, and a clock that may be set."""

from __future__ import annotations

import anyio
import pytest

from mcp_server.core.commands import CancelEpic
from mcp_server.core.events import AttemptFailed, Ticked
from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Fault, FaultCause, JournalError, Refused
from mcp_server.ports import AgentCall
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.memory_journal import full_disk
from mcp_server.testing.world import World, a_world, assert_same, story

pytestmark = pytest.mark.anyio


def _bug(call: AgentCall) -> None:
    raise ZeroDivisionError(call.attempt)


async def test_a_refused_command_changes_nothing() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        before, rows = world.ledger, len(world.journal.rows)
        with pytest.raises(Refused) as refused:
            world.engine.handle(CancelEpic("nobody", "because"))
        assert refused.value.code == Code.UNKNOWN_EPIC
        assert (world.ledger, len(world.journal.rows)) == (before, rows)


async def test_nothing_is_begun_aside_of_an_engine_that_is_coming_to_its_end() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    async with a_world() as world:
        world.engine.aside(work)
        await world.settle()
        world.engine.leave()
        with pytest.raises(Refused) as refused:
            world.engine.aside(work)
        assert refused.value.code == Code.ENGINE_ELSEWHERE
    assert begun == ["work"]


async def test_an_epic_without_checks_is_merged_and_nothing_is_set_up_for_them() -> None:
    async with a_world() as world:
        world.plan(story("a"), checks=())
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged"}
        assert world.runner.checks == []


async def test_what_cannot_be_stored_does_not_happen() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        keep, world.journal.before_append = world.journal.before_append, full_disk
        with pytest.raises(JournalError):
            world.start()
        await world.settle()
        assert world.states() == {"a": "pending"}
        assert world.runner.calls == []
        world.journal.before_append = keep


async def test_a_journal_that_fails_under_a_job_stops_the_engine_and_the_work_is_kept() -> None:
    worlds: list[World] = []
    with pytest.RaisesGroup(pytest.RaisesExc(JournalError), flatten_subgroups=True, allow_unwrapped=True):
        async with a_world() as world:
            worlds.append(world)
            world.plan(story("a"))
            world.start()
            await anyio.sleep(30)
            world.journal.before_append = full_disk
            await world.rest()
    assert worlds[0].truth.saved(AttemptId("e", "a", 1))
    assert worlds[0].runner.alive() == []


async def test_a_bug_in_a_job_stops_the_engine_loudly_and_the_work_is_still_saved() -> None:
    """An error that is no Fault is ours; nothing swallows it, nothing is left alive, the journal tells the rest."""
    worlds: list[World] = []
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
        async with a_world() as world:
            worlds.append(world)
            world.does(a=Play(act=_bug), b=Play(seconds=5.0, act=world.truth.scribble, hang=True))
            world.plan(story("a"), story("b"))
            world.start()
            await world.rest()
    worlds[0].verify()
    assert worlds[0].states() == {"a": "pending", "b": "pending"}
    assert worlds[0].truth.saved(AttemptId("e", "b", 1))


async def test_a_late_fact_is_dropped_by_the_fence() -> None:
    async with a_world() as world:
        world.does(a=[world.good(exit_code=1), world.good()])
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").attempt == 2)
        late = AttemptFailed(AttemptId("e", "a", 1), Cause.AGENT_FAILED, "late", "", None, world.engine.now_s())
        rows = len(world.journal.rows)
        world.engine._report(late)  # pyright: ignore[reportPrivateUsage] - the door for facts
        assert len(world.journal.rows) == rows
        await world.rest()


async def test_wait_for_wakes_on_the_change_itself() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        assert await world.engine.wait_for(lambda _: world.of("a").state == "merging")
        assert anyio.current_time() == 60.0


async def test_wait_for_gives_up_when_its_time_is_up() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        assert not await world.engine.wait_for(lambda _: False, 45.0)
        assert anyio.current_time() == 45.0
        assert await world.engine.wait_for(lambda _: True, 0)


async def test_a_tick_that_changes_nothing_is_no_fact() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        rows = len(world.journal.rows)
        world.engine.submit(Ticked(world.engine.now_s() + 100))
        assert len(world.journal.rows) == rows


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_is_set_delays_no_retry_and_replay_stays_exact(hours: int) -> None:
    async with a_world() as world:
        world.git.fail_next("hold", Fault(FaultCause.DISK, "full"))
        world.git.fail_next("rebase", Fault(FaultCause.DISK, "full"))
        world.plan(story("a"), story("b", "a"))
        world.start()
        await world.until("a", "queued")
        world.clock.set_by_s = hours * 3600.0
        await world.rest()
        assert_same(world.replayed(), world.ledger)
        assert anyio.current_time() < 300


async def test_two_waits_of_different_length_each_end_in_time() -> None:
    async with a_world() as world:
        world.does(b=[Play(fault="busy"), Play(fault="busy"), world.good()])
        world.git.fail_next("hold", Fault(FaultCause.DISK, "full"))
        world.plan(story("a"), story("b"))
        world.start(attempts=5, slots=1)
        await world.rest()
        assert sorted(world.truth.landed("e")) == ["a", "b"]


async def test_jobs_are_gone_when_all_is_at_rest() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start()
        await world.until("a", "running")
        assert world.engine.alive == 2
        await world.rest()
        assert world.engine.alive == 0
