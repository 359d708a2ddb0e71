"""Where a leash lies that may outlive its engine: the FIFO through which it is spoken to, and what is on record."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING

import psutil

from mcp_server.adapters.agents.tree import root_of
from mcp_server.errors import Fault, FaultCause

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_server.core.model import Process

ADOPT_S = 120.0
"""How long an agent works on without an engine before its leash ends it. A host needs a moment to be started again."""
ENDS_S = 12.0
"""A leash that is not spoken to any more has ended by itself by then, or hangs."""
SAY_STOP, SAY_CLAIMED = b".", b"+"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command came to its end by itself."""

    leash: int
    exit_code: int
    log_end: int
    """Length of the log when it had ended."""
    left_out: int
    """Bytes that had no room there; `last` are the last of them."""
    last: bytes
    errno: int
    """Why the log could not be written; 0 when it could."""
    at_s: float


class Berth:
    """The folder of one run. Everything in it is small, and it stays beside the log until the story's next attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._control: FileIO | None = None  # closed with us: whoever drops a berth leaves it

    def begin(self, log_at: int) -> None:
        """Make it anew for a command whose output begins there in the log. Raises `Fault(disk)`."""
        fifo = self.folder / "control"
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, parents=True)
            os.mkfifo(fifo, 0o600)
            (self.folder / "began.json").write_text(json.dumps({"log_at": log_at, "boot": _boot()}), "utf-8")
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # without one it could not be opened for writing
            try:
                self._control = _writer(fifo)
            finally:
                os.close(reader)
        except OSError as error:
            raise Fault(FaultCause.DISK, f"{self.folder} cannot be used: {error}") from error

    @property
    def log_at(self) -> int:
        """Where the output of this run begins in the log. Raises `Fault(disk)`."""
        began = self._began()
        if began is None:
            raise Fault(FaultCause.DISK, f"{self.folder} does not say any more where its log begins.")
        return int(began["log_at"])

    def take_over(self, process: Process) -> bool:
        """Become the engine of a leash that has none. False when it is gone, or another one has its pid."""
        began = self._began()
        if began is None or began["boot"] != _boot() or root_of(process) is None:
            return False
        with suppress(OSError):  # nobody reads there: the leash has ended
            self._control = self._control or _writer(self.folder / "control")
            return True
        return False

    def say(self, word: bytes) -> None:
        """To the leash; it may have ended already, and that changes nothing."""
        if self._control is not None:
            with suppress(OSError):
                self._control.write(word)

    def end(self) -> None:
        """Have whichever leash is there ended. Blocks until nobody reads there any more, for a few seconds at most."""
        until_s = time.monotonic() + ENDS_S
        with suppress(OSError):  # nobody reads there, or there never was a leash
            while time.monotonic() < until_s:
                with _writer(self.folder / "control") as control:
                    control.write(SAY_STOP)
                time.sleep(0.02)

    def leave(self) -> None:
        """Speak to the leash no more: it takes that for the end of its engine."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def exit(self, process: Process | None) -> Exit | None:
        """What this very leash has put on record; None stands for whichever was the last."""
        path = self.folder / "exit.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_text("utf-8"))
            if process is None or told["leash"] == process.pid:
                told["last"] = bytes.fromhex(told["last"])
                return Exit(at_s=path.stat().st_mtime, **told)
        return None

    def wait_for_exit(self, process: Process) -> Exit | None:
        """The same, when the leash may be about to end. Blocks for a few seconds at most."""
        if not self.folder.is_dir():  # it was never to outlive its engine
            return None
        until_s = time.monotonic() + ENDS_S
        while (found := self.exit(process)) is None and root_of(process) is not None and time.monotonic() < until_s:
            time.sleep(0.05)
        return found or self.exit(process)

    def _began(self) -> dict[str, str | int] | None:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / "began.json").read_text("utf-8"))
        return None


def _writer(fifo: Path) -> FileIO:
    """Raises OSError when nobody reads there."""
    return FileIO(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "w")


def _boot() -> str:
    """Names this boot of the machine: pids and start times begin anew with each."""
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    return f"{psutil.boot_time():.0f}"
