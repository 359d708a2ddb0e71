"""A sub-agent asks a human: its story is parked, the answer goes into the next brief. And notes for any story."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcp_server.core.brief import brief
from mcp_server.core.commands import RenewLease
from mcp_server.core.events import WaveStarted, WaveWidened
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Cause, WaveState
from mcp_server.core.views import epic_state, question, ready, shown_state
from mcp_server.core.why import why
from mcp_server.errors import Code, Refused
from tests.core.build import Life, story
from tests.core.in_state import IN_STATE


def _refused(ask: Callable[[], None]) -> Refused:
    with pytest.raises(Refused) as caught:
        ask()
    return caught.value


def _brief(life: Life, name: str = "a") -> str:
    return brief(life.epic, life.of(name), life.attempt(name), ())


def _why(life: Life, name: str) -> str:
    return why(life.ledger, life.epic, life.of(name))


def _asked(*others: Any, **policy: Any) -> Life:
    """`a` asks."""
    life = Life(story("a", minutes=99), *others)
    life.team(**policy)
    life.lease("a")
    life.ask("a", "Which colour?")
    return life


def test_a_question_parks_its_story_and_frees_its_slot_and_files() -> None:
    life = _asked(story("b", "a"), story("c", files="x"), slots=1)
    assert life.states() == {"a": "pending", "b": "pending", "c": "offered"}
    assert (question(life.of("a")), _why(life, "a")) == (
        "Which colour?",
        "It asks: Which colour? Answer with start_wave(epic='e', notes={'a': 'ANSWER'}).",
    )
    assert [shown_state(life.epic, life.of(n)) for n in "ab"] == ["blocked", "blocked"]
    assert _why(life, "b").startswith("Blocked by a (asks a question).")
    life.merge("c")
    assert (life.wave.state, epic_state(life.ledger, life.epic), ready(life.epic)) == (
        WaveState.FINISHED,
        "blocked",
        [],
    )


def test_a_plain_start_does_not_ask_again() -> None:
    refused = _refused(_asked(story("b", "a")).team)
    assert (refused.code, refused.why) == (Code.NOTHING_READY, "No pending story of 'e' can start (a asks).")
    assert "a question is answered with notes" in refused.remedy


def test_a_plain_start_takes_the_others_and_not_what_waits_for_the_answer() -> None:
    life = _asked()
    life.plan(story("a"), story("b", "a"), story("c"))
    life.team()
    assert (life.wave.members, life.states()) == ({"c"}, {"a": "pending", "b": "pending", "c": "offered"})


def test_an_answer_starts_the_story_and_reaches_its_brief() -> None:
    life = _asked(story("b", "a"))
    life.team(notes={"a": "Red, like the door."})
    assert isinstance(event := life.log[-1], WaveStarted)
    assert (event.members, event.retried, event.notes) == (("a", "b"), ("a",), (("a", "Red, like the door."),))
    assert (life.states(), life.of("a").attempt) == ({"a": "offered", "b": "queued"}, 2)
    text = _brief(life)
    assert "Attempt 1 asked: Which colour?" in text
    assert "## What the lead says\n\nRed, like the door." in text


def test_an_answer_widens_a_living_wave() -> None:
    life = _asked(story("c"))
    life.team(notes={"a": "Red."})
    assert isinstance(life.log[-1], WaveWidened)
    assert (life.states(), "Red." in _brief(life)) == ({"a": "offered", "c": "offered"}, True)


def test_a_retry_starts_the_story_without_an_answer() -> None:
    life = _asked(attempts=1)
    life.team(retry=True)
    assert (life.states(), life.of("a").attempt, life.of("a").budget) == ({"a": "offered"}, 2, 3)
    assert "What the lead says" not in _brief(life)


@pytest.mark.parametrize("again", [{"notes": {"a": "Red."}}, {"retry": True}])
def test_a_question_that_was_answered_is_not_asked_again_when_its_wave_ends_early(again: dict[str, Any]) -> None:
    life = _asked(story("c", critical=True, minutes=20), story("d", minutes=15), slots=2, attempts=1)
    life.lease("c", "d")
    life.team(**again)
    assert life.states() == {"a": "queued", "c": "running", "d": "running"}
    life.end("c")
    life.collect("c")
    life.stopped("d")
    assert (life.wave.state, life.states()["a"]) == (WaveState.FINISHED, "pending")
    assert (question(life.of("a")), shown_state(life.epic, life.of("a"))) == ("", "ready")
    life.team()
    assert (life.states()["a"], "Red." in _brief(life)) == ("offered", "notes" in again)
    assert "Attempt 1 asked: Which colour?" in _brief(life)


def test_the_next_question_is_open_again() -> None:
    life = _asked()
    life.team(notes={"a": "Red."})
    life.lease("a")
    life.ask("a", "Which red?")
    assert (question(life.of("a")), life.states()) == ("Which red?", {"a": "pending"})
    life.team(notes={"a": "Cherry."})
    assert ("Cherry." in (text := _brief(life)), "Red." in text) == (True, False)


def test_a_question_in_the_last_attempt_of_a_critical_story_fails_nothing() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.team(attempts=1)
    life.lease("a", "b")
    life.ask("a")
    assert (life.states(), life.wave.state) == ({"a": "pending", "b": "running"}, WaveState.RUNNING)


def test_a_story_that_was_put_back_for_any_other_reason_asks_nothing() -> None:
    life = Life(story("a"))
    life.start()
    life.claim("a")
    life.interrupt(("a", "refs/saved"))
    assert (life.states(), question(life.of("a")), ready(life.epic)) == ({"a": "pending"}, "", ["a"])


def test_a_story_that_asks_can_be_cancelled() -> None:
    life = _asked()
    life.cancel("a")
    assert (life.states(), question(life.of("a"))) == ({"a": "cancelled"}, "")


def test_a_question_of_an_attempt_that_was_told_to_stop_is_not_asked() -> None:
    life = IN_STATE["leased"]()
    life.end("a", Cause.QUESTION, "Which?")
    life.cancel("a")
    life.fail("a", Cause.QUESTION)
    assert (life.states(), question(life.of("a"))) == ({"a": "cancelled"}, "")


# --- notes -----------------------------------------------------------------------------------------------------------


def test_notes_reach_the_briefs_of_their_stories_only_and_of_every_later_attempt() -> None:
    life = Life(story("a"), story("b"))
    life.team(notes={"a": "Mind the gap."})
    assert ("Mind the gap." in _brief(life), "What the lead says" in _brief(life, "b")) == (True, False)
    life.lease("a")
    life.end("a")
    life.collect("a")
    assert (life.of("a").attempt, "Mind the gap." in _brief(life)) == (2, True)


def test_notes_reach_an_agent_of_any_strategy() -> None:
    life = Life(story("a"))
    life.team(notes={"a": "Mind the gap."}, strategy=Strategy.ASYNCIO)
    assert (life.agents(), "Mind the gap." in _brief(life)) == (["a"], True)


@pytest.mark.parametrize(
    ("through", "notes", "why"),
    [
        ("ready", {"b": "Hm."}, "The notes for b would reach nobody: this call starts a, c."),
        (1, {"a": "Fine.", "b": "Hm."}, "The notes for b would reach nobody: this call starts a, c."),
    ],
)
def test_notes_for_what_the_call_does_not_start_are_refused(through: Any, notes: dict[str, str], why: str) -> None:
    life = Life(story("a"), story("b", "a"), story("c"))
    before = life.ledger
    refused = _refused(lambda: life.team(through, notes=notes))
    assert (refused.code, refused.why, life.ledger is before) == (Code.BAD_ARGUMENT, why, True)
    assert "that the call starts" in refused.remedy


def test_notes_for_a_story_that_runs_are_refused() -> None:
    life = Life(story("a"), story("b", "a"))
    life.team("ready")
    refused = _refused(lambda: life.team(notes={"a": "Hm."}))
    assert (refused.code, refused.why) == (
        Code.BAD_ARGUMENT,
        "The notes for a would reach nobody: this call starts b.",
    )


def test_notes_for_a_story_that_does_not_exist_are_refused_with_those_that_do() -> None:
    refused = _refused(lambda: Life(story("a")).team(notes={"zz": "Hm."}))
    assert (refused.code, "Use one of: a." in refused.remedy) == (Code.UNKNOWN_STORY, True)


def test_a_note_for_a_failed_story_does_not_start_it_without_retry() -> None:
    life = IN_STATE["failed"]()
    assert _refused(lambda: life.team(notes={"a": "Try again."})).code is Code.NOTHING_READY
    life.team(notes={"a": "Try again."}, retry=True)
    assert "Try again." in _brief(life)


def test_who_asks_a_human_may_be_silent_for_as_long_as_that_takes_and_no_shorter_than_ever() -> None:
    life = Life(story("a"))
    life.team(lease_s=60.0, attempt_timeout_s=150.0)
    life.lease("a")
    lasts_s: list[float] = []
    for for_s in (None, 5.0, 900.0):
        life.command(RenewLease(life.attempt("a"), "t1", "asks: Which colour?", for_s))
        lease = life.of("a").lease
        assert lease is not None
        lasts_s.append(lease.until_s)
    assert lasts_s == [60.0, 60.0, 900.0]
