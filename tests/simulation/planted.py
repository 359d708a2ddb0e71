"""Bugs that somebody could make, planted on purpose: each a function of the core with one piece of its text changed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import cast

from tests.core import (
    test_admission,
    test_breakers,
    test_budgets,
    test_decide,
    test_leases,
    test_parking,
    test_questions,
    test_replanning,
    test_team_waves,
    test_transitions,
    test_waves,
)


@dataclass(frozen=True, slots=True)
class Bug:
    """One change of one function."""

    where: str
    """Module of the core and function."""
    right: str
    """Text that stands there once."""
    wrong: str
    caught_by: Callable[[], None] | None = None
    """The test that fails with it; None for the search."""


BUGS: dict[str, Bug] = {
    "slots off by one": Bug("settle._is_full", ">= slots_of(wave)", "> slots_of(wave)"),
    "dependencies ignored": Bug(
        "stories._moved",
        "state is StoryState.QUEUED and not shape.needs[place] & ~_union(states, SATISFIES)",
        "state is StoryState.QUEUED",
    ),
    "a merge frees nobody": Bug("stories._moved", "in shape.dependents[place]", "in ()"),
    "what was freed stays ready": Bug("stories._moved", "elif was is StoryState.QUEUED:", "elif False:"),
    "overlap ignored": Bug("apart.clash", "contested(mine, terms, footprint_of(other), other.terms)", "()"),
    "files freed before the merge": Bug(
        "apart.clash", "in begun:", "in ((e, s) for e, s in begun if s.state != 'merging'):"
    ),
    "stopping counted as free": Bug("settle.occupied", "else LIVE", "else LIVE - {StoryState.STOPPING}"),
    "merge queue takes no slot in sequence": Bug(
        "settle.occupied",
        "LIVE | {StoryState.MERGING} if",
        "LIVE if",
        test_admission.test_one_after_the_other_means_that_the_one_before_is_merged,
    ),
    "attempt not counted": Bug(
        "settle._admitted",
        "attempt=story.attempt + 1",
        "attempt=story.attempt",
        test_transitions.test_a_failure_is_kept_for_the_next_attempt_with_cause_tail_and_saved_work,
    ),
    "shortest path first": Bug(
        "stories.urgency",
        "-story.rank",
        "story.rank",
        test_admission.test_the_longest_remaining_path_goes_first,
    ),
    "backoff ignored": Bug(
        "settle.candidates",
        "found[2].not_before_s <= ledger.as_of_s",
        "True",
        test_admission.test_a_story_that_backs_off_does_not_stand_in_anothers_way,
    ),
    "one who waits blocks the line": Bug(
        "settle._admit",
        "wave, story) is not None:\n            continue",
        "wave, story) is not None:\n            break",
        test_admission.test_a_story_that_waits_for_its_files_does_not_stand_in_anothers_way,
    ),
    "blocked stories stay queued": Bug("settle._put_back", "else stories.doomed()", "else ()"),
    "draining keeps the queue": Bug("settle._put_back", "wave.state is WaveState.DRAINING", "False"),
    "a wave ends while something is alive": Bug("settle._end", "*UNDER_WAY", "StoryState.QUEUED"),
    "a moment is slept through": Bug(
        "settle._settled",
        "(others_quiet_until_s, *coming)",
        "(inf, *coming)",
        test_breakers.test_one_probe_for_all_epics_together,
    ),
    "what a fact has moved is not settled": Bug("settle._stands", "epic.stories.stand_as(was.stories)", "True"),
    "what is spent is not settled": Bug(
        "settle._stands",
        "(epic.wave, epic.paused, epic.used) == (was.wave, was.paused, was.used)",
        "True",
        test_budgets.test_an_epic_that_has_spent_its_budget_drains_and_stops_its_agents_but_merges_what_is_done,
    ),
    "a breaker that closes frees nobody": Bug(
        "settle._stands", "after.breakers is before.breakers", "True", test_parking.test_a_resume_lifts_it
    ),
    "retry beyond the budget": Bug("outcomes._ended", "story.attempt < budget", "story.attempt <= budget"),
    "cancelled story queued again": Bug(
        "outcomes.stopped_state", "else StoryState.CANCELLED", "else StoryState.QUEUED"
    ),
    "process kept after success": Bug(
        "outcomes._went_on",
        "process=None,\n                base=event.base,",
        "base=event.base,",
    ),
    "interrupted story stays running": Bug(
        "interrupted.interrupted",
        "elif story.state in LIVE or",
        "elif",
    ),
    "left-over merge in no wave": Bug("evolve._started", "(*event.members, *left_over)", "event.members"),
    "widening forgets its members": Bug("evolve._widened", " | frozenset(event.members)", ""),
    "fail_fast ignores critical": Bug(
        "outcomes.fail_fast",
        " and story.spec.critical",
        "",
        lambda: test_waves.test_only_a_critical_story_under_fail_fast_stops_the_wave(critical=False, fail_fast=True),
    ),
    "fail_fast lets siblings run": Bug(
        "change.halt",
        "epic = stop(epic, story, because)",
        "pass",
        test_waves.test_a_critical_story_that_fails_for_good_stops_its_siblings_and_drains_the_wave,
    ),
    "second failure lost": Bug(
        "outcomes._ended",
        "stopped_state(story) if left else StoryState.FAILED",
        "stopped_state(story)",
        test_waves.test_two_failures_at_once_are_both_recorded,
    ),
    "merge tried for ever": Bug(
        "outcomes._failed",
        "story.merge_faults + 1 < MERGE_TRIES",
        "True",
        test_waves.test_a_merge_that_the_world_fails_too_often_fails_and_no_agent_is_paid_for_it_again,
    ),
    "clock runs backwards": Bug(
        "evolve.evolve",
        "event.at_s < ledger.as_of_s",
        "False",
        test_transitions.test_a_clock_that_was_set_back_stands_still,
    ),
    "planning again forgets": Bug(
        "evolve._planned",
        "if known is not None",
        "if False",
        test_replanning.test_an_edited_epic_keeps_what_is_merged_and_takes_the_new_words,
    ),
    "late fact accepted": Bug("decide.accept", "story.attempt != fact.attempt.number or", ""),
    "hopeless wave started": Bug(
        "decide._startable",
        "if s.spec.id in hopeful",
        "",
        test_decide.test_a_wave_takes_no_story_that_it_can_never_start,
    ),
    "merge queue not ordered": Bug(
        "wanted.merge_head",
        "min(stories",
        "max(stories",
        test_admission.test_merges_go_one_at_a_time_in_order_of_arrival,
    ),
    "merge beside a stopped one": Bug(
        "wanted.merge_head",
        "any(s.head is not None for s in stories.in_state(StoryState.STOPPING))",
        "False",
        test_admission.test_a_stopped_merge_of_an_interrupted_wave_holds_up_the_merges_of_the_next_until_it_is_gone,
    ),
    "alarm forgets the queue": Bug("settle.waits_s", "if s.state is StoryState.QUEUED", "if False"),
    "alarm rings in the past": Bug("wanted.next_wake_s", "ledger.as_of_s < wait_s", "0.0 < wait_s"),
}
"""Of processes, and of what both strategies have in common. What no test is named for, the search catches."""

LEASE_BUGS: dict[str, Bug] = {
    "report with another token taken": Bug("leases.held", "and lease.token == token", ""),
    "report of an earlier attempt taken": Bug(
        "leases.held",
        "and story.attempt == attempt.number",
        "",
        lambda: test_leases.test_a_report_with_any_other_lease_is_refused("hand_in", "leased", ("e", "a", 0), "t1"),
    ),
    "report after the end of the lease taken": Bug("leases.held", " or lease.ended is not None", ""),
    "report of a stopped story taken": Bug("leases.held", " or story.state not in states", ""),
    "deadline missed by a moment": Bug("leases.is_over", "lease.until_s <= now_s", "lease.until_s < now_s"),
    "lease that was given up is waited for": Bug(
        "leases.is_over",
        "lease.ended is not None or",
        "",
        test_leases.test_a_lease_that_was_given_up_is_collected_at_once_and_needs_no_alarm,
    ),
    "one repair too many": Bug(
        "leases.can_repair",
        "story.repairs < wave.policy.repairs",
        "story.repairs <= wave.policy.repairs",
        lambda: test_team_waves.test_a_holder_mends_as_often_as_the_policy_says_and_then_the_next_attempt_begins(1),
    ),
    "process asked to repair": Bug("leases.can_repair", "and story.lease is not None", ""),
    "no time to repair in": Bug(
        "leases.renewed_until_s",
        "full_s if story.repairs else",
        "",
        test_team_waves.test_to_mend_it_the_holder_has_as_long_as_anew_and_no_limit_of_the_attempt,
    ),
    "attempt without a limit": Bug(
        "leases.renewed_until_s",
        "min(full_s, lease.began_s + policy.attempt_timeout_s)",
        "full_s",
        test_leases.test_each_report_makes_it_last_anew_up_to_the_limit_of_the_attempt,
    ),
    "sign of life shortens the lease": Bug(
        "leases.renewed_until_s",
        "max(lease.until_s, min(full_s, lease.began_s + policy.attempt_timeout_s))",
        "min(full_s, lease.began_s + policy.attempt_timeout_s)",
        test_leases.test_a_sign_of_life_of_a_while_ago_never_makes_it_end_earlier,
    ),
    "lease longer than an attempt": Bug(
        "leases._claim",
        "min(policy.lease_s, policy.attempt_timeout_s)",
        "policy.lease_s",
        test_leases.test_a_lease_lasts_for_the_silence_that_is_allowed_but_never_longer_than_an_attempt,
    ),
    "earlier offer claimed": Bug(
        "leases._claim",
        " and story.attempt == attempt.number",
        "",
        lambda: test_leases.test_a_claim_of_another_attempt_is_refused_with_what_is_offered(("e", "a", 0)),
    ),
    "least urgent offered first": Bug(
        "leases.offers",
        "key=urgency",
        "key=urgency, reverse=True",
        test_leases.test_offers_come_with_the_longest_remaining_path_first,
    ),
    "processes' stories offered to sub-agents": Bug("leases.offers", "not is_team(epic)", "False"),
    "misspelt lease sent home": Bug(
        "leases._lost",
        "attempt.number >= story.attempt",
        "attempt.number > story.attempt",
        test_leases.test_a_report_without_a_lease_never_says_that_work_is_kept,
    ),
    "repairs not counted": Bug(
        "outcomes._repair",
        "repairs=story.repairs + 1",
        "repairs=story.repairs",
        lambda: test_team_waves.test_a_holder_mends_as_often_as_the_policy_says_and_then_the_next_attempt_begins(3),
    ),
    "repair keeps the old deadline": Bug(
        "outcomes._repair",
        "lease=replace(story.lease, until_s=until_s),",
        "",
        test_team_waves.test_to_mend_it_the_holder_has_as_long_as_anew_and_no_limit_of_the_attempt,
    ),
    "repair taken for a merge": Bug(
        "outcomes._repair",
        "head=None,",
        "",
        test_team_waves.test_a_repair_that_is_stopped_holds_up_nobodys_merge,
    ),
    "fault of the world given to the holder": Bug(
        "outcomes._failed",
        "event.cause is not Cause.FAULT and can_repair",
        "can_repair",
        test_team_waves.test_what_the_world_did_is_not_given_back_to_be_mended,
    ),
    "question costs an attempt": Bug(
        "outcomes._ended",
        "failure.cause is Cause.QUESTION",
        "False",
        test_questions.test_a_question_in_the_last_attempt_of_a_critical_story_fails_nothing,
    ),
    "answer lost": Bug(
        "evolve._queue",
        "told.get(story_id, story.advice)",
        "story.advice",
        test_questions.test_an_answer_starts_the_story_and_reaches_its_brief,
    ),
    "answered question asked again": Bug(
        "evolve._queue",
        "answered=True",
        "answered=False",
        lambda: test_questions.test_a_question_that_was_answered_is_not_asked_again_when_its_wave_ends_early(
            {"retry": True}
        ),
    ),
    "renewal forgotten": Bug(
        "outcomes._lease_after",
        "until_s=event.until_s, ",
        "",
        test_leases.test_each_report_makes_it_last_anew_up_to_the_limit_of_the_attempt,
    ),
    "next attempt begins with repairs used up": Bug(
        "settle._admitted",
        "repairs=0,",
        "",
        test_team_waves.test_the_next_attempt_may_be_repaired_as_often_again,
    ),
    "next attempt begins with the old lease": Bug(
        "settle._admitted",
        "lease=None,",
        "",
        test_team_waves.test_a_story_may_go_on_under_another_strategy,
    ),
    "slot freed before the repair": Bug(
        "settle.occupied",
        " or (s.state is StoryState.MERGING and s.lease is not None)",
        "",
    ),
    "process started for a sub-agent's story": Bug("wanted.wanted", "if not team:", "if True:"),
    "lost lease never collected": Bug("wanted.wanted", "jobs.add(Collect(attempt))", "pass"),
    "alarm forgets the leases": Bug("wanted.next_wake_s", "waits.append(lease.until_s)", "pass"),
    "alarm for a lease rings in the past": Bug("wanted.next_wake_s", "ledger.as_of_s < wait_s", "0.0 < wait_s"),
    "question asked again by a plain start": Bug(
        "decide._start_wave",
        "s.state in over or question(s)",
        "s.state in over",
        test_questions.test_a_plain_start_does_not_ask_again,
    ),
    "answer starts nothing": Bug(
        "decide._start_wave",
        "or (question(s) and s.spec.id in told)",
        "",
        test_questions.test_an_answer_starts_the_story_and_reaches_its_brief,
    ),
    "note that nobody reads taken": Bug(
        "decide._check_notes",
        "if unheard:",
        "if False:",
        lambda: test_questions.test_notes_for_what_the_call_does_not_start_are_refused(
            "ready", {"b": "Hm."}, "The notes for b would reach nobody: this call starts a, c."
        ),
    ),
    "second end of a lease counts": Bug(
        "decide._fits",
        "lease.ended is None and is_over(story, now_s)",
        "is_over(story, now_s)",
        lambda: test_leases.test_a_job_ends_no_lease_whose_holder_was_heard_of_while_it_looked("it gives up"),
    ),
    "lease ended that was renewed meanwhile": Bug(
        "decide._fits",
        "and is_over(story, now_s)",
        "",
        lambda: test_leases.test_a_job_ends_no_lease_whose_holder_was_heard_of_while_it_looked("it is heard of"),
    ),
    "work taken after the end of its lease": Bug(
        "decide._fits",
        "lease is None or lease.ended is None",
        "True",
        lambda: test_transitions.test_any_other_fact_comes_too_late("succeeded", "leased_ended"),
    ),
    "merges of an epic counted with its lost leases": Bug(
        "invariants._check_jobs",
        "if isinstance(j, Integrate)",
        "",
    ),
    "question does not block": Bug(
        "views.roots_of_block",
        " or question(below)",
        "",
        test_questions.test_a_question_parks_its_story_and_frees_its_slot_and_files,
    ),
}


@contextmanager
def planted(bug: Bug) -> Generator[None]:
    """The core with the bug in it. The code object is exchanged, so that every importer of the function has it."""
    module, _, name = bug.where.partition(".")
    function = cast("FunctionType", getattr(importlib.import_module(f"mcp_server.core.{module}"), name))
    source = inspect.getsource(function)
    assert source.count(bug.right) == 1, f"{bug.right!r} stands {source.count(bug.right)} times in {bug.where}"
    changed = compile(source.replace(bug.right, bug.wrong), function.__code__.co_filename, "exec")
    (code,) = (c for c in changed.co_consts if isinstance(c, CodeType) and c.co_name == name)
    right = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = right
