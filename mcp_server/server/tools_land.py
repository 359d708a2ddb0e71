"""The tool that brings an epic to the user's branch. Nothing else of ours ever moves that."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.core.events import EpicLanded
from mcp_server.core.landing import HOW, landable
from mcp_server.core.limits import Policy
from mcp_server.core.steer import epic_of
from mcp_server.engine.landing import Land, land
from mcp_server.server.host import Host
from mcp_server.server.paging import clip
from mcp_server.server.session import Session
from mcp_server.server.wire import PATH_TOKENS, SHA_SHOWN, LandReply

AGAIN = "The checks are still running. The same call again waits on."
CHECKS_SHOWN = 3


async def land_epic(
    ctx: Context[Session],
    epic: str,
    how: Annotated[
        Literal["auto", "ff", "merge", "squash", "pr"], Field(description="auto: ff if possible, else merge.")
    ] = "auto",
    into: Annotated[str | None, Field(description="A branch; else the checkout's own.")] = None,
    partial: Annotated[bool, Field(description="Not all merged.")] = False,
) -> LandReply:
    """Bring epicwave/<epic> to the user's branch, or open a pull request. Only when the user asked for it.

    What was not checked as it lands is checked first. Refused, with nothing changed: a dirty checkout, a conflict, red.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    asked = Land(epic, host.world.repository.top, how, into, partial)
    if asked not in session.errands:
        landable(host.ledger(), epic, partial=partial)  # refused before an engine is opened for it
    policy = policy_of(host, epic)
    fact = await session.errands.end_of(host, epic, asked, lambda engine: land(engine, asked, policy))
    return LandReply(epic=epic, next=AGAIN) if fact is None else _landed(fact)


def policy_of(host: Host, name: str) -> Policy:
    """What the last wave ran under; for an epic that has none any more, the configuration's."""
    epic = epic_of(host.ledger(), name)
    return epic.wave.policy if epic.wave is not None else host.world.settings().policy()


def _landed(fact: EpicLanded) -> LandReply:
    where = f"The pull request is open: {fact.url}" if fact.url else f"{fact.into} has it, {HOW[fact.how]}"
    back = f" To go back: `git reset --keep {fact.saved_ref}` on {fact.into}." if fact.saved_ref else ""
    return LandReply(
        epic=fact.epic,
        landed=True,
        into=fact.into,
        how=fact.how,
        tip=fact.tip[:SHA_SHOWN],
        saved_ref=fact.saved_ref,
        url=fact.url,
        checks=[clip(shlex.join(run.command), PATH_TOKENS) for run in fact.checks[:CHECKS_SHOWN]],
        next=f"{where}.{back} Tell the user." if not fact.url else f"{where} Tell the user.",
    )
