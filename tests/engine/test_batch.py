"""Batches: stories with disjoint files are checked once and land together; of a red one only the culprit is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_server.adapters.git.names import landed_ref
from mcp_server.core.events import BranchMerged, MergeProven, MergeRefused
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.core.why import alerts
from mcp_server.engine import merging
from mcp_server.engine.context import Context
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landing
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio
CHECK_S = 100.0
"""Longer than the agents need to be in the queue behind the first one."""


@asynccontextmanager
async def _queue(*names: str, rotten: str = "", **policy: Any) -> AsyncGenerator[World]:
    """All of them work at once and end one after the other: the first is checked while the others come to wait."""
    async with a_world() as world:
        world.runner.check_s = CHECK_S
        world.does(**{name: world.good(seconds=1.0 + nth) for nth, name in enumerate(names)})
        world.truth.rotten |= {AttemptId("e", name, 1) for name in rotten.split()}
        world.plan(*(story(name, files=f"{name}.txt") for name in names))
        world.start(slots=len(names), **policy)
        yield world


def _checks(world: World) -> int:
    return len(world.runner.checks)


def _refused(world: World) -> list[str]:
    return [event.attempt.story for event in world.journal.replay() if isinstance(event, MergeRefused)]


def _proofs(world: World, name: str) -> list[MergeProven]:
    found = (e for e in world.journal.replay() if isinstance(e, MergeProven) and e.attempt.story == name)
    return list(found)


async def test_those_that_wait_behind_the_first_are_checked_once_and_land_together() -> None:
    async with _queue(*"abcde") as world:
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert _checks(world) == 2  # `a` by itself; then `b` to `e`
        assert [e.attempt.story for e in world.journal.replay() if isinstance(e, BranchMerged)] == list("acdeb")


async def test_a_batch_is_proven_where_it_ends_and_each_of_it_says_so() -> None:
    async with _queue(*"abc") as world:
        await world.rest()
        b, c = _proofs(world, "b")[0].proven, _proofs(world, "c")[0].proven
        assert (b.at, c.at, b.head == c.onto) == (c.head, None, True)
        assert b.checks == c.checks != ()


async def test_one_at_a_time_when_the_policy_says_so() -> None:
    async with _queue(*"abcd", batch=1) as world:
        await world.rest()
        assert _checks(world) == 4


async def test_a_batch_has_at_most_so_many() -> None:
    async with _queue(*"abcdef", batch=2) as world:
        await world.rest()
        assert _checks(world) == 4  # a, bc, de, f


async def test_what_landed_together_is_noted_for_each_of_them() -> None:
    async with _queue(*"abc") as world:
        await world.rest()
        notes = {name: world.git.refs.get(landed_ref(AttemptId("e", name, 1))) for name in "abc"}
        assert notes == {name: world.of(name).merged_as for name in "abc"}
        assert len(set(notes.values())) == 3


async def test_of_a_red_batch_only_the_culprit_is_refused() -> None:
    async with _queue(*"abcde", rotten="d", attempts=1) as world:
        await world.rest()
        assert world.states() == {**dict.fromkeys("abce", "merged"), "d": "failed"}
        assert _refused(world) == ["d"]
        assert _checks(world) == 1 + 2 + 2 + 1  # a; bcde twice; bc, bcd; then e


async def test_when_the_first_of_a_batch_is_to_blame_the_others_have_the_next_turn() -> None:
    async with _queue(*"abcd", rotten="b", attempts=1) as world:
        await world.rest()
        assert world.states() == {**dict.fromkeys("acd", "merged"), "b": "failed"}
        assert _refused(world) == ["b"]


async def test_each_of_several_culprits_is_found() -> None:
    async with _queue(*"abcde", rotten="b e", attempts=1) as world:
        await world.rest()
        assert world.states() == {**dict.fromkeys("acd", "merged"), "b": "failed", "e": "failed"}
        assert sorted(_refused(world)) == ["b", "e"]


def _flaky(world: World, *reds: int) -> None:
    """The checks of these numbers are red, whatever is in the tree."""
    right = world.runner.judge

    def judge(attempt: AttemptId, command: tuple[str, ...], cwd: Path) -> int | None:
        verdict = right(attempt, command, cwd)
        return 1 if _checks(world) in reds else verdict

    world.runner.judge = judge


async def test_a_red_batch_is_tried_once_more_and_the_flaky_check_is_remembered() -> None:
    async with _queue(*"abc") as world:
        _flaky(world, 1)
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert (_checks(world), _refused(world)) == (3, [])
        assert world.ledger.epics["e"].flaky == {("make", "test")}
        assert any("make test" in alert and "Flaky" in alert for alert in alerts(world.ledger, world.ledger.epics["e"]))


async def test_a_story_alone_is_not_tried_again_before_its_check_is_known_to_be_flaky() -> None:
    async with a_world() as world:
        _flaky(world, 0, 2)
        world.plan(story("a"), story("b", "a"))
        world.start(attempts=2, batch=1)
        await world.rest()
        assert (_refused(world), _checks(world)) == (["a", "b"], 4)


async def test_a_known_flaky_check_is_tried_again_for_a_story_alone() -> None:
    async with a_world() as world:
        world.runner.check_s = CHECK_S
        world.does(**{name: world.good(seconds=1.0 + nth) for nth, name in enumerate("abc")})
        world.plan(*(story(name, files=f"{name}.txt") for name in "abc"), story("d", "a", "b", "c"))
        _flaky(world, 1, 3)
        world.start(slots=3)
        await world.rest()
        assert (_refused(world), _checks(world)) == ([], 5)  # a; bc twice; d twice


async def test_a_fault_behind_the_head_costs_the_head_nothing() -> None:
    async with _queue(*"abc") as world:
        world.git.delay_s["rebase"] = 5.0
        await world.until("a", "merged")
        await anyio.sleep(7)
        world.git.fail_next("rebase", Fault(FaultCause.GIT, "no room"))  # of `c`, behind `b`
        world.git.delay_s.clear()
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert [world.of(name).merge_faults for name in "bc"] == [0, 0]
        assert _checks(world) == 3  # `c` has a turn of its own


async def test_a_crash_while_git_moves_a_batch_loses_and_doubles_nothing() -> None:
    async with _queue(*"abcd") as world:
        world.git.delay_s["advance"] = 50.0
        await world.until("a", "merged")
        await world.when(lambda: bool(_proofs(world, "d")))
        await anyio.sleep(10)
        await world.kill()
        world.git.delay_s.clear()
        await world.open()
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert {name: len(numbers) for name, numbers in world.truth.landed("e").items()} == dict.fromkeys("abcd", 1)


async def test_cancel_while_git_moves_a_batch_comes_too_late_for_all_of_it() -> None:
    async with _queue(*"abc") as world:
        world.git.delay_s["advance"] = 50.0
        await world.until("a", "merged")
        await world.when(lambda: bool(_proofs(world, "c")))
        await anyio.sleep(10)
        world.cancel()
        await world.rest()
        assert set(world.states().values()) == {"merged"}


async def test_cancel_while_a_batch_is_checked_saves_the_work_of_all_of_it() -> None:
    async with _queue(*"abc") as world:
        await world.until("a", "merged")
        await anyio.sleep(CHECK_S / 2)
        world.cancel()
        await world.rest()
        assert world.states() == {"a": "merged", "b": "cancelled", "c": "cancelled"}
        assert all(world.truth.saved(AttemptId("e", name, 1)) for name in "bc")


async def test_whoever_conflicts_behind_the_head_has_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disjoint files may conflict all the same: one story made a folder where another made a file."""
    right = merging.rebased

    async def rebased(context: Context, attempt: AttemptId, onto: Sha | None = None) -> Landing | Conflicted:
        if attempt.story == "c" and onto is not None:
            return Conflicted(onto, ("c.txt",), "both")
        return await right(context, attempt, onto)

    monkeypatch.setattr(merging, "rebased", rebased)
    async with _queue(*"abc") as world:
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert (_checks(world), _refused(world)) == (3, [])
