"""The two jobs. Each is a coroutine that ends by returning one fact; only a named fault is caught."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, assert_type

import anyio
import anyio.lowlevel

from mcp_server.core.brief import brief
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Fact,
    MergeProven,
    MergeRefused,
    UsageReported,
)
from mcp_server.core.leases import can_repair
from mcp_server.core.limits import Policy
from mcp_server.core.model import NOTHING_USED, Cause, CheckRun, Epic, Lease, Process, Proven, Story, Usage
from mcp_server.core.policy import MERGE_TRIES, backoff_s
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.core.spending import worth_telling
from mcp_server.engine.environment import require_room, set_up, set_up_integration, within_quota
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import (
    AgentCall,
    Conflicted,
    Done,
    Ended,
    Landing,
    NoCommits,
    Outcome,
    Ports,
    ProcessEnd,
    Uncommitted,
    WrongBase,
)

LOOKS = 4
"""Times git is asked whether a merge has landed before it is taken for not landed; with backoff 14 seconds."""
TIP_MOVES = 5
"""Times a merge starts again because somebody moved the integration branch meanwhile."""
PATHS_SHOWN = 10
LINE_SHOWN = 200
"""Characters of an agent's last line that a status shows."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a job may know: the story as it was when the job started, the world, and a way to report on the way."""

    epic: Epic
    story: Story
    attempt: AttemptId
    policy: Policy
    ports: Ports
    report: Callable[[Fact], bool]
    """Tells a fact on the way; False when it comes too late."""
    now_s: Callable[[], float]
    """The engine's time, which is never before the last fact."""
    goes_on: bool = False
    """What it starts may outlive the engine."""

    @property
    def checks(self) -> tuple[tuple[str, ...], ...]:
        """All checks of the story."""
        return checks_of(self.epic, self.story, self.policy)


def checks_of(epic: Epic, story: Story, policy: Policy) -> tuple[tuple[str, ...], ...]:
    """What a story's merged tree must pass: the configuration's checks, the epic's, its own, each once."""
    return tuple(dict.fromkeys((*policy.checks, *epic.spec.checks, *story.spec.checks)))


async def run_attempt(context: Context) -> AttemptSucceeded | AttemptFailed:
    """One agent in one worktree, to the verdict on what it left. One that another engine started is adopted."""
    attempt, ports, environment = context.attempt, context.ports, context.policy.environment
    process = context.story.process
    try:
        base = await ports.merge.tip(attempt.epic) if process is None else context.story.base or ""
        hold = ports.worktrees.hold if process is None else ports.worktrees.retake
        if process is None:
            await require_room(ports, environment)
        async with hold(attempt, base) as path:
            if process is None:
                await set_up(ports, environment, attempt, path, base, context.story.ports)
                run = partial(ports.runner.run_agent, _call(context, path), _claim(context, base))
            else:
                run = partial(ports.runner.adopt, _call(context, path), process)
            end = await within_quota(ports, environment, path, run, _meter(context))
            outcome: Outcome = NoCommits()
            with anyio.CancelScope(shield=True):  # it has ended by itself: how, is told even if a stop comes now
                outcome = await ports.worktrees.inspect(attempt, base)
    except Fault as fault:
        await _leave_nobody(context)
        return await _attempt_failed(context, *told_as(fault), tail=fault.tail)
    verdict = _verdict(end, outcome, context.policy)
    if isinstance(outcome, Done) and verdict is None:
        return AttemptSucceeded(attempt, base, outcome.head, outcome.files, ports.clock.now_s(), end.usage)
    cause, detail = verdict or (Cause.FAULT, "unreachable")
    return await _attempt_failed(context, cause, detail, end)


async def _leave_nobody(context: Context) -> None:
    """End an agent that was to be adopted and may be at work still."""
    if context.story.process is not None:
        with anyio.CancelScope(shield=True):
            await context.ports.runner.end_leftover(context.attempt, context.story.process)


def _call(context: Context, worktree: Path) -> AgentCall:
    """Its limits count from its own start, whoever's agent it was then."""
    policy, story = context.policy, context.story
    ran_s = context.now_s() - story.since_s if story.process is not None else 0.0
    return AgentCall(
        attempt=context.attempt,
        profile=story.agent,
        worktree=worktree,
        brief=brief(context.epic, story, context.attempt, context.checks),
        timeout_s=policy.attempt_timeout_s,
        stall_s=policy.stall_timeout_s,
        ports=story.ports,
        outlives=context.goes_on,
        ran_s=ran_s,
    )


def _claim(context: Context, base: Sha) -> Callable[[Process], None]:
    def claimed(process: Process) -> None:
        context.report(AttemptClaimed(context.attempt, process, base, context.ports.clock.now_s()))

    return claimed


