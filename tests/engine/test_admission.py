"""When a story starts: its own dependencies, a slot, its files, and who goes first."""

from __future__ import annotations

import pytest

from mcp_server.core.limits import Strategy
from mcp_server.core.spec import Sharing
from mcp_server.testing.fake_runner import Span
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio


def span(world: World, name: str, number: int = 1) -> Span:
    return next(s for s in world.runner.spans if s.attempt.story == name and s.attempt.number == number)


def order(world: World) -> list[str]:
    return [s.attempt.story for s in world.runner.spans]


async def test_one_limiter_bounds_all_epics_together() -> None:
    async with a_world() as world:
        for epic in ("e", "f", "g"):
            world.plan(*(story(f"{epic}{n}") for n in range(4)), epic=epic)
            world.start(epic=epic, slots=3)
        await world.rest()
        assert world.runner.peak() == 3
        assert sum(len(world.truth.landed(epic)) for epic in ("e", "f", "g")) == 12


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("src/a.py", "src/a.py"),
        ("src/", "src/a.py"),
        ("src/*.py", "src/a.py"),
        ("**/a.py", "src/*.py"),
        ("src", "src/"),
    ],
)
async def test_overlapping_files_are_never_alive_together(one: str, other: str) -> None:
    async with a_world() as world:
        world.plan(story("a", files=one), story("b", files=other), story("c", files="docs/c.md"))
        world.start(slots=3)
        await world.rest()
        assert not world.runner.overlapped("a", "b")
        assert world.runner.overlapped("c", "a") or world.runner.overlapped("c", "b")
        assert sorted(world.truth.landed("e")) == ["a", "b", "c"]


async def test_overlap_is_seen_across_epics() -> None:
    async with a_world() as world:
        for epic in ("e", "f"):
            world.plan(story(f"{epic}1", files="src/a.py"), epic=epic)
            world.start(epic=epic, slots=2)
        await world.rest()
        assert not world.runner.overlapped("e1", "f1")


async def test_a_file_is_free_only_when_its_holder_is_merged() -> None:
    """The next one starts from a tip that has the changes, so it never conflicts with them."""
    async with a_world() as world:
        world.runner.check_s = 30.0
        world.plan(story("a", files="x"), story("b", files="x"))
        world.start(slots=2)
        await world.rest()
        first, second = world.runner.spans
        assert second.from_s == pytest.approx((first.until_s or 0) + 30)


async def test_under_optimistic_overlapping_stories_run_side_by_side() -> None:
    async with a_world() as world:
        world.plan(story("a", files="x"), story("b", files="x"))
        world.start(slots=2, overlap=Sharing.OPTIMISTIC, attempts=3)
        await world.rest()
        assert world.runner.overlapped("a", "b")
        assert sorted(world.truth.landed("e")) == ["a", "b"]


async def test_by_default_one_runs_at_a_time_and_the_next_starts_only_after_the_merge() -> None:
    async with a_world() as world:
        world.runner.check_s = 20.0
        world.plan(story("a"), story("b"), story("c"))
        world.start(strategy=Strategy.SEQUENTIAL, slots=1)
        await world.rest()
        assert world.runner.peak() == 1
        one, two, three = world.runner.spans
        assert two.from_s == pytest.approx((one.until_s or 0) + 20)
        assert three.from_s == pytest.approx((two.until_s or 0) + 20)


async def test_there_is_no_barrier_between_waves() -> None:
    """A story of level 3 is at work while one of level 1 still is."""
    async with a_world() as world:
        world.does(slow=world.good(seconds=1000.0))
        world.plan(story("slow"), story("a"), story("b", "a"), story("c", "b"))
        world.start(slots=2)
        await world.rest()
        assert world.of("c").level == 3
        assert span(world, "c").from_s < (span(world, "slow").until_s or 0)
        assert world.runner.overlapped("c", "slow")


async def test_a_story_starts_the_moment_its_last_dependency_is_merged() -> None:
    async with a_world() as world:
        world.does(a=world.good(seconds=100.0), b=world.good(seconds=250.0))
        world.plan(story("a"), story("b"), story("c", "a", "b"))
        world.start(slots=3)
        await world.rest()
        assert span(world, "c").from_s == pytest.approx(250 + world.runner.check_s)


async def test_the_longest_remaining_path_goes_first() -> None:
    async with a_world() as world:
        world.plan(
            story("short", minutes=90.0),
            story("head", minutes=10.0),
            story("middle", "head", minutes=50.0),
            story("tail", "middle", minutes=60.0),
            story("small", minutes=5.0),
        )
        world.start(slots=1, strategy=Strategy.SEQUENTIAL)
        await world.rest()
        assert order(world) == ["head", "middle", "short", "tail", "small"]


async def test_who_cannot_have_both_slot_and_files_stands_in_nobodys_way() -> None:
    async with a_world() as world:
        world.does(c=world.good(seconds=500.0))
        world.plan(
            story("a", files="x", minutes=90.0),
            story("b", files="x", minutes=60.0),
            story("c", files="y", minutes=1.0),
        )
        world.start(slots=2)
        await world.rest()
        assert span(world, "a").from_s == span(world, "c").from_s == 0
        assert span(world, "b").from_s == pytest.approx(60 + world.runner.check_s)


async def test_ready_is_a_gate_and_a_level_is_a_ceiling() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"), story("c", "b"), story("d", "c"))
        world.start("ready")
        await world.rest()
        assert world.states() == {"a": "merged", "b": "pending", "c": "pending", "d": "pending"}
        world.start(3)
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged", "c": "merged", "d": "pending"}


async def test_a_living_wave_takes_more_stories() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"), story("c", "a"))
        world.start("ready", slots=3)
        await world.until("a", "running")
        world.start("all")
        await world.rest()
        assert world.runner.overlapped("b", "c") is False
        assert sorted(world.truth.landed("e")) == ["a", "b", "c"]


async def test_a_story_that_was_done_before_us_is_not_run_and_holds_nobody_up() -> None:
    async with a_world() as world:
        world.plan(story("a", done=True), story("b", "a"))
        world.start()
        await world.rest()
        assert order(world) == ["b"]


async def test_a_story_has_the_agent_that_it_names() -> None:
    async with a_world() as world:
        world.plan(story("a", agent="specialist"), story("b"))
        world.start(agent="everybody")
        await world.rest()
        assert {c.attempt.story: c.profile for c in world.runner.calls} == {"a": "specialist", "b": "everybody"}
