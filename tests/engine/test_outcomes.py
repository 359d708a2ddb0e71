"""How an attempt ends, each way with its own cause and its own words, and what the next one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio


def _never(_attempt: AttemptId, _command: tuple[str, ...], _cwd: Path) -> None:
    """A check that does not end."""


async def run_alone(world: World, play: Play, **policy: Any) -> None:
    world.does(a=play)
    world.plan(story("a", files="src/a.py"))
    world.start(attempts=1, **policy)
    await world.rest()


def ending(world: World, name: str = "a") -> tuple[str, str]:
    failure = world.of(name).failure
    assert failure is not None
    return str(failure.cause), failure.detail


@pytest.mark.parametrize(
    ("play", "cause", "words", "saved"),
    [
        ("nothing", Cause.NO_COMMITS, "left no commit and no change", False),
        ("scribble", Cause.UNCOMMITTED, "not committed: .marks/e/a/1/1, src/a.py", True),
        ("exit_code", Cause.AGENT_FAILED, "exited with code 3", True),
        ("elsewhere", Cause.WRONG_BASE, "does not descend from the commit", True),
        ("slow", Cause.TIMEOUT, "ended after 1800 s", False),
        ("hang", Cause.STALL, "600 s without a line of output", True),
        ("fault", Cause.SPAWN, "no such program", False),
    ],
)
async def test_each_bad_end_has_its_own_cause_and_words_and_its_work_is_saved(
    play: str, cause: Cause, words: str, saved: bool
) -> None:
    async with a_world() as world:
        plays = {
            "nothing": Play(),
            "scribble": Play(act=world.truth.scribble),
            "exit_code": world.good(exit_code=3, tail="I give up"),
            "elsewhere": Play(act=world.truth.work_elsewhere),
            "slow": world.good(seconds=5000.0),
            "hang": world.good(hang=True),
            "fault": Play(fault="no such program"),
        }
        await run_alone(world, plays[play])
        told, detail = ending(world)
        assert (told, world.of("a").state) == (cause, "failed")
        assert words in detail
        assert world.truth.landed("e") == {}
        failure = world.of("a").failure
        assert (failure is not None and failure.saved_ref is not None) is saved
        assert "refs/epicwave/rescue/e/a/1" in world.git.refs or not saved


async def test_the_tail_of_the_log_is_kept_with_the_failure() -> None:
    async with a_world() as world:
        await run_alone(world, world.good(exit_code=3, tail="I give up"))
        failure = world.of("a").failure
        assert failure is not None
        assert failure.tail == "I give up"


async def test_time_and_stall_limits_are_the_waves() -> None:
    async with a_world() as world:
        await run_alone(world, world.good(seconds=100.0), attempt_timeout_s=50.0)
        assert ending(world)[0] == "timeout"
        assert world.runner.spans[0].until_s == 50


async def test_a_red_check_fails_the_story_and_names_the_check() -> None:
    async with a_world() as world:
        world.truth.rotten.add(AttemptId("e", "a", 1))
        await run_alone(world, world.good())
        cause, detail = ending(world)
        assert cause == Cause.CHECKS
        assert "The check `make test` exited with code 1 on the tree merged with" in detail


async def test_checks_stop_at_the_first_red_one_and_each_runs_once() -> None:
    async with a_world() as world:
        world.runner.judge = lambda _attempt, argv, _cwd: 0 if argv == ("one",) else 7
        world.plan(story("a", checks=(("one",), ("two",), ("three",))), checks=(("one",),))
        world.start(attempts=1, checks=(("one",),))
        await world.rest()
        assert [run.command for _, run in world.runner.checks] == [("one",), ("two",)]
        assert "`two` exited with code 7" in ending(world)[1]


async def test_a_check_that_never_ends_is_red_at_its_limit() -> None:
    async with a_world() as world:
        world.runner.judge = _never
        await run_alone(world, world.good(), check_timeout_s=40.0)
        assert "`make test` ran into its time limit" in ending(world)[1]


async def test_a_conflict_names_the_files_and_the_next_attempt_lands() -> None:
    async with a_world() as world:
        world.does(
            a=Play(act=world.truth.work_on("shared")), b=world.good(seconds=90.0, act=world.truth.work_on("shared"))
        )
        world.plan(story("a"), story("b"))
        world.start()
        await world.when(lambda: world.of("b").attempt == 2)
        cause, detail = ending(world, "b")
        assert cause == Cause.CONFLICT
        assert "what was merged meanwhile, in: shared" in detail
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [2]}
        assert world.truth.saved(AttemptId("e", "b", 1))


async def test_the_second_brief_says_why_the_first_failed_and_where_its_work_is() -> None:
    async with a_world() as world:
        world.does(a=[world.good(exit_code=3, tail="the parser defeated me"), world.good()])
        world.plan(story("a"))
        world.start()
        await world.rest()
        first, second = world.runner.calls
        assert "last attempt" not in first.brief
        for words in ("exited with code 3", "the parser defeated me", "refs/epicwave/rescue/e/a/1", "Attempt 2"):
            assert words in second.brief
        assert world.truth.landed("e") == {"a": [2]}


async def test_attempts_end_with_the_budget() -> None:
    async with a_world() as world:
        world.does(a=world.good(exit_code=1))
        world.plan(story("a"))
        world.start(attempts=3)
        await world.rest()
        assert [c.attempt.number for c in world.runner.calls] == [1, 2, 3]
        assert world.states() == {"a": "failed"}


async def test_retry_gives_a_failed_story_a_new_budget() -> None:
    async with a_world() as world:
        world.does(a=[*[world.good(exit_code=1)] * 2, world.good()])
        world.plan(story("a"), story("b", "a"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "failed", "b": "pending"}
        world.start(retry=True)
        await world.rest()
        assert world.truth.landed("e") == {"a": [3], "b": [1]}


async def test_a_failed_story_blocks_exactly_its_transitive_dependents() -> None:
    async with a_world() as world:
        world.does(a=world.good(exit_code=1))
        world.plan(story("a"), story("b", "a"), story("c", "b"), story("d"), story("x", "d"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "failed", "b": "pending", "c": "pending", "d": "merged", "x": "merged"}


async def test_fail_fast_stops_the_siblings_of_a_critical_story_and_nothing_outlives_it() -> None:
    async with a_world() as world:
        world.does(a=world.good(exit_code=1), b=world.good(seconds=900.0), c=world.good(seconds=900.0))
        world.plan(story("a", critical=True), story("b"), story("c"), story("d"))
        world.start(slots=3, attempts=1)
        await world.rest()
        assert world.states() == {"a": "failed", "b": "cancelled", "c": "cancelled", "d": "pending"}
        assert {s.until_s for s in world.runner.spans} == {60.0}
        assert "fail_fast: critical story 'a' failed" in world.of("b").stop_reason


async def test_without_fail_fast_the_siblings_go_on() -> None:
    async with a_world() as world:
        world.does(a=world.good(exit_code=1), b=world.good(seconds=900.0))
        world.plan(story("a", critical=True), story("b"))
        world.start(attempts=1, fail_fast=False)
        await world.rest()
        assert world.states() == {"a": "failed", "b": "merged"}


async def test_two_failures_at_once_are_both_reported() -> None:
    """The agents end in the same instant; whichever comes first, both are told and neither is called cancelled."""
    async with a_world() as world:
        world.does(a=world.good(exit_code=4), b=world.good(exit_code=5), c=world.good(seconds=900.0))
        world.plan(story("a", critical=True), story("b", critical=True), story("c"))
        world.start(slots=3, attempts=1)
        await world.rest()
        assert world.states() == {"a": "failed", "b": "failed", "c": "cancelled"}
        assert "code 4" in ending(world, "a")[1]
        assert "code 5" in ending(world, "b")[1]


async def test_fail_fast_lets_finished_work_in_the_merge_queue_land() -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        world.does(a=world.good(seconds=70.0, exit_code=1), b=world.good(seconds=60.0))
        world.plan(story("a", critical=True), story("b"))
        world.start(attempts=1)
        await world.rest()
        assert world.states() == {"a": "failed", "b": "merged"}
