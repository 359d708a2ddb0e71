"""Sub-agents of the editor: a story is claimed, done, judged by git, repaired by who did it, and merged."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcp_server.adapters.git.names import attempt_ref, rescue_ref
from mcp_server.core.brief import brief
from mcp_server.core.draft import DraftStory
from mcp_server.core.leases import attempt_of
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Lease
from mcp_server.core.spec import AttemptId, StoryId
from mcp_server.errors import Code, Refused
from mcp_server.testing.team import SubAgent, commands_in
from mcp_server.testing.world import World, a_world, story

pytestmark = [pytest.mark.anyio]
both_desks = pytest.mark.parametrize("isolated", [True, False], ids=["the host's desk", "our desk"])
LEASE_S = 300.0
FIRST = AttemptId("e", "a", 1)


def start(world: World, *stories: DraftStory, **policy: Any) -> None:
    """Plan `e` and offer its stories to sub-agents."""
    world.plan(*stories)
    policy.setdefault("lease_s", LEASE_S)
    world.start(strategy=Strategy.AGENT_TEAMS, **policy)


async def at_work(world: World, name: str = "one", story: StoryId | None = None, *, isolated: bool = True) -> SubAgent:
    """A sub-agent that has claimed and made its branch."""
    agent = SubAgent(world, name, isolated=isolated)
    await agent.claim(story)
    agent.begin()
    return agent


def lease_of(world: World, name: StoryId = "a") -> Lease:
    lease = world.of(name).lease
    assert lease is not None
    return lease


async def refused(agent: SubAgent, code: Code = Code.NOT_DONE) -> Refused:
    """The refusal of a report `done`."""
    with pytest.raises(Refused) as caught:
        await agent.report()
    assert caught.value.code is code
    return caught.value


def next_brief(world: World, name: StoryId = "a") -> str:
    """What the next sub-agent reads of the attempt before."""
    epic = world.ledger.epics["e"]
    return brief(epic, epic.stories[name], attempt_of(epic, epic.stories[name]), ())


# --- claim, hand in, merge -------------------------------------------------------------------------------------------


@both_desks
async def test_a_claimed_story_is_done_checked_and_merged_and_the_next_starts_from_it(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a", files="x"), story("b", "a", files="x"))
        one = await at_work(world, isolated=isolated)
        one.work()
        assert (await one.done()).answer == "merged"
        two = await at_work(world, "two", isolated=isolated)
        assert (two.holds.attempt.story, two.holds.base) == ("b", world.of("a").merged_as)
        two.work()
        assert (await two.done()).answer == "merged"
        assert world.truth.landed("e") == {"a": [1], "b": [1]}


@both_desks
async def test_two_claims_at_once_get_two_stories_and_a_third_gets_none(*, isolated: bool) -> None:
    async with a_world() as world:
        world.git.delay_s["lend"] = 10.0
        start(world, story("a"), story("b"))
        agents = [SubAgent(world, name, isolated=isolated) for name in ("one", "two", "three")]
        told: list[str] = []

        async def claims(agent: SubAgent) -> None:
            try:
                told.append(str((await agent.claim()).attempt))
            except Refused as none:
                told.append(str(none.code))

        async with anyio.create_task_group() as group:
            for agent in agents:
                group.start_soon(claims, agent)
        assert sorted(told) == ["e/a/1", "e/b/1", "story_not_offered"]
        for agent in (agent for agent in agents if agent.claimed):
            agent.begin()
            agent.work()
            assert (await agent.done()).answer == "merged"


async def test_of_two_that_want_the_same_story_one_is_told_what_else_there_is() -> None:
    async with a_world() as world:
        world.git.delay_s["lend"] = 10.0
        start(world, story("a"), story("b"))
        one, two = SubAgent(world, "one"), SubAgent(world, "two")
        async with anyio.create_task_group() as group:
            group.start_soon(one.claim, "a")
            await anyio.sleep(1)
            with pytest.raises(Refused, match=r"story_not_offered.*Claim one of 'b'\.$"):
                await two.claim("a")
        assert one.holds.attempt == FIRST


@both_desks
async def test_the_base_is_the_tip_at_the_claim(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        await anyio.sleep(500)
        world.truth.push("e", "by hand")
        agent = await at_work(world, isolated=isolated)
        assert agent.holds.base == world.git.refs["refs/heads/epicwave/e"] == world.of("a").base
        assert "by hand" in world.git.desks[agent.own or agent.holds.place].files
        agent.work()
        await agent.done()


@both_desks
async def test_a_claim_that_comes_twice_is_answered_with_the_same_story(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        first, rows = agent.holds, len(world.journal.rows)
        assert await agent.claim() == first
        assert len(world.journal.rows) == rows
        await agent.done()


async def test_a_desk_of_the_hosts_tells_who_claims_when_nobody_has_a_name() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        nameless = await at_work(world, "")
        assert await nameless.claim() == nameless.holds


async def test_while_the_checks_run_the_answer_is_to_call_again() -> None:
    async with a_world() as world:
        world.runner.check_s = 100.0
        start(world, story("a"))
        agent = await at_work(world)
        agent.work()
        answers = [(await agent.report()).answer for _ in range(3)]
        assert answers == ["checking", "checking", "merged"]
        assert anyio.current_time() == 100.0


async def test_our_desk_goes_with_the_merge_and_the_hosts_stays() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        ours, hosts = await at_work(world, "one", isolated=False), await at_work(world, "two")
        for agent in (ours, hosts):
            agent.work()
            await agent.done()
        assert ours.holds.place not in world.git.desks
        assert attempt_ref(ours.holds.attempt) not in world.git.refs
        assert hosts.own in world.git.desks
        assert world.git.refs[attempt_ref(hosts.holds.attempt)]


# --- done is judged by git -------------------------------------------------------------------------------------------


def _uncommitted(agent: SubAgent) -> None:
    agent.work()
    agent.touch()


def _root(agent: SubAgent) -> None:
    agent.start_over()
    agent.work()


def _unsaved_root(agent: SubAgent) -> None:
    agent.start_over()
    agent.work()
    agent.touch()


@both_desks
@pytest.mark.parametrize("slip", [_uncommitted, _root, _unsaved_root])
async def test_done_is_refused_with_the_commands_that_make_it_so(slip: Any, *, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a", files="x"))
        agent = await at_work(world, isolated=isolated)
        slip(agent)
        no = await refused(agent)
        assert commands_in(no)
        assert world.states() == {"a": "running"}
        agent.obey(no)
        if slip is _unsaved_root:
            agent.commit()
        assert (await agent.done()).answer == "merged"


async def test_work_beside_the_branch_is_brought_there_by_the_commands_of_the_refusal() -> None:
    """The host made the desk from the user's branch, which is behind, and its agent did not run its first command."""
    async with a_world() as world:
        start(world, story("a", files="README"))
        world.truth.push("e", "by hand")
        agent = SubAgent(world, "one")
        await agent.claim()
        agent.work()
        agent.work()
        agent.obey(await refused(agent))
        assert (await agent.done()).answer == "merged"


