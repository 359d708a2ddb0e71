"""The tools of the editor's sub-agents: claim a story, report on it. Each parses, commands, replies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import anyio
from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult
from pydantic import Field

from mcp_server.adapters.git.names import attempt_branch
from mcp_server.core.brief import brief
from mcp_server.core.checks import checks_of
from mcp_server.core.commands import EndLease, RenewLease
from mcp_server.core.leases import attempt_of, held, holds, lease_name, lease_of
from mcp_server.core.model import Cause, Epic, Story, StoryState, is_team
from mcp_server.core.spec import AttemptId
from mcp_server.core.steer import epic_of, story_of
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.leasing import hand_in
from mcp_server.errors import Code, Refused
from mcp_server.server.answers import ahead, answer_of
from mcp_server.server.ask import ask_human, can_ask
from mcp_server.server.paging import REPLY_TOKENS, clip, cost
from mcp_server.server.session import Session
from mcp_server.server.team import own_worktree
from mcp_server.server.wire import SHA_SHOWN, cut
from mcp_server.server.wire_team import ClaimReply, ReportReply

WAIT_S = 40.0
"""How long a report waits for the checks before it answers `checking`: hosts cut calls off after 1 to 4 minutes."""
ANSWER_S = 3600.0
"""How long a human may think about a question before the story goes to somebody else, in seconds."""
ENDING_S = 4.0
"""What is left of a call in any case for an attempt to end, in seconds: a human may have taken the time."""
BRIEF_KEYS = 12
"""Tokens of the names of the two fields that tell the brief."""
BRIEF_MAX = 40_000
"""Characters of a whole brief: hosts cut what is longer."""
NOTE_MAX = 2_000
ANSWER_TOKENS = 320
"""Of a human's answer, in the reply to whoever asked."""

_Agent = Annotated[str | None, Field(description="Set by the host's hook.")]


async def claim_story(
    ctx: Context[Session],
    epic: str,
    story: Annotated[str | None, Field(description="Leave out for the most urgent one.")] = None,
    whole: Annotated[bool, Field(description="The whole brief, however long.")] = False,
    lease: Annotated[str | None, Field(description="Yours, to read its brief again.")] = None,
    cwd: Annotated[str | None, Field(description="Your working directory.")] = None,
    agent: _Agent = None,
) -> ClaimReply:
    """For sub-agents: take a story. Answers a lease, the brief, and the first command to run.

    Called again it answers the story that you hold already.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    place = await own_worktree(host.world, cwd)
    async with host.engine() as engine:
        now = epic_of(engine.ledger, epic)
        if lease is not None:
            its_epic, mine, _ = held(engine.ledger, *lease_of(lease))
            return _claimed(its_epic, mine, engine, whole=whole)
        if story is not None:
            story_of(now, story)
        if not is_team(now):
            raise Refused(
                Code.STORY_NOT_OFFERED,
                f"No agent-teams wave of epic {epic!r} is running: its stories are not for sub-agents.",
                "Sub-agents: end your turn. The lead starts one with start_wave(strategy='agent-teams').",
            )
        mine = session.team.leasing.lease_of_holder(now, agent or "", place)
        if mine is not None and story not in (None, mine.spec.id):
            raise Refused(
                Code.LEASE_HELD,
                f"You hold story {mine.spec.id!r}, and one at a time is enough.",
                f"Report it first, or have another sub-agent claim {story!r}.",
            )
        if mine is None:
            try:
                mine = await session.team.leasing.claim(engine, epic, story, agent or "", place)
            except Refused as refused:
                mine = session.team.leasing.lease_of_holder(engine.ledger.epics[epic], agent or "", place)
                if refused.code is Code.STORY_NOT_OFFERED:
                    return ClaimReply(claimed=False, next=f"{refused.why} {refused.remedy}")
                if mine is None:  # else it asked twice at once: both get what the first one took
                    raise
        session.team.came(agent or "")
        return _claimed(engine.ledger.epics[epic], mine, engine, whole=whole)


def _claimed(epic: Epic, story: Story, engine: Engine, *, whole: bool) -> ClaimReply:
    attempt, lease = attempt_of(epic, story), story.lease
    assert lease is not None, "it has just been claimed"  # noqa: S101
    assert epic.wave is not None, "a claim is made in a wave"  # noqa: S101
    branch = attempt_branch(attempt)
    text = brief(epic, story, attempt, checks_of(epic, story, epic.wave.policy))
    seen = ahead(engine.ledger, epic, story)
    begin = f"{seen} {_BEGIN}" if seen else _BEGIN
    reply = ClaimReply(
        claimed=True,
        lease=lease_name(attempt, lease.token),
        story=story.spec.id,
        attempt=attempt.number,
        lease_s=round(max(0.0, lease.until_s - engine.now_s())),
        branch=branch,
        base=(story.base or "")[:SHA_SHOWN],
        worktree=lease.place if lease.ours else "",
        first_command="" if lease.ours else f"git switch -c {branch} {story.base}",
        next=_more(lease_name(attempt, lease.token)) + begin,
    )
    shown = text[:BRIEF_MAX] if whole else clip(text, REPLY_TOKENS - cost(reply) - BRIEF_KEYS)
    left = 0 if shown == text else len(text) - len(shown.removesuffix("..."))
    next_ = (_more(reply.lease) if left else "") + begin
    return reply.model_copy(update={"brief": shown, "brief_left": left, "next": next_})


def _more(lease: str) -> str:
    return f"The rest of the brief: claim_story with lease={lease!r}, whole=true. "


_BEGIN = "Run first_command if there is one, do the story, commit everything, report_story 'done'."


@dataclass(frozen=True, slots=True)
class _Report:
    """A report as it came."""

    attempt: AttemptId
    token: str
    outcome: Literal["progress", "done", "failed", "blocked"]
    note: str
    place: Path | None

    @property
    def lease(self) -> str:
        return lease_name(self.attempt, self.token)


async def report_story(
    ctx: Context[Session],
    lease: Annotated[str, Field(description="As claim_story answered it.")],
    outcome: Literal["progress", "done", "failed", "blocked"],
    note: Annotated[
        str, Field(max_length=NOTE_MAX, description="How far; why it failed; the one question a human must answer.")
    ] = "",
    cwd: Annotated[str | None, Field(description="Your working directory.")] = None,
    agent: _Agent = None,  # noqa: ARG001 - hooks put it into both tools; the lease says who reports
) -> ReportReply | InputRequiredResult:
    """For sub-agents: say how far a story is; do what the answer's `next` says.

    done: your commits are rebased, checked and merged, or come back to you to be repaired. 'checking': call again.
    """
    session = ctx.request_context.lifespan_context
    attempt, token = lease_of(lease)
    host = await session.host()
    place = await own_worktree(host.world, cwd)
    report = _Report(attempt, token, outcome, note, place)
    if outcome in ("failed", "blocked") and not note.strip():
        raise Refused(
            Code.BAD_ARGUMENT, f"A report {outcome!r} needs a note.", "Say in one sentence why, or what to ask."
        )
    began_s = anyio.current_time()
    async with host.engine() as engine:
        story = holds(engine.ledger, attempt, token)
        if story is None or story.state not in _ANSWERED:
            await _keep_late(engine, report, story)
            held(engine.ledger, attempt, token)  # refuses: that lease is over
        if story is not None and story.state is StoryState.RUNNING:
            early = await _act(ctx, engine, report)
            if early is not None:
                return early
        left_s = max(ENDING_S, began_s + WAIT_S - anyio.current_time())
        await engine.wait_for(lambda ledger: _is_decided(ledger.epics[attempt.epic], report), left_s)
        return answer_of(engine, report.attempt, report.lease, asked_progress=report.outcome == "progress")


_ANSWERED = frozenset(
    {StoryState.RUNNING, StoryState.MERGING, StoryState.MERGED, StoryState.STOPPING, StoryState.CANCELLED}
)
"""States in which the holder of the current attempt's lease gets an answer and not a refusal."""