def _meter(context: Context) -> Callable[[Usage], None]:
    """Tells what the attempt costs on the way, when it matters for a budget: it may be stopped for that."""
    told = NOTHING_USED

    def used(usage: Usage) -> None:
        nonlocal told
        if worth_telling(told, usage, context.policy.budget):
            told = usage
            context.report(UsageReported(context.attempt, usage, context.ports.clock.now_s()))

    return used


def _verdict(end: ProcessEnd, outcome: Outcome, policy: Policy) -> tuple[Cause, str] | None:
    """Why the attempt is not done, in words for the next one; None when it is."""
    if end.trouble is not None:
        return end.trouble, _troubled(end)
    match end.how:
        case Ended.TIMEOUT:
            return Cause.TIMEOUT, f"It was ended after {policy.attempt_timeout_s:g} s, the limit of an attempt."
        case Ended.STALL:
            return Cause.STALL, f"It was ended after {policy.stall_timeout_s:g} s without a line of output."
        case Ended.QUOTA:
            limit = f"{policy.environment.quota_mb} MB (worktree_quota_mb)"
            return Cause.QUOTA, f"It was ended because its worktree grew beyond {limit}."
        case Ended.EXITED if end.exit_code != 0:
            return Cause.AGENT_FAILED, f"The agent exited with code {end.exit_code}."
        case _:
            assert_type(end.how, Literal[Ended.EXITED])
    match outcome:
        case Done():
            return None
        case NoCommits():
            return Cause.NO_COMMITS, "The agent exited with code 0 but left no commit and no change."
        case Uncommitted(paths):
            shown = ", ".join(paths[:PATHS_SHOWN]) + (
                f" and {len(paths) - PATHS_SHOWN} more" * (len(paths) > PATHS_SHOWN)
            )
            return Cause.UNCOMMITTED, f"The agent left changes that are not committed: {shown}."
        case _:
            assert_type(outcome, WrongBase)
            return Cause.WRONG_BASE, f"Its HEAD {outcome.head[:10]} does not descend from the commit that it was given."


def _troubled(end: ProcessEnd) -> str:
    """What ended the agent that was none of its own doing, with its last line."""
    words = {Cause.RATE_LIMIT: "Its provider limits its rate", Cause.API_ERROR: "Its provider failed or refused it"}
    said = end.tail.strip().rpartition("\n")[2][:LINE_SHOWN]
    what = words.get(end.trouble) if end.trouble is not None else None
    return f"{what or 'The agent crashed'} (exit code {end.exit_code}): {said or 'it printed nothing'}"


def told_as(fault: Fault) -> tuple[Cause, str]:
    """A fault of the world's as the end of an attempt."""
    match fault.cause:
        case FaultCause.SPAWN:
            return Cause.SPAWN, fault.detail
        case FaultCause.SETUP:
            return Cause.SETUP, fault.detail
        case _:
            return Cause.FAULT, f"{fault.cause}: {fault.detail}"


async def _attempt_failed(
    context: Context, cause: Cause, detail: str, end: ProcessEnd | None = None, tail: str = ""
) -> AttemptFailed:
    saved = await saved_work(context.ports, context.attempt)
    at_s = context.ports.clock.now_s()
    if end is None:
        return AttemptFailed(context.attempt, cause, detail, tail, saved, at_s)
    return AttemptFailed(context.attempt, cause, detail, end.tail, saved, at_s, end.resumes_at_s, end.usage)


async def saved_work(ports: Ports, attempt: AttemptId) -> str | None:
    """Rescue what is left of an attempt. When even that fails, the work stays where it is until the next start."""
    try:
        with anyio.CancelScope(shield=True):
            return await ports.worktrees.rescue(attempt)
    except Fault:
        return None


async def stopped(context: Context) -> AttemptStopped | BranchMerged:
    """The end of an attempt that was told to stop: a merge that git has already is told, anything else is saved."""
    attempt, story, ports = context.attempt, context.story, context.ports
    await _leave_nobody(context)
    with anyio.CancelScope(shield=True):
        if story.proven is not None and await has_landed(ports, attempt, story.proven):
            return await _landed(context, story.proven.head, story.files_changed)
    return AttemptStopped(attempt, await saved_work(ports, attempt), ports.clock.now_s())


async def has_landed(ports: Ports, attempt: AttemptId, proven: Proven) -> bool:
    """True when the integration branch has what was proven. While git fails it is asked again: a guess could be wrong.

    After `LOOKS` it is taken for not merged: most likely there is no such branch any more.
    """
    for faults in range(LOOKS):
        if faults:
            await anyio.sleep(backoff_s(faults))
        with suppress(Fault):
            return await ports.merge.contains(attempt.epic, proven.head)
    return False


