"""What lands on the user's branch is what was checked; what was not is checked first, and nothing moves on red."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from mcp_server.core.commands import PauseEpic
from mcp_server.core.events import EpicLanded
from mcp_server.core.landing import landing_words
from mcp_server.core.spec import EpicSpec
from mcp_server.engine.landing import Land, land, message
from mcp_server.engine.rollback import RollBack, roll_back
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.testing.fake_landing import FakeLand
from mcp_server.testing.fake_repository import USER_DESK
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import EPIC, PARALLEL, NoServer, World, a_world, story

pytestmark = pytest.mark.anyio
MAIN, TIP = "refs/heads/main", "refs/heads/epicwave/e"


async def landed(world: World, how: str = "auto", into: str | None = None, *, partial: bool = False) -> EpicLanded:
    fact = await land(world.engine, Land(EPIC, USER_DESK, how, into, partial), PARALLEL)
    world.truth.asked_to_land()
    return fact


async def refusal(world: World, how: str = "auto", *, partial: bool = False) -> Refused:
    before = dict(world.git.refs)
    with pytest.raises(Refused) as refused:
        await landed(world, how, partial=partial)
    assert world.git.refs == before, "nothing was changed"
    return refused.value


async def ran(world: World, *names: str) -> None:
    world.plan(*(story(name, files=f"{name}.txt") for name in names))
    world.start()
    await world.rest()


def user_commits(world: World, name: str = "mine.txt") -> None:
    world.git.write(USER_DESK, name, "mine")
    world.git.commit(USER_DESK)
    world.truth.asked_to_land()


async def test_what_was_proven_lands_as_it_is_and_no_check_runs_again() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        checks, before = len(world.runner.checks), world.git.refs[MAIN]
        fact = await landed(world)
        assert (fact.into, fact.how, fact.tip) == ("main", "ff", world.git.refs[TIP])
        assert (world.git.refs[MAIN], len(world.runner.checks)) == (world.git.refs[TIP], checks)
        assert (fact.before, world.git.refs[fact.saved_ref]) == (before, before)
        assert landing_words(world.ledger.epics[EPIC]) == f"Landed on main as {fact.tip[:12]}, fast-forwarded."


async def test_landing_it_again_says_that_it_has_landed() -> None:
    async with a_world() as world:
        await ran(world, "a")
        await landed(world)
        refused = await refusal(world)
        assert (refused.code, "has landed on main already" in refused.why) == (Code.NOTHING_TO_LAND, True)


@pytest.mark.parametrize("how", ["merge", "squash"])
async def test_a_commit_of_ours_has_the_proven_tree_and_is_not_checked_again(how: str) -> None:
    async with a_world() as world:
        await ran(world, "a")
        checks = len(world.runner.checks)
        fact = await landed(world, how)
        assert (fact.how, len(world.runner.checks)) == (how, checks)
        assert world.git.commits[world.git.refs[MAIN]].files == world.git.commits[world.git.refs[TIP]].files


async def test_where_the_branch_has_moved_the_merged_tree_is_checked_first() -> None:
    async with a_world() as world:
        await ran(world, "a")
        user_commits(world)
        fact = await landed(world)
        assert fact.how == "merge"
        assert [run.exit_code for run in fact.checks] == [0]
        assert {"mine.txt", "a.txt"} <= world.git.commits[world.git.refs[MAIN]].files.keys()


async def test_red_on_the_merged_tree_moves_nothing() -> None:
    async with a_world() as world:
        await ran(world, "a")
        user_commits(world)
        world.runner.judge = lambda *_: 1  # type: ignore[method-assign, assignment]
        refused = await refusal(world)
        assert (refused.code, "what would land" in refused.why) == (Code.CHECKS_RED, True)


async def test_what_somebody_pushed_past_the_engine_is_checked_before_it_lands() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.truth.push(EPIC, "by hand")
        assert len((await landed(world)).checks) == 1


async def test_after_a_rollback_its_own_proof_counts() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        await roll_back(world.engine, RollBack(EPIC, "a", "x"), PARALLEL)
        fact = await landed(world, partial=True)
        assert (fact.checks, "a.txt" in world.git.commits[world.git.refs[MAIN]].files) == ((), False)


async def test_a_conflict_names_the_files_and_the_commands() -> None:
    async with a_world() as world:
        await ran(world, "a")
        user_commits(world, "a.txt")
        refused = await refusal(world)
        assert (refused.code, "in: a.txt" in refused.why) == (Code.CONFLICT, True)
        assert "git merge epicwave/e" in refused.remedy


async def test_what_is_alive_is_named_and_lands_neither_way() -> None:
    async with a_world() as world:
        world.does(b=world.good(seconds=300.0))
        world.plan(story("a"), story("b"))
        world.start()
        await world.until("a", "merged")
        for partial in (False, True):
            refused = await refusal(world, partial=partial)
            assert (refused.code, "b in flight" in refused.why) == (Code.EPIC_BUSY, True)
        await world.rest()


async def test_what_is_about_to_start_is_waited_for_and_a_paused_epic_is_not() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.does(b=[Play(fault="not installed"), world.good()])
        world.plan(story("a", files="a.txt"), story("b"))
        world.start()
        await world.when(lambda: world.of("b").faults == 1)
        refused = await refusal(world, partial=True)
        assert "b about to start" in refused.why
        world.steer(PauseEpic(EPIC, "lunch"))
        assert (await landed(world, partial=True)).how == "ff"


async def test_what_is_missing_is_named_and_lands_only_as_a_part() -> None:
    async with a_world() as world:
        world.does(b=Play(exit_code=1))
        world.plan(story("a"), story("b"), *(story(f"c{n}", "b") for n in range(12)))
        world.start(attempts=1)
        await world.rest()
        refused = await refusal(world)
        assert refused.code is Code.EPIC_BUSY
        assert "13 of 14 stories of 'e' are not merged: b (failed), c0 (blocked)" in refused.why
        assert "and 3 more" in refused.why
        await landed(world, partial=True)
        world.does(b=world.good())
        world.start(retry=True)
        await world.rest()
        words = landing_words(world.ledger.epics[EPIC])
        assert "Changed since: b, c0" in words
        assert "and 3 more; land it again" in words
        await landed(world)
        assert "Changed since" not in landing_words(world.ledger.epics[EPIC])


async def test_a_story_that_was_rolled_back_since_is_told() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        await landed(world)
        await roll_back(world.engine, RollBack(EPIC, "a", "x"), PARALLEL)
        assert "Changed since: a;" in landing_words(world.ledger.epics[EPIC])


async def test_an_epic_of_which_nothing_was_merged_has_nothing_to_land() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        assert (await refusal(world, partial=True)).code is Code.NOTHING_TO_LAND
        assert landing_words(world.ledger.epics[EPIC]) == ""


async def test_while_stories_are_being_rolled_back_it_does_not_land() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        for _ in range(4):
            world.git.fail_next("take_back", Fault(FaultCause.GIT, "locked"))
        with pytest.raises(Fault):
            await roll_back(world.engine, RollBack(EPIC, "a", "x"), PARALLEL)
        assert "being rolled back: a" in (await refusal(world)).why


async def test_what_the_user_merged_by_hand_is_found_and_told_once() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.git.check_out(USER_DESK, world.git.refs[TIP], MAIN)
        world.truth.asked_to_land()
        assert (await landed(world)).how == "found"
        assert "there already" in landing_words(world.ledger.epics[EPIC])
        assert (await refusal(world)).code is Code.NOTHING_TO_LAND


async def test_a_kill_between_git_and_the_journal_is_found_by_the_next_landing() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.line.die_at_call = world.line.calls + 7  # the journal's, after git has moved
        with pytest.raises(NoServer):
            async with world.call() as engine:
                await land(engine, Land(EPIC, USER_DESK), PARALLEL)
        world.line.die_at_call = float("inf")
        await world.kill()
        world.truth.asked_to_land()
        await world.open()
        assert world.git.refs[MAIN] == world.git.refs[TIP]
        assert (await landed(world)).how == "found"


async def test_what_starts_while_it_is_checked_keeps_it_from_landing() -> None:
    async with a_world() as world:
        await ran(world, "a")
        user_commits(world)
        world.plan(story("a", files="a.txt"), story("b", files="b.txt"))
        world.does(b=world.good(seconds=300.0))
        world.runner.check_s = 100.0
        told: list[Refused] = []
        async with anyio.create_task_group() as group:

            async def later() -> None:
                await anyio.sleep(50)
                world.start()

            group.start_soon(later)
            told.append(await refusal_while(world))
        [refused] = told
        assert (refused.code, "b in flight" in refused.why) == (Code.EPIC_BUSY, True)
        await world.rest()


async def refusal_while(world: World) -> Refused:
    with pytest.raises(Refused) as refused:
        await landed(world, partial=True)
    return refused.value


@pytest.mark.parametrize("into", [None, "release"])
async def test_a_pull_request_moves_no_branch_and_says_what_is_in_it(into: str | None) -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        before = world.git.refs[MAIN]
        fact = await landed(world, "pr", into)
        port = world.engine.ports.land
        assert isinstance(port, FakeLand)
        [(epic, tip, base, title, body)] = port.offers
        assert (epic, tip, base, title) == (EPIC, world.git.refs[TIP], into or "main", "Epic e")
        assert "- a: Title of a\n- b: Title of b" in body
        assert (fact.url, world.git.refs[MAIN]) == ("https://forge.example/pull/1", before)
        assert "https://forge.example/pull/1" in landing_words(world.ledger.epics[EPIC])


async def test_a_commit_that_is_not_what_was_composed_is_a_fault_and_moves_nothing() -> None:
    async with a_world() as world:
        await ran(world, "a")
        real = world.engine.ports.land.tree

        async def other(sha: str) -> str:
            return f"not {await real(sha)}"

        world.engine.ports.land.tree = other  # type: ignore[method-assign]
        before = world.git.refs[MAIN]
        with pytest.raises(Fault):
            await landed(world)
        assert world.git.refs[MAIN] == before


async def test_a_worktree_that_cannot_be_removed_does_not_hide_that_it_has_landed() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.git.fail_next("close_desks", Fault(FaultCause.DISK, "busy"))
        assert (await landed(world)).how == "ff"


async def test_the_message_has_the_goal_and_the_stories() -> None:
    async with a_world() as world:
        await ran(world, "a")
        epic = world.ledger.epics[EPIC]
        assert message(epic) == "Epic e\n\n- a: Title of a\n\nEpicwave-Epic: e\n"
        spec = replace(epic.spec, goal="Be fast.\n", title="")
        assert isinstance(spec, EpicSpec)
        assert message(epic._replace(spec=spec)).startswith("e\n\nBe fast.\n\n- a:")
