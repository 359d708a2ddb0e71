"""The world fails once, in every operation: the epic still ends merged or says why, and nothing is lost."""

from __future__ import annotations

import anyio
import pytest

from mcp_server.core.model import Cause
from mcp_server.core.policy import MERGE_TRIES, backoff_s, jitter
from mcp_server.core.spec import AttemptId
from mcp_server.engine.merging import LOOKS
from mcp_server.errors import Fault, FaultCause
from mcp_server.testing.world import a_world, story

pytestmark = pytest.mark.anyio


def full() -> Fault:
    return Fault(FaultCause.DISK, "no space left")


@pytest.mark.parametrize("op", ["tip", "hold", "inspect", "release", "rescue"])
async def test_a_fault_around_an_attempt_costs_the_attempt_and_the_next_lands(op: str) -> None:
    async with a_world() as world:
        world.does(a=[world.good(exit_code=1), world.good()] if op == "rescue" else world.good())
        world.git.fail_next(op, full())
        world.plan(story("a"), story("b", "a"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}
        assert world.truth.landed("e")["a"] == [2]


@pytest.mark.parametrize("op", ["rebase", "checkout", "advance", "forget", "contains", "close", "held"])
async def test_a_fault_around_a_merge_costs_nothing(op: str) -> None:
    """What could not be tidied up is tidied up by the next engine."""
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"))
        world.start()
        await anyio.sleep(30)
        world.git.fail_next(op, full())
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1]}
        await world.close()
        await world.open()


async def test_an_attempt_is_tried_again_after_a_pause_that_says_why() -> None:
    async with a_world() as world:
        world.git.fail_next("hold", full())
        world.plan(story("a"))
        world.start()
        await world.until("a", "queued")
        failure = world.of("a").failure
        assert failure is not None
        assert (failure.cause, failure.detail) == (Cause.FAULT, "disk: no space left")
        await world.rest()
        assert world.runner.spans[0].from_s == pytest.approx(backoff_s(1, share=jitter(0, "a", 1)))


async def test_a_world_that_never_recovers_fails_the_story_with_its_reason() -> None:
    async with a_world() as world:
        world.git.user_branch = "epicwave/e"
        world.plan(story("a"), story("b"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "failed", "b": "failed"}
        failure = world.of("a").failure
        assert failure is not None
        assert "is checked out in the user's checkout" in failure.detail
        assert all(world.truth.saved(c.attempt) for c in world.runner.calls)


async def test_a_merge_that_is_let_through_again_lands_without_a_new_agent() -> None:
    async with a_world() as world:
        world.git.user_branch = "epicwave/e"
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").merge_faults == 4)
        world.git.user_branch = None
        await world.rest()
        assert world.truth.landed("e") == {"a": [1]}
        assert len(world.runner.calls) == 1


async def test_a_landed_merge_is_never_undone_by_a_fault_in_tidying_up() -> None:
    """So many faults in a row would fail the story; the branch has it already."""
    async with a_world() as world:
        for _ in range(MERGE_TRIES):
            world.git.fail_next("forget", full())
        world.plan(story("a"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged"}
        assert anyio.current_time() == pytest.approx(61)
        for _ in range(MERGE_TRIES):
            await world.close()
            await world.open()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_while_git_does_not_say_whether_it_has_a_merge_nobody_guesses(cancelled: bool) -> None:
    """Git had moved when the engine was killed. A guess could fail, or cancel, a story that is on the branch."""
    async with a_world() as world:
        world.git.delay_s["advance"] = 10.0
        world.plan(story("a"))
        world.start()
        await anyio.sleep(66)
        await world.kill()
        for _ in range(LOOKS - 1 if cancelled else MERGE_TRIES):
            world.git.fail_next("contains", full())
        await world.open()
        if cancelled:
            world.cancel()
        await world.rest()
        assert (world.states(), len(world.runner.calls)) == ({"a": "merged"}, 1)


async def test_when_git_never_says_whether_it_has_a_merge_it_is_taken_for_not_merged_and_saved() -> None:
    """There is no such branch any more, most likely; whoever cancelled is not kept waiting for ever."""
    async with a_world() as world:
        world.git.fail_next("advance", full())
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").merge_faults == 1)
        assert world.of("a").proven is not None
        looks, from_s = world.git.calls["contains"], anyio.current_time()
        for _ in range(LOOKS):
            world.git.fail_next("contains", full())
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "cancelled"}
        assert (world.git.calls["contains"] - looks, world.truth.landed("e")) == (LOOKS, {})
        assert anyio.current_time() - from_s == sum(backoff_s(n) for n in range(1, LOOKS))
        assert world.truth.saved(AttemptId("e", "a", 1))


async def test_work_that_somebody_has_merged_by_hand_is_told_as_merged_and_nothing_is_checked() -> None:
    async with a_world() as world:
        world.git.delay_s["rebase"] = 10.0
        world.plan(story("a", files="x"))
        world.start()
        await world.until("a", "merging")
        head = world.of("a").head or ""
        world.truth.pushed.append(("e", head))
        world.git.refs["refs/heads/epicwave/e"] = head
        await world.rest()
        assert (world.states(), world.of("a").merged_as) == ({"a": "merged"}, head)
        assert "x" in world.of("a").files_changed
        assert world.runner.checks == []


async def test_a_branch_that_somebody_moves_during_the_checks_is_rebased_onto_again() -> None:
    async with a_world() as world:
        world.runner.check_s = 10.0
        world.plan(story("a"))
        world.start()
        for at_s in (65, 75):
            await anyio.sleep(at_s - anyio.current_time())
            world.truth.push("e", f"by hand {at_s}")
        await world.rest()
        assert len(world.runner.checks) == 3
        assert world.truth.landed("e") == {"a": [1]}


async def test_a_branch_that_never_stands_still_is_a_fault_in_words() -> None:
    async with a_world() as world:
        judge = world.truth.judge

        def shove(attempt: AttemptId, command: tuple[str, ...], cwd: object) -> int:
            world.truth.push("e", f"by hand {len(world.truth.pushed)}")
            return judge(attempt, command, cwd)  # type: ignore[arg-type]

        world.runner.judge = shove
        world.plan(story("a"))
        world.start()
        await world.when(lambda: world.of("a").merge_faults == 1)
        failure = world.of("a").failure
        assert failure is not None
        assert "moved 5 times while the merge was being checked" in failure.detail
        world.runner.judge = judge
        await world.rest()
        assert world.truth.landed("e") == {"a": [1]}


async def test_a_fault_while_an_engine_opens_or_closes_loses_nothing() -> None:
    """What could not be tidied up then is tidied up by the next engine."""
    for op in ("rescue", "forget", "close", "held"):
        async with a_world() as world:
            world.plan(story("a"), story("b"))
            world.start()
            await anyio.sleep(50)
            world.git.fail_next(op, full())
            await world.close()
            await world.open()
            world.start()
            await world.rest()
            assert sorted(world.truth.landed("e")) == ["a", "b"]


async def test_a_branch_that_is_gone_is_told_and_stops_nobody_else() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.plan(story("f1"), epic="f")
        world.start(epic="f")
        world.start()
        await anyio.sleep(30)
        tip = world.git.refs.pop("refs/heads/epicwave/e")
        await world.rest()
        assert world.states("f") == {"f1": "merged"}
        failure = world.of("a").failure
        assert failure is not None
        assert "There is no refs/heads/epicwave/e any more" in failure.detail
        world.git.refs["refs/heads/epicwave/e"] = tip
