"""Every fact in every state of a story, and every command: the whole table, and the fence around it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from mcp_server.core.decide import accept
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Fact,
    LeaseEnded,
    LeaseRenewed,
    MergeProven,
    MergeRefused,
    UsageReported,
    WorkSeen,
)
from mcp_server.core.model import Cause, Clash, Lease, Process, Proven, Story, Usage, is_alive
from mcp_server.core.spec import AttemptId
from mcp_server.core.wanted import wanted
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story
from tests.core.in_state import IN_STATE


def _facts(attempt: AttemptId, at_s: float = 1.0) -> dict[str, Fact]:
    return {
        "claimed": AttemptClaimed(attempt, Process(7, 1.5), "base", at_s),
        "leased": AttemptLeased(attempt, Lease("t1", at_s, at_s + 60.0), "base", at_s),
        "renewed": LeaseRenewed(attempt, at_s + 60.0, "half way", at_s),
        "lease_ended": LeaseEnded(attempt, Cause.LEASE_LOST, "silent.", at_s),
        "succeeded": AttemptSucceeded(attempt, "base", "head", ("x.py",), at_s),
        "failed": AttemptFailed(attempt, Cause.AGENT_FAILED, "it broke.", "", None, at_s),
        "faulted": AttemptFailed(attempt, Cause.FAULT, "no disk.", "", None, at_s),
        "asked": AttemptFailed(attempt, Cause.QUESTION, "Which colour?", "", None, at_s),
        "rate_limited": AttemptFailed(attempt, Cause.RATE_LIMIT, "usage limit.", "", None, at_s),
        "crashed": AttemptFailed(attempt, Cause.CRASH, "signal 11.", "", None, at_s),
        "used": UsageReported(attempt, Usage(0.1, 10), at_s),
        "seen": WorkSeen(attempt, ("y.py",), (Clash(None, ("x.py",)),), at_s),
        "stopped": AttemptStopped(attempt, None, at_s),
        "proven": MergeProven(attempt, Proven("tip", "head", ()), ("x.py",), at_s),
        "merged": BranchMerged(attempt, "tip", ("x.py",), at_s),
        "refused": MergeRefused(attempt, Cause.CHECKS, "red.", "", None, at_s),
        "conflicted": MergeRefused(attempt, Cause.CONFLICT, "conflict.", "", None, at_s, "tip", ("x.py",)),
        "merge_faulted": MergeRefused(attempt, Cause.FAULT, "no disk.", "", None, at_s),
    }


def facts_about(epic: str, of: Story, at_s: float) -> list[Fact]:
    """Every fact that anybody could bring of a story's current attempt."""
    return list(_facts(AttemptId(epic, of.spec.id, of.attempt), at_s).values())


FACTS = tuple(_facts(AttemptId("e", "a", 1)))

BECOMES = {
    ("claimed", "offered"): "running",
    ("succeeded", "running"): "merging",
    ("failed", "offered"): "offered",  # at once again, as attempt 2
    ("failed", "running"): "offered",
    ("failed", "stopping"): "cancelled",
    ("faulted", "offered"): "queued",  # for a while
    ("faulted", "running"): "queued",
    ("faulted", "stopping"): "cancelled",
    ("stopped", "stopping"): "cancelled",
    ("proven", "merging"): "merging",
    ("merged", "merging"): "merged",
    ("stopped", "stopping_merge"): "cancelled",
    ("merged", "stopping_merge"): "merged",  # git had moved before the stop came
    ("refused", "merging"): "offered",
    ("conflicted", "merging"): "offered",
    ("merge_faulted", "merging"): "merging",
    ("asked", "offered"): "pending",
    ("asked", "running"): "pending",
    ("asked", "stopping"): "cancelled",
    ("leased", "offered_team"): "running",
    ("failed", "offered_team"): "offered",
    ("faulted", "offered_team"): "queued",
    ("asked", "offered_team"): "pending",
    ("rate_limited", "offered"): "queued",  # its profile is parked
    ("rate_limited", "running"): "queued",
    ("rate_limited", "stopping"): "cancelled",
    ("rate_limited", "stopping_leased"): "cancelled",
    ("rate_limited", "offered_team"): "offered",  # there claims are gated, not offers
    ("crashed", "offered"): "queued",
    ("crashed", "running"): "queued",
    ("crashed", "stopping"): "cancelled",
    ("crashed", "stopping_leased"): "cancelled",
    ("crashed", "offered_team"): "queued",
    ("used", "running"): "running",
    ("seen", "running"): "running",
    ("seen", "draining"): "running",
    ("seen", "merging"): "merging",
    ("seen", "merging_leased"): "merging",
    **{(fact, "draining"): "pending" for fact in ("failed", "faulted", "asked", "rate_limited", "crashed")},
    ("succeeded", "draining"): "merging",
    ("used", "draining"): "running",
    **{
        (fact, "stopping_budget"): "failed"  # its own money is spent
        for fact in ("failed", "faulted", "asked", "rate_limited", "crashed", "stopped")
    },
    **{
        (fact, before): after
        for before in ("leased", "repairing", "silent", "leased_ended")
        for fact, after in {
            "renewed": "running",
            "succeeded": "merging",
            "failed": "offered",
            "faulted": "queued",
            "asked": "pending",
            "rate_limited": "offered",
            "crashed": "queued",
            "used": "running",
            "seen": "running",
        }.items()
        if (fact, before) != ("succeeded", "leased_ended")
    },
    ("failed", "stopping_leased"): "cancelled",
    ("faulted", "stopping_leased"): "cancelled",
    ("asked", "stopping_leased"): "cancelled",
    ("stopped", "stopping_leased"): "cancelled",
    ("lease_ended", "silent"): "running",  # until its work is saved
    ("proven", "merging_leased"): "merging",
    ("merged", "merging_leased"): "merged",
    ("merge_faulted", "merging_leased"): "merging",
    ("conflicted", "merging_leased"): "running",
    ("refused", "merging_leased"): "running",  # its sub-agent mends it
}
"""All that can happen to a story by a fact; every other pair comes too late and changes nothing."""


