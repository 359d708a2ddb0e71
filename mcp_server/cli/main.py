"""The command line. How a command ends is a number of `exits.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio
import typer

from mcp_server import __version__
from mcp_server.cli import steering
from mcp_server.cli.exits import INTERRUPTED, REFUSED
from mcp_server.cli.words import EpicFile, Json, OneOrAll, Redo, Repo
from mcp_server.errors import Code, Fault, JournalError, Refused

app = typer.Typer(
    name="epicwave",
    help="Run an epic: stories in parallel git worktrees, each result proven on the merged tree, merged in order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

steering.register(app)

IN_A_TERMINAL = {
    Code.UNKNOWN_EPIC: "`epicwave status` lists all epics; `epicwave run FILE` plans one and runs it.",
    Code.UNKNOWN_STORY: "`epicwave status EPIC` lists its stories.",
    Code.TOO_LATE: "`epicwave status EPIC` tells what has become of it.",
    Code.CHECKS_NOT_ALLOWED: "Look at them; `epicwave allow FILE` says yes, `run FILE --allow-checks` says it too.",
    Code.EPIC_BUSY: "Follow it with `epicwave watch EPIC`, or stop it with `epicwave cancel EPIC`, then try again.",
    Code.BUILT_ON: "Roll back what builds on it first, in that order, or all in one go: --with-dependants.",
}
"""Remedies that name tools, in words for whoever has none but commands."""


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"epicwave {__version__}")
        raise typer.Exit


@app.command()
def plan(epic: EpicFile, redo: Redo = False, as_json: Json = False) -> None:
    """Read an epic, validate it, and show its waves, critical path and file conflicts. Changes nothing."""
    from mcp_server.cli.plan import show_plan  # noqa: PLC0415 - each command loads only what it needs

    show_plan(epic, redo=redo, as_json=as_json)


@app.command()
def run(
    epic: EpicFile,
    strategy: Annotated[str | None, typer.Option(help="sequential or asyncio; default: the configuration's.")] = None,
    slots: Annotated[int | None, typer.Option(help="Agents at once.")] = None,
    agent: Annotated[str | None, typer.Option(help="claude, cursor, codex, gemini, ... or a whole command.")] = None,
    through: Annotated[str, typer.Option(help="'all', 'ready', or the number of the last wave to run.")] = "all",
    redo: Redo = False,
    attach: Annotated[bool, typer.Option("--attach", help="In the engine process, which outlives this.")] = False,
    allow_checks: Annotated[
        bool, typer.Option("--allow-checks", help="Allow the commands that the epic brings, as `allow --yes` does.")
    ] = False,
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """Run an epic to the end in this terminal. Run it again to go on where it stopped: merged stories stay merged.

    With --attach the repository's engine process runs it, and this terminal only looks on: Ctrl-C leaves it running.
    """
    from mcp_server.cli.attach import run_attached  # noqa: PLC0415
    from mcp_server.cli.run import Asked, run_epic  # noqa: PLC0415

    asked = Asked(epic, strategy, slots, agent, through, redo=redo, as_json=as_json, allow_checks=allow_checks)
    raise typer.Exit(anyio.run(run_attached if attach else run_epic, repo.absolute(), asked))


@app.command()
def allow(
    epic: Annotated[str | None, typer.Argument(metavar="[EPIC]", help="Id of a planned epic, or its file.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Allow them without asking.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only show them; without EPIC all that is allowed.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Allow them no more; without EPIC none at all.")] = False,
    repo: Repo = Path(),
) -> None:
    """Look at the commands that an epic file brings (checks, guards, agents) and allow them here, once for good."""
    from mcp_server.cli.allow import Asked  # noqa: PLC0415
    from mcp_server.cli.allow import allow as allow_commands  # noqa: PLC0415

    raise typer.Exit(anyio.run(allow_commands, repo.absolute(), Asked(epic, yes, listed, forget)))


@app.command()
def status(
    epic: OneOrAll = None,
    and_watch: Annotated[bool, typer.Option("--watch", help="Go on as `watch` does.")] = False,
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """How far each epic is, and why a story is not running."""
    if and_watch:
        watch(epic, as_json=as_json, repo=repo)
    from mcp_server.cli.status import show_status  # noqa: PLC0415

    async def show() -> None:
        await show_status(repo.absolute(), epic, as_json=as_json)

    anyio.run(show)


@app.command()
def watch(
    epic: OneOrAll = None,
    forever: Annotated[bool, typer.Option("--forever", help="Go on when nothing moves any more.")] = False,
    as_json: Json = False,
    repo: Repo = Path(),
) -> None:
    """Look on while epics run, whoever runs them, until nothing moves any more. Changes nothing, starts nothing."""
    from mcp_server.cli.watch import Watched  # noqa: PLC0415
    from mcp_server.cli.watch import watch as look_on  # noqa: PLC0415

    raise typer.Exit(anyio.run(look_on, repo.absolute(), Watched(epic, forever, as_json)))


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Make the scratch repository here and keep it.")] = None,
    slots: Annotated[int, typer.Option(min=2, max=16)] = 3,
) -> None:
    """Run a small real epic in a scratch repository with a scripted agent, in parallel and then one after the other."""
    from mcp_server.cli.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(anyio.run(run_demo, keep, slots))


@app.command()
def simulate(
    seed: Annotated[int, typer.Option(help="Seed of the first life; one seed is one life.")] = 0,
    lives: Annotated[int, typer.Option(min=1, help="How many lives, from that seed on.")] = 100,
    strategy: Annotated[str | None, typer.Option(help="This one only: sequential, asyncio or agent-teams.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Prove the engine: whole servers in virtual time, with agents, git, disk and processes that fail, and kill -9."""
    from mcp_server.cli.simulate import simulate as run_lives  # noqa: PLC0415

    raise typer.Exit(run_lives(seed, lives, strategy, jobs))


