"""The tool that steers an epic on its way: pause, resume, drain, and retry, skip or roll back one story."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.core.commands import DrainWave, PauseEpic, ResumeEpic, RetryStory, SkipStory, SteerCommand
from mcp_server.core.events import StoriesRolledBack
from mcp_server.core.model import Epic, Ledger, StoryState
from mcp_server.core.rollback import to_roll_back
from mcp_server.core.views import epic_state
from mcp_server.core.why import alerts
from mcp_server.engine.rollback import RollBack, roll_back
from mcp_server.errors import Code, Refused
from mcp_server.server.ask import client_name
from mcp_server.server.host import Host
from mcp_server.server.paging import clip, named
from mcp_server.server.session import Session
from mcp_server.server.tools_land import AGAIN, policy_of
from mcp_server.server.wire import TEXT_TOKENS, SteerReply, first_page

Action = Literal["pause", "resume", "drain", "retry", "skip", "rollback"]
OF_ONE = ("retry", "skip", "rollback")


async def steer_epic(
    ctx: Context[Session],
    epic: str,
    action: Annotated[
        Action,
        Field(description="drain: what runs ends, no more starts. skip: dependents need not wait."),
    ],
    story: Annotated[str | None, Field(description="For retry, skip, rollback.")] = None,
    note: Annotated[str, Field(max_length=2000, description="Reason; for retry: advice for the brief.")] = "",
    with_dependants: Annotated[bool, Field(description="rollback: what builds on it, too.")] = False,
) -> SteerReply:
    """Pause or resume an epic (also after a breaker or rate limit paused it), drain its wave, retry or skip a story.

    rollback takes a merged one off epicwave/<epic> by a revert, once the checks are green without it.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    _require_story(action, story)
    under_way = False
    if action == "rollback":
        asked = RollBack(epic, story or "", note or "the lead took it back", with_dependants)
        under_way = await _rolled_back(session, host, asked) is None
        ledger = host.ledger()
    else:
        async with host.engine() as engine:
            engine.handle(_command(epic, action, story or "", note))
            ledger = engine.ledger
    now = ledger.epics[epic]
    reply = SteerReply(
        epic=epic,
        state=str(epic_state(ledger, now)),
        cursor=ledger.seq,
        under_way=under_way,
        next=AGAIN if under_way else _next(ledger, now, action),
    ).model_copy(update=session.words(ledger, now, client_name(ctx)))
    alive = (StoryState.OFFERED, StoryState.RUNNING, StoryState.MERGING, StoryState.STOPPING)
    entries = [
        *named("alerts", (clip(alert, TEXT_TOKENS) for alert in alerts(ledger, now))),
        *named("in_flight", (s.spec.id for s in now.stories.values() if s.state in alive)),
    ]
    return first_page(reply, entries)


def _require_story(action: Action, story: str | None) -> None:
    if (story is not None) != (action in OF_ONE):
        raise Refused(
            Code.BAD_ARGUMENT,
            f"{action} is for one story." if story is None else f"{action} is for the whole epic, not for {story!r}.",
            "Pass story=... with retry, skip and rollback only; cancel_epic(story=...) stops one story.",
        )


async def _rolled_back(session: Session, host: Host, asked: RollBack) -> StoriesRolledBack | None:
    if asked not in session.errands:
        to_roll_back(host.ledger(), asked.epic, asked.story, with_dependants=asked.with_dependants)  # refused at once
    policy = policy_of(host, asked.epic)
    return await session.errands.end_of(host, asked.epic, asked, lambda engine: roll_back(engine, asked, policy))


def _command(epic: str, action: Action, story: str, note: str) -> SteerCommand:
    match action:
        case "pause":
            return PauseEpic(epic, note)
        case "resume":
            return ResumeEpic(epic)
        case "drain":
            return DrainWave(epic, note)
        case "retry":
            return RetryStory(epic, story, note)
        case _:
            return SkipStory(epic, story, note)


def _next(ledger: Ledger, epic: Epic, action: Action) -> str:
    name = epic.spec.id
    wait = f"story_status(epic={name!r}, since={ledger.seq}, wait_s=45) waits for news."
    match action:
        case "pause":
            resume = f"steer_epic(epic={name!r}, action='resume')"
            return f"What is in flight goes on and is merged. To let more start: {resume}."
        case "drain":
            return f"{wait} When the wave has finished, start_wave starts the next."
        case "rollback":
            still = f" {epic.landed.into} has it still: land_epic brings the revert." if epic.landed else ""
            return f"It is off epicwave/{name}, and cancelled; steer_epic(action='retry') runs it again.{still}"
        case "retry" | "skip" | "resume":
            if epic.wave is not None and epic_state(ledger, epic) == "active":
                return wait
            return f"start_wave(epic={name!r}) starts what is ready now."
