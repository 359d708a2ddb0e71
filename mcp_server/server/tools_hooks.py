"""The tools of the editor's hooks and of our own fronts: not listed, so that they cost no model a token."""

from __future__ import annotations

import json
from typing import Literal

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, TextContent

from mcp_server.core.commands import EndLease
from mcp_server.core.leases import attempt_of, lease_name
from mcp_server.core.model import Cause, Ledger, Story, StoryState
from mcp_server.core.spec import AttemptId
from mcp_server.engine.merging import forget
from mcp_server.server.host import Host
from mcp_server.server.session import Session

CAUSES = {
    "rate_limit": Cause.RATE_LIMIT,
    "authentication_failed": Cause.API_ERROR,
    "billing_error": Cause.API_ERROR,
    "server_error": Cause.API_ERROR,
}
"""Why a turn of Claude Code's failed, as its hook StopFailure says it in `error`; anything else is a lost lease."""


async def agent_event(
    ctx: Context[Session],
    event: Literal["started", "stopped", "failed"],
    agent: str = "",
    cwd: str | None = None,  # noqa: ARG001 - hooks send it; the lease knows where its holder works
    error: str = "",
) -> CallToolResult:
    """For the editor's hooks: a sub-agent was started, wants to stop, or died. Answers what a hook may answer.

    Who wants to stop with a story that is not done is told once what is missing; after that its lease ends.
    """
    # a hook takes the text as its output: a reply of ours would be JSON around it
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(await _said(ctx, event, agent, error)))])


async def engine_leave(ctx: Context[Session], version: str) -> CallToolResult:
    """For epicwave's own fronts: end this engine process if nothing is alive in it, so that another takes over.

    Answers nothing when it ends, else why it stays. `version` is the asker's.
    """
    leave = ctx.request_context.lifespan_context.leave
    said = f"There is no engine process here that epicwave {version} could replace." if leave is None else leave()
    return CallToolResult(content=[TextContent(type="text", text=said)])


async def engine_news(ctx: Context[Session], since: int, wait_s: float = 0) -> CallToolResult:
    """For epicwave's own fronts: the number of the last fact, as soon as it is not `since`, or when the time is up.

    story_status waits for what concerns a lead; a screen has to be told of every change.
    """
    host = await ctx.request_context.lifespan_context.host()
    ledger = await host.wait_for(lambda now: now.seq != since, wait_s)
    return CallToolResult(content=[TextContent(type="text", text=str(ledger.seq))])


async def _said(ctx: Context[Session], event: str, agent: str, error: str) -> dict[str, str]:
    session = ctx.request_context.lifespan_context
    team = session.team
    if not agent:
        return {}
    if event == "started":
        team.began(agent)
        return {}
    team.came(agent)
    host = await session.host()
    await host.wake()
    attempts = team.holders(host.ledger(), agent)
    if not attempts:
        await _tidy(host, agent)
        return {}
    if event == "stopped" and (agent, attempts[0]) not in team.warned:
        team.warned.add((agent, attempts[0]))
        return {"decision": "block", "reason": _reason(attempts[0], _story(host.ledger(), attempts[0]))}
    async with host.engine() as engine:
        word = "died" if event == "failed" else "ended its turn without a report"
        cause = CAUSES.get(error, Cause.LEASE_LOST) if event == "failed" else Cause.LEASE_LOST
        told = f"{word} ({error})" if error in CAUSES else word
        for attempt in team.holders(engine.ledger, agent):
            lease = _story(engine.ledger, attempt).lease
            assert lease is not None, "holders looked"  # noqa: S101
            engine.handle(EndLease(attempt, lease.token, cause, f"Its sub-agent {told}."))
    return {}


async def _tidy(host: Host, agent: str) -> None:
    """Its worktree has left the branches of what it has landed: now they can go."""
    landed = [
        (attempt_of(epic, story), story.lease)
        for epic in host.ledger().epics.values()
        for story in epic.stories.values()
        if story.state is StoryState.MERGED and story.lease is not None and story.lease.holder == agent
    ]
    if landed:
        async with host.engine() as engine:
            for attempt, lease in landed:
                await forget(engine.ports, attempt, lease)


def _story(ledger: Ledger, attempt: AttemptId) -> Story:
    return ledger.epics[attempt.epic].stories[attempt.story]


def _reason(attempt: AttemptId, story: Story) -> str:
    """What a sub-agent that wants to end has to do first."""
    lease = lease_name(attempt, story.lease.token if story.lease is not None else "")
    merging = story.state is StoryState.MERGING
    why = "is being checked, and may come back to you" if merging else "has no report"
    instead = "" if merging else " (or 'failed', or 'blocked', with a note)"
    return f"Story {attempt.story} {why}. Call report_story({lease!r}, 'done'){instead}, do what it answers, then end."
