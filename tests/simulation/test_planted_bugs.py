"""Bugs planted one at a time in the engine and the core: each is caught by a life or by a test with a name."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import pytest

from mcp_server.core import apart, decide, settle
from mcp_server.core.limits import Strategy
from mcp_server.engine import context, jobs, lifecycle, merging
from mcp_server.engine.engine import Engine
from mcp_server.testing.breach import Promise
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.fate import Config
from mcp_server.testing.lives import live
from tests.engine import test_admission, test_batch, test_cancel, test_engine, test_faults, test_pause
from tests.simulation.planted_adoption import BUGS as ADOPTION_BUGS

LIVES = 600
"""A bug that needs more lives than this to be caught is as good as not caught."""


class Bug(NamedTuple):
    """Words of a function, and what they are replaced by."""

    name: str
    function: Callable[..., Any]
    right: str
    wrong: str
    test: Callable[[], Awaitable[None]] | None = None
    """What catches it; None for the lives."""


BUGS = [
    Bug("work is not rescued", context.saved_work, "await ports.worktrees.rescue(attempt)", "None"),
    Bug(
        "git moves without a proof in the journal",
        merging._land,  # pyright: ignore[reportPrivateUsage] - bugs may be anywhere
        "context.report(MergeProven(car.attempt, proven, car.landing.files, ports.clock.now_s()))",
        "pass",
    ),
    Bug(
        "the move of the branch can be interrupted",
        merging._land,  # pyright: ignore[reportPrivateUsage]
        "with anyio.CancelScope(shield=True):  # once",
        "with anyio.CancelScope():  # once",
        test_cancel.test_cancel_while_git_moves_the_branch_comes_too_late,
    ),
    Bug(
        "a stop in the instant when the checks end is not seen",
        merging.integrate,
        "await anyio.lowlevel.checkpoint_if_cancelled()",
        "pass",
        test_cancel.test_cancel_in_the_instant_when_the_checks_end_is_obeyed_before_git_moves,
    ),
    Bug("red checks are ignored", merging._is_green, "runs[-1].exit_code == 0", "True"),  # pyright: ignore[reportPrivateUsage]
    Bug(
        "a branch that moved meanwhile is taken for merged",
        merging._land,  # pyright: ignore[reportPrivateUsage]
        "if not await ports.merge.advance(last.attempt, head.landing.onto, last.landing.head, before):",
        "if not await ports.merge.advance(last.attempt, head.landing.onto, last.landing.head, before) and False:",
    ),
    Bug(
        "only the head of a batch is put on record as proven",
        merging._land,  # pyright: ignore[reportPrivateUsage]
        "for car in good:",
        "for car in good[:1]:",
        test_batch.test_a_crash_while_git_moves_a_batch_loses_and_doubles_nothing,
    ),
    Bug(
        "git notes only the last of a batch",
        merging._land,  # pyright: ignore[reportPrivateUsage]
        "for car in good[:-1])",
        "for car in good[:0])",
        test_batch.test_what_landed_together_is_noted_for_each_of_them,
    ),
    Bug(
        "the innocent of a red batch are refused, too",
        merging._proved,  # pyright: ignore[reportPrivateUsage]
        "good, proof = half, runs",
        "proof = runs; break",
        test_batch.test_of_a_red_batch_only_the_culprit_is_refused,
    ),
    Bug(
        "a batch is landed without the last check",
        merging._proved,  # pyright: ignore[reportPrivateUsage]
        "if _is_green(again):",
        "if True:",
    ),
    Bug(
        "whoever waits behind a batch is stopped while git moves it",
        Engine._reconcile,  # pyright: ignore[reportPrivateUsage]
        "for attempt in _whom(job)}",
        "for attempt in [job.attempt]}",
        test_batch.test_cancel_while_git_moves_a_batch_comes_too_late_for_all_of_it,
    ),
    Bug(
        "an attempt starts where the epic started",
        jobs.run_attempt,
        "await ports.merge.tip(attempt.epic)",
        'context.epic.base or ""',
    ),
    Bug(
        "a verdict is lost when a stop comes",
        jobs.run_attempt,
        "anyio.CancelScope(shield=True)",
        "anyio.CancelScope()",
        test_cancel.test_an_agent_that_fails_by_itself_while_it_is_told_to_stop_is_told_as_failed,
    ),
    Bug(
        "a stopped merge does not ask git",
        jobs.stopped,
        "story.proven is not None",
        "False",
        test_cancel.test_cancel_finds_a_merge_that_git_has_and_nobody_knew_of,
    ),
    Bug(
        "git is asked once whether it has a merge",
        merging.has_landed,
        "range(LOOKS)",
        "range(1)",
        partial(test_faults.test_while_git_does_not_say_whether_it_has_a_merge_nobody_guesses, cancelled=True),
    ),
    Bug(
        "a fault in tidying up undoes a merge",
        merging.forget,
        "suppress(Fault)",
        "suppress()",
        test_faults.test_a_landed_merge_is_never_undone_by_a_fault_in_tidying_up,
    ),
    Bug(
        "what is unwanted is not stopped",
        Engine._reconcile,  # pyright: ignore[reportPrivateUsage] - bugs may be anywhere
        "scope.cancel()",
        "pass",
        test_cancel.test_cancel_while_running_saves_what_there_is,
    ),
    Bug(
        "a merge that waits is never stopped",
        Engine._reconcile,  # pyright: ignore[reportPrivateUsage]
        "stopping(self.ledger)",
        "set()",
    ),
    Bug(
        "a fact takes effect before it is stored",
        Engine.submit,
        "self.ports.journal.append([event])\n        self.ledger = after",
        "self.ledger = after\n        self.ports.journal.append([event])",
    ),
    Bug(
        "an engine that is over takes facts",
        Engine.end,
        "self._is_over = True",
        "pass",
        test_pause.test_an_engine_whose_jobs_are_gone_takes_nothing_more,
    ),
    Bug("the alarm never rings", Engine.ring, "wake_s = next_wake_s(self.ledger)", "wake_s = None"),
    Bug("recovery does not look what is left", lifecycle.recover, "await ports.worktrees.held()", "[]"),
    Bug(
        "recovery throws away instead of saving",
        lifecycle.clear,
        "attempt.number == story.attempt and story.state is StoryState.MERGED",
        "story.state is not StoryState.MERGING",
    ),
    Bug(
        "recovery tells nobody that the wave is over",
        lifecycle._left_over,  # pyright: ignore[reportPrivateUsage]
        "if epic.stories.any_in(*LIVE) or (is_alive(epic.wave) and not manner.goes_on):",
        "if False:",
    ),
    Bug(
        "a slot is free before the process is gone",
        settle.occupied,
        "else LIVE",
        "else LIVE - {StoryState.STOPPING}",
    ),
    Bug(
        "files are free before the merge",
        apart.clash,
        "in begun:",
        "in ((e, s) for e, s in begun if s.state != 'merging'):",
        test_admission.test_a_file_is_free_only_when_its_holder_is_merged,
    ),
    Bug(
        "a late fact is accepted",
        decide.accept,
        "story.attempt != fact.attempt.number or ",
        "",
        test_engine.test_a_late_fact_is_dropped_by_the_fence,
    ),
]


def plant(bug: Bug, patch: pytest.MonkeyPatch) -> None:
    """Put the bug into the function itself, so that everybody who has it has the bug."""
    source = textwrap.dedent(inspect.getsource(bug.function))
    right, wrong = (textwrap.indent(text, "").strip() for text in (bug.right, bug.wrong))
    found = source.count(right)
    assert found == 1, f"{right!r} is there {found} times; mend this list"
    code = compile(source.replace(right, wrong), "planted", "exec", flags=__future__.annotations.compiler_flag)
    namespace: dict[str, Any] = {}
    exec(code, dict(bug.function.__globals__), namespace)  # noqa: S102 - our own source, changed in one place
    planted = namespace[bug.function.__name__]
    assert isinstance(planted, FunctionType)
    patch.setattr(bug.function, "__code__", planted.__code__)


OURS = ("AssertionError", "TimeoutError", "Refused", "DeskGone")
"""Errors by which a life may show a bug; any other says that the plant itself is bad."""


def breaks(seed: int, only: Strategy | None = None) -> set[Promise]:
    """The promises that a life breaks."""
    breaches = live(Config.of(seed, only)).breaches
    foul = [b.words for b in breaches if b.promise is Promise.STATE and not b.words.startswith(OURS)]
    assert not foul, f"mend this list: {foul}"
    return {breach.promise for breach in breaches}


def caught(bug: Bug) -> int | None:
    """The number of the life (or of the run of its test) that broke a promise."""
    if bug.test is None:
        return next((seed for seed in range(LIVES) if breaks(seed)), None)
    found: int | None = None
    for seed in range(3):
        try:
            run_seeded(bug.test, seed)
        except* (AssertionError, TimeoutError):  # anything else says that the plant itself is bad
            found = seed
        if found is not None:
            break
    return found


@pytest.mark.parametrize("bug", [*BUGS, *(Bug(*bug) for bug in ADOPTION_BUGS)], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(bug, monkeypatch)
    assert caught(bug) is not None, f"nobody noticed that {bug.name}"
