"""A door that a test has opened, and a connection's view of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from mcp_server.front.place import Door, hello, read_door
from mcp_server.server.door import Visitors, guarding, open_door
from mcp_server.server.session import Hosting
from tests.front.stage import request


@dataclass(frozen=True)
class Open:
    """A door that is open, and what is known of it."""

    state: Path
    door: Door
    visitors: Visitors
    repo: Path

    async def connect(self) -> anyio.abc.SocketStream:
        if self.door.address.startswith("127.0.0.1:"):
            return await anyio.connect_tcp("127.0.0.1", int(self.door.address.rpartition(":")[2]))
        return await anyio.connect_unix(self.door.address)

    async def say(self, *pieces: bytes) -> bytes:
        """All that a connection is told until the door closes it."""
        said = b""
        with anyio.fail_after(10):
            async with await self.connect() as wire:
                try:
                    for piece in pieces:
                        await wire.send(piece)
                    while True:
                        said += await wire.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return said

    def hello(self, **other: Any) -> bytes:
        said = json.loads(hello(self.door, "1.0.0", str(self.repo)))
        return json.dumps({**said, **other}).encode() + b"\n"

    async def serves(self) -> bool:
        """True when one with the token is answered."""
        with anyio.fail_after(10):
            async with await self.connect() as wire:
                asked = request(1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=WHO)
                await wire.send(self.hello() + json.dumps(asked).encode() + b"\n")
                said = b""
                while b"\n" not in said:
                    said += await wire.receive()
            await self.empty()
        return json.loads(said)["result"]["serverInfo"]["name"] == "epicwave"

    async def empty(self) -> None:
        """Until nobody is there."""
        with anyio.fail_after(5):
            while self.visitors.count:  # noqa: ASYNC110
                await anyio.sleep(0.01)


WHO = {"name": "test", "version": "0"}


@asynccontextmanager
async def opened(repo: Path, state: Path, *, unix: bool) -> AsyncGenerator[Open]:
    with guarding(state):
        async with anyio.create_task_group() as group:
            async with open_door(state, Hosting(group, "test"), lambda: "stays", unix=unix) as visitors:
                door = read_door(str(state))
                assert door is not None
                yield Open(state, door, visitors, repo)
            group.cancel_scope.cancel()
