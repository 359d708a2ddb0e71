"""Money and tokens: a hard stop with its own cause, a warning before it, and nothing counted twice."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause, Usage
from mcp_server.core.spending import epic_words, spent, warnings, worth_telling
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story

TWO_USD = Budget(story_usd=2.0)


def _life(*names: str, budget: Budget = TWO_USD, **policy: Any) -> Life:
    life = Life(*(story(n) for n in names or "ab"))
    life.start(**dict[str, Any]({"slots": 2, "attempts": 2, "budget": budget, **policy}))
    return life


def test_a_story_that_has_spent_its_budget_is_stopped_and_fails_with_that_cause() -> None:
    life = _life()
    life.claim("a", "b")
    life.use("a", 1.99)
    assert life.states() == {"a": "running", "b": "running"}
    life.use("a", 2.0)
    assert life.states() == {"a": "stopping", "b": "running"}
    life.stopped("a", saved="refs/saved")
    a = life.of("a")
    assert (str(a.state), a.attempt) == ("failed", 1), "although it had an attempt left"
    assert a.failure is not None
    assert (a.failure.cause, a.failure.saved_ref) == (Cause.BUDGET, "refs/saved")
    assert "2.00 of 2.00 USD" in a.failure.detail


def test_tokens_count_like_money() -> None:
    life = _life(budget=Budget(story_tokens=100))
    life.claim("a")
    life.use("a", tokens=99)
    assert life.states()["a"] == "running"
    life.use("a", tokens=100)
    assert life.states()["a"] == "stopping"


def test_a_critical_one_that_has_spent_its_budget_stops_the_wave() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.start(budget=TWO_USD)
    life.claim("a", "b")
    life.use("a", 2.0)
    life.stopped("a")
    assert life.states() == {"a": "failed", "b": "stopping"}


def test_who_fails_by_itself_while_it_is_stopped_for_its_budget_has_failed_for_that() -> None:
    life = _life()
    life.claim("a")
    life.use("a", 2.0)
    life.fail("a", usd=2.1)
    a = life.of("a")
    assert a.failure is not None
    assert (str(a.state), a.failure.cause) == ("failed", Cause.BUDGET)
    assert "agent_failed" in a.failure.detail
    assert life.epic.used == Usage(2.1)


def test_who_is_cancelled_stays_cancelled_also_beyond_its_budget() -> None:
    life = _life()
    life.claim("a")
    life.cancel("a")
    life.fail("a", usd=3.0)
    assert life.states()["a"] == "cancelled"


def test_a_failure_that_says_that_all_is_spent_is_not_tried_again() -> None:
    life = _life()
    life.claim("a")
    life.fail("a", usd=2.0)
    a = life.of("a")
    assert a.failure is not None
    assert (str(a.state), a.failure.cause) == ("failed", Cause.BUDGET)


def test_a_success_that_says_that_all_is_spent_is_merged() -> None:
    life = _life(budget=Budget(story_usd=0.5))
    life.claim("a")
    life.use("a", 0.4)
    life.succeed("a")
    life.refuse("a")
    assert life.of("a").attempt == 2, "something is left"


def test_a_refused_merge_of_a_spent_story_is_not_tried_again() -> None:
    life = _life(budget=Budget(story_usd=0.5))
    life.claim("a")
    life.use("a", 0.2)
    life.fail("a", usd=0.3)
    life.claim("a")
    life.use("a", 0.19)
    life.succeed("a")
    assert spent(life.of("a")).usd == pytest.approx(0.49)
    other = _life(budget=Budget(story_usd=0.5), attempts=5)
    for _ in range(3):
        other.claim("a")
        other.fail("a", usd=0.2)
    assert other.states()["a"] == "failed", "its attempts are added up"


def test_reports_tell_what_the_attempt_has_cost_in_all_and_never_less() -> None:
    life = _life(budget=Budget())
    life.claim("a", "b")
    for usd in (0.5, 0.7, 0.6):
        life.use("a", usd, 10)
    life.use("b", 0.1)
    assert life.of("a").using == Usage(0.7, 10)
    assert life.epic.used.usd == pytest.approx(0.8)
    life.fail("a", usd=0.9)
    assert life.of("a").used == Usage(0.9, 10)
    assert life.of("a").using == Usage()
    life.claim("a")
    life.use("a", 0.1)
    assert life.epic.used.usd == pytest.approx(1.1)


def test_a_warning_comes_at_80_percent() -> None:
    life = _life(budget=Budget(story_usd=2.0, epic_tokens=1000))
    life.claim("a")
    life.use("a", 1.59, 799)
    assert warnings(life.epic) == []
    life.use("a", 1.6, 800)
    assert warnings(life.epic) == ["The epic has used 800 of 1,000 tokens.", "a has used 1.60 of 2.00 USD."]


def test_without_a_wave_there_is_nothing_to_warn_of() -> None:
    life = Life(story("a"))
    assert warnings(life.epic) == []
    assert epic_words(life.epic) == ""


def test_an_epic_that_has_spent_its_budget_drains_and_stops_its_agents_but_merges_what_is_done() -> None:
    life = _life("a", "b", "c", budget=Budget(epic_usd=3.0), slots=2)
    life.succeed("a")
    life.claim("b", "c")
    life.use("b", 1.5)
    life.use("c", 1.5)
    assert life.states() == {"a": "merging", "b": "stopping", "c": "stopping"}
    assert str(life.wave.state) == "draining"
    assert "3.00 of 3.00 USD" in life.wave.ended_because
    life.stopped("b", "c")
    life.merge("a")
    assert life.states() == {"a": "merged", "b": "cancelled", "c": "cancelled"}
    assert str(life.wave.state) == "finished"


def test_a_spent_epic_is_not_started_again_before_its_budget_is_raised() -> None:
    life = _life("a", budget=Budget(epic_usd=1.0))
    life.claim("a")
    life.use("a", 1.0)
    life.stopped("a")
    with pytest.raises(Refused) as refused:
        life.start(retry=True, budget=Budget(epic_usd=1.0))
    assert refused.value.code is Code.BUDGET_SPENT
    life.start(retry=True, budget=Budget(epic_usd=2.0))
    assert life.states() == {"a": "offered"}


def test_the_costs_of_an_epic_are_those_of_all_its_waves() -> None:
    life = _life("a", budget=Budget(epic_usd=1.0), attempts=1)
    life.claim("a")
    life.fail("a", usd=0.6)
    life.start(retry=True, budget=Budget(epic_usd=1.0))
    life.claim("a")
    life.use("a", 0.4)
    assert life.states() == {"a": "stopping"}


@pytest.mark.parametrize("way", ["start", "retry"])
def test_what_a_story_cost_is_forgiven_when_it_is_tried_again_on_purpose(way: str) -> None:
    life = _life()
    life.claim("a", "b")
    life.use("a", 2.0)
    life.stopped("a")
    if way == "retry":
        life.retry("a")
    else:
        life.interrupt()
        life.start(retry=True, budget=TWO_USD)
    life.claim("a")
    life.use("a", 1.9)
    assert life.states()["a"] == "running"
    assert life.epic.used.usd == pytest.approx(3.9), "the epic's budget forgives nothing"
    life.use("a", 2.0)
    assert life.states()["a"] == "stopping"


def test_a_story_that_was_only_put_back_is_forgiven_nothing() -> None:
    life = _life("a")
    life.claim("a")
    life.use("a", 1.5)
    life.interrupt()
    life.start(budget=TWO_USD)
    life.claim("a")
    life.use("a", 0.5)
    assert life.states() == {"a": "stopping"}


def test_an_interruption_of_a_stop_for_the_budget_keeps_its_cause() -> None:
    life = _life("a")
    life.claim("a")
    life.use("a", 2.0)
    life.interrupt()
    assert life.states() == {"a": "failed"}
    failure = life.of("a").failure
    assert failure is not None
    assert failure.cause is Cause.BUDGET
    assert replayed(life.log) == life.ledger


def test_costs_are_worth_telling_from_a_twentieth_of_any_limit() -> None:
    budget = Budget(story_usd=1.0, epic_tokens=1000)
    assert not worth_telling(Usage(), Usage(0.04, 49), budget)
    assert worth_telling(Usage(), Usage(0.05, 0), budget)
    assert worth_telling(Usage(0.5, 100), Usage(0.5, 150), budget)
    assert not worth_telling(Usage(), Usage(99.0, 10**9), Budget())
