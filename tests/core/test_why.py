"""Why a story is not running: each state has a sentence that names what it waits for, or the next move."""

from __future__ import annotations

import pytest

from mcp_server.core.events import MergeRefused
from mcp_server.core.model import Cause
from mcp_server.core.why import alerts, ended, why
from tests.core.build import Life, story
from tests.core.in_state import IN_STATE


def _why(life: Life, name: str) -> str:
    epic, _, story_id = name.rpartition("/")
    return why(life.ledger, life.ledger.epics[epic or "e"], life.of(story_id if not epic else name))


SENTENCES = {
    "pending": "Ready: start_wave starts it.",
    "queued": "Tries again in 2 s. Attempt 1 ended as fault: it broke.",
    "offered": "Its worktree is being made",
    "running": "",
    "stopping": "told to stop (changed my mind)",
    "stopping_merge": "told to stop (changed my mind)",
    "merging": "being rebased and checked",
    "merged": "",
    "failed": "Attempt 2 ended as agent_failed: it broke. No attempt is left.",
    "cancelled": "cancelled (changed my mind). To go on: start_wave with retry=true",
    "offered_team": "Waits for a sub-agent that claims it.",
    "leased": "",
    "silent": "",
    "leased_ended": "It gave up. Its work is being saved.",
    "merging_leased": "being rebased and checked",
    "repairing": "Its sub-agent repairs (1): red.",
    "stopping_leased": "told to stop (changed my mind)",
    "asking": "It asks: Which colour? Answer with start_wave(epic='e', notes={'a': 'ANSWER'}).",
    "skipped": "It was skipped (not worth it)",
    "paused": "Tries again in 2 s.",
    "parked": "The agent 'scripted' has come to a rate limit and is parked until 00:00 UTC, 41 s from now",
    "held": "Tries again in 2 s.",
    "draining": "",
    "stopping_budget": "told to stop (1.00 of 1.00 USD are used)",
}


@pytest.mark.parametrize("state", IN_STATE)
def test_every_state_has_its_sentence(state: str) -> None:
    said = _why(IN_STATE[state](), "a")
    assert SENTENCES[state] in said
    assert bool(said) == bool(SENTENCES[state])


def test_a_queued_story_names_the_dependencies_that_it_waits_for() -> None:
    life = Life(story("a"), story("b"), story("c", "a", "b"))
    life.start()
    life.claim("a")
    life.merge("b")
    assert _why(life, "c") == "Waits for a (running)."


def test_a_queued_story_names_who_holds_its_files() -> None:
    life = Life(story("a", files="src/x.py src/y.py"), story("b", files="src/"))
    life.start()
    assert _why(life, "b").startswith("Waits for its files: a (offered) holds src/x.py, src/y.py")


def test_a_file_that_another_epic_holds_is_named_with_it() -> None:
    life = Life(story("a", files="x"))
    life.plan(story("y", files="x"), epic="f")
    life.start()
    life.start(epic="f")
    assert _why(life, "f/y") == "Waits for its files: e/a (offered) holds x."


def test_a_queued_story_names_who_has_the_slots_and_its_place_in_line() -> None:
    life = Life(story("a", minutes=5), story("b"), story("c", minutes=3))
    life.start(slots=1)
    assert _why(life, "b") == "Waits for a slot: 1 slot, taken by a; number 2 in line."


def test_a_story_that_is_tried_again_says_how_it_ended_before_and_where_its_work_is() -> None:
    life = Life(story("a", minutes=9), story("b"), story("c"))
    life.start(slots=1)
    life.fail("a", Cause.FAULT, saved="refs/saved")
    life.tick(2.0)
    assert _why(life, "a").startswith("Waits for a slot: 1 slot, taken by b; number 1 in line.")
    assert "Attempt 1 ended as fault: it broke. Its work is kept at refs/saved." in _why(life, "a")


def test_a_blocked_story_names_the_roots_and_the_way_out() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "b"))
    life.start(attempts=1)
    life.fail("a")
    assert _why(life, "c") == (
        "Blocked by a (failed). To try those again: start_wave with retry=true, or `epicwave run` again."
    )


