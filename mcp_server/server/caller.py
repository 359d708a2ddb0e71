"""Calling the tools of a repository's engine process from a terminal: the same calls that editors make, one way in."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client, MCPError
from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult, Implementation, TextContent

from mcp_server import __version__
from mcp_server.errors import Code, Fault, FaultCause, JournalError, Refused
from mcp_server.front import place, start
from mcp_server.server.app import build
from mcp_server.server.framing import framed
from mcp_server.server.groups import plainly

NAME = "epicwave cli"
TRIES = 3
"""An engine process that comes to its end by itself may do so in the moment when it is met."""


class Gone(Exception):  # noqa: N818 - it is a fact, and the one who called decides what it means
    """The connection to the engine process has ended."""


class Caller:
    """One connection. Stores nothing of what was asked."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The reply of a tool; arguments that are None are left out.

        Raises `Refused` and `Fault` as the engine process did, and `Refused(engine_restarted)` when it ended meanwhile.
        """
        try:
            result = await self._call(tool, {name: value for name, value in arguments.items() if value is not None})
        except Gone as gone:
            raise Refused(
                Code.ENGINE_RESTARTED,
                f"The engine process of this repository ended while it did {tool}; whether it took effect is open.",
                "See what has become of it with `epicwave status`, then call again.",
            ) from gone
        return result.structured_content or {}

    async def news(self, since: int, wait_s: float) -> int:
        """The number of the last fact, as soon as it is not `since`, or when the time is up.

        Raises `Gone` and `Refused`.
        """
        return int(text_of(await self._call("engine_news", {"since": since, "wait_s": wait_s})))

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        # not `call_tool`: it would have all tools listed first, to check a reply that is our own
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        try:
            result = await self._client.session.send_request(request, CallToolResult)
        except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise Gone(str(error)) from error
        if result.is_error:
            raise refusal(text_of(result))
        return result


def text_of(result: CallToolResult) -> str:
    """The text of a reply."""
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def refusal(said: str) -> Refused | Fault | JournalError:
    """A tool's refusal as it was before it became a text: `code: why`, and the remedy in the last line."""
    code, _, rest = said.partition(": ")
    why, _, remedy = rest.rpartition("\n")
    if not why:
        why, remedy = remedy, "Correct it and call again."
    if code in set(Code):
        return Refused(Code(code), why, remedy)
    if code in set(FaultCause):
        return Fault(FaultCause(code), why)
    if code == "journal_error":
        return JournalError(why)
    return Refused(Code.ENGINE_SILENT, f"The engine process answered: {said}", "See `epicwave status`.")


@asynccontextmanager
async def calling(state: Path, folder: Path, note: Callable[[str], None] = lambda _: None) -> AsyncGenerator[Caller]:
    """A connection to the repository's engine process, which is started when there is none.

    `note` is told what the user should know. Raises `Refused` when none can be had.
    """
    if not place.POSIX:  # no process outlives its terminal there yet: this one does it all
        async with plainly(), Client(build(folder)) as client:
            yield Caller(client)
        return
    async with AsyncExitStack() as stack:
        yield await _met_for_sure(stack, state, folder, note)


async def _met_for_sure(stack: AsyncExitStack, state: Path, folder: Path, note: Callable[[str], None]) -> Caller:
    for _ in range(TRIES):
        try:
            wire, said = await anyio.to_thread.run_sync(start.connect, str(state), str(folder))
        except place.Refusal as refused:
            raise _in_our_words(refused) from refused
        if said:
            note(said)
        with suppress(Gone):
            return await stack.enter_async_context(_connected(wire))
    why = f"The engine processes of this repository ended as soon as they were there, {TRIES} times."
    raise Refused(Code.ENGINE_SILENT, why, f"Look into {state / 'engine.log'}, then call again.")


@asynccontextmanager
async def visiting(state: Path, folder: Path) -> AsyncGenerator[Caller]:
    """A connection to the engine process that is there; none is started. Raises `Gone` when there is none."""
    wire = await anyio.to_thread.run_sync(_met, str(state), str(folder))
    if wire is None:
        raise Gone("there is no engine process")
    async with _connected(wire) as caller:
        yield caller


def _met(state: str, folder: str) -> socket.socket | None:
    """A connection that has said hello; None where nobody is there who could be trusted."""
    try:
        door = place.read_door(state)
        if door is None:
            return None
        wire = place.dial(door)
    except (OSError, place.Refusal):
        return None
    try:
        wire.settimeout(None)
        wire.sendall(place.hello(door, __version__, folder))
    except OSError:
        wire.close()
        return None
    return wire


@asynccontextmanager
async def _connected(wire: socket.socket) -> AsyncGenerator[Caller]:
    try:
        async with plainly(), await _stream(wire) as stream:
            session = framed(stream, BufferedByteReceiveStream(stream))
            async with Client(session, client_info=Implementation(name=NAME, version=__version__)) as client:
                yield Caller(client)
    except MCPError as error:  # it ended before it had so much as greeted
        raise Gone(str(error)) from error


async def _stream(wire: socket.socket) -> anyio.abc.SocketStream:
    """The socket for this loop. Anyio's own stream for Unix sockets trips over a cancel that meets an arrival."""
    try:
        return await anyio.abc.SocketStream.from_socket(wire)
    except (ValueError, OSError) as error:  # the other end has gone already
        wire.close()
        raise Gone(str(error)) from error


def _in_our_words(refused: place.Refusal) -> Refused:
    code = Code(refused.code) if refused.code in set(Code) else Code.ENGINE_SILENT
    return Refused(code, refused.why, refused.remedy)
