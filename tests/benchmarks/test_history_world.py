"""What `benchmarks/histories.py` needs: time that waits for threads, edits that know no order, trees that differ."""

from __future__ import annotations

import math
import random
import threading
from itertools import pairwise, permutations

import anyio
import anyio.to_thread
import pytest
import trio.testing

from benchmarks.history_world import Change, History, Run, Window, move, read_window, wrong


def test_virtual_time_stands_still_while_a_thread_is_at_work() -> None:
    """A clock that jumps by itself would let the hour pass first."""
    clock = trio.testing.MockClock(rate=0.0, autojump_threshold=math.inf)
    told: list[tuple[str, float]] = []

    async def works(times: int) -> None:
        for _ in range(times):
            await anyio.to_thread.run_sync(threading.Event().wait, 0.01)
        told.append(("worked", anyio.current_time()))

    async def sleeps() -> None:
        await anyio.sleep(3600.0)
        told.append(("slept", anyio.current_time()))

    async def main() -> None:
        began_s = anyio.current_time()
        async with anyio.create_task_group() as mover:
            mover.start_soon(move, clock)
            async with anyio.create_task_group() as group:
                group.start_soon(sleeps)
                group.start_soon(works, 20)
                group.start_soon(works, 3)
            mover.cancel_scope.cancel()
        told[:] = [(what, round(at_s - began_s, 6)) for what, at_s in told]

    anyio.run(main, backend="trio", backend_options={"clock": clock})
    assert told == [("worked", 0.0), ("worked", 0.0), ("slept", 3600.0)]


def test_time_in_which_everybody_waits_for_nothing_is_an_error() -> None:
    clock = trio.testing.MockClock(rate=0.0, autojump_threshold=math.inf)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(move, clock)
            await anyio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        anyio.run(main, backend="trio", backend_options={"clock": clock})
    assert raised.group_contains(AssertionError, match="everybody waits")


def a_history(chance: float) -> History:
    """Three that edit one file; the third replaces lines of the first."""
    changes = [{"files": ["a.py"], "add": 9, "dele": 7, "deps": deps} for deps in ([], [], [0])]
    history = History(read_window(changes), lambda _: chance)
    history.lay_out(random.Random(1))  # noqa: S311 - dice of a test
    return history


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_every_order_that_the_dependencies_allow_ends_in_the_same_lines(chance: float) -> None:
    history, ends = a_history(chance), set[str]()
    for order in permutations(["S1", "S2", "S3"]):
        if order.index("S1") < order.index("S3"):
            lines = dict(enumerate(history.files["a.py.lines"]))
            for story in order:
                mine = history.writes[story]["a.py.lines"]
                lines = {at: mine.get(line[:5], line) for at, line in lines.items()}
            ends.add("\n".join(lines.values()))
    [end] = ends
    assert all(end.count(f"by {story}") >= 4 for story in ("S1", "S2", "S3"))
    assert "as it was" not in end


@pytest.mark.parametrize(("chance", "pairs"), [(0.0, 0), (1.0, 2)])
def test_who_conflicts_has_lines_with_nothing_between(chance: float, pairs: int) -> None:
    """The second with both others, which build on each other and so never run side by side."""
    keys = {key: story for story, files in a_history(chance).writes.items() for key in files["a.py.lines"]}
    beside = [(keys[a], keys[b]) for a, b in pairwise(sorted(keys)) if int(b) == int(a) + 1]
    assert len(beside) == pairs
    assert all("S2" in pair for pair in beside)


def test_minutes_and_hunks_are_those_of_the_study() -> None:
    change = Change(("a", "b"), 64, ())
    assert (change.minutes, change.hunks) == (6.0, 6)


def a_window(**other: object) -> Window:
    runs = {"serial": Run(100.0, tree="one", merged=5), "optimistic": Run(25.0, tree="one", merged=5)}
    for name, value in other.items():
        setattr(runs["optimistic"], name, value)
    return Window("a window", 5, 100.0, 4.0, runs)


def test_another_tree_and_a_story_that_is_missing_are_wrong() -> None:
    assert wrong(a_window()) == []
    assert a_window().faster("optimistic") == 4.0
    assert "its tree two is not one" in wrong(a_window(tree="two"))[0]
    assert "4 of 5 stories are merged" in wrong(a_window(merged=4))[0]
