"""Pause, resume, drain, retry, skip: what a lead says on the way, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcp_server.core.leases import claimable
from mcp_server.core.model import Cause
from mcp_server.core.views import epic_state, is_at_rest, ready
from mcp_server.core.why import alerts, why
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story
from tests.core.in_state import IN_STATE


def _life(**policy: Any) -> Life:
    """`b` builds on `a`; `c` stands alone."""
    life = Life(story("a"), story("b", "a"), story("c"))
    life.start(**dict[str, Any]({"slots": 2, "attempts": 1, **policy}))
    return life


def test_a_pause_starts_nothing_more_and_stops_nothing() -> None:
    life = _life()
    life.pause()
    life.merge("a")
    assert life.states() == {"a": "merged", "b": "queued", "c": "offered"}
    life.merge("c")
    assert str(epic_state(life.ledger, life.epic)) == "paused"
    assert is_at_rest(life.ledger, life.epic)
    assert str(life.wave.state) == "running", "the wave lives on"
    assert "paused (lunch)" in why(life.ledger, life.epic, life.of("b"))
    assert alerts(life.ledger, life.epic) == ["The epic is paused (lunch). To go on: resume it."]
    life.resume()
    assert life.states()["b"] == "offered"


def test_a_pause_survives_a_replay_and_is_ended_by_a_start() -> None:
    life = _life()
    life.pause()
    assert replayed(life.log) == life.ledger
    life.interrupt()
    assert life.epic.paused
    life.start()
    assert not life.epic.paused
    assert life.agents() == ["a", "c"]


def test_sub_agents_may_claim_nothing_of_a_paused_epic() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    life.lease("a")
    life.pause()
    assert claimable(life.ledger, life.epic) == []
    assert "paused" in why(life.ledger, life.epic, life.of("b"))
    assert str(epic_state(life.ledger, life.epic)) == "active"
    life.merge("a")
    assert str(epic_state(life.ledger, life.epic)) == "paused"


def test_another_epic_waits_for_the_offers_of_a_paused_one() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    life.plan(story("x"), epic="f")
    life.start(epic="f", slots=2)
    life.pause()
    assert life.states("f") == {"x": "queued"}
    assert life.agents() == []


@pytest.mark.parametrize("say", [Life.pause, Life.drain])
def test_only_a_living_wave_is_paused_or_drained_and_only_once(say: object) -> None:
    assert callable(say)
    life = Life(story("a"), story("b"))
    with pytest.raises(Refused) as refused:
        say(life)
    assert refused.value.code is Code.TOO_LATE
    life.start()
    say(life)
    with pytest.raises(Refused) as again:
        say(life)
    assert again.value.code is Code.TOO_LATE
    assert "already" in again.value.why


def test_a_drained_wave_admits_nothing_more_and_ends_with_what_is_alive() -> None:
    life = _life(attempts=3)
    life.claim("a", "c")
    life.drain()
    assert life.states() == {"a": "running", "b": "pending", "c": "running"}
    life.fail("a")
    life.merge("c")
    assert life.states() == {"a": "pending", "b": "pending", "c": "merged"}
    assert str(life.wave.state) == "finished"
    assert life.wave.ended_because == "enough for today"
    life.start()
    assert life.agents() == ["a"]


def test_draining_keeps_the_first_reason() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.start(attempts=1)
    life.claim("a", "b")
    life.drain()
    life.fail("a")
    assert life.states() == {"a": "failed", "b": "running"}, "fail_fast is for running waves"
    life.cancel()
    assert life.wave.ended_because == "enough for today"


# --- skip

SKIPPABLE = {"pending", "queued", "failed", "cancelled", "asking", "paused", "parked", "held"}


@pytest.mark.parametrize("before", IN_STATE)
def test_a_story_is_skipped_where_nothing_of_it_is_alive(before: str) -> None:
    life = IN_STATE[before]()
    if before in SKIPPABLE:
        life.skip("a")
        assert life.states() == {"a": "skipped"}
        assert "not worth it" in why(life.ledger, life.epic, life.of("a"))
        assert str(epic_state(life.ledger, life.epic)) == "done"
    else:
        with pytest.raises(Refused) as refused:
            life.skip("a")
        assert refused.value.code is Code.TOO_LATE
        assert str(life.of("a").state) in refused.value.why


def test_what_builds_on_a_skipped_story_does_not_wait() -> None:
    life = _life(slots=1)
    life.fail(life.agents()[0])
    assert life.states() == {"a": "failed", "b": "pending", "c": "offered"}
    life.skip("a")
    assert ready(life.epic) == ["b"]
    life.merge("c")
    life.start()
    assert life.agents() == ["b"]


def test_a_skip_frees_dependents_that_wait_in_the_queue() -> None:
    life = _life()
    life.fail("a", Cause.SPAWN)
    life.skip("a")
    assert life.states() == {"a": "skipped", "b": "offered", "c": "offered"}


def test_a_wave_whose_last_story_is_skipped_ends() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a", Cause.SPAWN)
    life.skip("a")
    assert str(life.wave.state) == "finished"
    with pytest.raises(Refused) as refused:
        life.start(retry=True)
    assert "was skipped (1)" in refused.value.why


# --- retry

RETRYABLE = {"failed", "cancelled", "skipped", "asking"}


@pytest.mark.parametrize("before", IN_STATE)
def test_a_story_that_has_come_to_its_end_is_tried_again_in_the_next_wave(before: str) -> None:
    life = IN_STATE[before]()
    if before in RETRYABLE:
        living = before == "asking" and str(life.wave.state) == "running"
        life.retry("a", note="Mind the gap.")
        assert life.states() == {"a": "offered" if living else "pending"}
        assert life.of("a").advice == "Mind the gap."
        if not living:
            life.start()
        assert life.states() == {"a": "offered"}
    else:
        with pytest.raises(Refused) as refused:
            life.retry("a")
        assert refused.value.code is Code.TOO_LATE


def test_a_retry_goes_into_the_living_wave_with_new_attempts() -> None:
    life = _life(attempts=2)
    life.claim("a")
    life.fail("a")
    life.fail("a")
    assert life.states() == {"a": "failed", "b": "pending", "c": "offered"}
    life.retry("a")
    assert life.states() == {"a": "offered", "b": "pending", "c": "offered"}
    life.fail("a")
    assert (life.states()["a"], life.of("a").attempt) == ("offered", 4)
    assert "a" in life.wave.members


def test_a_retry_while_the_wave_drains_waits_for_the_next() -> None:
    life = _life()
    life.fail("a")
    life.drain()
    life.retry("a")
    assert life.states()["a"] == "pending"


def test_a_retry_behind_a_failed_story_waits() -> None:
    life = Life(story("a"), story("b", "a"), story("c"))
    life.cancel("b")
    life.start(attempts=1)
    life.fail("a")
    life.retry("b")
    assert life.states() == {"a": "failed", "b": "pending", "c": "offered"}


def test_a_skipped_story_is_not_retried_beside_those_that_went_on_without_it() -> None:
    life = Life(story("a"), story("b", "a"))
    life.skip("a")
    life.start()
    assert life.states() == {"a": "skipped", "b": "offered"}
    with pytest.raises(Refused) as refused:
        life.retry("a")
    assert refused.value.code is Code.TOO_LATE
    assert "b went on without story 'a'" in refused.value.why
    life.merge("b")
    life.retry("a")
    life.start()
    assert life.states() == {"a": "offered", "b": "merged"}


def test_dependents_in_the_queue_wait_for_a_skipped_story_that_is_tried_again() -> None:
    life = Life(story("a"), story("b", "a"))
    life.skip("a")
    life.start(slots=1)
    life.fail("b", Cause.SPAWN)
    life.retry("a")
    life.tick(60.0)
    assert life.states() == {"a": "offered", "b": "queued"}


@pytest.mark.parametrize("say", [Life.retry, Life.skip])
def test_a_story_that_is_not_there_is_named(say: Callable[[Life, str], object]) -> None:
    with pytest.raises(Refused) as refused:
        say(Life(story("a")), "zz")
    assert refused.value.code is Code.UNKNOWN_STORY


def test_a_retry_of_a_paused_epic_starts_with_its_resume() -> None:
    life = _life()
    life.fail("a")
    life.pause()
    life.retry("a")
    assert life.states()["a"] == "queued"
    life.resume()
    assert life.states()["a"] == "offered"