async def test_done_without_a_commit_is_refused_and_the_story_is_still_its() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        no = await refused(agent)
        assert ("no commit" in str(no), commands_in(no)) == (True, [])
        agent.work()
        assert (await agent.done()).answer == "merged"


# --- repairs ---------------------------------------------------------------------------------------------------------


@both_desks
async def test_a_conflict_is_mended_by_who_made_it_where_it_is(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        one, two = [await at_work(world, name, isolated=isolated) for name in ("one", "two")]
        for agent in (one, two):
            agent.work("shared.txt")
        assert (await one.done()).answer == "merged"
        reply = await two.done()
        assert (reply.answer, "shared.txt" in reply.detail, reply.lease_s) == ("repair", True, LEASE_S)
        assert world.git.desks[two.own or two.holds.place].branch == attempt_ref(two.holds.attempt)
        two.mend(reply)
        assert (await two.done()).answer == "merged"
        assert world.truth.landed("e") == {"a": [1], "b": [1]}
        assert world.git.commits[world.git.refs["refs/heads/epicwave/e"]].files["shared.txt"] == "e/a/1\ne/b/1\n"


@both_desks
async def test_a_red_check_is_mended_by_who_made_it_red(*, isolated: bool) -> None:
    async with a_world() as world:
        world.truth.rotten.add(FIRST)
        start(world, story("a"), attempts=1)
        agent = await at_work(world, isolated=isolated)
        agent.work()
        reply = await agent.done()
        assert (reply.answer, "make test" in reply.detail) == ("repair", True)
        agent.mend(reply)
        assert (await agent.done()).answer == "merged"
        assert world.of("a").repairs == 1


@both_desks
@pytest.mark.parametrize("repairs", [0, 2])
async def test_after_the_last_repair_the_work_is_saved_and_the_next_attempt_is_told(
    repairs: int, *, isolated: bool
) -> None:
    async with a_world() as world:
        world.truth.rotten.add(FIRST)
        start(world, story("a"), repairs=repairs)
        agent = await at_work(world, isolated=isolated)
        agent.work()
        for _ in range(repairs):
            assert (await agent.done()).answer == "repair"
            agent.work()
        last = await agent.done()
        assert (last.answer, rescue_ref(FIRST) in last.detail) == ("ended", True)
        assert world.truth.saved(FIRST)
        assert (world.of("a").attempt, str(world.of("a").state)) == (2, "offered")
        assert "make test" in next_brief(world)
        assert rescue_ref(FIRST) in next_brief(world)
        two = await at_work(world, "two", isolated=isolated)
        two.work()
        assert (await two.done()).answer == "merged"


# --- giving up, and asking -------------------------------------------------------------------------------------------


@both_desks
async def test_who_gives_up_is_told_where_its_work_is_kept_and_the_next_why(*, isolated: bool) -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world, isolated=isolated)
        agent.work()
        agent.touch()
        reply = await agent.report("failed", "the library is missing")
        assert (reply.answer, rescue_ref(FIRST) in reply.detail) == ("ended", True)
        assert world.truth.saved(FIRST)
        assert "the library is missing" in next_brief(world)


async def test_a_question_parks_the_story_until_the_lead_answers() -> None:
    async with a_world() as world:
        start(world, story("a"), story("b"))
        agent = await at_work(world)
        agent.work()
        assert (await agent.report("blocked", "which colour?")).answer == "ended"
        assert world.states() == {"a": "pending", "b": "offered"}
        world.start(notes={"a": "green"}, strategy=Strategy.AGENT_TEAMS, lease_s=LEASE_S)
        assert world.states() == {"a": "offered", "b": "offered"}
        assert "green" in next_brief(world)


async def test_a_question_that_the_human_answers_at_once_ends_nothing() -> None:
    async with a_world() as world:
        start(world, story("a"))
        agent = await at_work(world)
        agent.human_s = LEASE_S - 1
        await anyio.sleep(LEASE_S - 1)
        assert (await agent.report("blocked", "which colour?")).answer == "answered"
        await anyio.sleep(LEASE_S - 1)
        agent.work()
        assert (await agent.done()).answer == "merged"