async def _act(ctx: Context[Session], engine: Engine, report: _Report) -> ReportReply | InputRequiredResult | None:
    """Do what a report on a running story asks for. A reply when there is nothing to wait for."""
    attempt, token, note = report.attempt, report.token, report.note
    match report.outcome:
        case "progress":
            engine.handle(RenewLease(attempt, token, cut(note, 200)))
            await engine.watch.looked(attempt)
            return answer_of(engine, report.attempt, report.lease, asked_progress=report.outcome == "progress")
        case "done":
            await hand_in(engine, attempt, token, report.place, attempt_branch(attempt))
        case "failed":
            engine.handle(EndLease(attempt, token, Cause.AGENT_FAILED, f"Its sub-agent gave up: {note}"))
        case "blocked":
            held(engine.ledger, attempt, token)
            engine.handle(RenewLease(attempt, token, f"asks: {cut(note, 180)}", ANSWER_S if can_ask(ctx) else None))
            answer = await ask_human(ctx, f"Story {attempt.story} of {attempt.epic} asks: {note}")
            if isinstance(answer, InputRequiredResult):
                return answer  # the client asks its human and makes this call again
            if answer is not None:
                engine.handle(RenewLease(attempt, token, "the question is answered"))
                said = clip(answer, ANSWER_TOKENS)
                return ReportReply(answer="answered", story=attempt.story, detail=said, next="Go on with that answer.")
            engine.handle(EndLease(attempt, token, Cause.QUESTION, note))
    return None


async def _keep_late(engine: Engine, report: _Report, story: Story | None) -> None:
    """Whoever reports too late may have committed since its work was saved; that is kept too."""
    epic = engine.ledger.epics.get(report.attempt.epic)
    known = epic.stories.get(report.attempt.story) if epic is not None else None
    over = known is not None and (report.attempt.number < known.attempt or story is not None)
    if over:
        await saved_work(engine.ports, report.attempt)


def _is_decided(epic: Epic, report: _Report) -> bool:
    story = epic.stories[report.attempt.story]
    if story.attempt != report.attempt.number:
        return True
    collecting = story.state is StoryState.RUNNING and story.lease is not None and story.lease.ended is not None
    return story.state is not StoryState.MERGING and not collecting
