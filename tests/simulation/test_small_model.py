"""All states that small epics can reach keep the invariants and have a way out; and planted bugs do not escape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_server.core.model import StorySpec
from mcp_server.errors import Refused
from tests.core.build import PARALLEL, TEAM, Life, story
from tests.simulation.planted import BUGS, LEASE_BUGS, planted
from tests.simulation.small_model import Model, Search, explore


def _one_epic(*, attempts: int, most_attempts: int, slots: int = 2) -> Model:
    """`b` waits for `a`; `c` is critical and shares a file with `a`."""
    life = Life(story("a", files="x"), story("b", "a"), story("c", files="x", critical=True))
    return Model(life.ledger, replace(PARALLEL, attempts=attempts, slots=slots), frozenset("c"), most_attempts)


def _two_epics() -> Model:
    """`y` of epic `f` needs the file of `a`, and all three share one slot."""
    life = Life(story("a", files="x"), story("b", "a"))
    life.plan(story("y", files="x", critical=True), epic="f")
    return Model(life.ledger, replace(PARALLEL, slots=1), frozenset(), most_attempts=2)


def _team(*specs: StorySpec, attempts: int, most_attempts: int, limit_s: float = 5.0) -> Model:
    """Leases of 3 s that can be made to last for `limit_s`, one repair, two slots."""
    policy = replace(TEAM, attempts=attempts, lease_s=3.0, attempt_timeout_s=limit_s)
    cancels = frozenset("a") if len(specs) == len("ab") else frozenset[str]()
    return Model(Life(*specs).ledger, policy, cancels, most_attempts)


TREE = (story("a"), story("b", "a"), story("c", critical=True))
CHAIN = (story("a", critical=True), story("b", "a"))
PAIR = (story("a", critical=True), story("b"))


def _team_beside_processes() -> Model:
    """Sub-agents do `a` and `b` in one slot; `y` of epic `f` needs the file of `a` and counts two slots."""
    life = Life(story("a", files="x"), story("b"))
    life.plan(story("y", files="x"), epic="f")
    policy = replace(TEAM, attempts=1, slots=1, lease_s=3.0, attempt_timeout_s=3.0)
    return Model(life.ledger, policy, frozenset(), 1, {"f": replace(PARALLEL, attempts=1)})


def _search_processes() -> None:
    """Smaller than the searches below; a bug must show in these already."""
    explore(_one_epic(attempts=2, most_attempts=2))
    explore(_one_epic(attempts=1, most_attempts=2, slots=1))


def _search_teams() -> None:
    """The same, of sub-agents."""
    explore(_team(*CHAIN, attempts=2, most_attempts=4))
    explore(_team(*TREE, attempts=1, most_attempts=1))
    explore(_team_beside_processes())


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


def test_in_every_state_of_sub_agents_with_two_tries_and_one_repair_the_invariants_hold() -> None:
    found = explore(_team(*TREE, attempts=2, most_attempts=2))
    _tell("a team with two tries", found)
    assert 10_000 < found.states < 60_000
    for move in (
        ("offered", "AttemptLeased", "running"),
        ("merging", "MergeRefused", "running"),
        ("merging", "MergeRefused", "offered"),
        ("merging", "MergeRefused", "failed"),
        ("running", "AttemptFailed", "offered"),
        ("running", "AttemptFailed", "pending"),
        ("queued", "BranchMerged", "offered"),
        ("running", "EpicCancelled", "stopping"),
    ):
        assert found.moves[move] > 0, move
    assert ("running", "WaveInterrupted", "pending") not in found.moves, "sub-agents outlive the engine"


def test_in_every_state_of_sub_agents_that_are_answered_and_tried_again_the_invariants_hold() -> None:
    pair = explore(_team(*PAIR, attempts=1, most_attempts=2, limit_s=3.0))
    chain = explore(_team(*CHAIN, attempts=2, most_attempts=4))
    _tell("a team with answers", pair)
    _tell("a team with answers, one after the other", chain)
    assert 5_000 < pair.states < 20_000
    assert 500 < chain.states < 5_000
    for move in (
        ("running", "AttemptFailed", "pending"),
        ("pending", "WaveWidened", "offered"),
        ("pending", "WaveStarted", "offered"),
        ("failed", "WaveStarted", "offered"),
        ("cancelled", "WaveWidened", "offered"),
        ("merging", "EpicCancelled", "stopping"),
    ):
        assert pair.moves[move] > 0, move


def test_in_every_state_of_sub_agents_beside_processes_the_invariants_hold() -> None:
    found = explore(_team_beside_processes())
    _tell("a team beside processes", found)
    assert 5_000 < found.states < 20_000
    assert found.moves["running", "WaveInterrupted", "pending"] > 0, "those of the other epic"


RED = (AssertionError, pytest.fail.Exception, Refused)
"""What a test may end with that fails; anything else says that the plant itself is bad."""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    bug = BUGS[name]
    with planted(bug), pytest.raises(RED):
        (bug.caught_by or _search_processes)()


@pytest.mark.parametrize("name", LEASE_BUGS)
def test_a_planted_bug_of_leases_is_caught(name: str) -> None:
    bug = LEASE_BUGS[name]
    with planted(bug), pytest.raises(RED):
        (bug.caught_by or _search_teams)()


@pytest.mark.parametrize("name", [*BUGS, *LEASE_BUGS])
def test_without_its_bug_the_test_that_catches_it_is_green(name: str) -> None:
    bug = BUGS.get(name) or LEASE_BUGS[name]
    if bug.caught_by is not None:
        bug.caught_by()


def test_a_planted_bug_is_gone_afterwards() -> None:
    bug = BUGS["merge queue not ordered"]
    assert bug.caught_by is not None
    with planted(bug), pytest.raises(AssertionError):
        bug.caught_by()
    bug.caught_by()
