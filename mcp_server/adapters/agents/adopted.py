"""Following a command that another engine has started: its log is read on, and its limits go on from its own start."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread

from mcp_server.adapters.agents.berth import SAY_STOP, Berth, Exit
from mcp_server.adapters.agents.leash import KILL_BOUND_S
from mcp_server.adapters.agents.process import Ending, Limits
from mcp_server.adapters.agents.tree import Tree, root_of, wait_for_end
from mcp_server.core.policy import jitter, poll_after_s
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Ended

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_server.adapters.agents.output import Output
    from mcp_server.core.model import Process

LOOK_S, LOOK_MAX_S = 0.1, 2.0
"""What we have not started cannot push: how soon its log is looked at after it has grown, and at the latest."""
CHUNK_BYTES = 65_536
KILLED = 128 + 9


class Adopted:
    """One such command. Stores how far its log has been read, and when it was last heard of."""

    def __init__(self, who: Process, berth: Berth, log: Path, output: Output, limits: Limits, *, ran_s: float) -> None:
        """`ran_s` is how long it has run already."""
        self.who = who
        self.berth = berth
        self.output = output
        self.limits = limits
        self.ran_s = ran_s
        self._log = log
        self._at = 0
        self._exit: Exit | None = None
        self._began_s = anyio.current_time() - ran_s
        self._heard_s = self._began_s

    async def follow(self) -> Ending:
        """To its end. From the call on it is ours: on every way out it is gone, and all that it had started.

        Raises `Fault(disk)` when its log cannot be read.
        """
        try:
            how = await self._to_its_end()
        except OSError as error:
            raise Fault(FaultCause.DISK, f"The log {self._log} cannot be read: {error}") from error
        finally:
            with anyio.CancelScope(shield=True):
                await self._end()
        seconds = anyio.current_time() - self._began_s
        if how is not Ended.EXITED:
            return Ending(how, None, seconds)
        if self._exit is None:
            return Ending(how, KILLED, seconds)  # its leash was killed, and it with it
        until_s = max(0.0, seconds - max(0.0, time.time() - self._exit.at_s))
        return Ending(how, self._exit.exit_code, until_s)

    async def _to_its_end(self) -> Ended:
        self._at = self.berth.log_at
        silent_s = max(0.0, time.time() - self._log.stat().st_mtime)
        is_over = await self._is_over()
        await self._hear()
        self._heard_s = max(self._began_s, anyio.current_time() - silent_s)
        while not is_over:
            now_s = anyio.current_time()
            deadline_s, stall_s = self._began_s + self.limits.timeout_s, self._heard_s + self.limits.stall_s
            if now_s >= min(deadline_s, stall_s):
                return Ended.TIMEOUT if deadline_s <= stall_s else Ended.STALL
            share = jitter(self.who.pid, now_s)
            wait_s = poll_after_s(now_s - self._heard_s, first_s=LOOK_S, cap_s=LOOK_MAX_S, share=share)
            await anyio.sleep(min(wait_s, deadline_s - now_s, stall_s - now_s))
            is_over = await self._is_over()
            if await self._hear():
                self._heard_s = anyio.current_time()
        self._hear_what_was_left_out()
        return Ended.EXITED

    async def _is_over(self) -> bool:
        """True when nothing more comes. The record is read after that was seen: it is there before its leash goes."""
        if await anyio.to_thread.run_sync(root_of, self.who) is None:
            self._exit = self.berth.exit(self.who)
            return True
        return False

    async def _hear(self) -> bool:
        """Read on to the end of the log, or of what is this command's. False when there is nothing new."""
        until, was_at = self._exit.log_end if self._exit is not None else None, self._at
        with self._log.open("rb") as file:
            file.seek(self._at)
            while True:
                most = CHUNK_BYTES if until is None else min(CHUNK_BYTES, until - self._at)
                chunk = file.read(most) if most > 0 else b""
                if not chunk:
                    return self._at > was_at
                self._at += len(chunk)
                self.output.listen(chunk)
                await anyio.lowlevel.checkpoint()

    def _hear_what_was_left_out(self) -> None:
        if self._exit is None:
            return
        if self._exit.left_out:
            self.output.leave_out(self._exit.left_out, self._exit.last)
        if self._exit.errno:
            self.output.breaks(OSError(self._exit.errno, os.strerror(self._exit.errno)))

    async def _end(self) -> None:
        """Have the whole tree ended, and see that it is."""
        tree = await anyio.to_thread.run_sync(Tree.of, self.who)
        if tree.members:
            self.berth.say(SAY_STOP)
            with suppress(ProcessLookupError):
                os.kill(self.who.pid, signal.SIGCONT)
            bound_s = self.limits.grace_s + KILL_BOUND_S + 2.0
            await anyio.to_thread.run_sync(wait_for_end, self.who, bound_s)
            with suppress(OSError):
                await self._hear()
        left = await anyio.to_thread.run_sync(tree.end, self.who)
        if left:
            self.output.note(f"could not be ended: {left}")
        self.berth.leave()
