"""A lease: who may take one, who may report with it, how long it lasts, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from mcp_server.core.commands import ClaimStory, EndLease, HandIn, LeaseCommand, RenewLease
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import AttemptLeased, LeaseEnded, LeaseRenewed
from mcp_server.core.leases import holds, is_over, lease_name, lease_of, offers, renewed_until_s
from mcp_server.core.model import Cause, Lease, StoryState
from mcp_server.core.spec import AttemptId
from mcp_server.core.wanted import Collect, next_wake_s, wanted
from mcp_server.errors import Code, Refused
from tests.core.build import SILENT, Life, replayed, story
from tests.core.in_state import IN_STATE

FIRST = AttemptId("e", "a", 1)


def _refused(life: Life, command: LeaseCommand) -> Refused:
    before = life.ledger
    with pytest.raises(Refused) as caught:
        life.command(command)
    assert life.ledger is before
    return caught.value


def _lease(life: Life, name: str = "a") -> Lease:
    lease = life.of(name).lease
    assert lease is not None
    return lease


def _leased(*, at_s: float = 0.0, **policy: Any) -> Life:
    """`a` is held since `at_s`: 60 s of silence, 150 s in all."""
    life = Life(story("a"))
    life.team(**policy)
    life.tick(at_s)
    life.lease("a")
    return life


def _jobs(life: Life) -> list[str]:
    return sorted(f"{type(job).__name__} {job.attempt.story}" for job in wanted(life.ledger))


# --- its name --------------------------------------------------------------------------------------------------------


def test_the_name_of_a_lease_says_attempt_and_token() -> None:
    assert lease_name(AttemptId("notes", "S1", 2), "k3f9") == "notes/S1/2/k3f9"
    assert lease_of(" notes/S1/2/k3f9\n") == (AttemptId("notes", "S1", 2), "k3f9")


@pytest.mark.parametrize(
    "name", ["", "a", "e/a/1", "e/a/1/t/x", "e/a/one/t", "e/a//t", "e/a/²/t", "e/a/-1/t", "e/a/\u0663/t"]
)
def test_what_is_no_lease_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(Refused) as refused:
        lease_of(name)
    assert (refused.value.code, "epic/S1/1/k3f9" in refused.value.why) == (Code.BAD_ARGUMENT, True)
    assert "letter by letter" in refused.value.remedy


def test_an_attempt_number_too_long_to_be_one_is_refused_like_any_other() -> None:
    """Python refuses to read numbers of more than 4300 digits."""
    with pytest.raises(Refused):
        lease_of(f"e/a/{'1' * 5000}/t")


# --- claims ----------------------------------------------------------------------------------------------------------


def test_a_claim_makes_a_lease_with_all_that_was_said() -> None:
    life = Life(story("a"))
    life.team()
    life.tick(5.0)
    life.command(ClaimStory(FIRST, "k3f9", "base", "agent-7", "/tree", ours=False))
    lease = Lease("k3f9", began_s=5.0, until_s=65.0, holder="agent-7", place="/tree", ours=False)
    assert (life.log[-1], life.of("a").lease) == (AttemptLeased(FIRST, lease, "base", 5.0), lease)
    assert (life.states(), life.of("a").base, life.of("a").process) == ({"a": "running"}, "base", None)
    assert _jobs(life) == [], "a sub-agent needs nobody"


def test_offers_come_with_the_longest_remaining_path_first() -> None:
    life = Life(story("s"), story("a"), story("z", minutes=9), story("d", "s", minutes=3), story("e", "z"))
    life.team(slots=5)
    assert [s.spec.id for s in offers(life.epic)] == ["z", "s", "a"]
    life.merge("s")
    assert [s.spec.id for s in offers(life.epic)] == ["z", "d", "a"]


def test_of_offers_with_equal_paths_the_lower_level_and_then_the_name_goes_first() -> None:
    life = Life(story("z"), story("c", done=True), story("b", "c"), story("a", "c"), story("y"))
    life.team(slots=5)
    assert [s.spec.id for s in offers(life.epic)] == ["y", "z", "a", "b"]


def test_only_a_wave_of_sub_agents_has_offers() -> None:
    assert offers(IN_STATE["offered"]().epic) == []
    assert offers(IN_STATE["pending"]().epic) == []
    assert [s.spec.id for s in offers(IN_STATE["offered_team"]().epic)] == ["a"]


@pytest.mark.parametrize("before", [s for s in IN_STATE if s != "offered_team"])
def test_what_is_not_offered_to_sub_agents_is_not_leased(before: str) -> None:
    life = IN_STATE[before]()
    attempt = AttemptId("e", "a", max(1, life.of("a").attempt))
    refused = _refused(life, ClaimStory(attempt, "t", "base", "", "/tree", ours=True))
    assert (refused.code, str(life.of("a").state) in refused.why) == (Code.STORY_NOT_OFFERED, True)
    assert refused.remedy == "Nothing is offered now: end your turn."


@pytest.mark.parametrize("attempt", [("e", "a", 0), ("e", "a", 2), ("e", "zz", 1)])
def test_a_claim_of_another_attempt_is_refused_with_what_is_offered(attempt: tuple[str, str, int]) -> None:
    life = IN_STATE["offered_team"]()
    refused = _refused(life, ClaimStory(AttemptId(*attempt), "t", "base", "", "/tree", ours=True))
    assert (refused.code, refused.remedy) == (Code.STORY_NOT_OFFERED, "Claim one of 'a'.")


def test_a_claim_in_an_unknown_epic_is_refused() -> None:
    refused = _refused(IN_STATE["offered_team"](), ClaimStory(AttemptId("x", "a", 1), "t", "b", "", "/", ours=True))
    assert (refused.code, "not known" in refused.why) == (Code.STORY_NOT_OFFERED, True)


def test_whoever_holds_a_story_gets_no_second_one_by_name_or_by_place() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    life.command(ClaimStory(FIRST, "t1", "base", "agent-7", "/desk", ours=False))
    second = FIRST._replace(story="b")
    for holder, place in (("agent-7", "/another"), ("", "/desk")):
        refused = _refused(life, ClaimStory(second, "t1", "base", holder, place, ours=False))
        assert (refused.code, refused.why) == (Code.LEASE_HELD, "You hold story 'a', and one at a time is enough.")
        assert refused.remedy == "Report it first, or have another sub-agent claim 'b'."
    life.command(ClaimStory(second, "t1", "base", "agent-8", "/another", ours=False))


# --- the fence -------------------------------------------------------------------------------------------------------

REPORTS: dict[str, Callable[[AttemptId, str], LeaseCommand]] = {
    "renew": lambda attempt, token: RenewLease(attempt, token, "half way"),
    "end": lambda attempt, token: EndLease(attempt, token, Cause.AGENT_FAILED, "gave up."),
    "hand_in": lambda attempt, token: HandIn(attempt, token, "head2", ("y",)),
}
TAKEN = {*product(REPORTS, ("leased", "silent", "repairing")), ("end", "merging_leased")}
"""All that the holder of a current lease may report; in every other state it comes too late."""


@pytest.mark.parametrize("before", IN_STATE)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_counts_only_while_its_lease_is_held(report: str, before: str) -> None:
    life = IN_STATE[before]()
    command = REPORTS[report](FIRST, "t1")
    if (report, before) in TAKEN:
        life.command(command)
    else:
        assert _refused(life, command).code is Code.LEASE_LOST


@pytest.mark.parametrize("before", ["leased", "repairing", "merging_leased"])
@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize(
    ("attempt", "token"),
    [
        (("e", "a", 1), "t0"),
        (("e", "a", 1), ""),
        (("e", "a", 0), "t1"),
        (("e", "a", 2), "t1"),
        (("e", "b", 1), "t1"),
        (("f", "a", 1), "t1"),
    ],
)
def test_a_report_with_any_other_lease_is_refused(
    report: str, before: str, attempt: tuple[str, str, int], token: str
) -> None:
    assert _refused(IN_STATE[before](), REPORTS[report](AttemptId(*attempt), token)).code is Code.LEASE_LOST


def _after_attempt_one() -> Life:
    life = _leased()
    life.tick_to_wake()
    life.collect("a")
    return life


KEPT = "What you committed is kept on refs/epicwave/rescue/e/a/1."
WORDS: dict[str, tuple[Callable[[], Life], AttemptId, str, str, str]] = {
    "it gave up": (IN_STATE["leased_ended"], FIRST, "t1", "The lease is over (It gave up.).", KEPT),
    "silent": (_after_attempt_one, FIRST, "t1", "Attempt 1 of story 'a' is over; it is offered now.", KEPT),
    "cancelled": (IN_STATE["stopping_leased"], FIRST, "t1", "Story 'a' is stopping (changed my mind).", KEPT),
    "merging": (IN_STATE["merging_leased"], FIRST, "t1", "Story 'a' is merging.", "call report_story with this lease"),
    "typing error": (IN_STATE["leased"], FIRST, "tl", "Attempt 1 of story 'a' is not held by", "letter by letter"),
    "never given": (
        IN_STATE["leased"],
        AttemptId("e", "a", 7),
        "t7",
        "Attempt 7 of story 'a' is not held",
        "letter by",
    ),
    "not claimed": (IN_STATE["offered_team"], FIRST, "t1", "Attempt 1 of story 'a' is not held by", "claim_story"),
    "no such story": (IN_STATE["leased"], AttemptId("e", "b", 1), "t", "'e/b/1/t' is of no story", "letter by letter"),
}


@pytest.mark.parametrize("case", WORDS)
def test_whoever_is_refused_is_told_why_and_what_becomes_of_the_work(case: str) -> None:
    made, attempt, token, why, remedy = WORDS[case]
    refused = _refused(made(), RenewLease(attempt, token, ""))
    assert (refused.code, why in refused.why, remedy in refused.remedy) == (Code.LEASE_LOST, True, True), refused


def test_a_report_without_a_lease_never_says_that_work_is_kept() -> None:
    """It would send a sub-agent home that has only misspelt its lease."""
    assert "rescue" not in _refused(IN_STATE["leased"](), RenewLease(FIRST, "tl", "")).remedy


def test_the_holder_of_the_current_lease_is_known_in_every_state_and_nobody_else_is() -> None:
    for state in ("leased", "silent", "leased_ended", "merging_leased", "repairing", "stopping_leased", "asking"):
        life = IN_STATE[state]()
        assert holds(life.ledger, FIRST, "t1") is life.of("a"), state
        assert holds(life.ledger, FIRST, "t0") is None
        assert holds(life.ledger, FIRST._replace(number=2), "t1") is None
    assert holds(_after_attempt_one().ledger, FIRST, "t1") is None


CROSSED: dict[str, tuple[Callable[[Life], None], str]] = {
    "it is heard of": (lambda life: life.renew("a"), "running"),
    "it is done": (lambda life: life.hand_in("a"), "merging"),
    "it asks": (lambda life: life.ask("a"), "pending"),
    "it gives up": (lambda life: life.end("a"), "running"),
    "it is cancelled": (lambda life: life.cancel("a"), "stopping"),
}


@pytest.mark.parametrize("case", CROSSED)
def test_a_job_ends_no_lease_whose_holder_was_heard_of_while_it_looked(case: str) -> None:
    report, state = CROSSED[case]
    life = IN_STATE["silent"]()
    ended = LeaseEnded(FIRST, Cause.LEASE_LOST, SILENT, life.now_s)
    assert accept(life.ledger, ended) is ended
    report(life)
    assert (life.states(), accept(life.ledger, ended)) == ({"a": state}, None)


def test_a_job_whose_clock_was_set_back_ends_a_lease_that_is_over_all_the_same() -> None:
    life = IN_STATE["silent"]()
    life.report(LeaseEnded(FIRST, Cause.LEASE_LOST, SILENT, at_s=3.0))
    assert _lease(life).ended == (Cause.LEASE_LOST, SILENT)


def test_a_sign_of_life_that_crosses_with_the_end_of_its_lease_revives_nothing() -> None:
    life = IN_STATE["leased_ended"]()
    life.report(LeaseRenewed(FIRST, 500.0, "", life.now_s))
    assert _jobs(life) == ["Collect a"]
    assert _refused(life, HandIn(FIRST, "t1", "head", ())).code is Code.LEASE_LOST


# --- how long it lasts -----------------------------------------------------------------------------------------------


def test_a_lease_lasts_for_the_silence_that_is_allowed_but_never_longer_than_an_attempt() -> None:
    assert _lease(_leased(at_s=10.0)).until_s == 70.0
    assert _lease(_leased(at_s=10.0, lease_s=500.0)).until_s == 160.0


def test_each_report_makes_it_last_anew_up_to_the_limit_of_the_attempt() -> None:
    life = _leased(at_s=10.0)
    ends: list[float] = []
    for _ in range(3):
        life.tick(40.0)
        life.renew("a")
        ends.append(_lease(life).until_s)
        assert next_wake_s(life.ledger) == ends[-1], "the alarm is set again"
    assert ends == [110.0, 150.0, 160.0]


def test_a_sign_of_life_of_a_while_ago_never_makes_it_end_earlier() -> None:
    life = _leased(at_s=100.0)
    assert renewed_until_s(life.of("a"), _lease(life), life.epic, 20.0) == 160.0
    assert renewed_until_s(life.of("a"), _lease(life), life.epic, 130.0) == 190.0


def test_a_note_stays_until_there_is_another() -> None:
    life = _leased()
    life.renew("a", "tests are written")
    life.renew("a")
    assert _lease(life).note == "tests are written"
    life.renew("a", "tests are green")
    assert _lease(life).note == "tests are green"


def test_in_the_moment_of_the_deadline_the_lease_is_over_and_is_looked_after() -> None:
    life = _leased()
    life.tick(59.9)
    assert (is_over(life.of("a"), life.now_s), _jobs(life), next_wake_s(life.ledger)) == (False, [], 60.0)
    recorded = len(life.log)
    life.tick_to_wake()
    assert (is_over(life.of("a"), life.now_s), _jobs(life), next_wake_s(life.ledger)) == (True, ["Collect a"], None)
    assert len(life.log) == recorded, "that time has passed is no fact"


def test_two_leases_may_be_over_in_the_same_moment_while_a_third_story_merges() -> None:
    life = Life(story("a"), story("b"), story("c"))
    life.team(slots=3)
    life.lease("a", "b", "c")
    life.hand_in("c")
    life.tick_to_wake()
    assert _jobs(life) == ["Collect a", "Collect b", "Integrate c"]
    life.collect("b", "a")
    assert (life.states(), life.of("a").attempt) == ({"a": "offered", "b": "offered", "c": "merging"}, 2)


@pytest.mark.parametrize("late_s", [0.0, 20.0])
def test_a_sign_of_life_after_the_deadline_counts_while_the_end_is_not_on_record(late_s: float) -> None:
    life = _leased()
    life.tick(60.0 + late_s)
    assert _jobs(life) == ["Collect a"]
    life.renew("a")
    assert (_jobs(life), _lease(life).until_s) == ([], 120.0 + late_s)


def test_work_that_is_handed_in_after_the_deadline_counts_while_the_end_is_not_on_record() -> None:
    life = _leased()
    life.tick(100.0)
    life.hand_in("a")
    assert (life.states(), _jobs(life)) == ({"a": "merging"}, ["Integrate a"])


def test_once_the_end_is_on_record_nothing_is_taken_any_more() -> None:
    life = _leased()
    life.tick_to_wake()
    life.report(LeaseEnded(FIRST, Cause.LEASE_LOST, SILENT, life.now_s))
    assert (life.states(), _jobs(life)) == ({"a": "running"}, ["Collect a"]), "its work is still to be saved"
    for report in REPORTS.values():
        refused = _refused(life, report(FIRST, "t1"))
        assert (refused.code, SILENT in refused.why) == (Code.LEASE_LOST, True)


def test_at_the_limit_of_the_attempt_a_report_lengthens_nothing() -> None:
    life = _leased(lease_s=500.0)
    life.tick_to_wake()
    life.renew("a", "nearly there")
    assert (life.now_s, _lease(life).until_s, _jobs(life)) == (150.0, 150.0, ["Collect a"])


def test_a_lease_that_was_given_up_is_collected_at_once_and_needs_no_alarm() -> None:
    life = _leased()
    life.end("a")
    assert (_jobs(life), next_wake_s(life.ledger)) == (["Collect a"], None)


def test_a_lost_lease_costs_an_attempt_and_the_next_one_knows_why_and_where_the_work_is() -> None:
    life = _leased()
    life.tick_to_wake()
    life.collect("a", saved="refs/saved")
    a = life.of("a")
    assert (str(a.state), a.attempt, a.lease, a.base) == ("offered", 2, None, None)
    assert a.failure is not None
    assert (a.failure.cause, a.failure.detail, a.failure.saved_ref) == (Cause.LEASE_LOST, SILENT, "refs/saved")
    life.lease("a")
    life.tick_to_wake()
    life.collect("a")
    assert life.states() == {"a": "failed"}


def test_nothing_ends_a_lease_while_its_work_is_being_merged() -> None:
    life = _leased()
    life.hand_in("a")
    life.tick(1000.0)
    assert (_jobs(life), next_wake_s(life.ledger)) == (["Integrate a"], None)


def test_a_lease_outlives_the_engine() -> None:
    """A restart is a replay: the sub-agent is not its child and works on."""
    life = _leased()
    ledger = replayed(life.log)
    assert (wanted(ledger), next_wake_s(ledger)) == (frozenset(), 60.0)
    event = decide(ledger, RenewLease(FIRST, "t1", ""), 50.0)
    assert isinstance(event, LeaseRenewed)
    assert event.until_s == 110.0


def test_a_lease_that_ran_out_while_no_engine_ran_is_looked_after_by_the_next() -> None:
    life = _leased()
    ledger = replace(replayed(life.log), as_of_s=10_000.0)
    assert wanted(ledger) == {Collect(FIRST)}
    assert ledger.epics["e"].stories["a"].state is StoryState.RUNNING
