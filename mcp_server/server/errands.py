"""What may take longer than a call may: it goes on when the call is cut off, and the same call again hears its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from mcp_server.core.spec import EpicId
from mcp_server.engine.engine import Engine
from mcp_server.errors import Fault, JournalError, Refused
from mcp_server.server.host import Host

WAIT_S = 45.0
"""How long a call waits for the end, in seconds: hosts cut calls off after a minute."""
KEPT_S = 600.0
"""How long an end is kept for a call that never came back; after that the same call does it anew."""

T = TypeVar("T")


@dataclass(slots=True)
class _Errand(Generic[T]):
    """One that is under way or has ended."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    ended_s: float = 0.0
    result: T | None = None
    error: Refused | Fault | JournalError | None = None


class Errands:
    """Stores what is under way, by what was asked; one at a time an epic."""

    def __init__(self) -> None:
        self._errands: dict[Hashable, _Errand[object]] = {}
        self._doors: dict[EpicId, anyio.Lock] = {}

    def __contains__(self, asked: object) -> bool:
        """True for what is under way, or has ended and nobody has heard how."""
        return asked in self._errands

    async def end_of(
        self, host: Host, epic: EpicId, asked: Hashable, work: Callable[[Engine], Awaitable[T]]
    ) -> T | None:
        """What comes of it; None when it is still under way, and the same call again waits on.

        Raises what the work raised.
        """
        errand = self._errands.get(asked)
        if errand is None or (errand.ended.is_set() and anyio.current_time() > errand.ended_s + KEPT_S):
            errand = self._errands[asked] = _Errand[object]()
            door = self._doors.setdefault(epic, anyio.Lock())
            host.aside(lambda: _run(host, door, errand, work))
        with anyio.move_on_after(WAIT_S):
            await errand.ended.wait()
        if not errand.ended.is_set():
            return None
        if self._errands.get(asked) is errand:
            del self._errands[asked]
        if errand.error is not None:
            raise errand.error
        return errand.result  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - of the same words


async def _run(
    host: Host, door: anyio.Lock, errand: _Errand[object], work: Callable[[Engine], Awaitable[object]]
) -> None:
    """It keeps the engine open by itself, whoever listens."""
    try:
        async with door, host.engine() as engine:
            errand.result = await work(engine)
    except (Refused, Fault, JournalError) as error:
        errand.error = error
    finally:
        errand.ended_s = anyio.current_time()
        errand.ended.set()
