"""Who starts when: slots, files, order, backoff, the merge queue, and which jobs and alarms follow."""

from __future__ import annotations

import pytest

from mcp_server.core.limits import Strategy
from mcp_server.core.model import Cause
from mcp_server.core.policy import backoff_s, jitter
from mcp_server.core.spec import AttemptId, Sharing
from mcp_server.core.wanted import Collect, Integrate, RunAttempt, next_wake_s, wanted
from tests.core.build import Life, story
from tests.core.in_state import IN_STATE


def _many(count: int) -> Life:
    return Life(*(story(f"s{i}") for i in range(count)))


# --- slots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_no_more_agents_are_alive_than_there_are_slots(slots: int) -> None:
    life = _many(4)
    life.start(slots=slots)
    assert len(life.agents()) == min(4, slots)


def test_a_free_slot_is_taken_in_the_same_moment() -> None:
    life = _many(3)
    life.start(slots=1)
    assert life.agents() == ["s0"]
    life.succeed("s0")
    assert life.agents() == ["s1"], "the merge queue takes no slot side by side"


def test_one_after_the_other_means_that_the_one_before_is_merged() -> None:
    life = _many(2)
    life.start(strategy=Strategy.SEQUENTIAL, slots=1)
    life.succeed("s0")
    assert (life.agents(), life.merges()) == ([], ["s0"])
    life.merge("s0")
    assert life.agents() == ["s1"]


def test_slots_are_counted_over_all_epics() -> None:
    life = _many(2)
    life.plan(story("x"), story("y"), epic="f")
    life.start(slots=2)
    life.start(epic="f", slots=3)
    assert life.agents() == ["f/x", "s0", "s1"]
    life.succeed("f/x")
    assert life.agents() == ["f/y", "s0", "s1"]


def test_a_slot_that_another_epic_frees_is_taken() -> None:
    life = Life(story("a"))
    life.plan(story("x"), epic="f")
    life.start(slots=1)
    life.start(epic="f", slots=1)
    assert life.agents() == ["a"]
    life.succeed("a")
    assert life.agents() == ["f/x"]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("x.py", "x.py"), ("src/", "src/x.py"), ("src/*.py", "src/x.py")])
def test_stories_that_share_a_file_are_never_in_flight_together(one: str, other: str) -> None:
    life = Life(story("a", files=one), story("b", files=other))
    life.start()
    assert life.agents() == ["a"]
    life.succeed("a")
    assert (life.agents(), life.merges()) == ([], ["a"]), "its changes are not in the tree before they are merged"
    life.merge("a")
    assert life.agents() == ["b"]


def test_files_are_held_until_a_stopped_story_is_gone() -> None:
    life = Life(story("a", files="x"), story("b", files="x"))
    life.start()
    life.cancel("a")
    assert life.agents() == []
    life.stopped("a")
    assert life.agents() == ["b"]


def test_files_are_counted_over_all_epics() -> None:
    life = Life(story("a", files="x"))
    life.plan(story("y", files="x"), story("z", files="w"), epic="f")
    life.start(slots=3)
    life.start(epic="f", slots=3)
    assert life.agents() == ["a", "f/z"]
    life.merge("a")
    assert life.agents() == ["f/y", "f/z"]


def test_under_optimistic_files_keep_nobody_apart() -> None:
    life = Life(story("a", files="x"), story("b", files="x"))
    life.start(overlap=Sharing.OPTIMISTIC)
    assert life.agents() == ["a", "b"]


def test_a_story_without_files_waits_for_nobody() -> None:
    life = Life(story("a", files="x"), story("b"))
    life.start()
    assert life.agents() == ["a", "b"]


def test_a_story_that_waits_for_its_files_does_not_stand_in_anothers_way() -> None:
    life = Life(story("a", files="x", minutes=9), story("b", files="x", minutes=5), story("c", minutes=1))
    life.start()
    assert life.agents() == ["a", "c"]


def test_a_story_that_waits_for_its_dependency_does_not_stand_in_anothers_way() -> None:
    life = Life(story("a", minutes=9), story("b", "a", minutes=9), story("c", minutes=1))
    life.start()
    assert life.agents() == ["a", "c"]


# --- order -----------------------------------------------------------------------------------------------------------


def test_the_longest_remaining_path_goes_first() -> None:
    life = Life(story("a", minutes=3), story("b", minutes=2), story("c", "b", minutes=2), story("d", minutes=1))
    life.start(slots=1)
    started: list[str] = []
    while life.agents():
        started += life.agents()
        life.merge(*life.agents())
    assert started == ["b", "a", "c", "d"]


def test_the_most_urgent_story_of_all_epics_goes_first() -> None:
    life = Life(story("a"), story("b", minutes=5))
    life.plan(story("x", minutes=3), epic="f")
    life.start(slots=1)
    life.start(epic="f", slots=1)
    life.succeed("b")
    assert life.agents() == ["f/x"]


# --- backoff ---------------------------------------------------------------------------------------------------------


