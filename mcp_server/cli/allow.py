"""`epicwave allow`, and the question before a run: commands that an epic file brings run once the user has said yes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.cli.exits import DONE
from mcp_server.cli.terminal import count, open_console
from mcp_server.core.checks import brought, digest, spoken
from mcp_server.core.planning import plan
from mcp_server.core.spec import Argv, EpicSpec
from mcp_server.core.steer import epic_of
from mcp_server.errors import Code, Refused
from mcp_server.server.allowed import Allowed, not_allowed, refusal
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line. `epic` is an id or a file; None with `listed` and `forget` is all there is."""

    epic: str | None = None
    yes: bool = False
    listed: bool = False
    forget: bool = False


async def allow(repo: Path, asked: Asked) -> int:
    """Show the commands, and allow them, list them or forget them; the result is the exit code. Raises `Refused`."""
    world = await World.open(repo)
    console = open_console()
    if asked.epic is None:
        return _all(world, asked, console)
    spec = _spec(world, asked.epic)
    commands = brought(spec, world.settings().agent_names)
    if asked.listed:
        waiting = not_allowed(world.state_dir, world.settings(), spec)
        for command in commands:
            console.print(f"{'not allowed' if command in waiting else 'allowed'}: {spoken(command)}")
        if not commands:
            console.print(_nothing(spec))
    elif asked.forget:
        _forget(world, commands, console)
    elif not not_allowed(world.state_dir, world.settings(), spec):
        console.print(f"Nothing is left to allow. {_nothing(spec) if not commands else ''}".rstrip())
    else:
        must_be_allowed(world, spec, console, yes=asked.yes)
    return DONE


def must_be_allowed(world: World, spec: EpicSpec, console: Console, *, yes: bool) -> None:
    """Allow what the epic brings and nobody has allowed yet, by `yes` or by asking whoever sits at the terminal.

    Raises `Refused(checks_not_allowed)` when nobody says yes.
    """
    missing = not_allowed(world.state_dir, world.settings(), spec)
    if not missing:
        return
    if not yes and not _is_attended(console):
        raise refusal(spec, missing)
    console.print(f"The epic {spec.id} ({spoken((spec.source,))}) brings commands that run here, as you:")
    _show(console, missing)
    if not yes and not _says_yes(console):
        raise refusal(spec, missing)
    Allowed(world.state_dir).allow(missing)
    console.print(f"Allowed: {count(len(missing), 'command')}. To take it back: epicwave allow {spec.id} --forget")


def _all(world: World, asked: Asked, console: Console) -> int:
    """What is allowed here, whichever epic brought it."""
    if not (asked.listed or asked.forget):
        raise Refused(
            Code.BAD_ARGUMENT,
            "No epic is named.",
            "Name its id or its file, or use --list to see what is allowed here.",
        )
    known = Allowed(world.state_dir).read()
    if asked.forget:
        _forget(world, known.values(), console)
    elif not known:
        console.print("Nothing is allowed here but what the configuration says.")
    else:
        _show(console, known.values())
    return DONE


def _spec(world: World, name: str) -> EpicSpec:
    """The epic of that file as it is now, else the planned one of that id. Raises `Refused`."""
    if Path(name).is_file():
        return plan(read_epic(Path(name)).draft).spec
    return epic_of(Mirror(world.journal_path).ledger(), name).spec


def _nothing(spec: EpicSpec) -> str:
    if spec.source == "inline":
        return f"The epic {spec.id} was handed over by an editor, which showed it, and not read from a file."
    return f"The epic {spec.id} brings no commands."


def _forget(world: World, commands: Iterable[Argv], console: Console) -> None:
    forgotten = Allowed(world.state_dir).forget(commands)
    console.print(f"Not allowed any more: {count(forgotten, 'command')}. What has been started goes on.")


def _show(console: Console, commands: Iterable[Argv]) -> None:
    for command in commands:
        console.print(f"  {digest(command)[:8]}  {spoken(command)}")


def _is_attended(console: Console) -> bool:
    return console.is_terminal and sys.stdin.isatty()


def _says_yes(console: Console) -> bool:
    with _interruptible():
        console.print("Allow them from now on? [y/N] ", end="")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def _interruptible() -> Generator[None]:
    """Ctrl-C ends a question at once; an event loop would only hear of it when the answer has come."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
