"""What a lead sees of an epic as a whole, and the numbers of the policies."""

from __future__ import annotations

import pytest

from mcp_server.core.policy import backoff_s, poll_after_s
from mcp_server.core.views import counts, epic_state, is_at_rest, is_blocked, ready, roots_of_block, shown_state
from tests.core.build import Life, story
from tests.core.in_state import IN_STATE

EPIC_STATES = {
    "pending": "planned",
    "queued": "active",
    "offered": "active",
    "running": "active",
    "stopping": "active",
    "stopping_merge": "active",
    "merging": "active",
    "merged": "done",
    "failed": "blocked",
    "cancelled": "blocked",
    "offered_team": "active",
    "leased": "active",
    "silent": "active",
    "leased_ended": "active",
    "merging_leased": "active",
    "repairing": "active",
    "stopping_leased": "active",
    "asking": "blocked",
    "skipped": "done",
    "paused": "paused",
    "parked": "paused",
    "held": "paused",
    "draining": "active",
    "stopping_budget": "active",
}


@pytest.mark.parametrize("state", IN_STATE)
def test_an_epic_of_one_story_has_the_state_that_follows_from_it(state: str) -> None:
    life = IN_STATE[state]()
    assert epic_state(life.ledger, life.epic) == EPIC_STATES[state]
    assert is_at_rest(life.ledger, life.epic) == (EPIC_STATES[state] != "active" and state not in {"parked", "held"})


def test_an_epic_of_marked_stories_is_done_before_any_wave() -> None:
    life = Life(story("a", done=True))
    assert epic_state(life.ledger, life.epic) == "done"


def test_between_two_waves_an_epic_is_ready() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start("ready")
    life.merge("a")
    assert (epic_state(life.ledger, life.epic), ready(life.epic)) == ("ready", ["b"])


def test_an_epic_is_blocked_when_all_that_is_left_lies_behind_a_failure() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start(attempts=1)
    life.fail("a")
    assert (epic_state(life.ledger, life.epic), ready(life.epic)) == ("blocked", [])


def test_a_merge_that_outlived_its_engine_keeps_the_epic_active() -> None:
    life = IN_STATE["merging"]()
    life.interrupt()
    assert epic_state(life.ledger, life.epic) == "active"


def test_a_cancelled_epic_is_active_until_everything_is_gone_and_cancelled_until_the_next_wave() -> None:
    life = Life(story("a"), story("b"))
    life.start(slots=1)
    life.cancel()
    assert epic_state(life.ledger, life.epic) == "active"
    life.stopped("a")
    assert epic_state(life.ledger, life.epic) == "cancelled"
    life.start(retry=True)
    assert epic_state(life.ledger, life.epic) == "active"
    life.merge("a", "b")
    assert epic_state(life.ledger, life.epic) == "done"


def _tangle() -> Life:
    """`a` failed and `x` was cancelled; `b` to `e` lie behind them, `m` is merged, `n` is free."""
    life = Life(
        story("m"),
        story("a"),
        story("x"),
        story("b", "a", "m"),
        story("c", "b"),
        story("d", "c", "x"),
        story("e", "x"),
        story("n", "m"),
    )
    life.start("ready", attempts=1, slots=3)
    life.merge("m")
    life.fail("a")
    life.cancel("x")
    life.stopped("x")
    return life


ROOTS = {"m": [], "a": [], "x": [], "b": ["a"], "c": ["a"], "d": ["a", "x"], "e": ["x"], "n": []}


@pytest.mark.parametrize("name", ROOTS)
def test_the_roots_of_a_block_are_the_failed_and_cancelled_stories_below(name: str) -> None:
    life = _tangle()
    assert roots_of_block(life.epic, life.of(name)) == ROOTS[name]
    assert is_blocked(life.epic, life.of(name)) == bool(ROOTS[name])


def test_the_shown_states_tell_ready_and_blocked_from_pending() -> None:
    life = _tangle()
    assert {n: shown_state(life.epic, life.of(n)) for n in ROOTS} == {
        "m": "merged",
        "a": "failed",
        "x": "cancelled",
        **dict.fromkeys("bcde", "blocked"),
        "n": "ready",
    }
    assert counts(life.epic) == {"merged": 1, "failed": 1, "cancelled": 1, "blocked": 4, "ready": 1}


def test_a_story_that_waits_for_one_in_flight_is_pending_and_one_that_was_done_before_is_done() -> None:
    life = Life(story("a", done=True), story("b", "a"), story("c", "b"))
    life.start("ready")
    assert counts(life.epic) == {"done": 1, "offered": 1, "pending": 1}


def test_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff_s(n) for n in range(9)] == [2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]


def test_the_poll_interval_is_a_quarter_of_the_quiet_time_within_its_bounds() -> None:
    assert [poll_after_s(quiet_s) for quiet_s in (0.0, 8.0, 60.0, 180.0, 9000.0)] == [2.0, 4.0, 17.0, 45.0, 45.0]


def test_a_root_that_lies_below_by_several_ways_is_named_once() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "b"), story("d", "b"), story("e", "c", "d"))
    life.start(attempts=1)
    life.fail("a")
    assert roots_of_block(life.epic, life.of("e")) == ["a"]