@pytest.mark.parametrize(("fact", "before"), BECOMES)
def test_a_current_fact_brings_the_story_into_its_next_state(fact: str, before: str) -> None:
    life = IN_STATE[before]()
    life.report(_facts(life.attempt("a"), life.now_s + 1.0)[fact])
    assert life.states() == {"a": BECOMES[fact, before]}
    assert replayed(life.log) == life.ledger


@pytest.mark.parametrize(("fact", "before"), [p for p in product(FACTS, IN_STATE) if p not in BECOMES])
def test_any_other_fact_comes_too_late(fact: str, before: str) -> None:
    life = IN_STATE[before]()
    assert accept(life.ledger, _facts(life.attempt("a"))[fact]) is None


@pytest.mark.parametrize(("fact", "before"), BECOMES)
@pytest.mark.parametrize("other", [("e", "a", 0), ("e", "a", 2), ("e", "b", 1), ("f", "a", 1)])
def test_a_fact_about_another_attempt_is_fenced_off(fact: str, before: str, other: tuple[str, str, int]) -> None:
    life = IN_STATE[before]()
    assert life.of("a").attempt == 1
    assert accept(life.ledger, _facts(AttemptId(*other))[fact]) is None


CANCELLED = {
    **dict.fromkeys(("pending", "queued", "asking", "paused", "parked", "held"), "cancelled"),
    **dict.fromkeys(("offered", "running", "draining"), "stopping"),
    **dict.fromkeys(("offered_team", "leased", "silent", "leased_ended", "repairing"), "stopping"),
}


@pytest.mark.parametrize("before", IN_STATE)
def test_a_story_is_cancelled_where_something_is_left_to_cancel(before: str) -> None:
    life = IN_STATE[before]()
    if before in CANCELLED:
        life.cancel("a", reason="not needed")
        assert (life.states(), life.of("a").stop_reason) == ({"a": CANCELLED[before]}, "not needed")
    else:
        with pytest.raises(Refused) as refused:
            life.cancel("a")
        assert refused.value.code is Code.TOO_LATE
        assert str(life.of("a").state) in refused.value.why
        assert "story_status" in refused.value.remedy


EPIC_CANCELLED = {
    **CANCELLED,
    **dict.fromkeys(
        ("stopping", "stopping_leased", "stopping_merge", "stopping_budget", "merging", "merging_leased"), "stopping"
    ),
}


@pytest.mark.parametrize("before", IN_STATE)
def test_an_epic_is_cancelled_where_something_is_left_to_cancel(before: str) -> None:
    life = IN_STATE[before]()
    if before in EPIC_CANCELLED:
        life.cancel(reason="not needed")
        assert life.states() == {"a": EPIC_CANCELLED[before]}
        assert life.epic.cancelled == "not needed"
    else:
        with pytest.raises(Refused) as refused:
            life.cancel()
        assert refused.value.code is Code.TOO_LATE
        assert str(life.of("a").state) in refused.value.why
        assert "story_status" in refused.value.remedy


INTERRUPTED = {
    **dict.fromkeys(("queued", "offered", "running", "paused", "parked", "held", "draining"), "pending"),
    "stopping_budget": "failed",
    **dict.fromkeys(("offered_team", "leased", "leased_ended", "repairing", "silent"), "pending"),
    **dict.fromkeys(("stopping", "stopping_leased", "stopping_merge"), "cancelled"),
}


@pytest.mark.parametrize("before", IN_STATE)
def test_an_interruption_puts_back_what_was_in_flight_but_keeps_the_merge_queue(before: str) -> None:
    life = IN_STATE[before]()
    state = life.of("a").state
    life.interrupt()
    assert life.states() == {"a": INTERRUPTED.get(before, state)}
    assert not is_alive(life.epic.wave)
    assert life.agents() == []
    assert life.of("a").process is None


