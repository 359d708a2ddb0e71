"""The job of an attempt, from a worktree to a verdict: it ends by returning one fact; only a named fault is caught."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, assert_type

import anyio

from mcp_server.core.brief import brief
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    UsageReported,
)
from mcp_server.core.limits import Policy
from mcp_server.core.model import NOTHING_USED, Cause, Process, Usage
from mcp_server.core.spec import Sha
from mcp_server.core.spending import worth_telling
from mcp_server.engine.context import PATHS_SHOWN, Context, saved_work
from mcp_server.engine.environment import require_room, set_up, within_quota
from mcp_server.engine.merging import has_landed, landed
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import (
    AgentCall,
    Done,
    Ended,
    NoCommits,
    Outcome,
    ProcessEnd,
    Uncommitted,
    WrongBase,
)

LINE_SHOWN = 200
"""Characters of an agent's last line that a status shows."""


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


async def stopped(context: Context) -> AttemptStopped | BranchMerged:
    """The end of an attempt that was told to stop: a merge that git has already is told, anything else is saved."""
    attempt, story, ports = context.attempt, context.story, context.ports
    await _leave_nobody(context)
    with anyio.CancelScope(shield=True):
        if story.proven is not None and await has_landed(ports, attempt, story.proven):
            return await landed(context, attempt, story.proven.head, story.files_changed)
    return AttemptStopped(attempt, await saved_work(ports, attempt), ports.clock.now_s())
