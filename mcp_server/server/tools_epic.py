"""Tools that change something: plan an epic, start a wave, cancel. Each parses, commands, replies."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult
from pydantic import Field

from mcp_server.adapters.formats.detect import Reading, read_epic, read_text
from mcp_server.core.commands import CancelEpic, CancelStory
from mcp_server.core.events import WaveStarted, WaveWidened
from mcp_server.core.leases import offers
from mcp_server.core.model import LIVE, SETTLED, Epic, Ledger, Process, StoryState, is_team
from mcp_server.core.planning import plan
from mcp_server.core.steer import epic_of
from mcp_server.core.views import epic_state
from mcp_server.engine.landed import adopt
from mcp_server.errors import Code, Refused
from mcp_server.server.allowed import not_allowed
from mcp_server.server.ask import client_name
from mcp_server.server.consent import ask_to_allow
from mcp_server.server.launch import Launch, launch
from mcp_server.server.paging import Entry, clip, lists, named
from mcp_server.server.session import Session
from mcp_server.server.wire import (
    SHA_SHOWN,
    TEXT_TOKENS,
    TITLE_TOKENS,
    CancelReply,
    Stopped,
    WaveReply,
    first_page,
)
from mcp_server.server.wire_plan import PlanReply, UnusedText
from mcp_server.server.world import World

STOP_S = 30.0
"""How long cancel_epic waits for processes to be gone and work to be saved before it answers, in seconds."""


HOST_WORKTREES = ".claude/worktrees/"
"""Where Claude Code makes worktrees for its sub-agents, in the user's checkout."""


async def plan_epic(
    ctx: Context[Session],
    epic_file: Annotated[str | None, Field(description="YAML, or Markdown as BMAD writes it.")] = None,
    epic_text: Annotated[str | None, Field(description="The epic itself, instead of a file.")] = None,
    redo: Annotated[bool, Field(description="Run stories that the file marks as done, too.")] = False,
    offset: Annotated[int, Field(ge=0, description="more_offset of the last reply.")] = 0,
) -> PlanReply:
    """Read and validate an epic and plan its DAG: waves, critical path, file conflicts, errors by line.

    Nothing starts. Plan an edited file again to take the changes; merged stories stay merged.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    reading = await _read(session.start, epic_file, epic_text)
    checked = bool(host.world.settings().epic.checks)
    known = await host.world.known(host.ledger())
    make = partial(plan, reading.draft, redo=redo, config_checks=checked, known=known)
    planned = await anyio.to_thread.run_sync(make)
    missing = not_allowed(host.world.state_dir, host.world.settings(), planned.spec)
    async with host.engine() as engine:
        await adopt(engine, planned)
    unused = [UnusedText(line=u.line, text=u.text, why=u.why) for u in reading.unused]
    notices = [*reading.notes, *await host.world.notices()]
    if missing:
        notices.append(f"{len(missing)} commands of the file run only once the user has allowed them: start_wave asks.")
    return PlanReply.page(planned, unused, notices, offset)


async def _read(start: Path, epic_file: str | None, epic_text: str | None) -> Reading:
    if (epic_file is None) == (epic_text is None):
        raise Refused(
            Code.BAD_ARGUMENT,
            "plan_epic takes either epic_file or epic_text.",
            "Pass the path of a file, or its content, and not both.",
        )
    if epic_text is not None:
        return await anyio.to_thread.run_sync(lambda: read_text(epic_text))
    return await anyio.to_thread.run_sync(lambda: read_epic(start / Path(epic_file or "").expanduser()))


async def start_wave(
    ctx: Context[Session],
    epic: str,
    through: Annotated[
        Literal["ready", "all"] | Annotated[int, Field(ge=1, strict=True)],
        Field(description="Those ready now, all, or all up to this wave."),
    ] = "ready",
    strategy: Annotated[Literal["sequential", "asyncio", "agent-teams"] | None, Field()] = None,
    slots: Annotated[int | None, Field(description="Agents at once.", ge=1)] = None,
    agent: Annotated[str | None, Field(description="claude, cursor, codex, gemini, or a command line.")] = None,
    retry: Annotated[bool, Field(description="Failed and cancelled ones too.")] = False,
    notes: Annotated[dict[str, str] | None, Field(description="By story: answer or advice for its brief.")] = None,
) -> WaveReply | InputRequiredResult:
    """Start stories, each with an agent in its own git worktree. Answers at once; do as `next` says.

    A story starts when its dependencies are merged and a slot and its files are free. What passes the checks lands on
    the branch epicwave/<epic>.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    limit = host.world.settings().epic.max_parallel_stories
    if slots is not None and slots > limit:
        why = f"{slots} slots are more than max_parallel_stories, {limit}."
        raise Refused(Code.BAD_ARGUMENT, why, "Ask for fewer, or have the user raise it in .epicwave/config.yaml.")
    early = await ask_to_allow(ctx, host, epic)
    if early is not None:
        return early
    async with host.engine() as engine:
        asked = Launch(epic, through, strategy, slots, agent, retry=retry, notes=notes or {})
        event = await launch(host.world, engine, asked)
        ledger = engine.ledger
    now, cursor = ledger.epics[epic], ledger.seq
    reply = _wave_reply(now, cursor).model_copy(update=session.words(ledger, now, client_name(ctx)))
    notices = await host.world.notices()
    if is_team(now) and not await host.world.repository.ignores(HOST_WORKTREES):
        notices = (*notices, f"{HOST_WORKTREES} is not ignored by git: `git add -A` would take what agents make there.")
    return _listed(reply, now, event, list(notices))


