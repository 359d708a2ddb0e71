"""A wave's life: how it ends well, what a failure does to it, fail_fast, cancel, interruption and going on."""

from __future__ import annotations

import pytest

from mcp_server.core.model import Cause, WaveState
from mcp_server.core.policy import MERGE_TRIES
from tests.core.build import Life, story


def _give_up(life: Life, *names: str) -> None:
    """Each story fails as often as it may, then for good."""
    for name in names:
        while life.of(name).state not in {"failed", "cancelled"}:
            life.fail(name)


# --- to the end ------------------------------------------------------------------------------------------------------


def test_a_wave_is_a_moving_ceiling_not_a_barrier() -> None:
    """`c` starts when `a` is merged, though `b` of the level below is still at work."""
    life = Life(story("a"), story("b"), story("c", "a"))
    life.start()
    life.merge("a")
    assert life.states() == {"a": "merged", "b": "offered", "c": "offered"}


def test_a_wave_is_finished_when_every_member_is_merged() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "b"))
    life.start(2)
    life.merge("a")
    assert life.wave.state is WaveState.RUNNING
    life.merge("b")
    assert (life.wave.state, life.states()["c"]) == (WaveState.FINISHED, "pending")


def test_waves_are_numbered_and_keep_the_base_of_the_first() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start("ready")
    life.merge("a")
    life.start("ready", slots=1)
    assert (life.wave.number, life.wave.policy.slots, life.epic.base) == (2, 1, "base")


def test_work_that_is_marked_done_need_not_be_waited_for() -> None:
    life = Life(story("a", done=True), story("b", "a"))
    life.start("ready")
    assert life.states() == {"a": "merged", "b": "offered"}


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failure_blocks_exactly_its_transitive_dependents() -> None:
    life = Life(story("a"), story("b"), story("c", "a"), story("d", "c"), story("e", "b"), story("f", "b", "d"))
    life.start()
    _give_up(life, "a")
    blocked = {"c": "pending", "d": "pending", "f": "pending"}
    assert life.states() == {"a": "failed", "b": "offered", "e": "queued", **blocked}
    life.merge("b", "e")
    assert life.states() == {"a": "failed", "b": "merged", "e": "merged", **blocked}
    assert life.wave.state is WaveState.FINISHED


def test_an_attempt_that_fails_is_tried_again_within_its_budget() -> None:
    life = Life(story("a"))
    life.start(attempts=3)
    numbers: list[int] = []
    while life.of("a").state != "failed":
        numbers.append(life.of("a").attempt)
        life.fail("a")
    assert numbers == [1, 2, 3]


def test_a_critical_story_that_fails_for_good_stops_its_siblings_and_drains_the_wave() -> None:
    life = Life(story("a", critical=True), story("b"), story("c"), story("d"), story("e", "d"))
    life.start(slots=3)
    life.succeed("b")
    life.claim("c")
    _give_up(life, "a")
    assert life.states() == {"a": "failed", "b": "merging", "c": "stopping", "d": "stopping", "e": "pending"}
    assert (life.wave.state, "'a'" in life.wave.ended_because) == (WaveState.DRAINING, True)
    assert (life.agents(), life.merges()) == ([], ["b"]), "what is good is still merged"
    life.stopped("c", saved="refs/c")
    life.merge("b")
    assert life.wave.state is WaveState.DRAINING, "d is not gone yet"
    life.stopped("d")
    assert life.states() == {"a": "failed", "b": "merged", "c": "cancelled", "d": "cancelled", "e": "pending"}
    assert life.wave.state is WaveState.FINISHED
    failure = life.of("c").failure
    assert failure is not None
    assert (failure.cause, failure.saved_ref, "fail_fast" in failure.detail) == (Cause.STOPPED, "refs/c", True)


def test_two_failures_at_once_are_both_recorded() -> None:
    life = Life(story("a", critical=True), story("b", critical=True), story("c"))
    life.start(attempts=1)
    life.claim("a", "b")
    life.fail("a", Cause.STALL)
    life.fail("b", Cause.TIMEOUT)  # it had ended by itself before it could be stopped
    assert life.states() == {"a": "failed", "b": "failed", "c": "pending"}
    causes = [f.cause for f in (life.of("a").failure, life.of("b").failure) if f is not None]
    assert causes == [Cause.STALL, Cause.TIMEOUT]
    assert life.wave.state is WaveState.FINISHED
    assert "'a'" in life.wave.ended_because


def test_a_critical_story_with_an_attempt_left_stops_nobody() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.start()
    life.fail("a")
    assert (life.states(), life.wave.state) == ({"a": "offered", "b": "offered"}, WaveState.RUNNING)


@pytest.mark.parametrize(("critical", "fail_fast"), [(True, False), (False, True)])
def test_only_a_critical_story_under_fail_fast_stops_the_wave(critical: bool, fail_fast: bool) -> None:
    life = Life(story("a", critical=critical), story("b"), story("c"))
    life.start(fail_fast=fail_fast)
    _give_up(life, "a")
    assert life.states() == {"a": "failed", "b": "offered", "c": "offered"}


def test_a_critical_merge_that_is_refused_for_good_stops_the_wave_too() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.start(attempts=1)
    life.succeed("a")
    life.refuse("a", Cause.CHECKS)
    assert life.states() == {"a": "failed", "b": "stopping"}


def test_fail_fast_stops_no_other_epic() -> None:
    life = Life(story("a", critical=True))
    life.plan(story("x"), epic="f")
    life.start()
    life.start(epic="f")
    _give_up(life, "a")
    assert life.states("f") == {"x": "offered"}


