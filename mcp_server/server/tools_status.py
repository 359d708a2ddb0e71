"""The tool that looks: how far an epic is, and why a story is not running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.core.decide import epic_of, story_of
from mcp_server.core.model import Epic, Ledger, Story, StoryState
from mcp_server.core.policy import poll_after_s
from mcp_server.core.views import EpicState, epic_state, is_at_rest
from mcp_server.errors import Code, Refused
from mcp_server.server.host import Host
from mcp_server.server.session import Session
from mcp_server.server.wire import LIST_MAX, EpicStatus, StatusReply, StoryDetail, StoryLine

WAIT_MAX_S = 45.0
"""Hosts cut tool calls off after 1 to 4 minutes; a wait stays well below the shortest."""

_INTEREST = {
    state: place
    for place, state in enumerate(
        [
            StoryState.RUNNING,
            StoryState.OFFERED,
            StoryState.STOPPING,
            StoryState.MERGING,
            StoryState.FAILED,
            StoryState.QUEUED,
            StoryState.PENDING,
            StoryState.CANCELLED,
            StoryState.MERGED,
        ]
    )
}
"""When a list has to be cut, what moves or needs somebody comes first."""


async def story_status(
    ctx: Context[Session],
    epic: Annotated[str | None, Field(description="Leave out for all epics.")] = None,
    story: Annotated[str | None, Field(description="One story, with its log and last failure.")] = None,
    since: Annotated[int | None, Field(description="Cursor of an earlier reply: only what changed after it.")] = None,
    wait_s: Annotated[float, Field(ge=0, le=WAIT_MAX_S, description="Wait so long for a change.")] = 0,
) -> StatusReply:
    """How far an epic is, and why each story that is not running is not.

    With wait_s the call returns at the next change, so that nobody has to poll; it returns at once when nothing moves.
    """
    host = await ctx.request_context.lifespan_context.host()
    if story is not None and epic is None:
        raise Refused(Code.BAD_ARGUMENT, f"The story {story!r} was named without its epic.", "Pass epic=... with it.")
    ledger = host.ledger()
    if epic is not None:
        chosen = epic_of(ledger, epic)
        if story is not None:
            story_of(chosen, story)
    cursor = since if since is not None else ledger.seq
    if wait_s > 0:
        ledger = await host.wait_for(_changed(epic, story, cursor), wait_s)
    return await _reply(host, ledger, epic, story, since)


def _scope(ledger: Ledger, epic: str | None, story: str | None) -> list[tuple[Epic, Story]]:
    epics = [ledger.epics[epic]] if epic is not None else list(ledger.epics.values())
    return [(e, s) for e in epics for s in e.stories.values() if story in (None, s.spec.id)]


def _changed(epic: str | None, story: str | None, cursor: int) -> Callable[[Ledger], bool]:
    def happened(ledger: Ledger) -> bool:
        scope = _scope(ledger, epic, story)
        return any(s.changed > cursor for _, s in scope) or all(is_at_rest(e) for e, _ in scope)

    return happened


async def _reply(host: Host, ledger: Ledger, epic: str | None, story: str | None, since: int | None) -> StatusReply:
    now_s = host.world.clock.now_s()
    scope = _scope(ledger, epic, story)
    listed = scope if epic is not None else []
    if since is not None:
        listed = [(e, s) for e, s in scope if s.changed > since]
    shown = sorted(listed, key=lambda es: _INTEREST[es[1].state])[:LIST_MAX] if len(listed) > LIST_MAX else listed
    epics = list(dict.fromkeys(e.spec.id for e, _ in scope))
    detail = None
    if epic is not None and story is not None:
        one = ledger.epics[epic].stories[story]
        path, tail = await host.world.log_tail(epic, one)
        detail = StoryDetail.of(one, path, tail)
    last_change_s = max((s.since_s for _, s in scope), default=now_s)
    return StatusReply(
        cursor=ledger.seq,
        changed=since is None or bool(listed),
        epics=[EpicStatus.of(ledger.epics[e]) for e in epics],
        stories=[StoryLine.of(ledger, e, s, now_s) for e, s in shown],
        stories_total=len(listed),
        detail=detail,
        poll_after_s=poll_after_s(now_s - last_change_s),
        next=_next([ledger.epics[e] for e in epics], ledger.seq),
    )


def _next(epics: list[Epic], cursor: int) -> str:
    """The next move for a lead that has just this reply."""
    if not epics:
        return "No epic is planned here: call plan_epic."
    if len(epics) > 1:
        return "Ask with epic=... for one epic's stories."
    epic, name = epics[0], epics[0].spec.id
    match epic_state(epic):
        case EpicState.ACTIVE:
            return f"story_status(epic={name!r}, since={cursor}, wait_s=45) returns at the next change."
        case EpicState.DONE:
            return f"All stories are merged on epicwave/{name}: review it and merge it (`git merge epicwave/{name}`)."
        case EpicState.PLANNED | EpicState.READY:
            return f"start_wave(epic={name!r}) starts the ready stories; through='all' runs to the end."
        case EpicState.BLOCKED | EpicState.CANCELLED:
            return f"Read why, mend it, then start_wave(epic={name!r}, retry=true)."