def _wave_reply(epic: Epic, cursor: int) -> WaveReply:
    wave = epic.wave
    assert wave is not None, "a wave has just been started"  # noqa: S101
    name = epic.spec.id
    follow = f"story_status(epic={name!r}, since={cursor}, wait_s=45) returns when a story has ended."
    if is_team(epic):
        follow = f"Follow `instruction`; when a sub-agent has ended, story_status(epic={name!r}, since={cursor})."
    return WaveReply(
        epic=name,
        wave=wave.number,
        strategy=str(wave.policy.strategy),
        slots=wave.policy.slots,
        agent=clip(wave.policy.agent, TITLE_TOKENS),
        branch=f"epicwave/{name}",
        base=(epic.base or "")[:SHA_SHOWN],
        cursor=cursor,
        next=follow,
    )


def _listed(reply: WaveReply, epic: Epic, event: WaveStarted | WaveWidened, notices: list[str]) -> WaveReply:
    """The reply with what concerns single stories, as far as there is room."""
    wave = epic.wave
    started = [m for m in event.members if epic.stories[m].state in LIVE]
    if not ((wave is not None and wave.policy.checks) or epic.spec.checks):
        notices = [*notices, "No checks are configured for the epic: what is merged is not proven by anything."]
    if is_team(epic) and any(s.spec.agent for s in epic.stories.values()):
        notices = [*notices, "Sub-agents of the editor do all stories; the agents that the epic names are not used."]
    entries = [
        *named("notices", (clip(notice, TEXT_TOKENS) for notice in notices)),
        *named("started", started),
        *named("waiting", (m for m in event.members if m not in started)),
        *named("retried", event.retried),
    ]
    return first_page(reply, entries)


async def cancel_epic(
    ctx: Context[Session],
    epic: str,
    story: Annotated[str | None, Field(description="Only this story, not the whole epic.")] = None,
    reason: Annotated[str, Field(max_length=200)] = "cancelled by the lead",
) -> CancelReply:
    """Stop an epic, or one story: end its agents' processes, see that they are gone, save unfinished work on refs.

    Merged stories stay merged. start_wave with retry=true goes on later.
    """
    host = await ctx.request_context.lifespan_context.host()
    async with host.engine() as engine:
        before = epic_of(engine.ledger, epic)
        engine.handle(CancelEpic(epic, reason) if story is None else CancelStory(epic, story, reason))
        await engine.wait_for(
            lambda ledger: all(s.state is not StoryState.STOPPING for s in ledger.epics[epic].stories.values()),
            STOP_S,
        )
        ledger = engine.ledger
    return first_page(*_cancelled(host.world, before, ledger))


def cancelled(world: World, before: Epic, ledger: Ledger) -> CancelReply:
    """What has become of an epic since it was as `before`, all of it."""
    reply, entries = _cancelled(world, before, ledger)
    return reply.model_copy(update=lists(entries))


def _cancelled(world: World, before: Epic, ledger: Ledger) -> tuple[CancelReply, list[Entry]]:
    after, cursor = ledger.epics[before.spec.id], ledger.seq
    stopped: list[Stopped] = []
    never: list[str] = []
    agents: list[str] = []
    offered = {s.spec.id for s in offers(before)}
    for story_id, story in after.stories.items():
        was = before.stories[story_id]
        if was.state in SETTLED or story.state is was.state:
            continue
        if story_id in offered:
            never.append(story_id)
        elif was.state in LIVE or was.state is StoryState.MERGING:
            ref = (
                story.failure.saved_ref if story.failure is not None and story.failure.attempt == was.attempt else None
            )
            gone = was.process is None or not world.is_alive(Process(*was.process))
            if was.lease is not None and was.lease.holder:
                agents.append(was.lease.holder)
            stopped.append(Stopped(story=story_id, state=str(story.state), processes_gone=gone, saved_ref=ref or ""))
        else:
            never.append(story_id)
    reply = CancelReply(
        epic=after.spec.id,
        state=str(epic_state(ledger, after)),
        cursor=cursor,
        next=("End the sub-agents in stop_agents (TaskStop). " if agents else "")
        + "Saved work: `git log <saved_ref>`. To go on: start_wave with retry=true.",
    )
    entries = [
        *named("still_stopping", (s.spec.id for s in after.stories.values() if s.state is StoryState.STOPPING)),
        *named("stop_agents", agents),
        *named("stopped", stopped),
        *named("never_started", never),
        *named("merged", (s.spec.id for s in after.stories.values() if s.state is StoryState.MERGED)),
    ]
    return reply, entries
