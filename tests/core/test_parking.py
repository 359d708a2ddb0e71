"""Rate limits are no faults: they park a whole profile, cost nothing, and end by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.core.leases import claimable
from mcp_server.core.model import Cause
from mcp_server.core.views import epic_state, is_at_rest
from mcp_server.core.why import alerts, why
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story


def _life(*names: str, **policy: Any) -> Life:
    life = Life(*(story(n) for n in names or "abc"))
    life.start(**dict[str, Any]({"slots": 2, "attempts": 1, **policy}))
    return life


def test_it_costs_no_attempt_and_no_fault_however_often() -> None:
    life = _life("a", breaker_faults=1)
    for _ in range(12):
        life.fail("a", Cause.RATE_LIMIT)
        assert life.states() == {"a": "queued"}
        life.tick_to_wake()
    assert life.states() == {"a": "offered"}
    assert (life.breaker().opened, life.of("a").faults) == (0, 0)


def test_the_profile_is_parked_until_the_time_that_was_named() -> None:
    life = _life()
    life.claim("a", "b")
    life.fail("a", Cause.RATE_LIMIT, resumes_at_s=1000.0)
    assert life.agents() == ["b"], "who is at work goes on"
    life.merge("b")
    assert life.states() == {"a": "queued", "b": "merged", "c": "queued"}, "siblings share it; done work is kept"
    life.tick_to_wake()
    assert life.now_s == 1000.0
    assert life.agents() == ["a", "c"]


@pytest.mark.parametrize("named_s", [None, 0.0, 100.0])
def test_without_a_time_to_come_it_backs_off_longer_each_time(named_s: float | None) -> None:
    life = _life("a")
    life.tick(100.0)
    waits: list[float] = []
    for _ in range(9):
        life.fail("a", Cause.RATE_LIMIT, resumes_at_s=named_s)
        waits.append(life.breaker().parked_until_s - life.now_s)
        life.tick_to_wake()
    for n, wait_s in enumerate(waits):
        most_s = min(3600.0, 60.0 * 2**n)
        assert most_s / 2 <= wait_s <= most_s


def test_a_good_end_makes_the_next_parking_short_again() -> None:
    life = _life("a", "b", slots=1)
    for _ in range(3):
        life.fail("a", Cause.RATE_LIMIT)
        life.tick_to_wake()
    assert life.breaker().parks == 3
    life.succeed("a")
    assert life.breaker().parks == 0


def test_a_second_limit_never_ends_the_parking_earlier() -> None:
    life = _life()
    life.claim("a", "b")
    life.fail("a", Cause.RATE_LIMIT, resumes_at_s=1000.0)
    life.fail("b", Cause.RATE_LIMIT, resumes_at_s=500.0)
    assert life.breaker().parked_until_s == 1000.0


def test_it_breaks_no_row_of_faults_and_is_none_itself() -> None:
    life = _life(breaker_faults=2, slots=3)
    life.claim("a", "b", "c")
    life.fail("a", Cause.API_ERROR)
    life.fail("b", Cause.RATE_LIMIT)
    life.fail("c", Cause.API_ERROR)
    assert life.breaker().opened == 1


def test_a_fallback_works_meanwhile_and_can_be_parked_too() -> None:
    life = _life("a", "b", fallback="second")
    life.fail("a", Cause.RATE_LIMIT)
    assert life.of("a").agent == "second"
    life.fail("a", Cause.RATE_LIMIT)
    assert life.states()["a"] == "queued"
    assert life.breaker("second").parked_until_s > life.now_s


def test_a_resume_lifts_it() -> None:
    life = _life("a")
    life.fail("a", Cause.RATE_LIMIT, resumes_at_s=1000.0)
    life.resume()
    assert life.agents() == ["a"]


def test_nothing_to_resume_is_refused() -> None:
    life = _life("a")
    with pytest.raises(Refused) as refused:
        life.resume()
    assert refused.value.code is Code.TOO_LATE


def test_the_status_says_until_when() -> None:
    life = _life("a")
    life.fail("a", Cause.RATE_LIMIT, resumes_at_s=3660.0)
    text = why(life.ledger, life.epic, life.of("a"))
    assert "rate limit" in text
    assert "until 01:01 UTC, 3660 s from now" in text
    assert any("parked until 01:01 UTC" in alert for alert in alerts(life.ledger, life.epic))
    assert str(epic_state(life.ledger, life.epic)) == "paused"
    assert not is_at_rest(life.ledger, life.epic), "it ends by itself"


def test_it_outlives_a_restart() -> None:
    life = _life("a")
    life.fail("a", Cause.RATE_LIMIT, resumes_at_s=1000.0)
    assert replayed(life.log) == life.ledger
    life.interrupt()
    life.start()
    assert life.agents() == []


def test_sub_agents_of_the_editor_may_claim_nothing_meanwhile() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    life.lease("a")
    life.end("a", Cause.RATE_LIMIT)
    life.collect("a")
    assert claimable(life.ledger, life.epic) == []
    life.tick_to_wake()
    assert len(claimable(life.ledger, life.epic)) == 2, "after a rate limit there is no probe"


def test_who_is_told_to_stop_stays_stopped() -> None:
    life = _life("a")
    life.claim("a")
    life.cancel("a")
    life.fail("a", Cause.RATE_LIMIT)
    assert life.states() == {"a": "cancelled"}
