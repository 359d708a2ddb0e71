"""Sub-agents that fall silent, die or come back late: leases run out in time, not before, and nothing is lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import anyio
import pytest

from mcp_server.adapters.git.names import attempt_ref, rescue_ref
from mcp_server.core.events import Event, LeaseRenewed
from mcp_server.core.model import Cause
from mcp_server.errors import Code, Fault, FaultCause
from mcp_server.testing.clock import EPOCH_S
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story
from tests.engine.test_team import FIRST, LEASE_S, at_work, both_desks, lease_of, next_brief, refused, start

pytestmark = [pytest.mark.anyio]
stubborn_or_not = pytest.mark.parametrize("stubborn", [True, False], ids=["git goes on", "git is cancelled"])


async def second(world: World) -> float:
    """When the story `a` is offered for the second time."""
    await world.when(lambda: world.of("a").attempt == 2)
    return anyio.current_time()


async def over(world: World) -> None:
    """Whoever comes next does it."""
    agent = await at_work(world, "next")
    agent.work()
    assert (await agent.done()).answer == "merged"


# --- deadlines -------------------------------------------------------------------------------------------------------


@both_desks
async def test_a_silent_holders_story_goes_to_the_next_one_at_the_deadline_and_its_work_is_saved(
    *, isolated: bool
) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.touch()
        assert await second(world) == LEASE_S
        failure = world.of("a").failure
        assert failure is not None
        assert (failure.cause, failure.saved_ref) == (Cause.LEASE_LOST, rescue_ref(FIRST))
        assert world.truth.saved(FIRST)
        assert "not heard of for 300 s" in next_brief(world)
        await over(world)


@both_desks
async def test_a_changed_worktree_renews_the_lease_from_the_change_on(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        for _ in range(5):
            await anyio.sleep(200)
            agent.touch()
        assert world.of("a").attempt == 1
        assert await second(world) == 1000 + LEASE_S


@both_desks
async def test_no_change_and_no_report_prolongs_an_attempt_beyond_its_limit(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), attempt_timeout_s=1000.0)
        agent = await at_work(world, isolated=isolated)
        for _ in range(9):
            await anyio.sleep(100)
            agent.touch()
            await agent.report("progress")
        assert lease_of(world).until_s == EPOCH_S + 1000
        assert await second(world) == 1000
        failure = world.of("a").failure
        assert failure is not None
        assert failure.cause is Cause.TIMEOUT


@both_desks
@stubborn_or_not
async def test_a_report_after_the_deadline_counts_as_long_as_the_end_is_not_on_record(
    *, isolated: bool, stubborn: bool
) -> None:
    """Git is still looking for a sign of life when the holder gives one; what git finds out then is stale."""
    async with a_world() as world:
        world.git.delay_s["touched_s"] = 20.0
        world.git.stubborn = stubborn
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        await anyio.sleep(LEASE_S + 10)
        assert (await agent.report("progress")).lease_s == LEASE_S
        await anyio.sleep(20)
        assert (world.engine.alive, world.of("a").attempt, lease_of(world).ended) == (0, 1, None)
        assert lease_of(world).until_s == EPOCH_S + 2 * LEASE_S + 10
        assert await second(world) == 2 * LEASE_S + 10 + 20  # and the lease can run out again


@stubborn_or_not
@pytest.mark.parametrize("touched", [True, False])
async def test_work_that_is_handed_in_while_git_looks_for_a_sign_of_life_is_merged(
    *, touched: bool, stubborn: bool
) -> None:
    async with a_world() as world:
        world.git.delay_s["touched_s"] = 100.0
        world.git.stubborn = stubborn
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await anyio.sleep(LEASE_S + 10)
        if touched:
            agent.work()
        assert (await agent.done()).answer == "merged"
        await anyio.sleep(200)
        assert (world.engine.alive, world.truth.landed("e")) == (0, {"a": [1]})


@stubborn_or_not
async def test_cancel_of_a_merge_while_git_still_looks_for_a_sign_of_life_is_told_once(*, stubborn: bool) -> None:
    """Two jobs of one attempt come to their ends together, and only the merge's tells how the story ended."""
    async with a_world() as world:
        world.git.delay_s.update(touched_s=50.0, rescue=30.0)
        world.git.stubborn = stubborn
        world.runner.check_s = 1000.0
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await anyio.sleep(LEASE_S + 1)
        with anyio.move_on_after(20):
            await agent.report()
        world.cancel()
        await world.rest()
        await anyio.sleep(100)
        assert (world.states(), world.engine.alive) == ({"a": "cancelled"}, 0)
        assert world.truth.saved(FIRST)


