"""A merged story leaves guards behind that later merges keep green, and every run is on record with its tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_server.core.checks import fingerprints
from mcp_server.core.events import MergeProven, MergeRefused
from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId, StoryId
from mcp_server.testing.world import World, a_world, story
from tests.engine.test_outcomes import ending

pytestmark = pytest.mark.anyio

GUARD, OTHER = ("guard", "a"), ("guard", "b")
Judge = Callable[[AttemptId, tuple[str, ...], Path], int | None]


def breaks(world: World, name: StoryId, command: tuple[str, ...] = GUARD) -> Judge:
    """The command is red on every tree that has the story's work."""

    def judge(attempt: AttemptId, argv: tuple[str, ...], cwd: Path) -> int:
        work = any(path.startswith(f".marks/e/{name}/") for path in world.git.desks[cwd].files)
        return 5 if argv == command and work else world.truth.judge(attempt, argv, cwd)

    return judge


def ran(world: World, name: StoryId) -> list[tuple[str, ...]]:
    return [run.command for attempt, run in world.runner.checks if attempt.story == name]


async def test_a_guard_is_run_for_its_own_story_and_for_every_later_one() -> None:
    async with a_world() as world:
        world.plan(story("a", guards=(GUARD,)), story("b", "a", guards=(OTHER,)), story("c", "b"), checks=())
        world.start()
        await world.rest()
        assert (ran(world, "a"), ran(world, "b")) == ([GUARD], [GUARD, OTHER])
        assert ran(world, "c") == [GUARD, OTHER]
        assert set(world.states().values()) == {"merged"}


async def test_a_story_that_breaks_a_guard_is_refused_and_told_whose_it_is() -> None:
    async with a_world() as world:
        world.runner.judge = breaks(world, "b")
        world.plan(story("a", guards=(GUARD,)), story("b", "a"), checks=())
        world.start(attempts=1)
        await world.rest()
        landed = world.of("a").merged_as or ""
        cause, detail = ending(world, "b")
        assert cause == Cause.CHECKS
        assert detail.startswith(f"The guard `guard a` of a, merged as {landed[:10]}, exited with code 5 on the tree")
        assert world.truth.landed("e") == {"a": [1]}


async def test_in_a_batch_the_guard_of_the_one_ahead_refuses_the_one_behind_it() -> None:
    """Both are checked at the end of the batch; the first is green without the second, and lands."""
    async with a_world() as world:
        world.runner.judge = breaks(world, "b")
        world.runner.check_s = 100.0
        world.does(z=world.good(seconds=1.0), a=world.good(seconds=20.0), b=world.good(seconds=40.0))
        world.plan(story("z"), story("a", guards=(GUARD,)), story("b"), checks=(("slow",),))
        world.start(attempts=1, slots=3, batch=4)
        await world.rest()
        assert world.states() == {"z": "merged", "a": "merged", "b": "failed"}
        landed = world.of("a").merged_as or ""
        assert ending(world, "b")[1].startswith(
            f"The guard `guard a` of a, merged as {landed[:10]}, exited with code 5"
        )


async def test_a_refused_merge_is_on_record_with_all_that_ran_and_the_tree_it_ran_on() -> None:
    async with a_world() as world:
        world.runner.judge = breaks(world, "a", ("two",))
        world.plan(story("a", checks=(("one",), ("two",), ("three",))), checks=())
        world.start(attempts=1)
        await world.rest()
        [refused] = [fact for fact in world.journal.replay() if isinstance(fact, MergeRefused)]
        ended = [(run.command, run.exit_code, run.seconds) for run in refused.checks]
        assert ended == [(("one",), 0, 1.0), (("two",), 5, 1.0)]
        assert refused.onto == world.git.refs["refs/heads/epicwave/e"]
        assert refused.head is not None
        assert refused.onto is not None
        assert world.git.commits[refused.head].files.keys() > world.git.commits[refused.onto].files.keys()
        shown = f"on {refused.onto[:10]} + {refused.head[:10]}"
        assert fingerprints(world.of("a")) == [f"{shown}: `one` exit 0 in 1.0 s", f"{shown}: `two` exit 5 in 1.0 s"]


async def test_a_merge_is_on_record_with_what_proved_it() -> None:
    async with a_world() as world:
        world.plan(story("a"), checks=(("one",),))
        world.start()
        await world.rest()
        [proven] = [fact.proven for fact in world.journal.replay() if isinstance(fact, MergeProven)]
        assert [(run.command, run.exit_code) for run in proven.checks] == [(("one",), 0)]
        assert (proven.head, proven.onto) == (world.of("a").merged_as, world.git.refs["refs/heads/main"])


async def test_a_check_has_its_own_time_limit() -> None:
    async with a_world() as world:
        world.runner.judge = lambda _attempt, argv, _cwd: None if argv == GUARD else 0
        world.plan(story("a", guards=(GUARD,), check_limits=((GUARD, 40.0),)), checks=(("one",),))
        world.start(attempts=1, check_limits=((("one",), 0.5),), check_timeout_s=500.0)
        await world.rest()
        assert ending(world)[1].startswith("The check `one` ran into its time limit")
        world.start(attempts=1, retry=True, check_timeout_s=500.0, check_limits=())
        await world.rest()
        assert ending(world)[1].startswith("Its own guard `guard a` ran into its time limit")
        assert world.runner.checks[-1][1].seconds == 40.0