@app.command()
def init(
    command: Annotated[str | None, typer.Option(help="What starts the server; default: as epicwave came here.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take back what init wrote and nobody has edited.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace, or remove, what somebody has edited, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    repo: Repo = Path(),
) -> None:
    """Write the project files with which Claude Code and Cursor use epicwave without its plugin."""
    from mcp_server.cli.init import Asked, write_project  # noqa: PLC0415

    anyio.run(write_project, repo.absolute(), Asked(command, remove, force, dry_run))


@app.command()
def logs(
    story: Annotated[str, typer.Argument(help="Id of the story.")],
    epic: Annotated[str | None, typer.Option("--epic", help="Its epic, when several have a story of that id.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Number of the attempt; default: the last.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the story is at rest.")] = False,
    checks: Annotated[bool, typer.Option("--checks", help="What its checks printed, not its agent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    repo: Repo = Path(),
) -> None:
    """What a story's agent has printed; with -f what it prints now, over to its next attempt."""
    from mcp_server.cli.logs import Asked, show_log  # noqa: PLC0415

    anyio.run(show_log, repo.absolute(), Asked(story, epic, attempt, follow, checks, as_json))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[float, typer.Option("--older-than", min=0, help="Days: logs, rescue refs, copies.")] = 14.0,
    rescue: Annotated[bool, typer.Option("--rescue", help="Rescue refs of stories that are not merged, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    repo: Repo = Path(),
) -> None:
    """Remove what epicwave made here and nobody needs: worktrees and branches of attempts that are over, old logs."""
    from mcp_server.cli.gc import Asked, collect  # noqa: PLC0415

    raise typer.Exit(anyio.run(collect, repo.absolute(), Asked(dry_run, older_than, rescue, as_json)))


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend, and say what was done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    repo: Repo = Path(),
) -> None:
    """Look for what would stand in an epic's way here: git, hooks, agents, permissions, leftovers; with remedies."""
    from mcp_server.cli.doctor import examine  # noqa: PLC0415

    raise typer.Exit(anyio.run(examine, repo.absolute(), fix, as_json))


@app.command()
def serve(
    repo: Repo = Path(),
    http: Annotated[bool, typer.Option("--http", help="Over HTTP instead, in the foreground, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="For --http; 0 is any that is free.")] = 0,
    host: Annotated[str, typer.Option(help="For --http.")] = "127.0.0.1",
    public: Annotated[bool, typer.Option("--public", help="Allow a --host that other machines can reach.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="Has the bearer token; needed with --public.")] = None,
) -> None:
    """Serve MCP on standard input and output, for an editor; the work goes on in an engine process of its own.

    Where there is none, because there is no repository (yet) or on Windows, this process does it all and ends it all.
    """
    if http:
        from mcp_server.cli.serve_http import Asked, serve_http  # noqa: PLC0415

        return anyio.run(serve_http, repo.absolute(), Asked(host, port, public, token_file))
    from mcp_server.server.app import build  # noqa: PLC0415 - `cli/entry.py` has gone the short way if there is one
    from mcp_server.server.stdio import serve as serve_stdio  # noqa: PLC0415

    return anyio.run(serve_stdio, build(repo.absolute()))


@app.command()
def engine(
    repo: Repo = Path(),
    idle_s: Annotated[
        float, typer.Option(min=1, envvar="EPICWAVE_IDLE_S", help="End after so long with nobody and nothing alive.")
    ] = 900.0,
) -> None:
    """Be the repository's engine process: `serve` and the other commands start it by themselves when there is none."""
    from mcp_server.cli.engine import run_engine  # noqa: PLC0415

    raise typer.Exit(anyio.run(run_engine, repo.absolute(), idle_s))


def main() -> None:
    """Entry point; a refusal is two lines on standard error and exit code 2, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:  # before or after the engine: there was nothing to end in order
        raise SystemExit(INTERRUPTED) from None
    except Refused as refused:
        typer.echo(f"{refused.code}: {refused.why}\n{IN_A_TERMINAL.get(refused.code, refused.remedy)}", err=True)
        raise SystemExit(REFUSED) from None
    except Fault as fault:
        typer.echo(f"{fault.cause} fault: {fault.detail}\nNothing was started. Mend it and run again.", err=True)
        raise SystemExit(REFUSED) from None
    except JournalError as error:
        typer.echo(
            f"journal_error: {error}\nNothing that is not stored took effect. Free the disk, run again.", err=True
        )
        raise SystemExit(REFUSED) from None