async def forget(ports: Ports, attempt: AttemptId, lease: Lease | None) -> None:
    """Remove the branch of an attempt that has landed, and a lent worktree. When that fails, the next start does it."""
    with suppress(Fault), anyio.CancelScope(shield=True):
        if lease is not None and lease.head is not None:
            await ports.worktrees.give_back(attempt, lease.head)
        await ports.merge.forget(attempt)


async def integrate(context: Context) -> BranchMerged | MergeRefused:
    """Rebase, prove, move the branch: each step is safe to repeat, so a crash between any two changes nothing."""
    attempt, story, ports = context.attempt, context.story, context.ports
    try:
        if story.proven is not None and await ports.merge.contains(attempt.epic, story.proven.head):
            return await _landed(context, story.proven.head, story.files_changed)
        for _ in range(TIP_MOVES):
            landing = await ports.merge.rebase(attempt, story.base or "", story.head or "")
            if isinstance(landing, Conflicted):
                return await _conflict(context, landing)
            with anyio.CancelScope(shield=True):
                if landing.head == landing.onto and await ports.merge.advance(attempt, landing.onto, landing.head):
                    return await _landed(context, landing.head, story.files_changed)
            runs = await _run_checks(context)
            if runs and runs[-1].exit_code != 0:
                return await _red(context, landing, runs[-1])
            await anyio.lowlevel.checkpoint_if_cancelled()  # git does not move without a proof in the journal
            proven = Proven(landing.onto, landing.head, runs)
            context.report(MergeProven(attempt, proven, landing.files, ports.clock.now_s()))
            with anyio.CancelScope(shield=True):  # once git moves, the fact must follow
                if await ports.merge.advance(attempt, landing.onto, landing.head):
                    return await _landed(context, landing.head, landing.files)
    except Fault as fault:
        return await _merge_faulted(context, fault)
    moved = f"the integration branch moved {TIP_MOVES} times while the merge was being checked"
    return await _merge_faulted(context, Fault(FaultCause.GIT, moved))


async def _merge_faulted(context: Context, fault: Fault) -> BranchMerged | MergeRefused:
    """The work is good and stays where it is, to be tried again; after the last try it is saved, unless git has it."""
    story = context.story
    last = story.merge_faults + 1 >= MERGE_TRIES
    if last and story.proven is not None and await has_landed(context.ports, context.attempt, story.proven):
        return await _landed(context, story.proven.head, story.files_changed)
    saved = await saved_work(context.ports, context.attempt) if last else None
    detail = f"{fault.cause}: {fault.detail}"
    return MergeRefused(context.attempt, Cause.FAULT, detail, fault.tail, saved, context.ports.clock.now_s())


async def _landed(context: Context, tip: Sha, files: tuple[str, ...]) -> BranchMerged:
    await forget(context.ports, context.attempt, context.story.lease)
    return BranchMerged(context.attempt, tip, files, context.ports.clock.now_s())


async def _run_checks(context: Context) -> tuple[CheckRun, ...]:
    """The checks in order, on the rebased tree, up to the first red one."""
    ports, attempt, own = context.ports, context.attempt, context.story.ports
    runs: list[CheckRun] = []
    if context.checks:
        await set_up_integration(ports, context.policy.environment, attempt, own)
    cwd = await ports.merge.checkout(attempt.epic)
    for command in context.checks:
        limit_s = context.policy.check_timeout_s
        runs.append(await ports.runner.run_check(attempt, command, cwd, limit_s, own))
        if runs[-1].exit_code != 0:
            break
    return tuple(runs)


async def _conflict(context: Context, conflict: Conflicted) -> MergeRefused:
    paths = ", ".join(conflict.paths[:PATHS_SHOWN])
    detail = f"Its commits conflict with {conflict.onto[:10]}, what was merged meanwhile, in: {paths}."
    return await _refused(context, Cause.CONFLICT, detail, conflict.detail, conflict.onto, conflict.paths)


async def _red(context: Context, landing: Landing, run: CheckRun) -> MergeRefused:
    ended = f"exited with code {run.exit_code}" if run.exit_code is not None else "ran into its time limit"
    detail = f"The check `{shlex.join(run.command)}` {ended} on the tree merged with {landing.onto[:10]}."
    return await _refused(context, Cause.CHECKS, detail, run.tail, landing.onto)


async def _refused(
    context: Context, cause: Cause, detail: str, tail: str, onto: Sha, paths: tuple[str, ...] = ()
) -> MergeRefused:
    """The work is saved and cleared away, unless its sub-agent is to mend it where it is."""
    repairs = can_repair(context.epic, context.story)
    saved = None if repairs else await saved_work(context.ports, context.attempt)
    return MergeRefused(context.attempt, cause, detail, tail, saved, context.ports.clock.now_s(), onto, paths)
