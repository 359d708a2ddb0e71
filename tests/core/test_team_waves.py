"""A wave of the editor's sub-agents: repairs, slots, cancel, other strategies, and journals from before leases."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mcp_server.adapters.journal import codec
from mcp_server.core.brief import brief
from mcp_server.core.commands import RenewLease
from mcp_server.core.events import Event, MergeRefused, WaveStarted
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.metrics import spans
from mcp_server.core.model import Cause, Lease, WaveState
from mcp_server.core.policy import MERGE_TRIES
from mcp_server.core.spec import Sharing
from mcp_server.core.wanted import wanted
from mcp_server.core.why import why
from mcp_server.errors import Code, Refused
from tests.core.build import Life, replayed, story
from tests.core.in_state import IN_STATE


def _refused(ask: Callable[[], None]) -> Refused:
    with pytest.raises(Refused) as caught:
        ask()
    return caught.value


def _lease(life: Life, name: str = "a") -> Lease:
    lease = life.of(name).lease
    assert lease is not None
    return lease


def _brief(life: Life, name: str = "a") -> str:
    return brief(life.epic, life.of(name), life.attempt(name), ())


def _why(life: Life, name: str) -> str:
    return why(life.ledger, life.epic, life.of(name))


# --- a refused merge goes back to who did the work -------------------------------------------------------------------


def test_a_conflict_goes_back_to_the_same_holder_with_what_to_mend() -> None:
    life = Life(story("a"))
    life.team()
    life.lease("a", holder="agent-7")
    life.tick(50.0)
    life.hand_in("a", head="first")
    life.prove("a")
    life.report(MergeRefused(life.attempt("a"), Cause.CONFLICT, "both changed x.", "<<<<", None, life.now_s, "tip-7"))
    a, lease = life.of("a"), _lease(life)
    assert (str(a.state), a.attempt, a.repairs, a.head, a.proven) == ("running", 1, 1, None, None)
    assert (lease.token, lease.holder, lease.head) == ("t1", "agent-7", "first")
    assert a.failure is not None
    assert (a.failure.cause, a.failure.tail, a.failure.onto) == (Cause.CONFLICT, "<<<<", "tip-7")
    assert wanted(life.ledger) == frozenset()
    life.merge("a")
    assert (life.states(), life.of("a").failure) == ({"a": "merged"}, None)


def test_to_mend_it_the_holder_has_as_long_as_anew_and_no_limit_of_the_attempt() -> None:
    life = Life(story("a"))
    life.team()
    life.lease("a")
    life.tick(59.0)
    life.hand_in("a")
    life.tick(400.0)
    life.refuse("a")
    assert _lease(life).until_s == 459.0 + 60.0
    life.tick(50.0)
    life.renew("a")
    assert _lease(life).until_s == 509.0 + 60.0
    life.tick_to_wake()
    life.collect("a")
    assert (life.states(), life.of("a").attempt) == ({"a": "offered"}, 2)


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_a_holder_mends_as_often_as_the_policy_says_and_then_the_next_attempt_begins(repairs: int) -> None:
    life = Life(story("a"))
    life.team(repairs=repairs)
    life.lease("a")
    for done in range(repairs):
        life.hand_in("a")
        life.refuse("a")
        assert (life.states(), life.of("a").attempt, life.of("a").repairs) == ({"a": "running"}, 1, done + 1)
    life.hand_in("a")
    life.refuse("a", saved="refs/saved")
    a = life.of("a")
    assert (str(a.state), a.attempt, a.repairs, a.lease) == ("offered", 2, 0, None)
    assert "refs/saved" in _brief(life)


def test_the_next_attempt_may_be_repaired_as_often_again() -> None:
    life = IN_STATE["repairing"]()
    life.hand_in("a")
    life.refuse("a")
    life.lease("a")
    life.hand_in("a")
    life.refuse("a")
    assert (life.states(), life.of("a").attempt, life.of("a").repairs) == ({"a": "running"}, 2, 1)


def test_mended_work_goes_to_the_end_of_the_merge_queue() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    life.lease("a", "b")
    life.hand_in("a", "b")
    life.refuse("a")
    life.hand_in("a")
    assert life.merges() == ["b"]


def test_what_the_world_did_is_not_given_back_to_be_mended() -> None:
    life = IN_STATE["merging_leased"]()
    for _ in range(MERGE_TRIES - 1):
        life.refuse("a", Cause.FAULT)
        assert (life.states(), life.of("a").repairs) == ({"a": "merging"}, 0)
        life.tick_to_wake()
    life.refuse("a", Cause.FAULT)
    assert life.states() == {"a": "failed"}


def test_work_whose_holder_is_gone_lands_all_the_same() -> None:
    life = IN_STATE["merging_leased"]()
    life.end("a", Cause.LEASE_LOST, "It died.")
    assert life.merges() == ["a"]
    life.merge("a")
    assert life.states() == {"a": "merged"}


def test_work_whose_holder_is_gone_goes_to_the_next_one_when_it_is_refused() -> None:
    life = IN_STATE["merging_leased"]()
    life.end("a", Cause.LEASE_LOST, "It died.")
    life.refuse("a")
    assert life.states() == {"a": "running"}, "until it is saved"
    life.collect("a", saved="refs/saved")
    assert (life.states(), life.of("a").attempt) == ({"a": "offered"}, 2)


def test_outside_a_living_wave_nobody_is_asked_to_repair() -> None:
    life = IN_STATE["merging_leased"]()
    life.interrupt()
    life.refuse("a")
    assert (life.states(), life.wave.state) == ({"a": "pending"}, WaveState.FINISHED)


def test_a_refused_merge_of_the_last_attempt_fails_the_story_for_good() -> None:
    life = Life(story("a", critical=True), story("b"))
    life.team(attempts=1, repairs=0)
    life.lease("a", "b")
    life.hand_in("a")
    life.refuse("a")
    assert (life.states(), life.wave.state) == ({"a": "failed", "b": "stopping"}, WaveState.DRAINING)


def test_work_of_a_process_is_not_given_back() -> None:
    life = IN_STATE["merging"]()
    life.refuse("a")
    assert (life.states(), life.of("a").attempt) == ({"a": "offered"}, 2)


# --- slots -----------------------------------------------------------------------------------------------------------


def test_a_story_takes_its_slot_until_it_is_merged_because_its_sub_agent_waits() -> None:
    life = Life(story("a"), story("b"))
    life.team(slots=1)
    life.lease("a")
    life.hand_in("a")
    assert life.states() == {"a": "merging", "b": "queued"}
    assert _why(life, "b") == "Waits for a slot: 1 slot, taken by a; number 1 in line."
    life.refuse("a")
    assert life.states() == {"a": "running", "b": "queued"}
    life.merge("a")
    assert life.states() == {"a": "merged", "b": "offered"}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("strategy", Strategy)
def test_it_takes_a_slot_of_every_wave_in_the_repository(strategy: Strategy, ended: bool) -> None:
    life = Life(story("a"))
    life.plan(story("y"), epic="f")
    life.team(slots=1)
    life.lease("a")
    life.hand_in("a")
    if ended:
        life.end("a", Cause.LEASE_LOST, "It died.")
    life.start(epic="f", strategy=strategy, slots=1)
    assert life.states("f") == {"y": "queued"}
    life.refuse("a")
    assert (life.states(), life.states("f")) == ({"a": "running"}, {"y": "queued"})
    if ended:
        life.collect("a")
    life.merge("a")
    assert life.states("f") == {"y": "offered"}


def test_merges_of_processes_take_no_slot_beside_sub_agents() -> None:
    life = Life(story("a"))
    life.plan(story("y"), epic="f")
    life.start(slots=1)
    life.succeed("a")
    life.team(epic="f", slots=1)
    assert life.states("f") == {"y": "offered"}


def test_an_offer_that_nobody_claims_is_waited_for() -> None:
    life = Life(story("a"))
    life.team()
    life.tick(100_000.0)
    assert (life.states(), wanted(life.ledger), life.wave.state) == ({"a": "offered"}, frozenset(), WaveState.RUNNING)


# --- cancel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["offered_team", "leased", "leased_ended", "repairing"])
@pytest.mark.parametrize("name", ["a", None])
def test_a_cancelled_story_stops_and_its_holder_is_told_why(before: str, name: str | None) -> None:
    life = IN_STATE[before]()
    life.cancel(name, reason="not needed")
    assert (life.states(), wanted(life.ledger)) == ({"a": "stopping"}, frozenset())
    if before != "offered_team":
        with pytest.raises(Refused) as caught:
            life.command(RenewLease(life.attempt("a"), "t1", ""))
        refused = caught.value
        assert (refused.code, "(not needed)" in refused.why) == (Code.LEASE_LOST, True)
    life.stopped("a", saved="refs/saved")
    assert (life.states(), life.wave.state) == ({"a": "cancelled"}, WaveState.FINISHED)


def test_a_story_in_the_merge_queue_is_stopped_with_its_epic_only() -> None:
    life = IN_STATE["merging_leased"]()
    assert _refused(lambda: life.cancel("a")).code is Code.TOO_LATE
    life.cancel()
    assert (life.states(), life.merges()) == ({"a": "stopping"}, [])
    life.stopped("a")
    assert life.states() == {"a": "cancelled"}


def test_a_repair_that_is_stopped_holds_up_nobodys_merge() -> None:
    """It is no merge any more: the integration worktree is free."""
    life = Life(story("a"), story("b"))
    life.team()
    life.lease("a", "b")
    life.hand_in("a")
    life.refuse("a")
    life.hand_in("b")
    life.cancel("a")
    assert (life.states(), life.merges()) == ({"a": "stopping", "b": "merging"}, ["b"])


# --- other waves, measures, journals ---------------------------------------------------------------------------------


def test_a_story_may_go_on_under_another_strategy() -> None:
    life = Life(story("a"))
    life.team(attempts=1)
    life.lease("a")
    life.end("a")
    life.collect("a")
    life.start(retry=True)
    life.claim("a")
    assert (life.agents(), life.of("a").lease, life.of("a").repairs) == (["a"], None, 0)
    life.merge("a")
    assert life.states() == {"a": "merged"}


def test_a_living_wave_of_sub_agents_keeps_its_strategy() -> None:
    life = Life(story("a"), story("b", "a"))
    life.team("ready")
    refused = _refused(lambda: life.start(strategy=Strategy.SEQUENTIAL))
    assert (refused.code, "agent-teams" in refused.why, "cancel_epic" in refused.remedy) == (Code.EPIC_BUSY, True, True)


def test_a_sub_agents_work_is_measured_from_the_claim_to_the_last_hand_in() -> None:
    life = Life(story("a"))
    life.team()
    life.tick(5.0)
    life.lease("a")
    life.tick(10.0)
    life.hand_in("a")
    life.refuse("a")
    life.tick(10.0)
    life.merge("a")
    (span,) = spans(life.log, "e")
    assert (span.started_s, span.ended_s, span.outcome) == (5.0, 25.0, "merged")


NEW_FIELDS = {
    "WaveStarted": ("notes",),
    "WaveWidened": ("notes",),
    "MergeRefused": ("onto",),
}


def _as_before(event: Event) -> Event:
    """The event as an epicwave without leases would have written it, read again."""
    _, kind, version, body = codec.encode(event)
    fields = json.loads(body)
    for name in NEW_FIELDS.get(kind, ()):
        del fields[name]
    if "policy" in fields:
        del fields["policy"]["lease_s"], fields["policy"]["repairs"]
    return codec.decode(1, kind, version, json.dumps(fields))


def test_a_journal_from_before_there_were_leases_tells_the_same() -> None:
    life = Life(story("a"), story("b"), story("z", "a"))
    life.plan(story("y"), epic="f")
    life.start(1)
    life.start("all")
    life.start(epic="f", strategy=Strategy.SEQUENTIAL)
    life.merge("a")
    life.succeed("b")
    life.refuse("b")
    life.interrupt()
    life.plan(story("a"), story("b"), story("c"))
    life.start("ready")
    kinds = {type(event).__name__ for event in life.log}
    assert {"WaveStarted", "WaveWidened", "MergeRefused", "WaveInterrupted"} <= kinds
    assert replayed([_as_before(event) for event in life.log]) == replayed(life.log) == life.ledger


@pytest.mark.parametrize(("careful", "overlap"), [("true", Sharing.EXCLUSIVE), ("false", Sharing.OPTIMISTIC)])
def test_a_row_of_a_wave_that_was_stored_before_is_read_with_the_settings_of_today(
    careful: str, overlap: Sharing
) -> None:
    policy = (
        '{"strategy":"asyncio","slots":3,"fail_fast":true,"conflict_detection":' + careful + ',"attempts":2,'
        '"attempt_timeout_s":1800.0,"stall_timeout_s":600.0,"check_timeout_s":600.0,"agent":"claude","checks":[]}'
    )
    body = f'{{"epic":"e","members":["a"],"retried":[],"policy":{policy},"base":"b","at_s":1.0}}'
    expected = WaveStarted("e", ("a",), (), Policy(Strategy.ASYNCIO, slots=3, overlap=overlap), "b", 1.0)
    assert codec.decode(1, "WaveStarted", 1, body) == codec.decode(1, "WaveStarted", 1, body.encode()) == expected


def test_a_damaged_row_of_a_wave_of_before_is_refused_as_any_other() -> None:
    elsewhere = '{"policy": {}, "notes": {"conflict_detection": 1}}'
    for body in ('{"conflict_detection"', elsewhere, '["conflict_detection"]'):
        with pytest.raises(Refused) as caught:
            codec.decode(1, "WaveStarted", 1, body)
        assert caught.value.code is Code.JOURNAL_UNREADABLE
