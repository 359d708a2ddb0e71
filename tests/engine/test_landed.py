"""What has landed is never run again, however much of the journal is gone: git knows it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import anyio
import pytest

from mcp_server.core.draft import DraftStory, EpicDraft
from mcp_server.core.events import AttemptSucceeded, BranchMerged, MergeFound, MergeProven
from mcp_server.core.planning import Plan, plan
from mcp_server.core.predict import Known
from mcp_server.core.spec import AttemptId
from mcp_server.engine.landed import adopt
from mcp_server.errors import Fault, FaultCause, Refused
from mcp_server.ports import Landed
from mcp_server.testing.fake_merge import FakeMerge
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import CHECK, EPIC, World, a_world, story

pytestmark = pytest.mark.anyio

STORIES = (story("a"), story("b", "a"), story("c", "b"))


def planned(*stories: DraftStory, redo: bool = False) -> Plan:
    return plan(EpicDraft(stories, id=EPIC, title="Epic e", checks=(CHECK,)), redo=redo)


def cut(world: World, rows: int) -> None:
    """The journal has only so many records any more."""
    del world.journal.rows[rows:]
    world.truth.witness.forgets()


def position(world: World, kind: type) -> int:
    """Records before the first of a kind."""
    return next(n for n, event in enumerate(world.journal.replay()) if isinstance(event, kind))


async def lost_from(world: World, rows: int) -> None:
    """The engine ends, the records from there on are lost, the next one starts."""
    await world.close()
    cut(world, rows)
    await world.open()


async def to_the_end(world: World) -> None:
    for _ in range(3):  # a merge that was in the queue may let others become ready
        with suppress(Refused):
            world.start(retry=True)
        await world.rest()


@pytest.mark.parametrize("kept", range(18))
async def test_however_much_of_the_journal_is_lost_nothing_that_landed_runs_again(kept: int) -> None:
    """The truth-keeper calls it a breach when an agent starts on a story whose work is on the branch."""
    async with a_world() as world:
        world.plan(*STORIES)
        world.start()
        await world.rest()
        assert len(world.journal.rows) >= 14
        await lost_from(world, kept)
        await adopt(world.engine, planned(*STORIES))
        await world.rest()  # a merge whose proof is known is in the queue
        assert world.states() == dict.fromkeys("abc", "merged")
        await to_the_end(world)
        assert len(world.runner.calls) == 3
        assert world.truth.landed(EPIC) == {"a": [1], "b": [1], "c": [1]}


@pytest.mark.parametrize("kept", range(11))
async def test_the_same_when_half_of_it_is_done_and_the_engine_was_killed(kept: int) -> None:
    async with a_world() as world:
        world.plan(*STORIES)
        world.start()
        await world.until("b", "running")
        await anyio.sleep(10)
        await world.kill()
        cut(world, kept)
        await world.open()
        world.truth.witness.forgets()  # it compares with the memory of the engine that was killed
        await adopt(world.engine, planned(*STORIES))
        await world.rest()
        assert world.states()["a"] == "merged"
        await to_the_end(world)
        assert [call.attempt.story for call in world.runner.calls].count("a") == 1
        assert world.states() == dict.fromkeys("abc", "merged")


async def test_what_git_has_is_told_with_its_tip_its_files_and_where_the_branch_began() -> None:
    async with a_world() as world:
        world.plan(story("a", files="x"), story("b", "a", files="y"))
        world.start()
        await world.rest()
        tips = {name: world.of(name).merged_as for name in "ab"}
        base = world.ledger.epics[EPIC].base
        await lost_from(world, 0)
        await adopt(world.engine, planned(story("a", files="x"), story("b", "a", files="y")))
        assert {name: world.of(name).merged_as for name in "ab"} == tips
        assert [set(world.of(name).files_changed) - {f".marks/e/{name}/1/1"} for name in "ab"] == [{"x"}, {"y"}]
        assert world.ledger.epics[EPIC].base == base
        assert [world.of(name).attempt for name in "ab"] == [1, 1]


async def test_a_story_that_landed_at_its_second_attempt_is_merged_by_its_second() -> None:
    async with a_world() as world:
        world.does(a=[world.good(exit_code=1), world.good()])
        world.plan(story("a"))
        world.start()
        await world.rest()
        await lost_from(world, 0)
        await adopt(world.engine, planned(story("a")))
        assert (str(world.of("a").state), world.of("a").attempt) == ("merged", 2)


async def test_only_stories_of_the_plan_count_and_one_that_comes_back_is_merged_still() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start()
        await world.rest()
        await adopt(world.engine, planned(story("b"), story("new")))
        assert world.states() == {"b": "merged", "new": "pending"}
        await adopt(world.engine, planned(story("a"), story("b")))
        assert world.states() == {"a": "merged", "b": "merged"}


async def test_a_branch_that_the_user_removed_is_a_fresh_start() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        await world.rest()
        await world.close()
        cut(world, 0)
        first = world.git.refs.pop("refs/heads/epicwave/e")
        await world.open()
        await adopt(world.engine, planned(story("a")))
        assert world.states() == {"a": "pending"}
        world.git.refs["refs/heads/epicwave/e"] = first


async def test_what_the_author_marks_as_done_and_then_not_is_merged_when_git_has_it() -> None:
    """`redo` takes back a mark of the author's, not a merge."""
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start()
        await world.rest()
        await lost_from(world, 0)
        await adopt(world.engine, planned(story("a", done=True), story("b")))
        assert world.of("a").merged_as is None
        await adopt(world.engine, planned(story("a", done=True), story("b"), redo=True))
        assert world.states() == {"a": "merged", "b": "merged"}
        assert world.of("a").merged_as is not None


