"""The door of an engine process: a listener on this machine that serves MCP to whoever knows the token.

What comes over it is the stdio framing, one message a line, after one line that says who asks. Each connection is a
session of its own; all share the engine.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream
from filelock import FileLock, Timeout
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from pydantic import BaseModel, ValidationError

from mcp_server import __version__
from mcp_server.adapters.agents.tree import identity
from mcp_server.errors import Code, Fault, FaultCause, JournalError, Refused
from mcp_server.front import start as front
from mcp_server.front.place import DOOR_FILE, SOCKET_FILE, Door, Refusal, must_be_private, read_door
from mcp_server.server.app import build
from mcp_server.server.following import Following
from mcp_server.server.framing import framed
from mcp_server.server.host import Host
from mcp_server.server.private import make_private
from mcp_server.server.session import Hosting, Session, report_broken
from mcp_server.server.world import World

GUARD_FILE = "door.guard"
HELLO_BYTES, HELLO_S = 65_536, 5.0
"""A stranger's first line is read up to here, and waited for so long."""
FULL_S = 0.1
"""Until the next look for a free descriptor, in seconds."""
TAKE_S = 5.0
"""How long a foreground process tries to get the guard from an engine process that comes or goes."""
ANSWER_S = 0.2
"""How long a foreground process that is through stays for the answers that are on their way."""
TEMPORARY = "epicwave-"
PATH_BYTES = 100
"""A Unix socket's path has room for 104 bytes on macOS and 108 on Linux."""

log = logging.getLogger("epicwave")


class Hello(BaseModel):
    """The first line of a connection."""

    token: str
    version: str = ""
    start: Path
    plugin: str = ""


@dataclass(slots=True)
class Visitors:
    """Who is connected now. Stores how many, and since when there is nobody."""

    count: int = 0
    since_s: float = field(default_factory=anyio.current_time)

    def came(self) -> None:
        """One more."""
        self.count += 1

    def went(self) -> None:
        """One less."""
        self.count -= 1
        self.since_s = anyio.current_time()


class guarding:  # noqa: N801 - it is used as a verb: `with guarding(...)`
    """The right to open the repository's door, for a block: one process has it.

    Makes the state folder, closed to others, and removes what a killed engine process has left in it. Raises `Refused`:
    `engine_elsewhere` while another process has it, `unsafe_state` when others can enter the folder or could have put
    there what lies in the door's place.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._lock = FileLock(state / GUARD_FILE, timeout=0)

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()

    def take(self) -> None:
        """Have it, or be refused."""
        try:
            make_private(self._state)
            self._lock.acquire()
            _clear_away(self._state)
        except Timeout as error:
            raise Refused(
                Code.ENGINE_ELSEWHERE,
                "This repository has an engine process already.",
                "Use that one: `epicwave status` shows what it does, `epicwave run --attach` works through it.",
            ) from error
        except Refused:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise Fault(FaultCause.DISK, f"The folder {self._state} cannot be used: {error}.") from error

    def give(self) -> None:
        """Let others have it."""
        self._lock.release()


@asynccontextmanager
async def open_door(
    state: Path, hosting: Hosting, leave: Callable[[], str], *, unix: bool = sys.platform != "win32"
) -> AsyncGenerator[Visitors]:
    """Serve whoever connects, within the block. The caller holds `guarding`.

    `leave` is asked when a front wants another engine process: it ends this one, or says why not.
    """
    visitors, token = Visitors(), secrets.token_urlsafe(32)
    server = build(state)  # its own lifespan is not used: each connection brings its session
    inner = server._lowlevel_server  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as in stdio.py

    async def visit(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            wire = BufferedByteReceiveStream(stream)
            hello = await _hello(wire, token) if _is_the_user(stream) else None
            if hello is None:
                return
            visitors.came()
            try:
                async with anyio.create_task_group() as group:
                    session = Session(hello.start, hosting, Following(group), hello.plugin, leave)
                    await _serve(inner, session, stream, wire)
                    group.cancel_scope.cancel()
            except ExceptionGroup:  # the others, and the work, have nothing to do with it
                log.exception("a session was ended by an error")
            finally:
                visitors.went()

    error: Refused | Fault | JournalError | None = None
    async with _listener(state, unix=unix) as (listener, address), anyio.create_task_group() as group:
        group.start_soon(_let_in, listener, visit)
        own = identity(os.getpid())
        try:
            _write(state / DOOR_FILE, Door(own.pid, own.started_s, __version__, address, token))
            yield visitors
        except (Refused, Fault, JournalError) as caught:  # the group would wrap it
            error = caught
        finally:
            (state / DOOR_FILE).unlink(missing_ok=True)
            group.cancel_scope.cancel()
    if error is not None:
        raise error


@asynccontextmanager
async def in_foreground(world: World, start: Path, group: anyio.abc.TaskGroup, name: str) -> AsyncGenerator[Host]:
    """Be the repository's engine process, within the block: whoever connects meanwhile is served here.

    An engine process that has nothing to do makes way. Raises `Refused(engine_elsewhere)` when it has, and in the group
    `JournalError` when the journal cannot be written: there is nothing to go on with.
    """
    async with hosting_in_foreground(world, start, group, name, None) as hosting:
        yield await hosting.host(start)


@asynccontextmanager
async def hosting_in_foreground(
    world: World,
    start: Path,
    group: anyio.abc.TaskGroup,
    name: str,
    broken: Callable[[JournalError], None] | None = report_broken,
) -> AsyncGenerator[Hosting]:
    """The same, for who has clients of its own; they are told of a broken journal by their next call."""
    guard = guarding(world.state_dir)
    await _take(guard, world.state_dir, start)
    try:
        hosting = Hosting(group, name, broken)
        stays = f"`{name}` (process {os.getpid()}) works in the foreground; end it there with Ctrl-C."
        await hosting.host(start)
        async with open_door(world.state_dir, hosting, lambda: stays) as visitors:
            yield hosting
            if visitors.count:  # one may have asked for what has brought us to the end, and waits for its answer
                await anyio.sleep(ANSWER_S)
    finally:
        guard.give()


async def _take(guard: guarding, state: Path, start: Path) -> None:
    """Have the guard. Fronts that have lost their engine may be quicker than we, and are asked to make way again."""
    until_s = anyio.current_time() + TAKE_S
    while True:
        try:
            why = await anyio.to_thread.run_sync(front.make_way, str(state), str(start))
        except Refusal as refusal:
            raise Refused(Code.UNSAFE_STATE, refusal.why, refusal.remedy) from refusal
        if why:
            remedy = (
                "Follow it with `epicwave watch`, work through it with `--attach`, or stop it: `epicwave cancel EPIC`."
            )
            raise Refused(Code.ENGINE_ELSEWHERE, why, remedy)
        try:
            return guard.take()
        except Refused as refused:
            if refused.code is not Code.ENGINE_ELSEWHERE or anyio.current_time() > until_s:
                raise
            await anyio.sleep(0.1)


@asynccontextmanager
async def _listener(state: Path, *, unix: bool) -> AsyncGenerator[tuple[anyio.abc.SocketListener, str]]:
    if not unix:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as both:
            [listener] = both.listeners
            assert isinstance(listener, anyio.abc.SocketListener)  # noqa: S101
            yield listener, f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"  # noqa: S610
        return
    folder, temporary = state, None
    if len(os.fsencode(state / SOCKET_FILE)) > PATH_BYTES:
        folder = temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY))  # 0700 by itself
    path = folder / SOCKET_FILE
    try:
        try:
            opened = await anyio.create_unix_listener(path, mode=0o600)
        except OSError as error:
            raise Fault(FaultCause.DISK, f"The socket {path} cannot be made: {error}.") from error
        async with opened as listener:
            yield listener, str(path)
    finally:
        path.unlink(missing_ok=True)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


async def _let_in(
    listener: anyio.abc.SocketListener, visit: Callable[[anyio.abc.SocketStream], Coroutine[Any, Any, None]]
) -> None:
    """As the listener's own `serve`; but to be out of descriptors for a moment is not the end."""
    async with anyio.create_task_group() as group:
        while True:
            try:
                stream = await listener.accept()
            except (OSError, anyio.BrokenResourceError):
                await anyio.sleep(FULL_S)
            else:
                group.start_soon(visit, stream)


