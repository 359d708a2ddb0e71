"""Listening to an agent while it prints: what it has used so far, and what its last words are.

Nothing is kept but counts, the last failure and a few lines, however much it prints and in whatever pieces.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from mcp_server.adapters.agents.events import READERS, Told
from mcp_server.adapters.agents.output import tail_of
from mcp_server.adapters.agents.signs import Ends, Failure, Signs, Verdict, judge
from mcp_server.core.model import NOTHING_USED, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_BYTES = 1_000_000
"""A longer line is an event that carries what a tool printed; it is passed over."""
LOOSE_LINES = 20
LOOSE_CHARS = 1_000
FAILURE_CHARS = 8_000
PARTS = 256
"""Messages of which the usage may still be told again; of older ones it is settled."""
TELL_S = 1.0
"""The usage is told at most so often."""


class Listener:
    """Hears one agent. Stores the line that is not yet complete, the last words, and the usage by message.

    `used` is called with all that was used so far, when it has grown and the last call is a while ago by `clock`.
    """

    def __init__(self, signs: Signs, used: Callable[[Usage], None], clock: Callable[[], float]) -> None:
        self._signs = signs
        self._read = READERS.get(signs.format)
        self._used = used
        self._clock = clock
        self._line = bytearray()
        self._skipping = False
        self._loose: deque[str] = deque(maxlen=LOOSE_LINES)
        self._failure: Failure | None = None
        self._resets_at_s: float | None = None
        self._whole = NOTHING_USED
        self._settled = NOTHING_USED
        self._parts: dict[str, Usage] = {}
        self._told = NOTHING_USED
        self._told_at_s = float("-inf")

    @property
    def usage(self) -> Usage:
        """All that was used so far, as far as the output tells."""
        parts = self._settled
        for part in self._parts.values():
            parts = parts.plus(part)
        return Usage(max(self._whole.usd, parts.usd), max(self._whole.tokens, parts.tokens))

    def hear(self, chunk: bytes) -> None:
        """Take the next bytes."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            self._add(piece)
            self._end_line()
        self._add(rest)
        self._tell()

    def verdict(self, exit_code: int | None, now_s: float) -> Verdict:
        """Whose doing the end was. The output is over; what it ended with counts as a line."""
        self._end_line()
        ends = Ends(exit_code, self._failure, "\n".join(self._loose), self._resets_at_s)
        return judge(self._signs, ends, now_s)

    def _add(self, piece: bytes) -> None:
        if len(self._line) + len(piece) > LINE_BYTES:
            self._skipping = True
            del self._line[LOOSE_CHARS:]
            piece = piece[:LOOSE_CHARS]
        if not self._skipping or len(self._line) < LOOSE_CHARS:
            self._line += piece

    def _end_line(self) -> None:
        raw, skipped = bytes(self._line).strip(), self._skipping
        self._line.clear()
        self._skipping = False
        if not raw:
            return
        told = None
        if self._read is not None and raw.startswith(b"{"):
            told = Told(goes_on=True) if skipped else self._event(raw)
        if told is None:
            self._loose.append(tail_of(raw, 1, LOOSE_CHARS))
        else:
            self._take(told)

    def _event(self, raw: bytes) -> Told | None:
        """None for what only looks like an event."""
        try:
            event: Any = json.loads(raw.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):
            return None
        assert self._read is not None  # noqa: S101 - asked by our caller
        return self._read(event)

    def _take(self, told: Told) -> None:
        if told.goes_on:
            self._failure, self._resets_at_s = None, None
            self._loose.clear()
        if told.failure is not None:
            self._failure = Failure(told.failure.words[-FAILURE_CHARS:], told.failure.status)
        if told.resets_at_s is not None:
            self._resets_at_s = told.resets_at_s
        if not told.part:
            self._whole = Usage(max(self._whole.usd, told.usage.usd), max(self._whole.tokens, told.usage.tokens))
        else:
            before = self._parts.pop(told.part, NOTHING_USED)
            self._parts[told.part] = Usage(max(before.usd, told.usage.usd), max(before.tokens, told.usage.tokens))
            if len(self._parts) > PARTS:
                self._settled = self._settled.plus(self._parts.pop(next(iter(self._parts))))

    def _tell(self) -> None:
        usage, now_s = self.usage, self._clock()
        if usage != self._told and now_s >= self._told_at_s + TELL_S:
            self._told, self._told_at_s = usage, now_s
            self._used(usage)