def test_a_pending_story_behind_pending_ones_names_them() -> None:
    life = Life(story("a"), story("b", "a"))
    assert _why(life, "b") == "Waits for a (pending)."


def test_a_ready_story_outside_the_living_wave_says_how_it_gets_in() -> None:
    life = Life(story("a"), story("b"), story("c", "a"))
    life.start("ready")
    life.merge("a")
    assert _why(life, "c") == "Ready, but not in wave 1: start_wave adds it."


def test_a_story_that_a_draining_wave_put_back_names_what_ended_the_wave() -> None:
    life = Life(story("a", critical=True), story("b", files="x"), story("c", files="x"))
    life.start(attempts=1)
    life.fail("a")
    assert _why(life, "c") == "Wave 1 admits nothing more (fail_fast: critical story 'a' failed)."
    life.stopped("b")
    assert _why(life, "c") == "Ready: start_wave starts it."


def test_a_story_in_the_merge_queue_names_those_ahead() -> None:
    life = Life(story("a"), story("b"), story("c"))
    life.start(slots=3)
    life.succeed("b", "c", "a")
    assert [_why(life, n) for n in "bca"] == [
        "Its commits are being rebased and checked.",
        "In the merge queue behind b.",
        "In the merge queue behind b, c.",
    ]


def test_a_merge_that_backs_off_says_for_how_long_and_what_went_wrong() -> None:
    life = Life(story("a"))
    life.start()
    life.succeed("a")
    life.refuse("a", Cause.FAULT)
    assert _why(life, "a") == "The merge is tried again in 2 s. red."


def test_a_merge_behind_a_stopped_one_says_so() -> None:
    life = Life(story("a"), story("b"))
    life.start()
    life.succeed("a")
    life.interrupt()
    life.cancel()
    life.start(retry=True)
    life.succeed("b")
    assert _why(life, "b") == "In the merge queue behind a merge that is being stopped."


def test_a_story_that_was_done_before_says_so() -> None:
    assert _why(Life(story("a", done=True)), "a") == "The epic file marks it as done."


def test_a_cancelled_story_says_where_its_work_is_kept() -> None:
    life = Life(story("a"))
    life.start()
    life.claim("a")
    life.cancel("a", reason="too slow")
    life.stopped("a", saved="refs/saved")
    assert _why(life, "a").startswith("It was cancelled (too slow). Its work is kept at refs/saved.")


def test_before_any_attempt_there_is_no_end_to_tell() -> None:
    assert ended(None) == ""


def test_behind_a_probe_a_story_says_that_one_attempt_finds_out() -> None:
    life = Life(story("a"), story("b"))
    life.start(breaker_faults=1, cooldown_s=30.0)
    life.claim("a", "b")
    life.fail("a", Cause.CRASH)
    life.fail("b", Cause.CRASH)
    life.tick(30.0)
    assert life.agents() == ["a"]
    said = "The agent 'scripted' fails: one attempt finds out whether it works again (crash: it broke)."
    assert _why(life, "b").startswith(said)
    assert alerts(life.ledger, life.epic) == [said]


def test_what_holds_the_agents_of_no_living_wave_is_nobodys_alert() -> None:
    life = Life(story("a"))
    life.start(breaker_faults=1, attempts=1)
    life.fail("a", Cause.SPAWN)
    assert len(alerts(life.ledger, life.epic)) == 1
    life.interrupt()
    assert life.breaker().opened == 1
    assert alerts(life.ledger, life.epic) == []


def test_a_set_up_that_fails_again_and_again_is_named_as_what_pauses_all() -> None:
    life = Life(story("a"))
    life.start(breaker_faults=1, cooldown_s=30.0)
    life.fail("a", Cause.SETUP)
    [said] = alerts(life.ledger, life.epic)
    assert said.startswith("The set-up of worktrees fails: nothing starts until")
    assert "(setup: it broke)" in said
    merging = Life(story("a"))
    merging.start(breaker_faults=1)
    merging.succeed("a")
    merging.report(
        MergeRefused(merging.attempt("a"), Cause.FAULT, "setup: `npm ci` exited with 1", "", None, merging.now_s)
    )
    assert alerts(merging.ledger, merging.epic)[0].startswith("The set-up of worktrees fails")
