"""SIGINT and SIGTERM as an orderly end: agents are stopped and their work is saved before the process is gone."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc


@asynccontextmanager
async def ended_by_signal(told: Callable[[], None] = lambda: None) -> AsyncGenerator[None]:
    """The block is cancelled by the first signal, after `told` was called.

    Those that follow change nothing, until the process is gone: hosts send SIGTERM soon after SIGINT, and an end in
    order is bounded by itself.
    On Windows nothing is caught.
    """
    if sys.platform == "win32":
        yield
        return
    block = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        with block:
            await group.start(_listen, block, told)
            yield
        group.cancel_scope.cancel()
    if block.cancel_called:  # all is saved: what is left is to go, and nobody needs to hurry that
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


async def _listen(
    block: anyio.CancelScope, told: Callable[[], None], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if not block.cancel_called:
                told()
                block.cancel()
