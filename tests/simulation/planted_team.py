"""Bugs of the engine that sub-agents of the editor would suffer from, planted on purpose, and what catches each."""

from __future__ import annotations

from functools import partial

from mcp_server.core import leases
from mcp_server.engine import collect, leasing, lifecycle, merging
from mcp_server.engine.engine import Engine
from mcp_server.engine.leasing import Leasing
from tests.engine import test_team, test_team_restart, test_team_silence, test_team_trouble
from tests.simulation.test_planted_bugs import Bug

BUGS = [
    # --- the job of a lease that is over
    Bug(
        "nobody looks for a sign of life",
        collect.collect,
        "await _touched_s(context)",
        "0.0",
        partial(test_team_silence.test_a_changed_worktree_renews_the_lease_from_the_change_on, isolated=True),
    ),
    Bug(
        "a report while git looks is overruled",
        collect.collect,
        "await anyio.lowlevel.checkpoint_if_cancelled()",
        "pass",
        partial(
            test_team_silence.test_work_that_is_handed_in_while_git_looks_for_a_sign_of_life_is_merged,
            touched=True,
            stubborn=True,
        ),
    ),
    Bug(
        "the end of a lease is not on record before its work is saved",
        collect.collect,
        "if not context.report(LeaseEnded(attempt, *ended, now_s)):",
        "if False:",
        partial(test_team_restart.test_the_end_of_a_lease_that_was_on_record_stands_after_a_restart, "kill"),
    ),
    Bug(
        "who gives up late is called silent",
        collect.collect,
        "return None",
        "pass",
        partial(
            test_team_silence.test_who_gives_up_while_git_looks_for_a_sign_of_life_is_quoted,
            isolated=True,
        ),
    ),
    Bug(
        "a silent holder's work is not saved before the next one comes",
        collect.collect,
        "await saved_work(ports, attempt)",
        "None",
        partial(
            test_team_silence.test_a_silent_holders_story_goes_to_the_next_one_at_the_deadline_and_its_work_is_saved,
            isolated=True,
        ),
    ),
    Bug(
        "the reason of the refusal is forgotten with the holder",
        collect.collect,
        "story.failure if story.repairs else None",
        "None",
        partial(
            test_team_silence.test_a_refused_merge_whose_holder_is_gone_goes_to_the_next_with_the_reason,
            told=True,
            isolated=False,
        ),
    ),
    Bug(
        "a clock that lags makes the end of a lease come round for ever",
        collect.collect,
        "context.now_s()",
        "ports.clock.now_s()",
        partial(
            test_team_silence.test_a_clock_that_is_set_back_prolongs_no_lease_and_writes_no_journal_full,
            3600.0,
        ),
    ),
    # --- the engine
    Bug(
        "a holder that was heard of after all stops the engine",
        Engine._live,  # pyright: ignore[reportPrivateUsage] - bugs may be anywhere
        "if fact is None and isinstance(job, Collect):",
        "if False:",
        partial(
            test_team_silence.test_a_report_after_the_deadline_counts_as_long_as_the_end_is_not_on_record,
            isolated=True,
            stubborn=False,
        ),
    ),
    Bug(
        "a lease that runs out again is not collected",
        Engine._live,  # pyright: ignore[reportPrivateUsage]
        "self._reconcile()\n        return",
        "return",
        test_team_silence.test_a_lease_that_runs_out_again_while_git_still_looks_is_collected,
    ),
    Bug(
        "two jobs tell how a cancelled story ended",
        Engine._tells_the_stop,  # pyright: ignore[reportPrivateUsage]
        " and not merges",
        "",
        partial(
            test_team_silence.test_cancel_of_a_merge_while_git_still_looks_for_a_sign_of_life_is_told_once,
            stubborn=True,
        ),
    ),
    Bug("work that its holder is to mend is cleared away", merging._kept, "None if repairs else ", ""),  # pyright: ignore[reportPrivateUsage]
    Bug(
        "what was added after the hand-in goes with our worktree",
        merging.forget,
        "await ports.worktrees.give_back(attempt, lease.head)",
        "pass",
        partial(
            test_team_silence.test_work_that_goes_on_after_it_was_handed_in_is_saved_and_not_merged,
            isolated=False,
            committed=True,
        ),
    ),
    Bug(
        "a restart interrupts a wave whose sub-agents live",
        lifecycle._left_over,  # pyright: ignore[reportPrivateUsage]
        "if is_team(epic) and is_alive(epic.wave):",
        "if False:",
        partial(test_team_restart.test_the_wave_and_its_leases_outlive_the_server, "kill", isolated=True),
    ),
    Bug(
        "a restart tidies up what is lent",
        lifecycle.is_over,
        "story.state not in LIVE | {StoryState.MERGING}",
        "story.state is not StoryState.MERGING",
    ),
    # --- claims and reports
    Bug(
        "two claims get the same story",
        Leasing.claim,
        "self._preparing.add(attempt)",
        "pass",
        partial(test_team.test_two_claims_at_once_get_two_stories_and_a_third_gets_none, isolated=False),
    ),
    Bug(
        "a claim that comes twice takes two stories",
        leases.held_by,
        "(holder and lease.holder == holder)",
        "False",
        partial(test_team.test_a_claim_that_comes_twice_is_answered_with_the_same_story, isolated=False),
    ),
    Bug(
        "whose story is cancelled during the claim gets none",
        Leasing.claim,
        "if wanted is not None or",
        "if True or",
        partial(
            test_team_trouble.test_cancel_while_a_claim_is_under_way_leaves_nothing_behind,
            "lend",
            isolated=True,
            stubborn=True,
        ),
    ),
    Bug(
        "what a cancelled claim made is left behind",
        leasing._lend,  # pyright: ignore[reportPrivateUsage]
        "await saved_work(ports, attempt)",
        "pass",
        partial(
            test_team_trouble.test_cancel_while_a_claim_is_under_way_leaves_nothing_behind,
            "lend",
            isolated=False,
            stubborn=True,
        ),
    ),
    Bug(
        "a claim that nobody waits for leases a story",
        leasing._lend,  # pyright: ignore[reportPrivateUsage]
        "await anyio.lowlevel.checkpoint_if_cancelled()",
        "pass",
        partial(
            test_team_restart.test_a_claim_that_ended_half_way_is_offered_again_and_can_be_claimed,
            "close",
            isolated=True,
            stubborn=True,
        ),
    ),
    Bug(
        "an attempt starts where the epic started",
        leasing._lend,  # pyright: ignore[reportPrivateUsage]
        "await ports.merge.tip(attempt.epic)",
        'engine.ledger.epics[attempt.epic].base or ""',
    ),
    Bug(
        "judging work counts as silence",
        leasing.hand_in,
        'engine.handle(RenewLease(attempt, token, ""))',
        "pass",
        test_team_silence.test_a_report_that_git_takes_long_to_judge_is_no_silence,
    ),
    Bug(
        "whose story was cancelled is told to make its branch again",
        leasing.hand_in,
        "held(engine.ledger, attempt, token)  # else",
        "# else",
        partial(
            test_team_trouble.test_a_report_during_which_its_story_is_cancelled_is_told_that_and_not_what_git_says,
            isolated=False,
        ),
    ),
    Bug("the same work is tried again and again", leasing.hand_in, "if outcome.head != lease.head:", "if True:"),
]
