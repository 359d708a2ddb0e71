"""Prompts: what a user picks from a menu (`/mcp__epicwave__run_epic` in Claude Code). They change nothing."""

from __future__ import annotations

from typing import Annotated, Any, cast

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts import Prompt
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from mcp_server.errors import Fault, Refused
from mcp_server.server.pages import Place
from mcp_server.server.resources import text_of
from mcp_server.server.session import Session
from mcp_server.server.wire import cut

EpicArgument = Annotated[str, Field(description="Id of a planned epic, or the path of an epic file.")]


async def plan_epic(file: Annotated[str, Field(description="Path of the epic file.")] = "") -> str:
    """Plan an epic from a file and show what would run when. Nothing starts."""
    which = f"the epic in `{_short(file)}`" if file.strip() else "an epic; ask the user for its file first"
    return f"""\
Plan {which}: call plan_epic(epic_file=...) of epicwave.

Show the waves with their stories, the critical path and its minutes, the stories that share files, and every warning
and unused line: a dependency or a file that was not understood is a story that runs too early. If the plan is refused,
mend the file where the message says, or ask, and plan again. Start nothing: ask whether to run it."""


async def run_epic(
    epic: EpicArgument = "",
    strategy: Annotated[str, Field(description="sequential, asyncio or agent-teams; else as configured.")] = "",
) -> str:
    """Run an epic to its end: plan it if need be, start its stories, wait, report, and land it only when asked."""
    which = f"the epic `{_short(epic)}`" if epic.strip() else "the epic that story_status shows, or ask which"
    with_strategy = f', strategy="{_short(strategy)}"' if strategy.strip() else ""
    return f"""\
Run {which} with epicwave. Do not do the stories yourself, and leave the user's checkout as it is.

1. A path, or an epic that story_status does not know: plan_epic(epic_file=...). Show the waves and every warning; if
   there is a warning, ask before you go on.
2. start_wave(epic=..., through="all"{with_strategy}). It answers at once. Say its notices.
3. While an answer has `spawn` above 0, do its `instruction` word for word: all Agent calls in one message.
4. story_status(epic=..., since=<cursor>, wait_s=45), again and again, until nothing moves. Do not sleep or poll. Say
   one line a change, and for a story that does not run, its why.
5. A story that asks: put its question to the user and start it again with notes={{story: answer}}. One that failed:
   say why, mend the cause or ask, then start_wave(retry=true).
6. All merged: name the stories and the branch epicwave/<epic>, and offer land_epic. Call it only when told to."""


async def epic_status(
    ctx: Context, epic: Annotated[str, Field(description="Id of a planned epic; all when left out.")] = ""
) -> str:
    """How far an epic is now, and what needs a decision."""
    session = cast("Session", ctx.request_context.lifespan_context)  # a prompt takes a bare Context only
    try:
        host = await session.host()
        text = text_of(host, host.ledger(), Place(epic.strip() or None), host.world.clock.now_s())
    except (Refused, Fault) as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error
    return f"""\
Tell the user in a few lines how it stands: what is merged, what runs, and each story that needs somebody, with its
reason and the next move. This is the state now; start and cancel nothing.

{text}"""


def _short(text: str) -> str:
    """An argument on one line, as it was typed."""
    return cut(" ".join(text.replace("`", "'").split()), 400)


def add_prompts(server: MCPServer[Any]) -> None:
    """Offer the three."""
    for function, title in ((plan_epic, "Plan an epic"), (run_epic, "Run an epic"), (epic_status, "Status of an epic")):
        server.add_prompt(Prompt.from_function(function, title=title))
