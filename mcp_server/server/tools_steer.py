"""The tool that steers an epic on its way: pause, resume, drain, and retry or skip one story."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.core.commands import DrainWave, PauseEpic, ResumeEpic, RetryStory, SkipStory, SteerCommand
from mcp_server.core.model import Epic, Ledger, StoryState
from mcp_server.core.views import epic_state
from mcp_server.core.why import alerts
from mcp_server.errors import Code, Refused
from mcp_server.server.ask import client_name
from mcp_server.server.paging import clip, named
from mcp_server.server.session import Session
from mcp_server.server.wire import TEXT_TOKENS, SteerReply, first_page

Action = Literal["pause", "resume", "drain", "retry", "skip"]


async def steer_epic(
    ctx: Context[Session],
    epic: str,
    action: Annotated[
        Action, Field(description="drain: what runs ends, no more starts. skip: dependents need not wait.")
    ],
    story: Annotated[str | None, Field(description="For retry and skip.")] = None,
    note: Annotated[str, Field(max_length=2000, description="Reason; for retry: advice for the brief.")] = "",
) -> SteerReply:
    """Pause or resume an epic (also after a breaker or rate limit paused it), drain its wave, retry or skip a story."""
    session = ctx.request_context.lifespan_context
    host = await session.host()
    command = _command(epic, action, story, note)
    async with host.engine() as engine:
        engine.handle(command)
        ledger = engine.ledger
    now = ledger.epics[epic]
    reply = SteerReply(
        epic=epic,
        state=str(epic_state(ledger, now)),
        cursor=ledger.seq,
        next=_next(ledger, now, action),
    ).model_copy(update=session.words(ledger, now, client_name(ctx)))
    alive = (StoryState.OFFERED, StoryState.RUNNING, StoryState.MERGING, StoryState.STOPPING)
    entries = [
        *named("alerts", (clip(alert, TEXT_TOKENS) for alert in alerts(ledger, now))),
        *named("in_flight", (s.spec.id for s in now.stories.values() if s.state in alive)),
    ]
    return first_page(reply, entries)


def _command(epic: str, action: Action, story: str | None, note: str) -> SteerCommand:
    if (story is not None) != (action in ("retry", "skip")):
        raise Refused(
            Code.BAD_ARGUMENT,
            f"{action} is for one story." if story is None else f"{action} is for the whole epic, not for {story!r}.",
            "Pass story=... with retry and skip only; cancel_epic(story=...) stops one story.",
        )
    match action:
        case "pause":
            return PauseEpic(epic, note)
        case "resume":
            return ResumeEpic(epic)
        case "drain":
            return DrainWave(epic, note)
        case "retry":
            return RetryStory(epic, story or "", note)
        case "skip":
            return SkipStory(epic, story or "", note)


def _next(ledger: Ledger, epic: Epic, action: Action) -> str:
    name = epic.spec.id
    wait = f"story_status(epic={name!r}, since={ledger.seq}, wait_s=45) waits for news."
    match action:
        case "pause":
            resume = f"steer_epic(epic={name!r}, action='resume')"
            return f"What is in flight goes on and is merged. To let more start: {resume}."
        case "drain":
            return f"{wait} When the wave has finished, start_wave starts the next."
        case "retry" | "skip" | "resume":
            if epic.wave is not None and epic_state(ledger, epic) == "active":
                return wait
            return f"start_wave(epic={name!r}) starts what is ready now."
