"""How long an epic still takes: a guess from what has finished, that says so, and none where nothing is known."""

from __future__ import annotations

import pytest

from mcp_server.core.commands import PauseEpic
from mcp_server.core.forecast import OVERDUE, Forecast, Times, forecast
from mcp_server.core.model import Cause
from mcp_server.core.spec import StorySpec
from tests.core.build import EPIC, Life, story


def _life(*specs: StorySpec, slots: int = 2) -> Life:
    life = Life(*specs)
    life.start(slots=slots)
    return life


def _merged(life: Life, name: str, seconds: float) -> None:
    """The story's agent works for so long, and its merge takes no time."""
    life.claim(name)
    life.tick(seconds)
    life.succeed(name)
    life.merge(name)


def _guess(life: Life) -> Forecast | None:
    times = Times()
    for event in life.log:
        times.note(event)
    return forecast(life.ledger, life.ledger.epics[EPIC], times, life.now_s)


def _left_s(life: Life) -> float:
    guess = _guess(life)
    assert guess is not None
    return guess.left_s


def test_before_anything_has_finished_nothing_is_known() -> None:
    life = _life(story("a"), story("b", "a"))
    assert _guess(life) is None
    life.claim("a")
    life.tick(1000.0)
    assert _guess(life) is None, "an agent that works for long says nothing of the others"


def test_one_finished_story_tells_of_those_that_wait_for_it() -> None:
    life = _life(story("a"), story("b", "a"), story("c", "b"))
    _merged(life, "a", 60.0)
    guess = _guess(life)
    assert guess == Forecast(120.0, 1)
    assert str(guess) == "about 2 min left, from 1 finished story"


def test_stories_side_by_side_take_the_time_of_one_and_more_than_slots_take_turns() -> None:
    waiting = [story(name, "a") for name in "bcdef"]
    wide, narrow = _life(story("a"), *waiting, slots=5), _life(story("a"), *waiting, slots=2)
    for life in (wide, narrow):
        _merged(life, "a", 60.0)
    assert (_left_s(wide), _left_s(narrow)) == (60.0, 180.0)


def test_the_longest_chain_counts_however_many_slots_are_free() -> None:
    life = _life(story("a"), story("b", "a"), story("c", "b"), story("d", "a"), slots=9)
    _merged(life, "a", 60.0)
    assert _left_s(life) == 120.0


def test_a_planned_minute_has_its_pace_and_a_long_story_is_expected_to_be_long() -> None:
    life = _life(story("a", minutes=10), story("b", "a", minutes=30))
    _merged(life, "a", 60.0)
    assert _left_s(life) == 180.0


def test_the_median_is_not_led_astray_by_one_story_that_took_for_ever() -> None:
    life = _life(*(story(name) for name in "abc"), story("d", "a", "b", "c"), slots=1)
    for name, seconds in (("a", 60.0), ("b", 9000.0), ("c", 80.0)):
        _merged(life, name, seconds)
    guess = _guess(life)
    assert guess == Forecast(80.0, 3)


def test_what_a_running_story_has_done_already_is_taken_off_and_an_overdue_one_is_never_called_done() -> None:
    life = _life(story("a"), story("b", "a"))
    _merged(life, "a", 100.0)
    life.claim("b")
    life.tick(30.0)
    assert _left_s(life) == 70.0
    life.tick(5000.0)
    assert _left_s(life) == 100.0 * OVERDUE


def test_a_story_in_the_merge_queue_frees_its_slot_and_keeps_those_behind_it_waiting() -> None:
    life = _life(story("a"), story("b", "a"), story("c", "a"), story("d", "b"), slots=1)
    _merged(life, "a", 100.0)
    life.claim("b")
    life.tick(90.0)
    life.succeed("b")
    # b is merged 25 s from now at the earliest guess; c and d take turns in the one slot
    assert _left_s(life) == 200.0


def test_failed_attempts_are_no_measure() -> None:
    life = _life(story("a"), story("b"), slots=1)
    life.claim("a")
    life.tick(500.0)
    life.fail("a", Cause.AGENT_FAILED)
    assert _guess(life) is None


def test_what_is_blocked_or_not_in_the_wave_is_not_waited_for() -> None:
    life = Life(story("a"), story("b"), story("c", "b"), story("d"))
    life.start(1)
    _merged(life, "a", 60.0)
    _merged(life, "b", 60.0)
    assert _left_s(life) == 60.0, "d alone; c is not in the wave"
    _merged(life, "d", 60.0)
    assert _guess(life) is None, "and now the wave is over"


def test_who_builds_on_two_waits_for_both_and_who_is_not_in_the_wave_for_nobody() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "a"), story("d", "b", "c"), story("later", "d"))
    life.start(3)
    _merged(life, "a", 60.0)
    assert _left_s(life) == 120.0, "b beside c, then d"


def test_a_paused_epic_has_no_end_in_sight() -> None:
    life = _life(story("a"), story("b", "a"))
    _merged(life, "a", 60.0)
    life.command(PauseEpic(EPIC, "lunch"))
    assert _guess(life) is None


def test_slots_that_another_epic_takes_are_not_counted_on() -> None:
    life = Life(story("a"), *(story(name, "a") for name in "bcde"))
    life.plan(story("x"), epic="f")
    life.start(slots=2)
    _merged(life, "a", 60.0)
    assert _left_s(life) == 120.0
    other = Life(story("a"), *(story(name, "a") for name in "bcde"))
    other.plan(story("x"), epic="f")
    other.start(slots=2, epic="f")
    other.claim("f/x")
    other.start(slots=2)
    _merged(other, "a", 60.0)
    assert _left_s(other) == 240.0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "about 10 s"),
        (44, "about 40 s"),
        (90, "about 2 min"),
        (700, "about 12 min"),
        (3600, "about 1 h"),
        (7800, "about 2 h 10 min"),
    ],
)
def test_it_sounds_no_more_exact_than_a_guess_is(seconds: float, said: str) -> None:
    assert str(Forecast(seconds, 5)) == f"{said} left, from 5 finished stories"
