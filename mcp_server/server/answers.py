"""What the holder of a lease is told, from what has become of its story."""

from __future__ import annotations

from mcp_server.core.brief import rivals
from mcp_server.core.model import Cause, Epic, Failure, Ledger, Story, StoryState
from mcp_server.core.sights import warned
from mcp_server.core.spec import AttemptId
from mcp_server.engine.engine import Engine
from mcp_server.server.paging import REPLY_TOKENS, clip, cost
from mcp_server.server.repair import WHY_TOKENS, repair_commands, repair_words
from mcp_server.server.wire_team import ReportReply

AHEAD_TOKENS = 200
"""Of conflicts to come and what to do about them."""
DETAIL_KEYS = 8
"""Tokens of the name of the field `detail`, and of its line break."""


def answer_of(engine: Engine, attempt: AttemptId, lease: str, *, asked_progress: bool) -> ReportReply:
    """The answer to a report. Whoever has just said how far it is needs no reminder of what it repairs."""
    epic = engine.ledger.epics[attempt.epic]
    story = epic.stories[attempt.story]
    if story.attempt != attempt.number:
        return _ended(story)
    left_s = round(max(0.0, story.lease.until_s - engine.now_s())) if story.lease is not None else 0
    match story.state:
        case StoryState.MERGED:
            return _merged(story, attempt)
        case StoryState.MERGING:
            again = f"Call report_story({lease!r}, 'done') again."
            return ReportReply(
                answer="checking", story=attempt.story, detail="It is being rebased and checked.", next=again
            )
        case StoryState.STOPPING | StoryState.CANCELLED:
            detail = f"Cancelled: {clip(story.stop_reason, WHY_TOKENS)}.{_kept(story.failure)}"
            return ReportReply(answer="stop", story=attempt.story, detail=detail, next="End your turn now.")
        case StoryState.RUNNING:
            repairs = bool(story.repairs) and not asked_progress
            reply = _running(epic, story, lease, left_s, repairs=repairs)
            return reply if repairs else reply.model_copy(update={"detail": ahead(engine.ledger, epic, story)})
        case _:
            return _ended(story)


def ahead(ledger: Ledger, epic: Epic, story: Story) -> str:
    """What a probe has seen of its work: conflicts to come, and what it changes outside its footprint."""
    return clip(warned(ledger, epic, story), AHEAD_TOKENS)


def _merged(story: Story, attempt: AttemptId) -> ReportReply:
    in_hosts_worktree = story.lease is not None and not story.lease.ours
    return ReportReply(
        answer="merged",
        story=attempt.story,
        detail=f"Merged on epicwave/{attempt.epic} as {(story.merged_as or '')[:12]}.",
        next=("Run `git switch -` to free the branch, then end" if in_hosts_worktree else "End") + " your turn.",
    )


def _running(epic: Epic, story: Story, lease: str, left_s: int, *, repairs: bool) -> ReportReply:
    name, failure = story.spec.id, story.failure
    if not repairs or failure is None:
        next_ = "Go on; commit, then report done."
        return ReportReply(answer="go_on", story=name, lease_s=left_s, next=next_)
    next_ = f"Mend it, commit, then report_story({lease!r}, 'done')."
    commands = repair_commands(story, failure)
    reply = ReportReply(answer="repair", story=name, commands=commands, lease_s=left_s, next=next_)
    detail = repair_words(failure, rivals(epic, story), REPLY_TOKENS - cost(reply) - DETAIL_KEYS)
    return reply.model_copy(update={"detail": detail})


def _ended(story: Story) -> ReportReply:
    failure = story.failure
    if failure is None:
        detail = f"The attempt is over; the story is {story.state}."
    elif failure.cause is Cause.QUESTION:
        detail = f"The question is passed on to the lead.{_kept(failure)}"
    else:
        detail = clip(failure.detail, WHY_TOKENS) + _kept(failure)
    return ReportReply(answer="ended", story=story.spec.id, detail=detail, next="End your turn.")


def _kept(failure: Failure | None) -> str:
    return f" Its work is kept on {failure.saved_ref}." if failure is not None and failure.saved_ref else ""
