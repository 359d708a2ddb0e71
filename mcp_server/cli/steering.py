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
    for command in (cancel, pause, resume, drain, retry, skip, rollback, land):
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


def rollback(
    epic: EpicName,
    story: StoryName,
    with_dependants: Annotated[
        bool, typer.Option("--with-dependants", help="What builds on it, too, the last one first.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """Take a merged story off epicwave/EPIC again, by a revert whose tree has passed the checks. It can be retried."""
    from mcp_server.cli.land import Undone, take_back  # noqa: PLC0415

    raise typer.Exit(anyio.run(take_back, repo.absolute(), Undone(epic, story, note, with_dependants, as_json)))


def land(
    epic: EpicName,
    how: Annotated[str, typer.Option("--how", help="auto (ff, else merge), ff, merge, squash, pr.")] = "auto",
    into: Annotated[str | None, typer.Option("--into", help="Branch; default: the one that is checked out.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Although stories are not merged.")] = False,
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """Bring epicwave/EPIC to your branch. What was not checked as it lands is checked first; nothing moves on red."""
    from mcp_server.cli.land import Asked  # noqa: PLC0415
    from mcp_server.cli.land import land as land_epic  # noqa: PLC0415

    raise typer.Exit(anyio.run(land_epic, repo.absolute(), Asked(epic, how, into, partial, as_json)))


def _steer(action: str, epic: str, story: str | None, note: str, as_json: bool, repo: Path) -> None:
    from mcp_server.cli.steer import Steering, steer  # noqa: PLC0415

    raise typer.Exit(anyio.run(steer, repo.absolute(), Steering(action, epic, story, note, as_json)))
