"""All states that small epics can reach keep the invariants and have a way out; and planted bugs do not escape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_server.core.commands import DrainWave, PauseEpic, ResumeEpic, RetryStory, SkipStory
from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause
from mcp_server.core.spec import StorySpec
from mcp_server.errors import Refused
from tests.core.build import PARALLEL, TEAM, Life, story
from tests.simulation.planted import BUGS, LEASE_BUGS, planted
from tests.simulation.planted_policies import POLICY_BUGS
from tests.simulation.small_model import Model, Search, explore

PROCESSES = replace(PARALLEL, breaker_faults=0, fault_tries=1)
WITH_BREAKER = {"breaker_faults": 2, "cooldown_s": 2.0, "cooldown_cap_s": 4.0, "probe_s": 2.0}
"""Two faults in a row open it for 2 s, then for 4; a probe that has worked for 2 s closes it."""


def _one_epic(*, attempts: int, most_attempts: int, slots: int = 2) -> Model:
    """`b` waits for `a`; `c` is critical and shares a file with `a`."""
    life = Life(story("a", files="x"), story("b", "a"), story("c", files="x", critical=True))
    return Model(life.ledger, replace(PROCESSES, attempts=attempts, slots=slots), frozenset("c"), most_attempts)


def _two_epics() -> Model:
    """`y` of epic `f` needs the file of `a`, and all three share one slot."""
    life = Life(story("a", files="x"), story("b", "a"))
    life.plan(story("y", files="x", critical=True), epic="f")
    return Model(life.ledger, replace(PROCESSES, slots=1), frozenset(), most_attempts=2)


def _team(*specs: StorySpec, attempts: int, most_attempts: int, limit_s: float = 5.0) -> Model:
    """Leases of 3 s that can be made to last for `limit_s`, one repair, two slots."""
    policy = replace(TEAM, breaker_faults=0, attempts=attempts, lease_s=3.0, attempt_timeout_s=limit_s)
    cancels = frozenset("a") if len(specs) == len("ab") else frozenset[str]()
    return Model(Life(*specs).ledger, policy, cancels, most_attempts)


TREE = (story("a"), story("b", "a"), story("c", critical=True))
CHAIN = (story("a", critical=True), story("b", "a"))
PAIR = (story("a", critical=True), story("b"))


def _team_beside_processes() -> Model:
    """Sub-agents do `a` and `b` in one slot; `y` of epic `f` needs the file of `a` and counts two slots."""
    life = Life(story("a", files="x"), story("b"))
    life.plan(story("y", files="x"), epic="f")
    policy = replace(TEAM, breaker_faults=0, attempts=1, slots=1, lease_s=3.0, attempt_timeout_s=3.0)
    return Model(life.ledger, policy, frozenset(), 1, {"f": replace(PROCESSES, attempts=1)})


def _three() -> Life:
    """As in `_one_epic`."""
    return Life(story("a", files="x"), story("b", "a"), story("c", files="x", critical=True))


def _breaker() -> Model:
    """Two tries, two slots, a shared file; crashes open the breaker, rate limits park; a lead cancels and pauses."""
    policy = replace(PROCESSES, attempts=2, **WITH_BREAKER)
    ends = frozenset({Cause.AGENT_FAILED, Cause.CRASH, Cause.RATE_LIMIT})
    return Model(_three().ledger, policy, frozenset("c"), 2, ends=ends, steers=(PauseEpic, ResumeEpic), crashes=False)


def _fallback() -> Model:
    """Two profiles, each with its breaker and its parking."""
    policy = replace(PROCESSES, attempts=1, fallback="second", **{**WITH_BREAKER, "breaker_faults": 1})
    ends = frozenset({Cause.API_ERROR, Cause.RATE_LIMIT})
    return Model(Life(story("a"), story("b")).ledger, policy, frozenset(), 2, ends=ends, crashes=False)


def _team_breaker() -> Model:
    """Leases of 2 s; one that is lost opens the breaker."""
    policy = replace(TEAM, attempts=1, lease_s=2.0, attempt_timeout_s=2.0, fault_tries=1, repairs=0)
    policy = replace(policy, **{**WITH_BREAKER, "breaker_faults": 1})
    return Model(Life(story("a"), story("b")).ledger, policy, frozenset(), 2, ends=frozenset(), crashes=False)


def _budget() -> Model:
    """Each report adds a dollar; a story may cost two, the epic four."""
    policy = replace(PROCESSES, attempts=2, budget=Budget(story_usd=2.0, epic_usd=4.0))
    ends = frozenset({Cause.AGENT_FAILED})
    return Model(_three().ledger, policy, frozenset(), 2, ends=ends, usd=1.0, crashes=False)


def _steered() -> Model:
    """A lead drains, and retries, skips and cancels the story that another one builds on."""
    policy, ends = replace(PROCESSES, attempts=1), frozenset({Cause.AGENT_FAILED})
    steers = (DrainWave, SkipStory, RetryStory)
    return Model(_three().ledger, policy, frozenset("a"), 2, ends=ends, steers=steers, crashes=False)


def _search_policies() -> None:
    """The same, of breakers, parking, budgets and what a lead says on the way; the quick ones first."""
    for model in (_fallback(), _budget(), _steered(), _breaker()):
        explore(model)


def _going_on(*, most_attempts: int = 3, slots: int = 2) -> Model:
    """The wave goes on when its engine is gone, with any agents adopted: once for nothing, then for an attempt."""
    return replace(_one_epic(attempts=1, most_attempts=most_attempts, slots=slots), goes_on=True)


def _search_processes() -> None:
    """Smaller than the searches below; a bug must show in these already."""
    explore(_one_epic(attempts=2, most_attempts=2))
    explore(_one_epic(attempts=1, most_attempts=2, slots=1))
    explore(_going_on(most_attempts=2, slots=1))


def _search_teams() -> None:
    """The same, of sub-agents."""
    explore(_team(*CHAIN, attempts=2, most_attempts=4))
    explore(_team(*TREE, attempts=1, most_attempts=1))
    explore(_team_beside_processes())


def _tell(name: str, found: Search) -> None:
    print(f"{name}: {found.states} states, {found.steps} steps, {len(found.moves)} kinds of move")  # noqa: T201


def test_in_every_state_of_an_epic_that_is_cancelled_interrupted_and_retried_the_invariants_hold() -> None:
    found = explore(_one_epic(attempts=1, most_attempts=2))
    again = explore(_one_epic(attempts=2, most_attempts=2))
    _tell("one epic", found)
    _tell("one epic with two tries", again)
    assert min(found.states, again.states) > 3_000
    found.moves.update(again.moves)
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


def test_in_every_state_of_an_epic_that_goes_on_without_its_engine_the_invariants_hold() -> None:
    found = explore(_going_on())
    _tell("an epic that goes on", found)
    assert found.states > 1_000
    for move in (
        ("running", "WaveInterrupted", "queued"),
        ("offered", "WaveInterrupted", "queued"),
        ("stopping", "WaveInterrupted", "cancelled"),
        ("running", "WaveInterrupted", "pending"),
        ("queued", "Ticked", "offered"),
    ):
        assert found.moves[move] > 0, move
    assert ("merging", "WaveInterrupted", "merging") not in found.moves
    assert not any(kind == "WaveInterrupted" and to == "failed" for _, kind, to in found.moves), "an end fails nobody"


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


def test_in_every_state_of_three_stories_with_a_breaker_that_are_paused_and_cancelled_the_invariants_hold() -> None:
    found = explore(_breaker())
    _tell("breaker, rate limits, pause", found)
    assert found.states > 8_000
    for move in (
        ("running", "AttemptFailed", "queued"),
        ("queued", "Ticked", "offered"),
        ("queued", "EpicResumed", "offered"),
        ("running", "AttemptFailed", "failed"),
        ("queued", "AttemptSucceeded", "offered"),
    ):
        assert found.moves[move] > 0, move


def test_in_every_state_of_two_profiles_that_are_held_and_parked_the_invariants_hold() -> None:
    found = explore(_fallback())
    _tell("breaker with a fallback", found)
    assert found.states > 2_000
    assert ("running", "AttemptFailed", "failed") not in found.moves, "nothing is failed by a breaker or a rate limit"


def test_in_every_state_of_sub_agents_with_a_breaker_the_invariants_hold() -> None:
    found = explore(_team_breaker())
    _tell("a team with a breaker", found)
    assert found.states > 500


def test_in_every_state_of_an_epic_with_budgets_the_invariants_hold() -> None:
    found = explore(_budget())
    _tell("budgets", found)
    assert found.states > 4_000
    for move in (("running", "UsageReported", "stopping"), ("stopping", "AttemptStopped", "failed")):
        assert found.moves[move] > 0, move


def test_in_every_state_of_an_epic_that_is_drained_skipped_and_retried_the_invariants_hold() -> None:
    found = explore(_steered())
    _tell("drain, skip, retry", found)
    assert found.states > 4_000
    for move in (
        ("failed", "StorySkipped", "skipped"),
        ("queued", "StorySkipped", "offered"),
        ("skipped", "StoryRetried", "queued"),
        ("skipped", "StoryRetried", "pending"),
        ("failed", "StoryRetried", "queued"),
        ("queued", "WaveDrained", "pending"),
    ):
        assert found.moves[move] > 0, move


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


@pytest.mark.parametrize("name", POLICY_BUGS)
def test_a_planted_bug_of_policies_is_caught(name: str) -> None:
    bug = POLICY_BUGS[name]
    with planted(bug), pytest.raises(RED):
        (bug.caught_by or _search_policies)()


def test_so_many_bugs_are_planted() -> None:
    total = len(BUGS) + len(LEASE_BUGS) + len(POLICY_BUGS)
    print(f"{total} bugs planted in the core, {len(POLICY_BUGS)} of them in policies")  # noqa: T201
    assert len(POLICY_BUGS) >= 25
    assert total >= 90