def _is_the_user(stream: anyio.abc.SocketStream) -> bool:
    """Where the system says who connects, over a Unix socket of Linux, it must be whom we work for, or root."""
    wire = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610
    if sys.platform != "linux" or wire.family != socket.AF_UNIX:
        return True
    said = wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", said)
    return uid in {0, os.geteuid()}


def _clear_away(state: Path) -> None:
    """Remove what a killed engine process has left. Raises `Refused(unsafe_state)` when it is not ours."""
    path = state / SOCKET_FILE
    try:
        door = read_door(str(state))
        if os.path.lexists(path):
            must_be_private(str(path), path.lstat(), stat.S_ISSOCK, "socket")
    except Refusal as refusal:
        raise Refused(Code.UNSAFE_STATE, refusal.why, refusal.remedy) from refusal
    path.unlink(missing_ok=True)
    if door is not None and (apart := Path(door.address)).parent.name.startswith(TEMPORARY):
        with suppress(OSError):
            apart.unlink(missing_ok=True)
            apart.parent.rmdir()
    for left in (state / DOOR_FILE, *state.glob(f"{DOOR_FILE}.*")):
        left.unlink(missing_ok=True)


def _write(path: Path, door: Door) -> None:
    """Whole or not at all, and never readable by others, not for a moment. Raises `Fault(disk)`."""
    new = path.with_name(f"{path.name}.{door.pid}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(door._asdict(), file)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise Fault(FaultCause.DISK, f"{path} cannot be written: {error}.") from error


async def _hello(wire: BufferedByteReceiveStream, token: str) -> Hello | None:
    """Who it is; None for a stranger, who is told nothing."""
    hello: Hello | None = None
    with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
        with anyio.move_on_after(HELLO_S):
            line = await wire.receive_until(b"\n", HELLO_BYTES)
            with suppress(ValidationError):
                hello = Hello.model_validate_json(line)
    known = hello is not None and hmac.compare_digest(hello.token.encode("utf-8", "replace"), token.encode())
    return hello if known else None


async def _serve(
    server: Server[Session], session: Session, stream: anyio.abc.SocketStream, wire: BufferedByteReceiveStream
) -> None:
    """One session, until the client has closed its end or the connection breaks."""
    async with framed(stream, wire) as (from_client, to_client):
        options = server.create_initialization_options()
        await serve_dual_era_loop(server, from_client, to_client, lifespan_state=session, init_options=options)
