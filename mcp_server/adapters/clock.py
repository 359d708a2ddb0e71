"""The wall clock."""

from __future__ import annotations

import time


class SystemClock:
    """Seconds since the epoch that never run backwards within one process, whatever is done to the system's clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """The time at start plus the time that has passed."""
        return time.monotonic() + self._offset_s