@both_desks
async def test_who_gives_up_while_git_looks_for_a_sign_of_life_is_quoted(*, isolated: bool) -> None:
    async with a_world() as world:
        world.git.delay_s["touched_s"] = 20.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        await anyio.sleep(LEASE_S + 10)
        await agent.report("failed", "the library is missing")
        assert "the library is missing" in next_brief(world)


@pytest.mark.parametrize("back_s", [0.01, 3600.0], ids=["a hundredth of a second", "an hour"])
async def test_a_clock_that_is_set_back_prolongs_no_lease_and_writes_no_journal_full(back_s: float) -> None:
    """An alarm may ring a moment before the clock says so, too."""
    async with a_world() as world:
        start(world, story("a"))
        await at_work(world)
        await anyio.sleep(100)
        world.clock.set_by_s = -back_s
        world.journal.before_append = _no_more_than(2)
        assert await second(world) == LEASE_S
        world.journal.before_append = _no_more_than(math.inf)


def _no_more_than(number: float) -> Callable[[Sequence[Event]], None]:
    count = itertools.count(1)

    def append(events: Sequence[Event]) -> None:
        assert next(count) <= number, f"{events} is one too many"

    return append


async def test_a_report_that_git_takes_long_to_judge_is_no_silence() -> None:
    async with a_world() as world:
        world.git.delay_s["inspect_lent"] = 50.0
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await anyio.sleep(LEASE_S - 10)
        assert (await agent.done()).answer == "merged"


async def test_a_lease_that_runs_out_again_while_git_still_looks_is_collected() -> None:
    async with a_world() as world:
        world.git.delay_s["touched_s"] = 2 * LEASE_S
        world.git.stubborn = True
        start(world, story("a"))
        agent = await at_work(world)
        await anyio.sleep(LEASE_S + 10)
        await agent.report("progress")
        assert await second(world) == LEASE_S * 5  # it was renewed before git had looked, and once more looked for


async def test_a_fault_in_looking_for_a_sign_of_life_ends_the_lease_and_saves_the_work() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        await anyio.sleep(200)
        agent.work()
        world.git.fail_next("touched_s", Fault(FaultCause.GIT, "busy"))
        assert await second(world) == LEASE_S
        assert world.truth.saved(FIRST)


async def test_a_sign_of_life_is_on_record() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        await anyio.sleep(200)
        agent.touch()
        await anyio.sleep(200)
        agent.commit()
        renewed = [event for event in world.journal.replay() if isinstance(event, LeaseRenewed)]
        assert [(event.at_s, event.until_s) for event in renewed] == [(EPOCH_S + LEASE_S, EPOCH_S + 200 + LEASE_S)]


# --- late ------------------------------------------------------------------------------------------------------------


async def test_what_is_committed_late_is_added_to_what_was_saved_and_the_report_is_refused() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await second(world)
        agent.work()
        no = await refused(agent, Code.LEASE_LOST)
        assert rescue_ref(FIRST) in str(no)
        assert world.truth.saved(FIRST)
        await over(world)


async def test_what_is_committed_late_and_never_reported_is_saved_when_the_desk_is_free() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        await second(world)
        agent.work()
        await over(world)
        await world.close()
        await world.tidy()
        assert world.truth.saved(FIRST)
        assert attempt_ref(FIRST) not in world.git.refs


