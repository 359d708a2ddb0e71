"""MCP on standard input and output that ends when it is told to.

The SDK's own stdio transport blocks a thread in `readline`: SIGINT hangs until the editor closes the pipe, SIGTERM ends
the process without any clean-up. Here reading waits on the event loop, so that both end the server in order: agents
stopped, work saved. Where the loop cannot wait for a pipe (Windows), the SDK's transport serves.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any, Self, cast

import anyio
from mcp.server import MCPServer
from mcp.server.stdio import stdio_server

from mcp_server.server.signals import ended_by_signal

if sys.platform != "win32":
    from select import (
        PIPE_BUF,
    )  # bytes that a pipe takes without blocking once it is ready: 512 by POSIX, 4,096 on Linux

CHUNK = 65_536


async def serve(server: MCPServer[Any]) -> None:
    """Serve one client until it closes its end, or SIGINT or SIGTERM comes."""
    if sys.platform == "win32":
        await server.run_stdio_async()
        return
    inner = server._lowlevel_server  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - 2.3 has no public door for own streams
    async with ended_by_signal():
        with _Wire() as wire:
            async with stdio_server(cast("anyio.AsyncFile[str]", wire), cast("anyio.AsyncFile[str]", wire)) as (
                read,
                write,
            ):
                await inner.run(read, write, inner.create_initialization_options())


class _Wire:
    """Standard input and output as lines, taken from everybody else in this process while it serves.

    Descriptor 0 reads as empty and descriptor 1 goes to standard error meanwhile, so that a stray `print` or a child
    process cannot write into the protocol.
    """

    def __enter__(self) -> Self:
        self._in, self._out = os.dup(0), os.dup(1)
        self._wait = _can_wait(self._in)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._in, 0)
        os.dup2(self._out, 1)
        os.close(self._in)
        os.close(self._out)

    async def __aiter__(self) -> AsyncIterator[str]:
        buffered: list[bytes] = []
        while True:
            if self._wait:
                await anyio.wait_readable(self._in)
            chunk = os.read(self._in, CHUNK)
            if not chunk:
                return
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                yield b"".join([*buffered, line]).decode("utf-8", "replace")
                buffered = []
            buffered.append(rest)

    async def write(self, text: str) -> None:
        """Write it all; a client that reads slowly is waited for, without blocking anybody else."""
        left = memoryview(text.encode())
        while left:
            if self._wait:
                await anyio.wait_writable(self._out)
            left = left[os.write(self._out, left[:PIPE_BUF]) :]

    async def flush(self) -> None:
        """Nothing is held back."""


def _can_wait(descriptor: int) -> bool:
    """Pipes, sockets and terminals tell the loop when they are ready; files and the null device always are."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
