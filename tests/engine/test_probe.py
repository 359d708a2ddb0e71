"""The live probe in a whole engine: when it looks, what it puts on record, and that nothing depends on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from mcp_server.core.draft import DraftStory
from mcp_server.core.events import Event, WorkSeen
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId
from mcp_server.engine.probing import ANSWER_S, Watch
from mcp_server.errors import Fault, FaultCause
from mcp_server.probe import Blind, Look, Probe, Sight
from mcp_server.testing.team import SubAgent
from mcp_server.testing.world import World, a_world, story

pytestmark = [pytest.mark.anyio]
A, B = AttemptId("e", "a", 1), AttemptId("e", "b", 1)
WITHIN_S = 30.0
"""How long a conflict may go unseen."""


def start(world: World, *stories: DraftStory, **policy: Any) -> None:
    world.plan(*stories)
    world.start(strategy=Strategy.AGENT_TEAMS, lease_s=100_000.0, attempt_timeout_s=100_000.0, **policy)


async def at_work(world: World, name: str) -> SubAgent:
    agent = SubAgent(world, name)
    await agent.claim(name)
    agent.begin()
    return agent


@asynccontextmanager
async def two_at_work(world: World) -> AsyncGenerator[tuple[SubAgent, SubAgent]]:
    """Sub-agents that have claimed `a` and `b`; in the end they commit what they have."""
    start(world, story("a", files="a.py"), story("b", files="b.py"))
    one, two = await at_work(world, "a"), await at_work(world, "b")
    yield one, two
    one.commit()
    two.commit()


class Recorded:
    """A probe that knows who was to be looked at anew each time, None for everybody, and how often it was closed."""

    def __init__(self, world: World) -> None:
        watch = world.engine.watch
        self._probe: Probe = watch.ports.probe
        self.asked: list[Collection[AttemptId] | None] = []
        self.closed = 0
        watch.ports = replace(watch.ports, probe=self)

    async def look(self, sights: Sequence[Sight], fresh: Collection[AttemptId] | None = None) -> Look:
        self.asked.append(None if fresh is None else set(fresh))
        return await self._probe.look(sights, fresh)

    async def close(self) -> None:
        self.closed += 1
        await self._probe.close()


def facts(world: World) -> list[Event]:
    return [fact for fact in world.journal.replay() if isinstance(fact, WorkSeen)]


async def ends(world: World, *agents: SubAgent) -> None:
    """All is put back, so that the story lands without a repair."""
    for agent in agents:
        agent.work()
        assert (await agent.done()).answer == "merged"


async def test_a_conflict_is_on_record_of_both_stories_within_thirty_seconds() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        await anyio.sleep(1000.0)
        assert facts(world) == []
        one.touch("shared.py")
        await anyio.sleep(3.0)
        two.touch("shared.py")
        await anyio.sleep(WITHIN_S)
        assert world.of("a").clashes == (Clash(B, ("shared.py",)),)
        assert world.of("b").clashes == (Clash(A, ("shared.py",)),)
        assert "shared.py" in world.of("a").touched


async def test_what_is_seen_is_told_once_and_again_when_it_changes() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        one.touch("shared.py")
        two.touch("shared.py")
        await anyio.sleep(WITHIN_S)
        told = len(facts(world))
        assert told
        await anyio.sleep(3600.0)
        assert len(facts(world)) == told
        with one._at_desk() as place:  # pyright: ignore[reportPrivateUsage] - its hands
            world.git.delete(place, "shared.py")
        await anyio.sleep(WITHIN_S)
        assert (world.of("a").clashes, world.of("b").clashes) == ((), ())
        assert "shared.py" not in world.of("a").touched


async def test_a_report_is_answered_with_what_there_is_at_that_moment() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        one.touch("shared.py")
        assert "conflicts" not in (await one.report("progress")).detail
        two.touch("shared.py")
        reply = await two.report("progress")
        assert "Your work conflicts with that of story a (Title of a) in shared.py." in reply.detail
        assert (
            "Your work conflicts with that of story b (Title of b) in shared.py."
            in (await one.report("progress")).detail
        )


async def test_a_report_does_not_wait_for_a_slow_look() -> None:
    async with a_world() as world, two_at_work(world) as (one, _):
        world.git.delay_s["look"] = 100.0
        began_s = anyio.current_time()
        assert (await one.report("progress")).answer == "go_on"
        assert anyio.current_time() - began_s == pytest.approx(ANSWER_S)


async def test_a_report_that_comes_in_the_middle_of_a_look_waits_for_the_next_one() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        await world.settle()
        world.git.delay_s["look"] = 0.5
        one.touch("shared.py")
        async with anyio.create_task_group() as group:
            group.start_soon(one.report, "progress")
            await anyio.sleep(0.1)
            two.touch("shared.py")
            assert "conflicts" in (await two.report("progress")).detail


async def test_a_report_has_only_its_own_story_looked_at_and_the_clock_stays_as_it_was() -> None:
    async with a_world() as world, two_at_work(world) as (one, _):
        await anyio.sleep(1000.0)
        await world.settle()
        probe, began_s = Recorded(world), anyio.current_time()
        while None not in probe.asked:
            await one.report("progress")
            await anyio.sleep(1.0)
        assert probe.asked[0] == {A}
        assert anyio.current_time() - began_s <= WITHIN_S, "reports put off the look at everybody"


async def test_reports_one_after_the_other_are_each_answered_at_once() -> None:
    async with a_world() as world, two_at_work(world) as (one, _):
        await world.settle()
        for _ in range(3):
            began_s = anyio.current_time()
            await one.report("progress")
            assert anyio.current_time() - began_s < ANSWER_S


async def test_when_nobody_works_any_more_the_probe_is_closed() -> None:
    async with a_world() as world:
        start(world, story("a"))
        one, probe = await at_work(world, "a"), Recorded(world)
        await anyio.sleep(100.0)
        assert (probe.closed, bool(probe.asked)) == (0, True)
        await ends(world, one)
        await world.settle()
        assert probe.closed == 1


async def test_a_fault_of_git_keeps_nobody_from_work_and_the_next_look_makes_up_for_it() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        for _ in range(3):
            world.git.fail_next("look", Fault(FaultCause.GIT, "no"))
        one.touch("shared.py")
        two.touch("shared.py")
        assert (await one.report("progress")).answer == "go_on"
        await anyio.sleep(4 * WITHIN_S)
        assert world.of("a").clashes


async def test_what_is_merged_is_compared_at_once_with_those_still_at_work() -> None:
    async with a_world() as world, two_at_work(world) as (one, two):
        one.touch("shared.py")
        two.touch("shared.py")
        await anyio.sleep(WITHIN_S)
        one.commit()
        assert (await one.done()).answer == "merged"
        await world.settle()
        assert world.of("b").clashes == (Clash(None, ("shared.py",)),)
        assert "merged already by a in shared.py" in (await two.report("progress")).detail
        assert (world.of("a").touched, world.of("a").clashes) == ((), ())


async def test_nobody_is_looked_at_while_nobody_works_and_one_alone_rarely() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        await anyio.sleep(1000.0)
        assert world.git.calls["look"] == 0
        one = await at_work(world, "a")
        await anyio.sleep(1000.0)
        assert 38 <= world.git.calls["look"] <= 41
        await ends(world, one)
        before = world.git.calls["look"]
        await anyio.sleep(1000.0)
        assert world.git.calls["look"] == before


async def test_two_are_looked_at_often_while_they_change_something_and_then_more_and_more_rarely() -> None:
    async with a_world() as world, two_at_work(world) as (one, _):
        await anyio.sleep(500.0)
        before = world.git.calls["look"]
        await anyio.sleep(250.0)
        assert 9 <= world.git.calls["look"] - before <= 11
        for number in range(10):
            one.touch(f"{number}.py")
            await anyio.sleep(25.0)
        assert 20 <= world.git.calls["look"] - before - 10 <= 60


async def test_a_file_outside_a_footprint_keeps_a_later_story_waiting_until_it_is_merged() -> None:
    async with a_world() as world:
        start(world, story("a", files="a.py"), story("w", files="w.py"), story("b", "w", files="shared.py"))
        one, other = await at_work(world, "a"), await at_work(world, "w")
        one.touch("shared.py")
        await anyio.sleep(WITHIN_S)
        await ends(world, other)
        assert str(world.of("b").state) == "queued"
        await ends(world, one)
        assert str(world.of("b").state) == "offered"


async def test_agents_that_are_processes_are_looked_at_too() -> None:
    async with a_world() as world:
        world.plan(story("a", files="a.py"))
        world.does(a=world.good(seconds=100.0))
        world.start()
        await world.until("a", "running")
        await anyio.sleep(40.0)
        world.truth.git.write(next(p for p in world.git.desks if p.name == "a-1"), "stray.py", "stray\n")
        await anyio.sleep(WITHIN_S)
        assert world.of("a").touched == ("stray.py",)
        await world.rest()


async def test_an_attempt_that_ends_while_it_is_looked_at_is_not_told_of() -> None:
    async with a_world() as world, two_at_work(world) as (one, _):
        one.touch("shared.py")
        world.git.delay_s["look"] = 20.0
        await anyio.sleep(15.0)
        world.cancel("a")
        await anyio.sleep(60.0)
        assert [fact for fact in facts(world) if isinstance(fact, WorkSeen) and fact.attempt == A] == []


async def test_a_probe_that_cannot_even_be_closed_is_nobodys_trouble() -> None:
    async with a_world() as world:

        class Stuck(Blind):
            async def close(self) -> None:
                raise Fault(FaultCause.DISK, "no")

        engine = world.engine
        ports = replace(engine.ports, probe=Stuck())
        watch = Watch(ports, lambda: engine.ledger, lambda _: True, engine.now_s)
        with anyio.move_on_after(10.0) as bound:
            await watch.run(engine.wait_for)
        assert bound.cancelled_caught


async def test_an_engine_without_a_probe_sees_nothing() -> None:
    assert await Blind().look([Sight(A, "base")]) == Look({}, changed=False)
    await Blind().close()


async def test_who_is_not_at_work_is_not_waited_for() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        before = anyio.current_time()
        await world.engine.watch.looked(AttemptId("e", "a", 1))
        assert anyio.current_time() == before