def test_a_refused_merge_in_a_draining_wave_is_put_back_not_started_again() -> None:
    life = Life(story("a", critical=True, minutes=9), story("b"))
    life.start()
    life.succeed("b")
    _give_up(life, "a")
    life.refuse("b")
    assert life.states() == {"a": "failed", "b": "pending"}
    assert life.wave.state is WaveState.FINISHED


def test_a_merge_that_the_world_fails_stays_in_the_queue_while_the_wave_drains() -> None:
    life = Life(story("a", critical=True, minutes=9), story("b"))
    life.start()
    life.succeed("b")
    _give_up(life, "a")
    life.refuse("b", Cause.FAULT)
    assert (life.states()["b"], life.wave.state, life.merges()) == ("merging", WaveState.DRAINING, [])
    life.tick_to_wake()
    life.merge("b")
    assert life.wave.state is WaveState.FINISHED


def test_a_merge_that_the_world_fails_too_often_fails_and_no_agent_is_paid_for_it_again() -> None:
    life = Life(story("a"))
    life.start()
    life.succeed("a")
    for _ in range(MERGE_TRIES - 1):
        life.refuse("a", Cause.FAULT)
        assert life.states() == {"a": "merging"}
        life.tick_to_wake()
    life.refuse("a", Cause.FAULT)
    assert (life.states(), life.of("a").attempt) == ({"a": "failed"}, 1)
    assert life.of("a").budget > 1


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_epic_stops_what_lives_and_starts_nothing_more() -> None:
    life = Life(story("a"), story("b"), story("c"), story("d", "a"))
    life.start()
    life.claim("a")
    life.succeed("b")
    life.cancel(reason="wrong plan")
    assert life.states() == {"a": "stopping", "b": "stopping", "c": "stopping", "d": "cancelled"}
    assert (life.wave.state, life.agents(), life.merges()) == (WaveState.DRAINING, [], [])
    life.stopped("a", "b", "c", saved="refs/saved")
    assert set(life.states().values()) == {"cancelled"}
    assert life.wave.state is WaveState.FINISHED


def test_a_merge_that_landed_before_the_cancel_came_counts_as_merged() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.succeed("a")
    life.cancel()
    life.merge("a")
    assert (life.states(), life.of("a").stop_reason) == ({"a": "merged", "b": "cancelled"}, "")


def test_a_cancelled_story_frees_its_slot_only_when_it_is_gone() -> None:
    life = Life(story("a"), story("b"))
    life.start(slots=1)
    life.claim("a")
    life.cancel("a")
    assert life.states() == {"a": "stopping", "b": "queued"}
    life.stopped("a")
    assert life.states() == {"a": "cancelled", "b": "offered"}


def test_the_dependents_of_a_cancelled_story_leave_the_queue() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "b"))
    life.start()
    life.cancel("a")
    assert life.states() == {"a": "stopping", "b": "queued", "c": "queued"}
    life.stopped("a")
    assert life.states() == {"a": "cancelled", "b": "pending", "c": "pending"}
    assert life.wave.state is WaveState.FINISHED


def test_a_cancelled_epic_goes_on_with_retry() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.cancel()
    life.stopped("a")
    life.start(retry=True)
    assert (life.states(), life.epic.cancelled) == ({"a": "offered", "b": "queued"}, None)
    life.merge("a", "b")
    assert life.wave.state is WaveState.FINISHED


# --- interruption ----------------------------------------------------------------------------------------------------


def test_an_interrupted_wave_goes_on_and_repeats_nothing_that_is_merged() -> None:
    life = Life(story("a"), story("b"), story("c", "a"))
    life.start()
    life.merge("a")
    life.claim("b")
    life.interrupt(("b", "refs/saved-b"))
    assert life.states() == {"a": "merged", "b": "pending", "c": "pending"}
    failure = life.of("b").failure
    assert failure is not None
    assert (failure.saved_ref, failure.attempt, failure.cause) == ("refs/saved-b", 1, Cause.STOPPED)
    life.start()
    assert life.states() == {"a": "merged", "b": "offered", "c": "offered"}
    assert (life.of("b").attempt, life.of("b").budget) == (2, 3)


def test_a_merge_that_was_interrupted_goes_on_by_itself() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.succeed("a")
    life.interrupt()
    assert life.merges() == ["a"]
    life.merge("a")
    assert life.states() == {"a": "merged", "b": "pending"}


@pytest.mark.parametrize("cause", [Cause.CONFLICT, Cause.CHECKS])
def test_a_left_over_merge_belongs_to_the_next_wave_and_is_tried_again_in_it(cause: Cause) -> None:
    life = Life(story("a"), story("b"), story("c", "a"))
    life.start()
    life.succeed("a")
    life.interrupt()
    life.start()
    assert life.wave.members == {"a", "b", "c"}
    life.refuse("a", cause)
    assert life.states() == {"a": "offered", "b": "offered", "c": "queued"}


def test_a_left_over_merge_that_is_refused_between_waves_is_put_back() -> None:
    life = Life(story("a"))
    life.start()
    life.succeed("a")
    life.interrupt()
    life.refuse("a", saved="refs/a")
    assert (life.states(), life.wave.state) == ({"a": "pending"}, WaveState.FINISHED)


def test_a_cancelled_attempt_that_was_interrupted_stays_cancelled_with_its_reason() -> None:
    life = Life(story("a"), story("b"))
    life.start()
    life.claim("a")
    life.cancel("a", reason="too slow")
    life.interrupt(("a", "refs/a"))
    assert (life.states(), life.of("a").stop_reason) == ({"a": "cancelled", "b": "pending"}, "too slow")
