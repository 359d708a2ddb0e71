"""The commands that steer an epic on its way. Each asks the engine process, and starts one when there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio
import typer

from mcp_server.cli.words import EpicName, Json, Repo, StoryName

Note = Annotated[str, typer.Option("--note", help="The reason, for whoever looks at the status.")]
Advice = Annotated[str, typer.Option("--note", help="Advice, or an answer: the next attempt's brief has it.")]


def register(app: typer.Typer) -> None:
    """Add them to the command line."""
    for command in (cancel, pause, resume, drain, retry, skip):
        app.command()(command)


def cancel(
    epic: EpicName,
    story: Annotated[str | None, typer.Argument(metavar="[STORY]", help="Only this story.")] = None,
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """Stop an epic, or one story: end its agents, see that they are gone, and save their work. Merged stays merged."""
    from mcp_server.cli.steer import cancel as cancel_epic  # noqa: PLC0415 - each command loads only what it needs

    async def run() -> int:
        return await cancel_epic(repo.absolute(), epic, story, as_json=as_json)

    raise typer.Exit(anyio.run(run))


def pause(epic: EpicName, note: Note = "", as_json: Json = False, repo: Repo = Path()) -> None:
    """Let nothing more of an epic start. What is in flight is finished and merged."""
    _steer("pause", epic, None, note, as_json, repo)


def resume(epic: EpicName, as_json: Json = False, repo: Repo = Path()) -> None:
    """Let a paused epic go on, also one that a breaker or a rate limit holds up."""
    _steer("resume", epic, None, "", as_json, repo)


def drain(epic: EpicName, note: Note = "", as_json: Json = False, repo: Repo = Path()) -> None:
    """Bring an epic's wave to its end: what runs is finished and merged, the rest stays for the next wave."""
    _steer("drain", epic, None, note, as_json, repo)


def retry(epic: EpicName, story: StoryName, note: Advice = "", as_json: Json = False, repo: Repo = Path()) -> None:
    """Try a story again that failed, was cancelled or skipped, or that asks a question."""
    _steer("retry", epic, story, note, as_json, repo)


def skip(epic: EpicName, story: StoryName, note: Note = "", as_json: Json = False, repo: Repo = Path()) -> None:
    """Go on without a story: what builds on it does not wait for it."""
    _steer("skip", epic, story, note, as_json, repo)


def _steer(action: str, epic: str, story: str | None, note: str, as_json: bool, repo: Path) -> None:
    from mcp_server.cli.steer import Steering, steer  # noqa: PLC0415

    raise typer.Exit(anyio.run(steer, repo.absolute(), Steering(action, epic, story, note, as_json)))
