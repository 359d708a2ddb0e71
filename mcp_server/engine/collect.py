"""The job of a lease that is over: one last look for a sign of life, then the work is saved and the attempt ends."""

from __future__ import annotations

import anyio.lowlevel

from mcp_server.core.events import AttemptFailed, LeaseEnded, LeaseRenewed
from mcp_server.core.leases import renewed_until_s
from mcp_server.core.model import Cause, Lease
from mcp_server.engine.context import Context, saved_work
from mcp_server.errors import Fault


async def collect(context: Context) -> AttemptFailed | LeaseRenewed | None:
    """A worktree that changed since the last sign of life renews the lease: sub-agents forget to report.

    Else its end goes on record first, so that no report can come in between, and then the work is saved. None when
    its holder was heard of meanwhile: what was seen is stale then.
    """
    attempt, story, ports = context.attempt, context.story, context.ports
    lease = story.lease
    assert lease is not None, f"{attempt} has no lease"  # noqa: S101 - wanted saw to it
    ended = lease.ended
    if ended is None:
        touched_s = await _touched_s(context)
        await anyio.lowlevel.checkpoint_if_cancelled()  # git comes to its end all the same: its lease was renewed
        now_s = context.now_s()  # not before the deadline, whatever was done to the clock
        until_s = renewed_until_s(story, lease, context.epic, min(touched_s, now_s))
        if until_s > now_s:
            return LeaseRenewed(attempt, until_s, "", now_s)
        ended = _silent(context, lease, now_s)
        if not context.report(LeaseEnded(attempt, *ended, now_s)):
            return None  # its holder has ended it, in its own words
    saved = await saved_work(ports, attempt)
    cause, detail = ended
    before = story.failure if story.repairs else None  # nobody has mended it: the next brief says what it was
    tail = before.tail if before is not None else ""
    detail = f"{detail} Before that: {before.detail}" if before is not None else detail
    return AttemptFailed(attempt, cause, detail, tail, saved, ports.clock.now_s())


async def _touched_s(context: Context) -> float:
    """When the worktree was last changed, in seconds since the epoch; 0 when there is none, or nobody knows."""
    try:
        return await context.ports.worktrees.touched_s(context.attempt) or 0.0
    except Fault:
        return 0.0


def _silent(context: Context, lease: Lease, now_s: float) -> tuple[Cause, str]:
    policy = context.policy
    if not context.story.repairs and now_s >= lease.began_s + policy.attempt_timeout_s:
        return Cause.TIMEOUT, f"It was ended after {policy.attempt_timeout_s:g} s, the limit of an attempt."
    return (
        Cause.LEASE_LOST,
        f"Its sub-agent was not heard of for {policy.lease_s:g} s, and nothing changed in its worktree.",
    )