def test_after_a_fault_a_story_waits_longer_each_time_and_the_alarm_is_set_for_it() -> None:
    life = Life(story("a"))
    life.start(attempts=1, breaker_faults=0)
    waits: list[float] = []
    for _ in range(3):
        life.fail("a", Cause.SPAWN)
        wake_s = next_wake_s(life.ledger)
        assert wake_s is not None
        waits.append(wake_s - life.now_s)
        assert life.agents() == []
        life.tick_to_wake()
        assert life.agents() == ["a"]
    assert waits == [backoff_s(n, share=jitter(0, "a", n)) for n in (1, 2, 3)]
    assert [most / 2 <= wait_s <= most for wait_s, most in zip(waits, (2.0, 4.0, 8.0), strict=True)] == [True] * 3


def test_a_story_that_backs_off_does_not_stand_in_anothers_way() -> None:
    life = Life(story("a", minutes=9), story("b"))
    life.start(slots=1)
    life.fail("a", Cause.FAULT)
    assert life.agents() == ["b"]


def test_a_failure_of_the_agent_itself_needs_no_backoff() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a", Cause.NO_COMMITS)
    assert (life.agents(), life.of("a").attempt) == (["a"], 2)


def test_no_alarm_is_set_while_only_facts_can_change_something() -> None:
    waits = {"queued": backoff_s(1, share=jitter(0, "a", 1)), "leased": 60.0, "repairing": 60.0}
    parked_s = IN_STATE["parked"]().breaker().parked_until_s
    waits |= {"parked": parked_s, "held": waits["queued"]}
    for state, made in IN_STATE.items():
        assert next_wake_s(made().ledger) == waits.get(state), state


def test_the_alarm_is_set_for_the_first_of_several_moments() -> None:
    life = _many(2)
    life.start()
    life.fail("s0", Cause.FAULT)
    life.tick(1.0)
    life.fail("s1", Cause.FAULT)
    first_s, second_s = (backoff_s(1, share=jitter(0, name, 1)) for name in ("s0", "s1"))
    assert next_wake_s(life.ledger) == min(first_s, 1.0 + second_s)
    life.tick_to_wake()
    assert (life.agents(), next_wake_s(life.ledger)) == (["s0"], 1.0 + second_s)


def test_a_tick_before_the_time_changes_nothing() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a", Cause.FAULT)
    recorded = len(life.log)
    life.tick(0.5)
    assert (life.agents(), len(life.log)) == ([], recorded)
    assert next_wake_s(life.ledger) == backoff_s(1, share=jitter(0, "a", 1))


# --- jobs ------------------------------------------------------------------------------------------------------------

JOBS = {
    "offered": RunAttempt,
    "running": RunAttempt,
    "draining": RunAttempt,
    "merging": Integrate,
    "merging_leased": Integrate,
    "silent": Collect,
    "leased_ended": Collect,
}
"""Offers and what sub-agents work on need nobody."""


@pytest.mark.parametrize("state", IN_STATE)
def test_a_story_has_the_job_of_its_state(state: str) -> None:
    expected = {JOBS[state](AttemptId("e", "a", 1))} if state in JOBS else set[object]()
    assert wanted(IN_STATE[state]().ledger) == expected


def test_merges_go_one_at_a_time_in_order_of_arrival() -> None:
    life = _many(3)
    life.start(slots=3)
    life.succeed("s2", "s0", "s1")
    merged: list[str] = []
    while life.merges():
        assert len(life.merges()) == 1
        merged += life.merges()
        life.merge(*life.merges())
    assert merged == ["s2", "s0", "s1"]


def test_a_repaired_story_goes_to_the_end_of_the_merge_queue() -> None:
    life = _many(2)
    life.start()
    life.succeed("s0", "s1")
    life.refuse("s0")
    life.succeed("s0")
    assert life.merges() == ["s1"]


def test_epics_merge_side_by_side() -> None:
    life = Life(story("a"))
    life.plan(story("x"), epic="f")
    life.start()
    life.start(epic="f")
    life.succeed("a", "f/x")
    assert life.merges() == ["a", "f/x"]


def test_a_merge_that_backs_off_keeps_its_turn() -> None:
    life = _many(2)
    life.start()
    life.succeed("s0", "s1")
    life.refuse("s0", Cause.FAULT)
    assert life.merges() == []
    life.tick_to_wake()
    assert life.merges() == ["s0"]


def test_a_stopped_merge_of_an_interrupted_wave_holds_up_the_merges_of_the_next_until_it_is_gone() -> None:
    life = Life(story("a"), story("b"))
    life.start()
    life.succeed("a")
    life.interrupt()
    life.cancel()
    assert life.states() == {"a": "stopping", "b": "cancelled"}
    life.start(retry=True)
    life.succeed("b")
    assert (life.states(), life.merges()) == ({"a": "stopping", "b": "merging"}, [])
    life.stopped("a")
    assert life.merges() == ["b"]
