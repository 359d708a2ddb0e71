"""`epicwave cancel`, `pause`, `resume`, `drain`, `retry`, `skip`: the engine process is asked, as editors ask it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from mcp_server.cli.exits import DONE, INTERRUPTED
from mcp_server.cli.terminal import open_console
from mcp_server.core.model import LIVE, SETTLED, Epic, Ledger, StoryState, is_alive
from mcp_server.core.steer import epic_of, story_of
from mcp_server.errors import Code, Refused
from mcp_server.server.caller import Caller, Gone, calling
from mcp_server.server.groups import plainly
from mcp_server.server.mirror import Mirror
from mcp_server.server.onlooker import Onlooker
from mcp_server.server.paging import compact
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.tools_epic import cancelled
from mcp_server.server.wire import CancelReply
from mcp_server.server.world import World

REASON = "cancelled from a terminal"
NEWS_S = 60.0


@dataclass(frozen=True, slots=True)
class Steering:
    """The words of the command line. `action` is steer_epic's."""

    action: str
    epic: str
    story: str | None = None
    note: str = ""
    as_json: bool = False


async def steer(repo: Path, asked: Steering) -> int:
    """Do it and say how the epic is then; the result is the exit code. Raises `Refused`."""
    async with plainly(), ended_by_signal(), asking(repo, asked.epic, asked.story) as (world, caller):
        arguments = {"epic": asked.epic, "action": asked.action, "story": asked.story, "note": asked.note or None}
        reply = await caller.ask("steer_epic", **arguments)
        if asked.as_json:
            typer.echo(compact(reply))
        else:
            _say(open_console(), asked, reply, Mirror(world.journal_path).ledger())
        return DONE
    return INTERRUPTED


@asynccontextmanager
async def asking(repo: Path, epic: str, story: str | None) -> AsyncGenerator[tuple[World, Caller]]:
    """The engine process to ask. What is not planned is refused before one is started for it."""
    world = await World.open(repo)
    known = epic_of(Mirror(world.journal_path).ledger(), epic)
    if story is not None:
        story_of(known, story)
    notes = open_console(to_errors=True)
    async with calling(world.state_dir, repo, lambda note: notes.print(f"note: {note}")) as caller:
        yield world, caller


_DID = {
    "pause": "is paused",
    "resume": "is resumed",
    "drain": "comes to its end: what runs goes on and is merged, and nothing more starts",
    "retry": "is to be tried again",
    "skip": "is skipped: what builds on it does not wait",
}


def _say(console: Console, asked: Steering, reply: dict[str, Any], ledger: Ledger) -> None:
    epic = ledger.epics[asked.epic]
    who = f"Story {asked.story} of {asked.epic}" if asked.story is not None else f"Epic {asked.epic}"
    wave = f"Wave {epic.wave.number} of {asked.epic}" if asked.action == "drain" and epic.wave is not None else ""
    state = "" if asked.action == "pause" else f" The epic is {reply['state']}."
    console.print(f"{wave or who} {_DID[asked.action]}.{state}")
    if asked.action == "pause" and reply.get("in_flight"):
        console.print(f"In flight, to be finished and merged: {', '.join(reply['in_flight'])}.")
    if asked.action != "pause":
        for alert in reply.get("alerts", []):
            console.print(alert)
    if asked.action == "pause":
        console.print(f"Let it go on with: epicwave resume {asked.epic}")
    elif reply["state"] == "active":
        console.print(f"Follow it with: epicwave watch {asked.epic}")
    elif not is_alive(epic.wave):
        console.print(go_on(epic))


def go_on(epic: Epic) -> str:
    """How to start what can start now."""
    source = epic.spec.source if epic.spec.source != "inline" else "FILE"
    return f"Start what is ready with: epicwave run {source} --attach"


# --- cancel -----------------------------------------------------------------------------------------------------------


async def cancel(repo: Path, epic_id: str, story: str | None, *, as_json: bool = False) -> int:
    """Cancel it, wait until all of it is stopped and saved, and say what is where; the result is the exit code.

    Raises `Refused`.
    """
    async with plainly(), ended_by_signal(), asking(repo, epic_id, story) as (world, caller):
        eye = Onlooker(world, repo)
        before = eye.ledger().epics[epic_id]
        try:
            await _stopped(caller, eye, epic_id, story)
        except (Refused, Gone) as error:
            if isinstance(error, Refused) and error.code is not Code.ENGINE_RESTARTED:
                raise
            if not _is_stopped(eye.ledger().epics[epic_id], story):  # else it ended because all was done: a run may
                raise
        ledger = eye.ledger()
        reply = cancelled(world, before, ledger)  # the tool's own answer is cut to what a model may read
        if as_json:
            typer.echo(compact(reply))
        else:
            _say_cancelled(open_console(), reply, ledger.epics[epic_id])
        return DONE
    return INTERRUPTED


async def _stopped(caller: Caller, eye: Onlooker, epic_id: str, story: str | None) -> None:
    """It was cancelled and all of it has stopped, however long that takes."""
    await caller.ask("cancel_epic", epic=epic_id, story=story, reason=REASON)
    while (ledger := eye.ledger()).epics[epic_id].stories.any_in(StoryState.STOPPING):
        await caller.news(ledger.seq, NEWS_S)


def _is_stopped(epic: Epic, story: str | None) -> bool:
    if story is not None:
        return epic.stories[story].state in SETTLED
    return epic.cancelled is not None and not epic.stories.any_in(*LIVE, StoryState.MERGING)


def _say_cancelled(console: Console, reply: CancelReply, epic: Epic) -> None:
    console.print(f"{epic.spec.title} ({reply.epic}): {reply.state}.")
    for stopped in reply.stopped:
        gone = "its processes are gone" if stopped.processes_gone else "A PROCESS OF IT IS STILL ALIVE"
        saved = f"its work is kept at {stopped.saved_ref}" if stopped.saved_ref else "it had nothing to save"
        if stopped.state == StoryState.MERGED:
            saved = "it was merged before the stop reached it"
        console.print(f"{stopped.story} was alive and is {stopped.state}: {gone}, {saved}.")
    if not reply.stopped:
        console.print("Nothing was alive.")
    if reply.never_started:
        console.print(f"Never started: {', '.join(reply.never_started)}.")
    if reply.merged:
        console.print(f"Merged, and stays so: {', '.join(reply.merged)}.")
    if reply.stop_agents:
        console.print(f"End these sub-agents in the editor: {', '.join(reply.stop_agents)}.")
    if any(stopped.saved_ref for stopped in reply.stopped):
        console.print("Look at saved work with: git log REF")
    console.print(go_on(epic).replace("Start what is ready", "Go on"))
