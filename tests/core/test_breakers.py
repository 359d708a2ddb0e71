"""Breakers: faults in a row stop new starts, nothing is failed by it, and exactly one probe finds out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.core.breakers import probe_ends_s
from mcp_server.core.leases import claimable
from mcp_server.core.model import REPOSITORY, Cause
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story

FEW: dict[str, Any] = {"slots": 3, "breaker_faults": 2, "cooldown_s": 30.0, "cooldown_cap_s": 100.0, "probe_s": 20.0}
LATER_S = 3.0  # the first backoff is over


def _life(*names: str, **policy: Any) -> Life:
    life = Life(*(story(n) for n in names or "abc"))
    life.start(**dict[str, Any]({**FEW, **policy}))
    return life


def _opened(*names: str, **policy: Any) -> Life:
    """`a` and `b` crashed one after the other; whatever else there is has its agent."""
    life = _life(*names, **policy)
    life.claim(*sorted(life.agents()))
    life.fail("a", Cause.CRASH)
    life.fail("b", Cause.CRASH)
    return life


def test_faults_in_a_row_open_it_and_nothing_more_starts() -> None:
    life = _opened(*"abcde")
    assert life.breaker().opened == 1
    assert life.breaker().until_s == 30.0
    life.merge("c")
    life.tick(LATER_S)
    assert life.states() == {"a": "queued", "b": "queued", "c": "merged", "d": "offered", "e": "queued"}


def test_a_good_end_between_two_faults_keeps_it_closed() -> None:
    life = _life()
    life.claim("a", "b", "c")
    life.fail("a", Cause.CRASH)
    life.succeed("c")
    life.fail("b", Cause.CRASH)
    assert (life.breaker().opened, life.breaker().faults) == (0, 1)


def test_it_counts_by_order_of_completion_and_not_of_start() -> None:
    life = _life()
    life.claim("c", "b", "a")
    life.fail("a", Cause.STALL)
    life.fail("c", Cause.SPAWN)
    assert life.breaker().opened == 1


@pytest.mark.parametrize("cause", [Cause.SPAWN, Cause.API_ERROR, Cause.CRASH, Cause.STALL, Cause.LEASE_LOST])
def test_these_are_faults_of_its_agent(cause: Cause) -> None:
    life = _life(breaker_faults=1)
    life.fail("a", cause)
    assert life.breaker().opened == 1
    assert life.breaker(REPOSITORY).opened == 0


@pytest.mark.parametrize("cause", [Cause.AGENT_FAILED, Cause.NO_COMMITS, Cause.UNCOMMITTED, Cause.TIMEOUT, Cause.QUOTA])
def test_an_agent_that_works_badly_is_no_fault(cause: Cause) -> None:
    life = _life(breaker_faults=1)
    life.claim("a")
    life.fail("a", cause)
    assert life.breaker().opened == 0


@pytest.mark.parametrize("cause", [Cause.FAULT, Cause.SETUP])
def test_a_fault_of_git_or_of_a_set_up_opens_the_breaker_of_the_repository(cause: Cause) -> None:
    life = _life(breaker_faults=1)
    life.fail("a", cause)
    assert (life.breaker().opened, life.breaker(REPOSITORY).opened) == (0, 1)
    life.tick(LATER_S)
    assert life.states()["a"] == "queued"


def test_a_set_up_that_fails_for_a_sub_agent_opens_it_again_though_only_a_lease_is_a_probe() -> None:
    life = Life(story("a"), story("b"))
    life.team(breaker_faults=1, cooldown_s=60.0)
    life.fail("a", Cause.SETUP)
    assert life.breaker(REPOSITORY).opened == 1
    life.tick(60.0)
    life.fail("b", Cause.SETUP)
    assert life.breaker(REPOSITORY).opened == 2


def test_a_conflict_and_a_red_check_are_no_faults_and_show_that_git_works() -> None:
    life = _life()
    life.succeed("a", "b")
    life.refuse("a", Cause.FAULT)
    assert life.breaker(REPOSITORY).faults == 1
    life.tick(LATER_S)
    life.refuse("a", Cause.CHECKS)
    assert life.breaker(REPOSITORY).faults == 0


def test_merges_that_the_world_fails_open_the_breaker_of_the_repository() -> None:
    life = _life(*"abcd")
    life.succeed("a", "b")
    for _ in range(2):
        life.tick(LATER_S)
        life.refuse("a", Cause.FAULT)
    assert life.breaker(REPOSITORY).opened == 1
    life.merge("b")
    assert life.breaker(REPOSITORY).opened == 0, "a merge that lands shows that it works"


def test_while_it_cools_down_a_merge_that_fails_again_does_not_make_it_longer() -> None:
    life = _life(breaker_faults=1)
    life.succeed("a")
    life.refuse("a", Cause.FAULT)
    until_s = life.breaker(REPOSITORY).until_s
    life.tick(LATER_S)
    life.refuse("a", Cause.FAULT)
    assert life.breaker(REPOSITORY).until_s == until_s
    life.tick(60.0)
    life.refuse("a", Cause.FAULT)
    assert life.breaker(REPOSITORY).opened == 2, "after its time a merge is as good as a probe"


def test_nothing_is_failed_by_an_open_breaker() -> None:
    life = Life(story("a"), story("b", critical=True))
    life.start(slots=2, attempts=1, breaker_faults=2, fault_tries=1)
    life.claim("a", "b")
    life.fail("a", Cause.API_ERROR)
    life.fail("b", Cause.CRASH)
    assert life.states() == {"a": "queued", "b": "queued"}, "the crash by which it opens costs no attempt either"


def test_a_crash_before_it_opens_costs_an_attempt() -> None:
    life = _life(attempts=1)
    life.claim("a")
    life.fail("a", Cause.CRASH)
    assert life.states()["a"] == "failed"


def test_the_worlds_doing_costs_no_attempt_so_many_times() -> None:
    life = _life("a", attempts=1, breaker_faults=0, fault_tries=2)
    for _ in range(2):
        life.fail("a", Cause.SPAWN)
        life.tick_to_wake()
    assert life.states() == {"a": "offered"}
    life.fail("a", Cause.SPAWN)
    assert life.states() == {"a": "failed"}


def test_half_open_admits_exactly_one_probe() -> None:
    life = _opened(*"abcde")
    life.merge("c", "d")
    assert life.agents() == []
    life.tick(30.0)
    assert life.agents() == ["e"], "whose last end was no fault"
    assert life.breaker().probe == life.attempt("e")
    life.tick(1.0)
    assert life.agents() == ["e"]


def test_one_probe_for_all_epics_together() -> None:
    life = _opened()
    life.plan(story("x"), epic="f")
    life.start(epic="f", **FEW)
    assert life.agents() == ["c"]
    life.tick(30.0)
    assert life.agents() == ["c", "f/x"]
    life.claim("f/x")
    life.tick(19.0)
    assert life.agents() == ["c", "f/x"]


def test_each_profile_has_its_own_breaker() -> None:
    life = Life(story("a", agent="x"), story("b", agent="x"), story("c", agent="y"), story("d", agent="y"))
    life.start(**dict[str, Any]({**FEW, "breaker_faults": 1, "slots": 2}))
    life.fail("a", Cause.CRASH)
    assert life.agents() == ["b", "c"]
    life.fail("b", Cause.CRASH)
    assert life.agents() == ["c", "d"]


def test_a_probe_that_succeeds_closes_it() -> None:
    life = _opened("a", "b")
    life.tick(30.0)
    (probe,) = life.agents()
    life.succeed(probe)
    assert life.breaker().opened == 0
    assert len(life.agents()) == 1, "and the other one starts"


def test_a_probe_that_fails_honestly_closes_it() -> None:
    life = _opened("a", "b", attempts=3)
    life.tick(30.0)
    (probe,) = life.agents()
    life.claim(probe)
    life.fail(probe, Cause.AGENT_FAILED)
    assert (life.breaker().opened, life.breaker().faults) == (0, 0)
    assert life.agents() == ["a", "b"]


def test_a_probe_that_has_worked_for_a_while_closes_it() -> None:
    life = _opened("a", "b")
    life.tick(30.0)
    (probe,) = life.agents()
    life.claim(probe)
    life.tick(19.9)
    assert life.agents() == [probe]
    life.tick_to_wake()
    assert life.now_s == 50.0
    assert life.agents() == ["a", "b"]


def test_the_time_of_a_probe_begins_with_its_agent_and_not_with_its_worktree() -> None:
    life = _opened("a", "b")
    life.tick(30.0)
    (probe,) = life.agents()
    life.tick(100.0)
    life.claim(probe)
    assert life.breaker().opened == 1
    assert life.agents() == [probe]


def test_a_probe_that_faults_opens_it_for_twice_as_long_up_to_the_cap() -> None:
    life = _opened("a", "b", attempts=9)
    waits = [life.breaker().until_s - life.now_s]
    for _ in range(3):
        life.tick(waits[-1])
        (probe,) = life.agents()
        life.fail(probe, Cause.SPAWN)
        waits.append(life.breaker().until_s - life.now_s)
    assert waits == [30.0, 60.0, 100.0, 100.0]
    assert life.states() == {"a": "queued", "b": "queued"}


def test_once_closed_it_begins_again_with_the_first_cooldown() -> None:
    life = _opened("a", "b", attempts=9)
    life.tick(30.0)
    life.fail(life.agents()[0], Cause.SPAWN)
    life.tick(60.0)
    life.succeed(life.agents()[0])
    life.tick(LATER_S)
    assert life.breaker().opened == 0
    (name,) = life.agents()
    life.fail(name, Cause.SPAWN)
    life.tick(LATER_S)
    life.fail(name, Cause.SPAWN)
    assert (life.breaker().opened, life.breaker().until_s - life.now_s) == (1, 30.0)


@pytest.mark.parametrize("way", ["cancel", "interrupt", "rate limit"])
def test_a_probe_that_says_nothing_makes_room_for_the_next(way: str) -> None:
    life = _opened("a", "b", attempts=4)
    life.tick(30.0)
    (probe,) = life.agents()
    if way == "cancel":
        life.cancel(probe)
        life.stopped(probe)
    elif way == "interrupt":
        life.interrupt()
        life.start(**FEW)
    else:
        life.fail(probe, Cause.RATE_LIMIT)
        assert life.agents() == []
        life.tick_to_wake()
    assert life.breaker().opened == 1
    assert len(life.agents()) == 1
    assert life.breaker().probe == life.attempt(life.agents()[0])


def test_attempts_from_before_it_opened_say_nothing_of_it() -> None:
    life = _opened(*"abcd")
    assert life.breaker().opened == 1
    life.fail("c", Cause.CRASH)
    assert life.breaker().until_s == 30.0
    life.tick(30.0)
    assert life.agents() == ["a", "d"], "and one probe"
    other = _opened(*"abcd")
    other.succeed("c")
    assert other.breaker().opened == 1, "its agent was started when all was well"


def test_an_attempt_whose_worktree_was_being_made_goes_on_when_it_opens() -> None:
    life = _life()
    life.fail("a", Cause.SPAWN)
    life.fail("b", Cause.SPAWN)
    assert life.states() == {"a": "queued", "b": "queued", "c": "offered"}
    life.claim("c")


def test_a_fallback_takes_the_stories_of_a_held_profile() -> None:
    life = _opened("a", "b", fallback="second")
    life.tick(LATER_S)
    assert life.agents() == ["a", "b"]
    assert {life.of(n).agent for n in "ab"} == {"second"}


def test_while_both_are_held_nothing_starts_and_each_gets_a_probe_of_its_own() -> None:
    life = _opened("a", "b", fallback="second", breaker_faults=2, attempts=9)
    life.tick(LATER_S)
    life.fail("a", Cause.SPAWN)
    life.fail("b", Cause.SPAWN)
    life.tick(LATER_S + 5.0)
    assert life.agents() == []
    life.tick(30.0)
    assert sorted(life.of(n).agent for n in life.agents()) == ["scripted", "second"]


def test_a_resume_makes_it_half_open_at_once_but_does_not_close_it() -> None:
    life = _opened("a", "b")
    life.tick(LATER_S)
    assert life.agents() == []
    life.resume()
    assert len(life.agents()) == 1
    assert life.breaker().opened == 1


def test_with_no_number_of_faults_it_never_opens() -> None:
    life = _life(breaker_faults=0)
    for _ in range(5):
        life.fail("a", Cause.SPAWN)
        life.tick_to_wake()
    assert life.breaker().opened == 0
    assert life.agents() == ["a", "b", "c"]


def test_it_outlives_a_restart() -> None:
    life = _opened("a", "b")
    assert replayed(life.log) == life.ledger
    life.interrupt()
    life.start(**FEW)
    assert life.agents() == []


# --- sub-agents of the editor


def _team(*names: str) -> Life:
    life = Life(*(story(n) for n in names))
    life.team(slots=len(names), breaker_faults=2, cooldown_s=30.0, probe_s=20.0, attempts=3)
    life.lease("a", "b")
    for name in "ab":
        life.end(name, Cause.LEASE_LOST)
        life.collect(name)
    return life


def _offers(life: Life) -> list[str]:
    return [s.spec.id for s in claimable(life.ledger, life.epic)]


def test_while_it_is_open_nobody_may_claim_and_the_offers_stay() -> None:
    life = _team("a", "b", "c")
    assert life.breaker("agent-teams").opened == 1
    assert life.states() == dict.fromkeys("abc", "offered")
    assert _offers(life) == []
    with pytest.raises(Refused) as refused:
        life.lease("c")
    assert refused.value.code is Code.STORY_NOT_OFFERED


def test_half_open_one_may_be_claimed_and_then_none_until_it_has_worked() -> None:
    life = _team("a", "b", "c")
    life.tick(30.0)
    assert len(_offers(life)) == 1
    life.tick(500.0)
    (probe,) = _offers(life)
    life.lease(probe)
    assert _offers(life) == [], "the offer was old, its holder is not"
    life.tick_to_wake()
    assert len(_offers(life)) == 2


def test_a_claim_shows_that_git_works() -> None:
    life = Life(story("a"), story("b"))
    life.team(breaker_faults=1)
    life.fail("a", Cause.FAULT)
    assert _offers(life) == []
    life.tick_to_wake()
    life.tick(60.0)
    (name,) = _offers(life)
    life.lease(name)
    assert life.breaker(REPOSITORY).opened == 0
    assert len(_offers(life)) == 1


def test_a_probe_that_nobody_knows_any_more_is_gone() -> None:
    """Its epic or story is not planned any more, or a later attempt has taken its place."""
    life = _opened("a", "b")
    life.tick(30.0)
    assert life.breaker().probe == AttemptId("e", "a", 2)
    assert probe_ends_s(life.ledger, life.breaker()) == float("inf")
    for gone in (AttemptId("f", "a", 2), AttemptId("e", "z", 2), AttemptId("e", "a", 1)):
        assert probe_ends_s(life.ledger, replace(life.breaker(), probe=gone)) is None
