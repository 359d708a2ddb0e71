"""All states that small epics can reach keep the invariants and have a way out; and planted bugs do not escape."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from tests.core.build import PARALLEL, Life, story
from tests.simulation.planted import BUGS, planted
from tests.simulation.small_model import Model, Search, explore


@pytest.fixture(autouse=True)
def merges_are_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of six tries would only repeat the same states."""
    monkeypatch.setattr(importlib.import_module("mcp_server.core.evolve"), "MERGE_TRIES", 2)


def _one_epic(*, attempts: int, most_attempts: int, slots: int = 2) -> Model:
    """`b` waits for `a`; `c` is critical and shares a file with `a`."""
    life = Life(story("a", files="x"), story("b", "a"), story("c", files="x", critical=True))
    return Model(life.ledger, replace(PARALLEL, attempts=attempts, slots=slots), frozenset("c"), most_attempts)


def _two_epics() -> Model:
    """`y` of epic `f` needs the file of `a`, and all three share one slot."""
    life = Life(story("a", files="x"), story("b", "a"))
    life.plan(story("y", files="x", critical=True), epic="f")
    return Model(life.ledger, replace(PARALLEL, slots=1), frozenset(), most_attempts=2)


def _search_all() -> None:
    """Smaller than the searches above; a bug must show in these already."""
    explore(_one_epic(attempts=2, most_attempts=2))
    explore(_one_epic(attempts=1, most_attempts=2, slots=1))


def _tell(name: str, found: Search) -> None:
    print(f"{name}: {found.states} states, {found.steps} steps, {len(found.moves)} kinds of move")  # noqa: T201


def test_in_every_state_of_an_epic_that_is_cancelled_interrupted_and_retried_the_invariants_hold() -> None:
    found = explore(_one_epic(attempts=2, most_attempts=4))
    _tell("one epic", found)
    assert found.states > 10_000
    for move in (
        ("merging", "MergeRefused", "offered"),
        ("stopping", "BranchMerged", "merged"),
        ("running", "AttemptFailed", "failed"),
        ("failed", "WaveStarted", "offered"),
        ("cancelled", "WaveWidened", "offered"),
        ("stopping", "WaveInterrupted", "cancelled"),
        ("queued", "Ticked", "offered"),
    ):
        assert found.moves[move] > 0, move


def test_in_every_state_of_two_epics_that_share_a_file_the_invariants_hold() -> None:
    found = explore(_two_epics())
    _tell("two epics", found)
    assert found.states > 3_000
    assert found.moves["queued", "BranchMerged", "offered"] > 0


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    bug = BUGS[name]
    with planted(bug), pytest.raises((AssertionError, pytest.fail.Exception)):
        (bug.caught_by or _search_all)()


def test_a_planted_bug_is_gone_afterwards() -> None:
    bug = BUGS["merge queue not ordered"]
    assert bug.caught_by is not None
    with planted(bug), pytest.raises(AssertionError):
        bug.caught_by()
    bug.caught_by()
