"""`epicwave land` and `rollback`: the engine process is asked, and asked again until the checks have run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from mcp_server.cli.exits import DONE, INTERRUPTED
from mcp_server.cli.steer import asking
from mcp_server.cli.terminal import open_console
from mcp_server.core.landing import HOW
from mcp_server.errors import Code, Refused
from mcp_server.server.caller import Caller
from mcp_server.server.groups import plainly
from mcp_server.server.mirror import Mirror
from mcp_server.server.paging import compact
from mcp_server.server.signals import ended_by_signal


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of `land`."""

    epic: str
    how: str = "auto"
    into: str | None = None
    partial: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Undone:
    """The words of `rollback`."""

    epic: str
    story: str
    note: str = ""
    with_dependants: bool = False
    as_json: bool = False


async def land(repo: Path, asked: Asked) -> int:
    """Land it and say where; the result is the exit code. Raises `Refused`."""
    if asked.how not in ("auto", "ff", "merge", "squash", "pr"):
        raise Refused(Code.BAD_ARGUMENT, f"--how {asked.how!r} is none of them.", "Use auto, ff, merge, squash or pr.")
    async with plainly(), ended_by_signal(), asking(repo, asked.epic, None) as (_, caller):
        words = {"how": asked.how, "into": asked.into, "partial": asked.partial}
        reply = await _ended(caller, "land_epic", "landed", yes=True, epic=asked.epic, **words)
        if asked.as_json:
            typer.echo(compact(reply))
        else:
            _say_landed(reply)
        return DONE
    return INTERRUPTED


async def take_back(repo: Path, asked: Undone) -> int:
    """Roll it back and say what went; the result is the exit code. Raises `Refused`."""
    async with plainly(), ended_by_signal(), asking(repo, asked.epic, asked.story) as (world, caller):
        before = Mirror(world.journal_path).ledger().epics[asked.epic]
        words = {"story": asked.story, "note": asked.note or None, "with_dependants": asked.with_dependants}
        reply = await _ended(caller, "steer_epic", "under_way", yes=False, epic=asked.epic, action="rollback", **words)
        if asked.as_json:
            typer.echo(compact(reply))
            return DONE
        console, now = open_console(), Mirror(world.journal_path).ledger().epics[asked.epic]
        for story in now.stories.values():
            if story.rolled_back and not before.stories[story.spec.id].rolled_back:
                kept = story.failure.saved_ref if story.failure is not None else ""
                console.print(
                    f"{story.spec.id} is off epicwave/{asked.epic} and cancelled; its work is kept at {kept}."
                )
        if now.landed is not None:
            console.print(f"{now.landed.into} has it still: epicwave land {asked.epic} brings the revert.")
        console.print(f"Try it again with: epicwave retry {asked.epic} {asked.story}")
        return DONE
    return INTERRUPTED


async def _ended(caller: Caller, tool: str, field: str, *, yes: bool, **words: Any) -> dict[str, Any]:
    """The reply of a call that is made again as long as it only says that the checks are running."""
    while True:
        reply = await caller.ask(tool, **words)
        if bool(reply.get(field)) is yes:
            return reply


def _say_landed(reply: dict[str, Any]) -> None:
    console = open_console()
    if reply.get("url"):
        console.print(f"The pull request is open: {reply['url']}")
        return
    console.print(f"{reply['into']} has epic {reply['epic']}, {HOW[reply['how']]} as {reply['tip']}.")
    if reply.get("checks"):
        console.print(f"Checked before it landed: {', '.join(reply['checks'])}.")
    if reply.get("saved_ref"):
        console.print(f"Where it was before is kept at {reply['saved_ref']}.")
