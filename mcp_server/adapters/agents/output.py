"""What a process prints: kept in its log up to a bound, and its last lines for whoever has to say how it ended."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Self

from mcp_server.errors import Fault, FaultCause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

LOG_LIMIT_BYTES = 50_000_000
"""One log file grows to about so much; then only its last `TAIL_BYTES` are added when the process has ended."""
TAIL_BYTES = 65_536
TAIL_LINES = 40
TAIL_CHARS = 4_000

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def tail_of(raw: bytes, lines: int = TAIL_LINES, chars: int = TAIL_CHARS) -> str:
    """Last lines as plain text: no escapes; of a line that was redrawn by carriage returns, what stood there last."""
    return "\n".join("\n".join(plain_lines(raw)).strip("\n").split("\n")[-lines:])[-chars:]


def plain_lines(raw: bytes) -> list[str]:
    """The same for all of it, line by line: nothing in it can steer a terminal."""
    text = _ESCAPES.sub("", raw.decode("utf-8", errors="replace")).replace("\r\n", "\n")
    return [_CONTROLS.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]


class Output:
    """The log of one process, appended to its file. Stores how much room is left and the last bytes seen.

    `hear` is called with all that comes, whether the log has room for it or not.
    A log that cannot be written (disk full) does not stop the work: what is missing is counted, and the tail says so.
    """

    def __init__(
        self,
        path: Path,
        limit_bytes: int = LOG_LIMIT_BYTES,
        hear: Callable[[bytes], None] = lambda _: None,
        *,
        by_leash: bool = False,
    ) -> None:
        """Open the file for appending. `by_leash`: another process writes there what is printed, to the same bound.

        Raises `Fault(disk)`.
        """
        self._hear = hear
        self._by_leash = by_leash
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._room = max(limit_bytes - path.stat().st_size, 0)
        except OSError as error:
            raise Fault(FaultCause.DISK, f"The log {path} cannot be written: {error}") from error
        self._last = bytearray()
        self._left_out = 0
        self._broken: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def room(self) -> int:
        """How many bytes the log still takes."""
        return self._room

    @property
    def size(self) -> int:
        """How long the log is now."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, chunk: bytes) -> None:
        """Keep what the process printed."""
        self.listen(chunk)
        fits = chunk[: self._room]
        self._room -= len(fits)
        self._left_out += len(chunk) - len(fits)
        if not self._by_leash:
            self._append(fits)

    def listen(self, chunk: bytes) -> None:
        """Take what the process printed and what is in the log already."""
        self._hear(chunk)
        self._last += chunk
        if len(self._last) > 2 * TAIL_BYTES:
            del self._last[:-TAIL_BYTES]

    def leave_out(self, count: int, last: bytes) -> None:
        """So many bytes had no room in the log while nobody was there; the last of them are here."""
        self._left_out = count
        self.listen(last)

    def breaks(self, error: OSError) -> None:
        """Whoever writes the log could not."""
        self._broken = error

    def note(self, line: str) -> None:
        """Add one line of ours, which is no part of the tail."""
        self._append(f"[epicwave] {' '.join(line.split())[:TAIL_CHARS]}\n".encode(errors="replace"))

    def end(self, line: str) -> None:
        """Add what belongs below the output: the last bytes of a log that ran over, and a line of ours."""
        if self._left_out:
            kept = bytes(self._last[-min(TAIL_BYTES, self._left_out) :])
            self._append(f"\n[epicwave] {self._left_out - len(kept)} bytes left out\n".encode() + kept)
        if self._last and not self._last.endswith(b"\n"):
            self._append(b"\n")
        self.note(line)

    def tail(self) -> str:
        """The last lines of what the process printed."""
        text = tail_of(bytes(self._last))
        return f"{text}\n[epicwave] the log is incomplete: {self._broken}".lstrip() if self._broken else text

    def _append(self, chunk: bytes) -> None:
        if self._broken is not None:
            return
        try:
            while chunk:
                chunk = chunk[self._file.write(chunk) :]
        except OSError as error:
            self._broken = error
