"""Bugs of engines whose work goes on: about whom they adopt, whom they leave, and what they start by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mcp_server.core import interrupted
from mcp_server.engine import jobs, lifecycle
from mcp_server.engine.engine import Engine
from tests.engine import test_going_on


class Bug(NamedTuple):
    """Words of a function, and what they are replaced by."""

    name: str
    function: Callable[..., Any]
    right: str
    wrong: str
    test: Callable[[], Awaitable[None]] | None = None
    """What catches it; None for the lives."""


LEFT_OVER: Callable[..., Any] = lifecycle._left_over  # pyright: ignore[reportPrivateUsage] - bugs may be anywhere

BUGS = [
    Bug(
        "the dead are adopted",
        LEFT_OVER,
        "left.get(attempt, Left.GONE) is not Left.GONE",
        "manner.adopts and story.process is not None",
    ),
    Bug(
        "an end that is on record is lost",
        LEFT_OVER,
        "left.get(attempt, Left.GONE) is not Left.GONE",
        "left.get(attempt, Left.GONE) is Left.RUNS",
    ),
    Bug(
        "what was told to stop is adopted",
        LEFT_OVER,
        "story.state is StoryState.RUNNING and ",
        "",
        test_going_on.test_what_was_told_to_stop_is_stopped_though_its_engine_died,
    ),
    Bug(
        "who is not adopted is not ended",
        LEFT_OVER,
        "if story.head is None:",
        "if False:",
        test_going_on.test_an_engine_whose_work_does_not_go_on_ends_what_another_one_left,
    ),
    Bug(
        "a second agent runs beside an adopted one",
        jobs.run_attempt,
        "process = context.story.process",
        "process = None",
    ),
    Bug(
        "the worktree of an adopted agent is made anew",
        jobs.run_attempt,
        "if process is None else ports.worktrees.retake",
        "if True else ports.worktrees.retake",
        test_going_on.test_agents_that_outlive_their_engine_are_adopted_and_nothing_runs_twice,
    ),
    Bug(
        "the limits of an adopted agent begin anew",
        jobs._call,  # pyright: ignore[reportPrivateUsage]
        "ran_s=ran_s",
        "ran_s=0.0",
        test_going_on.test_the_limits_of_an_adopted_agent_count_from_its_own_start,
    ),
    Bug(
        "a stop in the moment of the adoption leaves the agent",
        jobs.stopped,
        "await _leave_nobody(context)",
        "pass",
        test_going_on.test_one_that_is_told_to_stop_in_the_moment_of_its_adoption_is_ended_before_its_work_is_saved,
    ),
    Bug(
        "an agent whose worktree is gone is left alone",
        jobs.run_attempt,
        "await _leave_nobody(context)",
        "pass",
        test_going_on.test_one_whose_worktree_is_gone_is_ended_and_starts_again,
    ),
    Bug(
        "a wave goes on after a night",
        lifecycle._paused,  # pyright: ignore[reportPrivateUsage]
        "away_s <= RESUME_S",
        "True",
    ),
    Bug(
        "a wave is paused though an agent of it still runs",
        lifecycle.recover,
        "manner.adopts and Left.RUNS not in left.values()",
        "manner.adopts",
        test_going_on.test_a_long_quiet_time_before_the_crash_is_no_absence,
    ),
    Bug(
        "the end of an engine costs an attempt",
        interrupted._queued,  # pyright: ignore[reportPrivateUsage]
        "story.faults < policy.fault_tries",
        "False",
        test_going_on.test_agents_that_nobody_came_for_start_again_at_no_cost_with_their_work_saved,
    ),
    Bug(
        "agents of an engine that goes on end with it",
        Engine._context,  # pyright: ignore[reportPrivateUsage]
        "self._goes_on",
        "False",
        test_going_on.test_agents_that_outlive_their_engine_are_adopted_and_nothing_runs_twice,
    ),
]
