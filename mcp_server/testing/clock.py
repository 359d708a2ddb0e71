"""Time that costs nothing: a wall clock on the event loop's time, and a loop whose time jumps to the next deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import trio._core._run as trio_scheduler
from trio.testing import MockClock

EPOCH_S = 1_700_000_000.0
"""When virtual time begins: a real date, so that floats are as coarse as they are in production."""
T = TypeVar("T")


class VirtualClock:
    """Wall-clock seconds that go with the loop's time; `set_by_s` moves the hands as an operator would."""

    def __init__(self) -> None:
        self.set_by_s = 0.0

    def now_s(self) -> float:
        """See `Clock`."""
        return EPOCH_S + anyio.current_time() + self.set_by_s


def virtual_time() -> tuple[str, dict[str, Any]]:
    """A backend for anyio (and its pytest plugin) whose clock jumps as soon as every task waits."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def run_seeded(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """Run to the end in virtual time. The order in which ready tasks run is chance too, and comes from the seed.

    trio has no public switch for that; the private one is there for Hypothesis, which uses it in the same way.
    """
    trio_scheduler.__dict__["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    trio_scheduler.__dict__["_r"].seed(seed)
    name, options = virtual_time()
    return anyio.run(main, backend=name, backend_options=options)
