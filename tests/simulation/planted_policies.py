"""Bugs that somebody could make in breakers, parking, budgets, limits, and in what a lead says on the way."""

from __future__ import annotations

from functools import partial

from mcp_server.core.model import Cause
from tests.core import (
    test_adaptive_slots,
    test_blocks,
    test_breakers,
    test_budgets,
    test_parking,
    test_policy,
    test_steer,
    test_time_limits,
    test_transitions,
)
from tests.simulation.planted import Bug

POLICY_BUGS: dict[str, Bug] = {
    "open breaker lets start": Bug("breakers.held", "breaker.opened and breaker.until_s > ledger.as_of_s", "False"),
    "second probe let through": Bug("breakers.held", "breaker.opened and breaker.probe is not None", "False"),
    "parked profile starts": Bug("breakers.held", "breaker.parked_until_s > ledger.as_of_s", "False"),
    "probe not noted": Bug("breakers.with_probe", "if not opened:", "if True:"),
    "probe that is gone is waited for": Bug(
        "breakers._looked_after",
        "replace(breaker, probe=None) if ends_s is None else _closed(breaker)",
        "breaker if ends_s is None else _closed(breaker)",
        partial(test_breakers.test_a_probe_that_says_nothing_makes_room_for_the_next, "cancel"),
    ),
    "probe that is gone closes it": Bug(
        "breakers._looked_after",
        "replace(breaker, probe=None) if ends_s is None else _closed(breaker)",
        "_closed(breaker)",
        partial(test_breakers.test_a_probe_that_says_nothing_makes_room_for_the_next, "interrupt"),
    ),
    "time of the worktree counts for the probe": Bug(
        "outcomes._running",
        "since_s=event.at_s, ",
        "",
        test_breakers.test_the_time_of_a_probe_begins_with_its_agent_and_not_with_its_worktree,
    ),
    "honest failure counted as a fault": Bug(
        "breakers.judged",
        "if fact.cause in FAULTS:",
        "if True:",
        partial(test_breakers.test_an_agent_that_works_badly_is_no_fault, Cause.AGENT_FAILED),
    ),
    "fault of git blamed on the agent": Bug(
        "breakers.judged",
        "case AttemptFailed() if fact.cause in REPOSITORYS:",
        "case AttemptFailed() if False:",
        partial(test_breakers.test_a_fault_of_git_or_of_a_set_up_opens_the_breaker_of_the_repository, Cause.FAULT),
    ),
    "set-up that fails blamed on the agent": Bug(
        "breakers.judged",
        "fact.cause in REPOSITORYS:",
        "fact.cause is Cause.FAULT:",
        partial(test_breakers.test_a_fault_of_git_or_of_a_set_up_opens_the_breaker_of_the_repository, Cause.SETUP),
    ),
    "half open for sub-agents whose set-up fails": Bug(
        "breakers.judged",
        "fresh=is_team(epic)",
        "fresh=False",
        test_breakers.test_a_set_up_that_fails_for_a_sub_agent_opens_it_again_though_only_a_lease_is_a_probe,
    ),
    "two attempts have the same ports": Bug(
        "blocks.free_block",
        "if stop > first:",
        "if False:",
        test_blocks.test_an_attempt_gets_the_lowest_free_block_when_it_is_admitted,
    ),
    "a block reaches into the next one": Bug(
        "blocks.free_block",
        "if first + size <= start:",
        "if first < start:",
        test_blocks.test_epics_with_other_blocks_never_share_a_port_either,
    ),
    "rate limit counted as a good end": Bug(
        "breakers.judged",
        "case AttemptFailed() if fact.cause is Cause.RATE_LIMIT:",
        "case AttemptFailed() if False:",
        test_parking.test_it_costs_no_attempt_and_no_fault_however_often,
    ),
    "merge that lands shows nothing": Bug(
        "breakers.judged",
        "AttemptClaimed() | BranchMerged()",
        "AttemptClaimed()",
        test_breakers.test_merges_that_the_world_fails_open_the_breaker_of_the_repository,
    ),
    "team probe not noted": Bug(
        "breakers.judged",
        "breakers=with_probe(ledger, (name,), fact.attempt)",
        "breakers=ledger.breakers",
        test_breakers.test_half_open_one_may_be_claimed_and_then_none_until_it_has_worked,
    ),
    "earlier attempt closes it": Bug(
        "breakers._fared_well",
        "breaker.opened and breaker.probe != attempt",
        "False",
        test_breakers.test_attempts_from_before_it_opened_say_nothing_of_it,
    ),
    "good end does not break the row": Bug(
        "breakers._fared_well",
        "replace(_closed(breaker), parks=0)",
        "replace(breaker, parks=0)",
        test_breakers.test_a_good_end_between_two_faults_keeps_it_closed,
    ),
    "earlier attempt opens it again": Bug(
        "breakers._faulted",
        "breaker.probe != fact.attempt and not",
        "False and not",
        test_breakers.test_attempts_from_before_it_opened_say_nothing_of_it,
    ),
    "one fault too many": Bug(
        "breakers._faulted",
        "faults < policy.breaker_faults",
        "faults <= policy.breaker_faults",
        test_breakers.test_it_counts_by_order_of_completion_and_not_of_start,
    ),
    "cool-down never grows": Bug(
        "breakers._faulted",
        "cooldown_s(opened,",
        "cooldown_s(1,",
        test_breakers.test_a_probe_that_faults_opens_it_for_twice_as_long_up_to_the_cap,
    ),
    "cool-down never starts over": Bug(
        "breakers._closed",
        "opened=0, ",
        "",
        test_breakers.test_a_probe_that_succeeds_closes_it,
    ),
    "switched off breaker opens": Bug(
        "breakers._faulted",
        "if not policy.breaker_faults:",
        "if False:",
        test_breakers.test_with_no_number_of_faults_it_never_opens,
    ),
    "merge that fails again prolongs it": Bug(
        "breakers._faulted",
        "(fresh and breaker.until_s <= at_s)",
        "fresh",
        test_breakers.test_while_it_cools_down_a_merge_that_fails_again_does_not_make_it_longer,
    ),
    "fallback never used": Bug(
        "breakers.choose",
        "policy.fallback and held(ledger, policy.fallback) is None",
        "False",
        test_breakers.test_a_fallback_takes_the_stories_of_a_held_profile,
    ),
    "held fallback used": Bug(
        "breakers.choose",
        "policy.fallback and held(ledger, policy.fallback) is None",
        "policy.fallback",
        test_breakers.test_while_both_are_held_nothing_starts_and_each_gets_a_probe_of_its_own,
    ),
    "git's breaker ignored": Bug(
        "breakers.choose",
        "if hold is not None:\n        return hold",
        "if False:\n        return hold",
        partial(test_breakers.test_a_fault_of_git_or_of_a_set_up_opens_the_breaker_of_the_repository, Cause.FAULT),
    ),
    "who had the fault is the probe": Bug(
        "settle._admit",
        "any(breaker.opened for breaker in ledger.breakers.values())",
        "False",
        test_breakers.test_half_open_admits_exactly_one_probe,
    ),
    "resume closes the breaker": Bug(
        "breakers.resumed",
        "replace(breaker, until_s=until_s,",
        "replace(breaker, opened=0, probe=None, until_s=until_s,",
        test_breakers.test_a_resume_makes_it_half_open_at_once_but_does_not_close_it,
    ),
    "resume does not lift parking": Bug(
        "breakers.resumed",
        "parked_until_s=min(breaker.parked_until_s, ledger.as_of_s)",
        "parked_until_s=breaker.parked_until_s",
        test_parking.test_a_resume_lifts_it,
    ),
    "all may claim while half open": Bug(
        "leases.claimable",
        "open_[:1] if half_open else open_",
        "open_",
        test_breakers.test_half_open_one_may_be_claimed_and_then_none_until_it_has_worked,
    ),
    "claims of an open breaker": Bug(
        "leases.claimable",
        " or team_hold(ledger) is not None",
        "",
        test_breakers.test_while_it_is_open_nobody_may_claim_and_the_offers_stay,
    ),
    # --- parking
    "named time ignored": Bug(
        "breakers._parked",
        "until_s is None or until_s <= at_s",
        "True",
        test_parking.test_the_profile_is_parked_until_the_time_that_was_named,
    ),
    "parked until a moment that is over": Bug(
        "breakers._parked",
        "until_s is None or until_s <= at_s",
        "until_s is None",
        partial(test_parking.test_without_a_time_to_come_it_backs_off_longer_each_time, 0.0),
    ),
    "second limit ends the parking": Bug(
        "breakers._parked",
        "max(until_s, breaker.parked_until_s)",
        "until_s",
        test_parking.test_a_second_limit_never_ends_the_parking_earlier,
    ),
    "parked profile is not waited for": Bug("breakers.waits_s", "yield breaker.parked_until_s", "pass"),
    "cool-down is not waited for": Bug("breakers.waits_s", "yield breaker.until_s", "pass"),
    "probe's time is not waited for": Bug(
        "breakers.waits_s",
        "yield probe_ends_s(ledger, breaker) or 0.0",
        "pass",
        test_breakers.test_a_probe_that_has_worked_for_a_while_closes_it,
    ),
    # --- what an end costs
    "rate limit costs an attempt": Bug(
        "outcomes._is_free",
        "if event.cause is Cause.RATE_LIMIT:\n        return True",
        "if False:\n        return True",
        test_parking.test_it_costs_no_attempt_and_no_fault_however_often,
    ),
    "crash is always free": Bug(
        "outcomes._is_free",
        "and shared and",
        "and",
        test_breakers.test_a_crash_before_it_opens_costs_an_attempt,
    ),
    "crash that opens it costs an attempt": Bug(
        "outcomes._is_free",
        " or (breaker is not None and breaker.opened > 0)",
        "",
        test_breakers.test_nothing_is_failed_by_an_open_breaker,
    ),
    "faults are free for ever": Bug(
        "outcomes._is_free",
        " and story.faults < epic.wave.policy.fault_tries",
        "",
        test_breakers.test_the_worlds_doing_costs_no_attempt_so_many_times,
    ),
    "no wait after a fault": Bug(
        "outcomes._wait_s",
        "failure.cause not in BACKED_OFF",
        "True",
        partial(test_transitions.test_a_current_fact_brings_the_story_into_its_next_state, "crashed", "running"),
    ),
    # --- budgets
    "budget of a story ignored": Bug(
        "outcomes._limited",
        "story_share(story, budget) < 1.0",
        "True",
        test_budgets.test_a_story_that_has_spent_its_budget_is_stopped_and_fails_with_that_cause,
    ),
    "spent story is merely cancelled": Bug(
        "outcomes.stopped_state",
        "story.stop_cause is Cause.BUDGET",
        "False",
        test_budgets.test_a_story_that_has_spent_its_budget_is_stopped_and_fails_with_that_cause,
    ),
    "spent story tried again": Bug(
        "outcomes._ended",
        "left and not cancelled and",
        "False and",
        test_budgets.test_a_failure_that_says_that_all_is_spent_is_not_tried_again,
    ),
    "cancelled story failed for its budget": Bug(
        "outcomes._ended",
        "left and not cancelled and",
        "left and",
        test_budgets.test_who_is_cancelled_stays_cancelled_also_beyond_its_budget,
    ),
    "budget of an epic ignored": Bug("settle._on_time", "epic_share(epic) >= 1.0", "False"),
    "costs counted twice": Bug(
        "spending.told",
        "usage.usd, story.using.usd), max",
        "usage.usd + story.using.usd, 0.0), max",
        test_budgets.test_reports_tell_what_the_attempt_has_cost_in_all_and_never_less,
    ),
    "earlier attempts cost nothing": Bug(
        "spending.closed",
        "used=story.used.plus(story.using)",
        "used=story.using",
        test_budgets.test_a_refused_merge_of_a_spent_story_is_not_tried_again,
    ),
    "nothing is forgiven": Bug(
        "evolve._queue",
        "if over else story.forgiven",
        "if False else story.forgiven",
        partial(test_budgets.test_what_a_story_cost_is_forgiven_when_it_is_tried_again_on_purpose, "retry"),
    ),
    "an interruption forgives": Bug(
        "evolve._queue",
        "if over else story.forgiven",
        "if True else story.forgiven",
        test_budgets.test_a_story_that_was_only_put_back_is_forgiven_nothing,
    ),
    "warning too late": Bug(
        "spending.warnings", ">= WARN_AT else []", "> 1.0 else []", test_budgets.test_a_warning_comes_at_80_percent
    ),
    "spent epic started again": Bug(
        "decide._check_budget",
        ">= 1.0",
        "> 1.0",
        test_budgets.test_a_spent_epic_is_not_started_again_before_its_budget_is_raised,
    ),
    # --- time, slots
    "time of a wave ignored": Bug(
        "settle._on_time",
        "deadline is not None and deadline <= now_s",
        "False",
        test_time_limits.test_when_the_time_is_over_agents_are_stopped_and_done_work_is_merged,
    ),
    "time of a wave is not waited for": Bug(
        "settle.waits_s",
        "yield deadline_s(wave) or 0.0",
        "pass",
        test_time_limits.test_when_the_time_is_over_agents_are_stopped_and_done_work_is_merged,
    ),
    "no slot is left": Bug(
        "outcomes._tallied",
        "wave.fewer < wave.policy.slots - 1",
        "True",
        test_adaptive_slots.test_one_slot_is_always_left,
    ),
    "good ends do not count": Bug(
        "outcomes._went_on",
        "_tallied(epic._replace(merges=epic.merges + 1), event.at_s, bad=False)",
        "epic._replace(merges=epic.merges + 1)",
        test_adaptive_slots.test_good_ends_count_too,
    ),
    "calm gives nothing back": Bug(
        "settle._on_time",
        "calm_s is not None and calm_s <= now_s",
        "False",
        test_adaptive_slots.test_calm_gives_them_back_one_by_one_and_never_more_than_there_were,
    ),
    # --- what a lead says
    "paused epic starts": Bug("settle._next", "epic.paused or ", ""),
    "paused offers claimed": Bug(
        "leases.claimable",
        "epic.paused or ",
        "",
        test_steer.test_sub_agents_may_claim_nothing_of_a_paused_epic,
    ),
    "skipped while alive": Bug(
        "steer._skip",
        "story.state not in idle",
        "False",
        partial(test_steer.test_a_story_is_skipped_where_nothing_of_it_is_alive, "running"),
    ),
    "retried under what went on without it": Bug("steer._retry", "if built_on:", "if False:"),
    "retry without attempts": Bug(
        "evolve._retried",
        "(event.story,), wave.policy.attempts, notes",
        "(event.story,), 0, notes",
        test_steer.test_a_retry_goes_into_the_living_wave_with_new_attempts,
    ),
    "retried story in no wave": Bug("evolve._retried", "wave.members | {event.story}", "wave.members"),
    "drain forgets its reason": Bug(
        "change.drain",
        "epic.wave.state is not WaveState.RUNNING",
        "False",
        test_steer.test_draining_keeps_the_first_reason,
    ),
    # --- arithmetic
    "jitter takes all": Bug(
        "policy.backoff_s", "(1.0 + share) / 2.0", "share", test_policy.test_the_series_are_those_of_the_docstrings
    ),
    "polls never slow down": Bug(
        "policy.poll_after_s",
        "max(quiet_s, 0.0)",
        "0.0",
        test_policy.test_the_intervals_of_polls_grow_by_the_same_factor_and_begin_anew_after_activity,
    ),
    "a fifth is too bad": Bug(
        "policy.too_bad",
        "sum(ends) > BAD_SHARE",
        "sum(ends) >= BAD_SHARE",
        partial(test_policy.test_more_than_a_fifth_is_too_bad, (False,) * 4 + (True,), bad=False),
    ),
    "same jitter for all": Bug("policy.jitter", "(seed, *names)", "(seed,)", test_policy.test_jitter_is_spread),
}
