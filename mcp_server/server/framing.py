"""MCP's stdio framing over a socket: one message a line, both ways. Client and server of the door are the same here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

MESSAGE_BYTES = 256 * 2**20
"""A line longer than this ends its connection."""
ENDS = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""How reading from the other end may come to its end."""


@asynccontextmanager
async def framed(stream: anyio.abc.ByteStream, wire: BufferedByteReceiveStream) -> AsyncGenerator[tuple[Any, Any]]:
    """The streams that a session of the SDK reads from and writes to, until the other end closes.

    `wire` reads from `stream`, and may have read more than what it was asked for.
    """
    inward, received = create_context_streams[SessionMessage | Exception](0)
    sent, outward = create_context_streams[SessionMessage](0)

    async def read() -> None:
        async with inward:
            with suppress(*ENDS):
                while True:
                    line = await wire.receive_until(b"\n", MESSAGE_BYTES)
                    await inward.send(_message(line))

    async def write() -> None:
        async with outward:
            async for message in outward:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await stream.send(text.encode() + b"\n")

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        yield received, sent
        group.cancel_scope.cancel()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        return error
