"""Bugs that somebody could make, planted on purpose: each a function of the core with one piece of its text changed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import cast

from tests.core import test_admission, test_decide, test_replanning, test_transitions, test_waves


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
    "slots off by one": Bug("settle._admit", ">= wave.policy.slots", "> wave.policy.slots"),
    "dependencies ignored": Bug("settle.candidates", "and dependencies_merged(epic, story)", ""),
    "overlap ignored": Bug("settle.clash", "overlap(story.spec.files, other.spec.files)", "()"),
    "files freed before the merge": Bug("settle.clash", "in HOLDS_FILES", "in LIVE"),
    "stopping counted as free": Bug("settle.occupied", "else LIVE", "else LIVE - {StoryState.STOPPING}"),
    "merge queue takes no slot in sequence": Bug(
        "settle.occupied",
        "LIVE | {StoryState.MERGING} if",
        "LIVE if",
        test_admission.test_one_after_the_other_means_that_the_one_before_is_merged,
    ),
    "attempt not counted": Bug(
        "settle._admit",
        "attempt=story.attempt + 1",
        "attempt=story.attempt",
        test_transitions.test_a_failure_is_kept_for_the_next_attempt_with_cause_tail_and_saved_work,
    ),
    "shortest path first": Bug(
        "settle.candidates",
        "-c[2].rank",
        "c[2].rank",
        test_admission.test_the_longest_remaining_path_goes_first,
    ),
    "backoff ignored": Bug(
        "settle.candidates",
        "and story.not_before_s <= ledger.as_of_s",
        "",
        test_admission.test_a_story_that_backs_off_does_not_stand_in_anothers_way,
    ),
    "one who waits blocks the line": Bug(
        "settle._admit",
        "continue",
        "break",
        test_admission.test_a_story_that_waits_for_its_files_does_not_stand_in_anothers_way,
    ),
    "blocked stories stay queued": Bug("settle._put_back", "(StoryState.FAILED, StoryState.CANCELLED,", "("),
    "draining keeps the queue": Bug("settle._put_back", "wave.state is WaveState.DRAINING or", ""),
    "a wave ends while something is alive": Bug("settle._end", "not in at_rest", "is StoryState.QUEUED"),
    "retry beyond the budget": Bug("evolve._failed", "story.attempt < story.budget", "story.attempt <= story.budget"),
    "cancelled story queued again": Bug("evolve._reported", "StoryState.CANCELLED", "StoryState.QUEUED"),
    "process kept after success": Bug(
        "evolve._reported",
        "process=None,\n                base=event.base,",
        "base=event.base,",
    ),
    "interrupted story stays running": Bug(
        "evolve._interrupted",
        "story.state in LIVE or",
        "story.state is StoryState.STOPPING or",
    ),
    "left-over merge in no wave": Bug("evolve._started", "(*event.members, *left_over)", "event.members"),
    "widening forgets its members": Bug("evolve._widened", " | frozenset(event.members)", ""),
    "fail_fast ignores critical": Bug(
        "evolve._failed",
        "story.spec.critical and",
        "",
        lambda: test_waves.test_only_a_critical_story_under_fail_fast_stops_the_wave(critical=False, fail_fast=True),
    ),
    "fail_fast lets siblings run": Bug(
        "evolve._fail_fast",
        "epic = stop(epic, sibling, reason)",
        "pass",
        test_waves.test_a_critical_story_that_fails_for_good_stops_its_siblings_and_drains_the_wave,
    ),
    "second failure lost": Bug(
        "evolve._failed",
        "StoryState.CANCELLED if left else StoryState.FAILED",
        "StoryState.CANCELLED",
        test_waves.test_two_failures_at_once_are_both_recorded,
    ),
    "merge tried for ever": Bug(
        "evolve._failed",
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
        "min(queue",
        "max(queue",
        test_admission.test_merges_go_one_at_a_time_in_order_of_arrival,
    ),
    "merge beside a stopped one": Bug(
        "wanted.merge_head",
        "s.state is StoryState.STOPPING",
        "False",
        test_admission.test_a_stopped_merge_of_an_interrupted_wave_holds_up_the_merges_of_the_next_until_it_is_gone,
    ),
    "alarm forgets the queue": Bug("wanted.next_wake_s", "queued or", "False or"),
    "alarm rings in the past": Bug("wanted.next_wake_s", "and story.not_before_s > ledger.as_of_s", ""),
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
