"""A wave whose engine is gone and whose work goes on: who is adopted, who starts again, at what cost, and who stops."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.core.events import WaveInterrupted
from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause, Process, StoryState, WaveState
from mcp_server.core.wanted import next_wake_s
from mcp_server.core.why import why
from tests.core.build import Life, replayed, story


def _at_work(*names: str, **policy: Any) -> Life:
    """Stories side by side, all of them at work."""
    life = Life(*(story(name) for name in names))
    life.start(**dict[str, Any]({"slots": len(names), **policy}))
    life.claim(*names)
    return life


def _why(life: Life, name: str) -> str:
    return why(life.ledger, life.epic, life.of(name))


def test_an_adopted_agent_works_on_in_its_attempt_and_the_status_says_so() -> None:
    life = _at_work("a", "b")
    life.tick(10.0)
    life.interrupt(goes_on=True, adopted=("a",))
    a = life.of("a")
    assert (str(a.state), a.attempt, a.process, a.adopted) == ("running", 1, Process(7, 1.5), True)
    assert a.since_s == 0.0, "its limits count from its own start"
    assert "outlived the engine" in _why(life, "a")
    assert life.wave.state is WaveState.RUNNING
    assert life.agents() == ["a"]
    life.succeed("a")
    assert life.merges() == ["a"]


def test_an_agent_that_was_not_adopted_starts_again_after_a_wait_and_no_attempt_is_lost() -> None:
    life = _at_work("a", attempts=1)
    life.interrupt(("a", "refs/a"), goes_on=True)
    a = life.of("a")
    assert (str(a.state), a.process, a.attempt, a.budget) == ("queued", None, 1, 2)
    assert a.failure is not None
    assert (a.failure.cause, a.failure.saved_ref) == (Cause.STOPPED, "refs/a")
    assert 0.0 < a.not_before_s - life.now_s <= 2.0
    assert "the engine that ran it ended" in _why(life, "a")
    life.tick_to_wake()
    assert (life.states(), life.of("a").attempt) == ({"a": "offered"}, 2)
    life.fail("a")
    assert life.states() == {"a": "failed"}, "one attempt of its own is all it had"


def test_nothing_is_admitted_by_the_end_of_an_engine_itself() -> None:
    """Where one closes there is none to start anything; who waits for a slot waits for the next engine, too."""
    life = Life(story("a"), story("b"))
    life.start(slots=1)
    life.claim("a")
    life.interrupt(goes_on=True)
    assert life.states() == {"a": "queued", "b": "queued"}
    assert next_wake_s(life.ledger) is not None
    life.tick(3.0)
    assert "offered" in life.states().values()


def test_a_story_that_backs_off_longer_keeps_its_own_time() -> None:
    life = Life(story("a"), story("b"))
    life.start(breaker_faults=0)
    for _ in range(4):
        life.fail("a", Cause.FAULT)
        life.tick_to_wake()
    life.fail("a", Cause.FAULT)
    life.claim("b")
    before_s = life.of("a").not_before_s
    life.interrupt(goes_on=True)
    assert life.of("a").not_before_s == before_s > life.of("b").not_before_s


@pytest.mark.parametrize("fault_tries", [0, 3])
def test_an_engine_that_ends_again_and_again_starts_agents_only_so_often(fault_tries: int) -> None:
    """`fault_tries` times for nothing, then at the price of an attempt; then the story waits for the lead."""
    life = Life(story("a"), story("b", "a"))
    life.start(attempts=2, fault_tries=fault_tries)
    for number in range(1, fault_tries + 2):
        life.claim("a")
        life.interrupt(goes_on=True)
        assert (life.states()["a"], life.of("a").attempt) == ("queued", number)
        life.tick(20.0)
    life.claim("a")
    life.interrupt(("a", "refs/a"), goes_on=True)
    assert life.states() == {"a": "pending", "b": "pending"}
    assert life.wave.state is WaveState.FINISHED
    assert life.of("a").process is None
    life.start()
    assert life.states() == {"a": "offered", "b": "queued"}


def test_what_was_told_to_stop_has_stopped_and_is_not_adopted() -> None:
    life = _at_work("a", "b")
    life.cancel("a", reason="too slow")
    life.interrupt(("a", "refs/a"), goes_on=True, adopted=("a", "b"))
    a = life.of("a")
    assert (life.states(), a.process, a.stop_reason) == ({"a": "cancelled", "b": "running"}, None, "too slow")


def test_a_critical_story_that_had_spent_its_budget_stops_its_siblings_though_nobody_saw_it_end() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.start(budget=Budget(story_usd=1.0))
    life.claim("a", "b")
    life.use("a", 1.0)
    life.interrupt(goes_on=True, adopted=("b",))
    assert life.states() == {"a": "failed", "b": "stopping"}
    assert life.wave.state is WaveState.DRAINING


def test_a_draining_wave_starts_nothing_again_and_ends_with_those_who_were_adopted() -> None:
    life = _at_work("a", "b")
    life.drain()
    life.interrupt(goes_on=True, adopted=("b",))
    assert (life.states(), life.wave.state) == ({"a": "pending", "b": "running"}, WaveState.DRAINING)
    life.merge("b")
    assert life.wave.state is WaveState.FINISHED


def test_the_merge_queue_goes_on() -> None:
    life = _at_work("a", "b")
    life.succeed("a")
    life.interrupt(goes_on=True)
    assert (life.states(), life.merges()) == ({"a": "merging", "b": "queued"}, ["a"])


def test_the_time_of_a_wave_runs_out_without_its_engine_and_stops_whom_it_would_adopt() -> None:
    life = _at_work("a", epic_timeout_s=60.0)
    life.submit(WaveInterrupted("e", (), 100.0, goes_on=True, adopted=("a",)))
    assert (life.states(), life.of("a").process) == ({"a": "stopping"}, Process(7, 1.5))
    assert life.wave.state is WaveState.DRAINING


def test_an_offer_that_nobody_had_claimed_is_made_again() -> None:
    life = Life(story("a"))
    life.start()
    life.interrupt(goes_on=True)
    a = life.of("a")
    assert (str(a.state), a.failure, a.attempt, a.budget) == ("queued", None, 1, 3)


def test_the_next_attempt_was_not_adopted() -> None:
    life = _at_work("a")
    life.interrupt(goes_on=True, adopted=("a",))
    life.fail("a")
    life.claim("a")
    assert (life.of("a").adopted, _why(life, "a")) == (False, "")


def test_replay_makes_the_same_of_it() -> None:
    life = _at_work("a", "b", "c")
    life.cancel("c")
    life.interrupt(("b", "refs/b"), goes_on=True, adopted=("a",))
    life.tick(5.0)
    assert replayed(life.log) == life.ledger


def test_an_old_journals_interruption_ends_the_wave_as_it_did() -> None:
    fact = WaveInterrupted("e", (), 1.0)
    assert (fact.goes_on, fact.adopted) == (False, ())
    life = _at_work("a")
    life.submit(fact)
    assert (life.states(), life.of("a").state) == ({"a": "pending"}, StoryState.PENDING)
