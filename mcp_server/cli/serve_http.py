"""`epicwave serve --http`: the repository's engine process in the foreground, with MCP over HTTP for who wants it."""

from __future__ import annotations

import logging
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc

from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.server import web
from mcp_server.server.door import hosting_in_foreground
from mcp_server.server.host import journal_error
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World

NAME = "epicwave serve --http"
ENDING = "Ending: agents are being stopped and their work saved."


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    host: str = "127.0.0.1"
    port: int = 0
    public: bool = False
    token_file: Path | None = None


async def serve_http(repo: Path, asked: Asked) -> None:
    """Serve until SIGINT or SIGTERM. Raises `Refused`, `Fault`, `JournalError`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _must_be_meant(asked)
    token = _read(asked.token_file) if asked.token_file is not None else ""
    world = await World.open(repo)
    error: Refused | Fault | JournalError | None = None
    try:
        async with ended_by_signal(lambda: _say(ENDING)), anyio.create_task_group() as group:
            try:
                await _serve(repo, world, asked, token, group)
            except (Refused, Fault) as caught:
                error = caught
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        error = journal_error(errors)
        if error is None:
            raise
    if error is not None:
        raise error


async def _serve(repo: Path, world: World, asked: Asked, given: str, group: anyio.abc.TaskGroup) -> None:
    with web.listen(asked.host, asked.port) as listener:
        port = listener.getsockname()[1]
        async with hosting_in_foreground(world, repo, group, NAME) as hosting:
            host = await hosting.host(repo)
            async with web.token_in(world.state_dir, given) as (token, where), host.engine():
                address = web.Address(asked.host, port, token)
                _say(f"epicwave serves MCP at {address.url}; the bearer token is {where}. End it with Ctrl-C.")
                await web.serve(repo, hosting, listener, address)


def _must_be_meant(asked: Asked) -> None:
    """Others on the network may come near it only when the user says so, and with a token that the user has made."""
    if web.is_loopback(asked.host):
        return
    if not asked.public:
        raise Refused(
            Code.BAD_ARGUMENT,
            f"{asked.host} can be reached from other machines, and whoever has the token runs programs on this one.",
            "Leave --host out, or add --public and --token-file if that is what you want.",
        )
    if asked.token_file is None:
        raise Refused(
            Code.BAD_ARGUMENT,
            "For clients on other machines the token has to be one that you have made and handed on.",
            "Name its file with --token-file.",
        )


def _read(path: Path) -> str:
    """The token in a file that is the user's own. Raises `Refused`."""
    try:
        found = path.stat()
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Refused(Code.BAD_ARGUMENT, f"{path} cannot be read: {error}.", "Name another --token-file.") from error
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)):
        raise Refused(
            Code.UNSAFE_STATE,
            f"Others can read the token in {path}, or it is theirs.",
            f"Make a new one, and close it with `chmod 600 {path}`.",
        )
    return web.checked(token, str(path))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
