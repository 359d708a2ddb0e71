"""Asking the human, through the editor, whether commands that an epic file has brought may run."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult

from mcp_server.core.checks import spoken
from mcp_server.core.spec import Argv, EpicId, EpicSpec
from mcp_server.core.steer import epic_of
from mcp_server.server.allowed import Allowed, not_allowed
from mcp_server.server.ask import QUESTION_MAX, ask_human
from mcp_server.server.host import Host

ALLOW, REFUSE = "allow", "refuse"


async def ask_to_allow(ctx: Context[Any], host: Host, epic: EpicId) -> InputRequiredResult | None:
    """Ask for what nobody has allowed yet, and note a yes; whoever starts the wave refuses what is missing then.

    The question shows every command in full, or it is not asked. An `InputRequiredResult` is as in `ask_human`.
    """
    world = host.world
    spec = epic_of(host.ledger(), epic).spec
    missing = not_allowed(world.state_dir, world.settings(), spec)
    question = _question(spec, missing)
    if not missing or len(question) > QUESTION_MAX:
        return None
    answer = await ask_human(ctx, question, choices=(ALLOW, REFUSE))
    if isinstance(answer, InputRequiredResult):
        return answer
    if answer == ALLOW:
        Allowed(world.state_dir).allow(missing)
    return None


def _question(spec: EpicSpec, missing: tuple[Argv, ...]) -> str:
    lines = "\n".join(f"  {spoken(command)}" for command in missing)
    whose = f"{spec.id} ({spoken((spec.source,))})"
    what = "commands that would run on this machine, as you, whenever a story is checked"
    return f"The epic {whose} brings {what}:\n{lines}\nAllow them from now on?"