async def test_a_cancelled_epic_stays_cancelled_and_what_it_has_is_merged() -> None:
    async with a_world() as world:
        world.plan(*STORIES)
        world.start()
        await world.until("b", "running")
        world.cancel()
        await world.rest()
        await world.close()
        kept = ("EpicPlanned", "EpicCancelled")  # as of a user who cancelled a plan that was believed to be new
        world.journal.rows = [row for row in world.journal.rows if row[1] in kept]
        await world.open()
        assert world.states() == {"a": "merged", "b": "cancelled", "c": "cancelled"}
        assert world.ledger.epics[EPIC].cancelled is not None


async def test_done_work_whose_proof_and_merge_were_lost_is_forgotten_and_not_merged_again() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        await world.rest()
        checks = len(world.runner.checks)
        await lost_from(world, position(world, MergeProven))
        assert world.states() == {"a": "merged"}
        assert [e.attempt.story for e in world.journal.replay() if isinstance(e, MergeFound)] == ["a"]
        assert (len(world.runner.checks), len(world.runner.calls)) == (checks, 1)
        assert "refs/epicwave/rescue/e/a/1" not in world.git.refs


async def test_a_merge_whose_proof_is_known_is_told_by_whoever_looks_for_it() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        await world.rest()
        await lost_from(world, position(world, BranchMerged))
        await world.rest()
        assert world.states() == {"a": "merged"}
        assert not [e for e in world.journal.replay() if isinstance(e, MergeFound)]


async def test_what_a_later_attempt_had_begun_is_saved_before_the_story_is_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An epicwave that did not look in git has begun it anew meanwhile."""
    async with anyio.create_task_group() as group:
        world = World(group)
        await world.open()
        world.plan(story("a"))
        world.start()
        await world.rest()
        world.does(a=Play(seconds=1.0, act=world.truth.scribble, hang=True))
        with monkeypatch.context() as patch:
            patch.setattr(FakeMerge, "landed", _nothing)
            await lost_from(world, position(world, AttemptSucceeded))
            world.start()
            await world.until("a", "running")
            await anyio.sleep(10)
            await world.kill()
        await world.open()
        assert (str(world.of("a").state), world.of("a").attempt) == ("merged", 2)
        assert world.of("a").merged_as == world.git.refs["refs/epicwave/landed/e/a/1"]
        assert world.truth.saved(AttemptId(EPIC, "a", 2))
        assert world.runner.leftovers, "the agent that the journal believed alive was ended"
        assert not [ref for ref in world.git.refs if ref.startswith("refs/heads/epicwave-work/")]
        await world.close()


async def _nothing(*_: object) -> list[Landed]:
    return []


async def test_git_that_cannot_say_what_has_landed_plans_nothing() -> None:
    async with a_world() as world:
        world.git.fail_next("landed", Fault(FaultCause.GIT, "no answer"))
        with pytest.raises(Fault, match="no answer"):
            await adopt(world.engine, planned(story("a")))
        assert world.ledger.epics == {}
        await adopt(world.engine, planned(story("a")))
        assert world.states() == {"a": "pending"}
        calls = world.git.calls["landed"]
        await adopt(world.engine, planned(story("a")))
        assert world.git.calls["landed"] == calls, "the same words: nothing is asked"


def guessed(*stories: DraftStory) -> Plan:
    """The same words, with the files that they name."""
    return plan(EpicDraft(stories, id=EPIC, title="Epic e", checks=(CHECK,)), known=Known())


async def test_new_predictions_are_taken_when_an_epic_is_planned_again_but_not_while_it_is_under_way() -> None:
    named = replace(story("a"), description="Mend src/a.py")
    async with a_world() as world:
        world.plan(named)
        world.start()
        await world.until("a", "running")
        await adopt(world.engine, guessed(named))
        assert world.of("a").spec.predicted == (), "it goes on as it was planned"
        with pytest.raises(Refused, match="in flight"):
            await adopt(world.engine, guessed(named, story("b")))
        await world.rest()
        await adopt(world.engine, guessed(named))
        assert world.of("a").spec.footprint == ("src/a.py",)
