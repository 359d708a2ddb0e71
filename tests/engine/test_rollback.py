"""A merged story is taken off the integration branch: checked first, on record before git moves, and never halfway."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mcp_server.core.commands import RetryStory
from mcp_server.core.events import RollbackProven, StoriesRolledBack
from mcp_server.core.limits import Environment
from mcp_server.core.spec import AttemptId
from mcp_server.engine.rollback import RollBack, roll_back
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import EPIC, PARALLEL, NoServer, World, a_world, story

pytestmark = pytest.mark.anyio
TIP = "refs/heads/epicwave/e"


async def undo(world: World, name: str, *, all_of_them: bool = False) -> StoriesRolledBack:
    return await roll_back(world.engine, RollBack(EPIC, name, "it broke the login", all_of_them), PARALLEL)


async def refusal(world: World, name: str, *, all_of_them: bool = False) -> Refused:
    tip, states = world.git.refs[TIP], world.states()
    with pytest.raises(Refused) as refused:
        await undo(world, name, all_of_them=all_of_them)
    assert (world.git.refs[TIP], world.states()) == (tip, states), "nothing was changed"
    return refused.value


async def ran(world: World, *stories: str, **files: str) -> None:
    """A chain or not: `b:a` builds on `a`."""
    told = [name.partition(":") for name in stories]
    world.plan(*(story(n, *([d] if d else []), files=files.get(n, f"{n}.txt")) for n, _, d in told))
    world.start()
    await world.rest()


def tree(world: World) -> set[str]:
    return {name for name in world.git.commits[world.git.refs[TIP]].files if not name.startswith((".marks", "README"))}


def kinds(world: World) -> list[str]:
    return [type(event).__name__ for event in world.journal.replay()]


async def test_what_it_brought_is_gone_the_rest_is_there_and_its_commits_are_kept() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        head = world.of("a").merged_as
        fact = await undo(world, "a")
        assert tree(world) == {"b.txt"}
        a = world.of("a")
        assert (str(a.state), a.stop_reason, a.merged_as) == ("cancelled", "rolled back: it broke the login", None)
        assert fact.saved == (("a", "refs/epicwave/rescue/e/a/1"),)
        assert world.git.refs["refs/epicwave/rescue/e/a/1"] == head
        assert a.failure is not None
        assert a.failure.saved_ref == "refs/epicwave/rescue/e/a/1"
        assert "refs/epicwave/landed/e/a/1" not in world.git.refs
        assert world.ledger.epics[EPIC].undone == world.git.refs[TIP]


async def test_the_proof_is_on_record_before_git_moves_and_the_end_after() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        before = world.git.refs[TIP]
        await undo(world, "a")
        assert kinds(world)[-2:] == ["RollbackProven", "StoriesRolledBack"]
        proof = world.journal.replay()[-2]
        assert isinstance(proof, RollbackProven)
        assert (proof.rolling.onto, proof.rolling.head) == (before, world.git.refs[TIP])
        assert [run.exit_code for run in proof.rolling.checks] == [0]
        assert world.git.refs["refs/epicwave/recovery/e/rollback-000001"] == before


async def test_it_can_be_run_again_and_lands_as_its_next_attempt() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        await undo(world, "a")
        world.steer(RetryStory(EPIC, "a"))
        world.start()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}
        assert world.truth.landed(EPIC) == {"b": [1], "a": [2]}
        assert tree(world) == {"a.txt", "b.txt"}


async def test_a_restart_does_not_bring_it_back() -> None:
    """The note that it had landed went with it, or `MergeFound` would."""
    async with a_world() as world:
        await ran(world, "a", "b")
        await undo(world, "a")
        await world.close()
        await world.open()
        assert world.states() == {"a": "cancelled", "b": "merged"}


async def test_who_builds_on_it_is_named_in_the_order_to_roll_back_and_goes_with_it_when_asked() -> None:
    async with a_world() as world:
        await ran(world, "a", "b:a", "c:b", "d")
        refused = await refusal(world, "a")
        assert refused.code is Code.BUILT_ON
        assert "first: c, b." in refused.why
        fact = await undo(world, "a", all_of_them=True)
        assert [name for name, _ in fact.saved] == ["c", "b", "a"]
        assert world.states() == {"a": "cancelled", "b": "cancelled", "c": "cancelled", "d": "merged"}
        assert tree(world) == {"d.txt"}


async def test_with_a_dependant_alive_it_is_refused_even_then() -> None:
    async with a_world() as world:
        world.does(b=Play(hang=True))
        world.plan(story("a"), story("b", "a"))
        world.start()
        await world.until("b", "running")
        for all_of_them in (False, True):
            refused = await refusal(world, "a", all_of_them=all_of_them)
            assert (refused.code, "b builds on" in refused.why) == (Code.BUILT_ON, True)
        world.cancel()
        await world.rest()


@pytest.mark.parametrize("name", ["new", "marked"])
async def test_what_was_never_merged_here_is_not_taken_back(name: str) -> None:
    async with a_world() as world:
        world.plan(story("new"), story("marked", done=True), story("a"))
        world.does(new=Play(exit_code=1))
        world.start(attempts=1)
        await world.rest()
        assert (await refusal(world, name)).code is Code.TOO_LATE


async def test_a_later_story_on_the_same_file_is_named_as_what_conflicts() -> None:
    async with a_world() as world:
        await ran(world, "a", "b:a", a="same.txt", b="other.txt")
        world.plan(story("a", files="same.txt"), story("b", "a", files="other.txt"), story("z", files="same.txt"))
        world.start()
        await world.rest()
        await undo(world, "b")
        refused = await refusal(world, "a")
        assert refused.code is Code.CONFLICT
        assert "same.txt. z changed them after it" in refused.why
        assert "git show" in refused.remedy
        await undo(world, "z")
        await undo(world, "a")
        assert tree(world) == set()


async def test_a_conflict_with_what_nobody_here_made_names_the_paths() -> None:
    async with a_world() as world:
        await ran(world, "a")
        tip = world.git.refs[TIP]
        sha = world.git.record({**world.git.commits[tip].files, "a.txt": "by hand"}, tip)
        world.truth.pushed.append((EPIC, sha))
        world.git.refs[TIP] = sha
        refused = await refusal(world, "a")
        assert "in: a.txt. Nothing" in refused.why


async def test_a_red_check_without_it_moves_nothing() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        world.runner.judge = lambda *_: 1  # type: ignore[method-assign, assignment]
        refused = await refusal(world, "a")
        assert refused.code is Code.CHECKS_RED
        assert "`make test` exited with code 1 on what would be left" in refused.why
        assert kinds(world)[-1] != "RollbackProven"


async def test_without_checks_it_is_reverted_all_the_same() -> None:
    async with a_world() as world:
        world.plan(story("a", files="a.txt"), checks=())
        world.start()
        await world.rest()
        await undo(world, "a")
        assert (tree(world), world.runner.checks) == (set(), [])


async def test_a_set_up_that_fails_moves_nothing() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.runner.furnish = lambda *_: 1  # type: ignore[method-assign, assignment]
        with_setup = replace(PARALLEL, environment=Environment(setup=(("make", "deps"),)))
        with pytest.raises(Fault):
            await roll_back(world.engine, RollBack(EPIC, "a", "x"), with_setup)
        assert world.states() == {"a": "merged"}


async def test_a_check_without_an_end_is_told_as_its_time_limit() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        world.runner.check_s = 1e6
        refused = await refusal(world, "a")
        assert "ran into its time limit" in refused.why


# --- while others are at work, and when the world fails


async def test_it_runs_beside_others_and_their_merge_takes_the_tip_without_it() -> None:
    """The merge that was under way sees that the branch has moved, and starts again by itself."""
    async with a_world() as world:
        world.plan(story("a", files="a.txt"), story("b", files="b.txt"), story("c", files="c.txt"))
        world.does(b=world.good(seconds=200.0), c=world.good(seconds=500.0))
        world.start(slots=3)
        await world.until("a", "merged")
        world.runner.check_s = 40.0
        await world.until("b", "merging")
        await anyio.sleep(20)
        await undo(world, "a")
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "merged", "c": "merged"}
        assert tree(world) == {"b.txt", "c.txt"}


async def test_a_story_that_lands_while_it_is_checked_has_it_checked_again() -> None:
    async with a_world() as world:
        world.plan(story("a", files="a.txt"), story("b", files="b.txt"))
        world.does(b=world.good(seconds=100.0))
        world.start()
        await world.until("b", "merging")
        world.runner.check_s = 500.0
        await undo(world, "a")
        await world.rest()
        assert kinds(world).count("RollbackProven") == kinds(world).count("RollbackGivenUp") + 1
        assert (tree(world), world.states()["b"]) == ({"b.txt"}, "merged")


async def test_a_branch_that_never_stands_still_is_given_up() -> None:
    async with a_world() as world:
        await ran(world, "a")
        judge = world.runner.judge

        def meddled(attempt: AttemptId, command: tuple[str, ...], cwd: Path) -> int | None:
            world.truth.push(EPIC, f"by hand {len(world.truth.pushed)}")
            return judge(attempt, command, cwd)

        world.runner.judge = meddled  # type: ignore[method-assign]
        with pytest.raises(Refused) as refused:
            await undo(world, "a")
        assert refused.value.code is Code.BRANCH_MOVED
        assert kinds(world).count("RollbackGivenUp") == 5
        assert world.ledger.epics[EPIC].rolling is None


async def test_a_dependant_that_starts_while_it_is_checked_stays_and_the_story_does_too() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.plan(story("a", files="a.txt"), story("b", "a", files="b.txt"))
        world.does(b=world.good(seconds=300.0))
        world.runner.check_s = 100.0

        async def later() -> None:
            await anyio.sleep(50)
            world.start()

        told: list[Refused] = []
        async with anyio.create_task_group() as group:
            group.start_soon(later)
            told.append(await _refused(world, "a"))
        [refused] = told
        assert (refused.code, world.of("a").state) == (Code.BUILT_ON, "merged")
        await world.rest()
        assert world.states() == {"a": "merged", "b": "merged"}


async def _refused(world: World, name: str) -> Refused:
    with pytest.raises(Refused) as refused:
        await undo(world, name)
    return refused.value


async def test_a_dependant_that_starts_while_git_moves_is_stopped() -> None:
    async with a_world() as world:
        await ran(world, "a")
        world.plan(story("a", files="a.txt"), story("b", "a", files="b.txt"), story("c", "b"))
        world.does(b=Play(hang=True))
        world.git.delay_s["take_back"] = 10.0
        async with anyio.create_task_group() as group:
            group.start_soon(undo, world, "a")
            await world.when(lambda: world.ledger.epics[EPIC].rolling is not None)
            world.start()
        await world.rest()
        assert world.states() == {"a": "cancelled", "b": "cancelled", "c": "pending"}
        assert world.of("b").stop_reason == "story 'a', which it builds on, is rolled back"


async def test_a_story_that_leaves_the_plan_while_git_moves_is_gone_and_that_is_all() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        world.git.delay_s["take_back"] = 10.0
        async with anyio.create_task_group() as group:
            group.start_soon(undo, world, "a")
            await world.when(lambda: world.ledger.epics[EPIC].rolling is not None)
            world.plan(story("b", files="b.txt"))
        assert (world.states(), tree(world)) == ({"b": "merged"}, {"b.txt"})


async def test_a_fault_of_gits_is_tried_again() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        world.git.fail_next("take_back", Fault(FaultCause.GIT, "locked"))
        await undo(world, "a")
        assert tree(world) == {"b.txt"}


async def test_faults_without_end_leave_it_on_record_and_the_next_rollback_brings_it_to_its_end() -> None:
    async with a_world() as world:
        await ran(world, "a", "b", "c")
        for _ in range(4):
            world.git.fail_next("take_back", Fault(FaultCause.GIT, "locked"))
        with pytest.raises(Fault):
            await undo(world, "a")
        assert world.ledger.epics[EPIC].rolling is not None
        await undo(world, "b")
        assert (world.states(), tree(world)) == ({"a": "cancelled", "b": "cancelled", "c": "merged"}, {"c.txt"})


async def test_faults_without_end_and_a_restart_bring_it_to_its_end() -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        for _ in range(4):
            world.git.fail_next("take_back", Fault(FaultCause.GIT, "locked"))
        with pytest.raises(Fault):
            await undo(world, "a")
        await world.kill()
        await world.open()
        assert (world.states(), tree(world)) == ({"a": "cancelled", "b": "merged"}, {"b.txt"})


@pytest.mark.parametrize("call", range(1, 22))
async def test_wherever_it_is_killed_the_story_is_merged_or_taken_back_and_git_says_the_same(call: int) -> None:
    async with a_world() as world:
        await ran(world, "a", "b")
        for finishes in (True, False):
            world.line.finishes = finishes
            world.line.die_at_call = world.line.calls + call
            with suppress(NoServer, Refused):
                async with world.call():
                    await undo(world, "a")
            world.line.die_at_call = float("inf")
            await world.kill()
            await world.open()
            state = world.states()["a"]
            assert ("a.txt" in tree(world)) == (state == "merged")
            assert world.ledger.epics[EPIC].rolling is None
        with suppress(Refused):
            await undo(world, "a")
        assert (world.states(), tree(world)) == ({"a": "cancelled", "b": "merged"}, {"b.txt"})
