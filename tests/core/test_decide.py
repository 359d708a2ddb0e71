"""What a lead may ask for and when: each refusal has its code and names a next move, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mcp_server.core.commands import StartWave, Through
from mcp_server.core.events import WaveStarted, WaveWidened
from mcp_server.core.limits import Strategy
from mcp_server.errors import Code, Refused
from tests.core.build import PARALLEL, Life, story
from tests.core.in_state import IN_STATE


def _refused(life: Life, ask: Callable[[], None]) -> Refused:
    """The refusal, which has words, a next move, and no effect."""
    before = life.ledger
    with pytest.raises(Refused) as caught:
        ask()
    assert life.ledger is before
    assert caught.value.why.endswith((".", ")."))
    assert len(caught.value.remedy.split()) > 2
    return caught.value


IN_FLIGHT = (
    *("queued", "offered", "running", "stopping", "stopping_merge", "merging"),
    *("offered_team", "leased", "silent", "leased_ended", "merging_leased", "repairing", "stopping_leased"),
)


def _chain() -> Life:
    return Life(story("a"), story("b", "a"), story("c", "b"), story("d"))


def test_an_epic_that_was_never_planned_is_refused_with_the_known_ones() -> None:
    life = _chain()
    for ask in (lambda: life.start(epic="x"), lambda: life.cancel(epic="x"), lambda: life.cancel("x/a")):
        refused = _refused(life, ask)
        assert (refused.code, "'e'" in refused.why, "plan_epic" in refused.remedy) == (Code.UNKNOWN_EPIC, True, True)
    assert "none yet" in _refused(empty := Life(), lambda: empty.start(epic="x")).why


def test_an_unknown_story_is_refused_with_those_that_exist() -> None:
    life = _chain()
    refused = _refused(life, lambda: life.cancel("e/zz"))
    assert refused.code is Code.UNKNOWN_STORY
    assert "a, b, c, d" in refused.remedy


def test_another_epic_may_not_take_the_id_of_one() -> None:
    life = Life()
    life.plan(story("a"), source="/one.yaml")
    refused = _refused(life, lambda: life.plan(story("z"), source="/two.yaml"))
    assert refused.code is Code.EPIC_EXISTS
    assert ("/one.yaml" in refused.why, "id:" in refused.remedy) == (True, True)


def test_a_file_that_was_moved_is_the_same_epic() -> None:
    life = Life()
    life.plan(story("a"), source="/one.yaml")
    life.plan(story("a"), story("b"), source="/two.yaml")
    assert (life.epic.spec.source, life.states()) == ("/two.yaml", {"a": "pending", "b": "pending"})


@pytest.mark.parametrize("before", IN_FLIGHT)
def test_an_epic_with_work_in_flight_is_not_planned_again(before: str) -> None:
    life = IN_STATE[before]()
    refused = _refused(life, lambda: life.plan(story("a")))
    assert refused.code is Code.EPIC_BUSY
    assert "cancel_epic" in refused.remedy


def test_an_epic_whose_merge_outlived_its_engine_is_not_planned_again() -> None:
    life = IN_STATE["merging"]()
    life.interrupt()
    refused = _refused(life, lambda: life.plan(story("a")))
    assert (refused.code, "(a)" in refused.why) == (Code.EPIC_BUSY, True)


THROUGH = [
    ("ready", {"a", "d"}),
    (1, {"a", "d"}),
    (2, {"a", "b", "d"}),
    (3, {"a", "b", "c", "d"}),
    ("all", {"a", "b", "c", "d"}),
]


@pytest.mark.parametrize(("through", "members"), THROUGH)
def test_through_says_how_far_a_wave_goes(through: Through, members: set[str]) -> None:
    life = _chain()
    life.start(through)
    assert life.wave.members == members


def test_the_ready_set_leaves_out_what_waits_for_an_unmerged_story() -> None:
    life = _chain()
    life.start("ready")
    life.merge("a", "d")
    life.start("ready")
    assert life.wave.members == {"b"}


def test_a_level_beyond_which_nothing_lies_is_refused() -> None:
    refused = _refused(life := _chain(), lambda: life.start(0))
    assert refused.code is Code.NOTHING_READY
    assert "through=0" in refused.why


def test_a_merged_epic_has_nothing_left_to_start() -> None:
    refused = _refused(life := IN_STATE["merged"](), life.start)
    assert (refused.code, refused.why) == (Code.NOTHING_READY, "All 1 stories of 'e' are merged.")


def test_an_epic_of_marked_stories_is_refused_with_the_way_to_run_them() -> None:
    life = Life(story("a", done=True))
    refused = _refused(life, life.start)
    assert (refused.code, "redo" in refused.remedy, "1 by their mark" in refused.why) == (
        Code.NOTHING_READY,
        True,
        True,
    )


@pytest.mark.parametrize("before", [s for s in IN_FLIGHT if s != "stopping_merge"])
def test_what_is_in_flight_already_is_not_started_again(before: str) -> None:
    refused = _refused(life := IN_STATE[before](), life.start)
    assert (refused.code, "(a in flight)" in refused.why) == (Code.NOTHING_READY, True)
    assert "story_status" in refused.remedy


@pytest.mark.parametrize("before", ["failed", "cancelled"])
def test_what_ended_badly_is_started_again_only_when_asked_to(before: str) -> None:
    refused = _refused(life := IN_STATE[before](), life.start)
    assert (refused.code, f"a {before}" in refused.why) == (Code.NOTHING_READY, True)
    assert "retry=true" in refused.remedy


@pytest.mark.parametrize("through", ["ready", "all", 3])
def test_a_wave_of_blocked_stories_only_is_refused_and_names_what_blocks_them(through: Through) -> None:
    """Such a wave would end in the moment it starts, and the lead would wait for nothing."""
    life = _chain()
    life.cancel("a")
    life.cancel("d")
    refused = _refused(life, lambda: life.start(through))
    assert (refused.code, "a cancelled" in refused.why, "retry=true" in refused.remedy) == (
        Code.NOTHING_READY,
        True,
        True,
    )


def test_a_wave_takes_no_story_that_it_can_never_start() -> None:
    life = _chain()
    life.cancel("a")
    life.start("all")
    assert life.wave.members == {"d"}


def test_a_living_wave_is_widened_without_new_settings() -> None:
    life = _chain()
    life.start("ready")
    event = life.command(StartWave("e", "all", replace(PARALLEL, slots=1), "base", named=False))
    assert isinstance(event, WaveWidened)
    assert (life.wave.number, life.wave.members, life.wave.policy.slots) == (1, {"a", "b", "c", "d"}, 2)


def test_a_living_wave_is_widened_when_the_same_settings_are_named() -> None:
    life = _chain()
    life.start("ready", slots=2)
    life.start("all", slots=2)
    assert (life.wave.number, life.wave.members) == (1, {"a", "b", "c", "d"})


def test_other_settings_for_a_living_wave_are_refused_not_dropped() -> None:
    life = _chain()
    life.start("ready", slots=2)
    refused = _refused(life, lambda: life.start("all", slots=1, strategy=Strategy.SEQUENTIAL))
    assert (refused.code, "2 slots" in refused.why, "Leave" in refused.remedy) == (Code.EPIC_BUSY, True, True)


def test_a_wave_that_is_coming_to_its_end_takes_no_more() -> None:
    life = _chain()
    life.start(1, slots=2)
    life.claim("a")
    life.cancel("d")
    life.cancel()
    refused = _refused(life, lambda: life.start("all", retry=True))
    assert (refused.code, "cancelled" in refused.why, "wait_s" in refused.remedy) == (Code.EPIC_BUSY, True, True)


def test_a_retry_gives_new_attempts_beyond_those_used_up() -> None:
    life = IN_STATE["failed"]()
    event = life.command(StartWave("e", "all", PARALLEL, "base", retry=True))
    assert isinstance(event, WaveStarted)
    assert (event.retried, life.of("a").attempt, life.of("a").budget) == (("a",), 3, 4)


def test_a_retry_within_a_living_wave_takes_the_failed_one_in_again() -> None:
    life = Life(story("a"), story("b", "a"), story("c"))
    life.start()
    life.fail("a")
    life.fail("a")
    assert life.states() == {"a": "failed", "b": "pending", "c": "offered"}
    life.start(retry=True)
    assert life.states() == {"a": "offered", "b": "queued", "c": "offered"}
    assert life.wave.number == 1


def test_cancelling_an_epic_that_is_over_says_how_it_ended() -> None:
    life = Life(story("a"), story("b"))
    life.start()
    life.merge("a")
    life.cancel("b")
    life.stopped("b")
    refused = _refused(life, life.cancel)
    assert (refused.code, "cancelled, merged" in refused.why) == (Code.TOO_LATE, True)


def test_a_merge_is_not_cancelled_story_by_story() -> None:
    refused = _refused(life := IN_STATE["merging"](), lambda: life.cancel("a"))
    assert (refused.code, "comes to its end by itself" in refused.remedy) == (Code.TOO_LATE, True)