async def test_our_desk_is_taken_away_when_the_lease_is_over() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=False)
        agent.touch()
        await second(world)
        assert agent.holds.place not in world.git.desks
        assert world.truth.saved(FIRST)
        await refused(agent, Code.LEASE_LOST)


async def test_a_late_report_of_an_old_attempt_does_not_touch_the_one_that_runs() -> None:
    async with a_world() as world:
        start(world, story("a"))
        late = await at_work(world)
        late.work()
        await second(world)
        now = await at_work(world, "two")
        now.touch()
        await refused(late, Code.LEASE_LOST)
        now.commit()
        assert (await now.done()).answer == "merged"
        assert world.truth.landed("e") == {"a": [2]}


# --- deaths ----------------------------------------------------------------------------------------------------------


@both_desks
async def test_a_death_that_the_host_tells_of_frees_the_story_at_once(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.touch()
        await agent.ended()
        assert await second(world) == 0
        assert world.truth.saved(FIRST)
        assert "Its sub-agent died." in next_brief(world)


async def test_nobody_ends_the_leases_of_those_that_have_no_name() -> None:
    async with a_world() as world:
        start(world, story("a"))
        await at_work(world, "")
        await SubAgent(world, "").ended()
        assert lease_of(world).ended is None


@both_desks
async def test_what_was_handed_in_lands_although_its_holder_is_gone(*, isolated: bool) -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        await agent.report()
        await agent.ended()
        if agent.own is not None:
            world.truth.host_clears(agent.own)
        await world.rest()
        assert world.truth.landed("e") == {"a": [1]}


@both_desks
@pytest.mark.parametrize("told", [True, False])
async def test_a_refused_merge_whose_holder_is_gone_goes_to_the_next_with_the_reason(
    *, told: bool, isolated: bool
) -> None:
    """Told of, it is collected as soon as the merge is refused; else when the lease runs out."""
    async with a_world() as world:
        world.runner.check_s = 100.0
        world.truth.rotten.add(FIRST)
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        await agent.report()
        if told:
            await agent.ended()
        assert await second(world) == (100 if told else 100 + LEASE_S)
        assert "make test" in next_brief(world)
        assert ("died" if told else "not heard of") in next_brief(world)
        assert world.truth.saved(FIRST)
        await over(world)


async def test_a_refused_merge_leaves_its_holder_a_full_lease_to_mend_it_in() -> None:
    async with a_world() as world:
        world.runner.check_s = 1000.0
        world.truth.rotten.add(FIRST)
        start(world, story("a"), attempt_timeout_s=400.0, check_timeout_s=2000.0)
        agent = await at_work(world)
        agent.work()
        await agent.report()
        await anyio.sleep(1000 + LEASE_S - 41)
        reply = await agent.report()
        assert (reply.answer, reply.lease_s) == ("repair", LEASE_S)
        agent.mend(reply)
        assert (await agent.done()).answer == "merged"


async def test_a_refusal_between_two_calls_is_told_and_the_same_work_is_not_handed_in_again() -> None:
    """Whoever asks for the outcome says `done`: that is no new work, and costs no repair."""
    async with a_world() as world:
        world.runner.check_s = 100.0
        world.truth.rotten.add(FIRST)
        start(world, story("a"), repairs=1)
        agent = await at_work(world)
        agent.work()
        assert (await agent.report()).answer == "checking"
        await anyio.sleep(100)
        replies = [await agent.report() for _ in range(2)]
        assert [reply.answer for reply in replies] == ["repair", "repair"]
        assert (world.of("a").repairs, len(world.runner.checks)) == (1, 1)
        agent.mend(replies[0])
        assert (await agent.done()).answer == "merged"


@both_desks
@pytest.mark.parametrize("committed", [True, False])
async def test_work_that_goes_on_after_it_was_handed_in_is_saved_and_not_merged(
    *, committed: bool, isolated: bool
) -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        await agent.report()
        agent.touch()
        if committed:
            agent.commit()
        assert (await agent.done()).answer == "merged"
        assert world.truth.landed("e") == {"a": [1]}
        assert world.truth.saved(FIRST)