@pytest.mark.parametrize("before", IN_STATE)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_merge_that_git_has_is_found_from_every_state_and_nothing_of_the_story_is_wanted_any_more(
    before: str, number: int
) -> None:
    """`number` 0 stands for an attempt before the current one."""
    life = IN_STATE[before]()
    known = life.of("a").attempt
    life.found("a", number)
    a = life.of("a")
    assert (life.states(), a.merged_as, a.files_changed) == ({"a": "merged"}, "tip-a", ("x.py",))
    assert (a.attempt, a.process, a.head, a.failure) == (max(known, number), None, None, None)
    assert [job for job in wanted(life.ledger) if job.attempt.story == "a"] == []
    assert replayed(life.log) == life.ledger
    with pytest.raises(Refused) as refused:
        life.start(retry=True)
    assert refused.value.code is Code.NOTHING_READY


def test_a_merge_that_is_found_lets_its_dependents_start_and_says_where_the_branch_began() -> None:
    life = Life(story("a"), story("b", "a"))
    life.found("a", 2)
    assert life.epic.base == "onto-a"
    life.start()
    assert life.states() == {"a": "merged", "b": "offered"}
    assert life.epic.base == "onto-a"


RETRIED = {"pending", "failed", "cancelled", "asking"}


@pytest.mark.parametrize("before", IN_STATE)
def test_a_retry_starts_what_is_not_in_flight_and_not_merged(before: str) -> None:
    life = IN_STATE[before]()
    if before in RETRIED:
        attempt = life.of("a").attempt
        life.start(retry=True)
        assert (life.states(), life.of("a").attempt) == ({"a": "offered"}, attempt + 1)
    else:
        with pytest.raises(Refused) as refused:
            life.start(retry=True)
        assert refused.value.code in {Code.NOTHING_READY, Code.EPIC_BUSY}


def test_a_claim_keeps_the_process_and_the_base() -> None:
    life = IN_STATE["running"]()
    assert (life.of("a").process, life.of("a").base) == (Process(7, 1.5), "base")


def test_a_success_keeps_the_commits_and_lets_the_process_go() -> None:
    a = IN_STATE["merging"]().of("a")
    assert (a.process, a.base, a.head, a.files_changed) == (None, "base", "head", ("x.py",))


def test_a_merge_keeps_the_tip_the_files_and_the_proof_and_forgets_earlier_failures() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a")
    life.succeed("a")
    life.prove("a")
    life.merge("a")
    a = life.of("a")
    assert (a.merged_as, a.files_changed, a.failure, a.head, a.attempt) == ("tip-a", ("x.py",), None, None, 2)
    assert a.proven is not None
    assert a.proven.checks[0].exit_code == 0


def test_a_failure_is_kept_for_the_next_attempt_with_cause_tail_and_saved_work() -> None:
    life = Life(story("a"))
    life.start()
    life.claim("a")
    life.fail("a", Cause.TIMEOUT, saved="refs/saved")
    failure = life.of("a").failure
    assert failure is not None
    assert (failure.cause, failure.attempt, failure.tail, failure.saved_ref) == (
        Cause.TIMEOUT,
        1,
        "last line",
        "refs/saved",
    )
    assert life.of("a").attempt == 2


def test_a_new_attempt_starts_without_the_commits_of_the_one_before() -> None:
    life = Life(story("a"))
    life.start()
    life.succeed("a")
    life.prove("a")
    life.refuse("a")
    a = life.of("a")
    assert (str(a.state), a.base, a.head, a.proven, a.process) == ("offered", None, None, None, None)


def test_each_change_of_state_is_dated_by_its_fact_and_nothing_else_is() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.tick(5.0)
    life.claim("a")
    assert (life.of("a").since_s, life.of("a").changed) == (5.0, life.ledger.seq)
    claimed = life.ledger.seq
    life.tick(5.0)
    life.succeed("a")
    merging = life.ledger.seq
    life.tick(5.0)
    life.prove("a")
    assert (life.of("a").since_s, life.of("a").changed) == (10.0, merging)
    assert life.of("b").changed == claimed - 1, "b was queued by the wave and has not moved since"


def test_a_second_try_in_the_same_moment_counts_as_a_change() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a")
    assert (life.states(), life.of("a").changed) == ({"a": "offered"}, life.ledger.seq)


def test_a_clock_that_was_set_back_stands_still() -> None:
    life = Life(story("a"))
    life.start()
    life.tick(100.0)
    life.claim("a")
    back = replace(_facts(life.attempt("a"))["faulted"], at_s=3.0)
    life.report(back)
    assert life.now_s == 100.0
    assert life.of("a").not_before_s > 100.0
