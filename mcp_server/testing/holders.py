"""What the editor's sub-agents know themselves of the leases that they hold; never asked of the engine."""

from __future__ import annotations

from mcp_server.core.spec import AttemptId
from mcp_server.ports import Clock

ROUNDED_S = 1.0
"""Answers tell whole seconds."""


class Holders:
    """Stores until when each sub-agent was told that its lease counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s: dict[AttemptId, float] = {}
        self._in_doubt: set[AttemptId] = set()
        self.known: set[AttemptId] = set()
        """Attempts that were ever held by a sub-agent."""

    def told(self, attempt: AttemptId, lease_s: float) -> None:
        """An answer says how long the lease counts from now."""
        self.known.add(attempt)
        self._in_doubt.discard(attempt)
        self._until_s[attempt] = self._clock.now_s() + lease_s - ROUNDED_S

    def in_doubt(self, attempt: AttemptId) -> None:
        """Its holder has said something that may end it, and has no answer yet."""
        self._in_doubt.add(attempt)

    def as_before(self, attempt: AttemptId) -> None:
        """The answer is that nothing has ended."""
        self._in_doubt.discard(attempt)

    def over(self, attempt: AttemptId) -> None:
        """From here on it may be over: its holder handed in or gave up, or the lead or the host ended it."""
        self._until_s.pop(attempt, None)
        self._in_doubt.discard(attempt)

    def was_due(self, attempt: AttemptId) -> bool:
        """True while its deadline is ahead and nobody but its holder has said anything that may end it."""
        return self._until_s.get(attempt, 0.0) > self._clock.now_s()

    def surely(self, attempt: AttemptId) -> bool:
        """True while the lease must count, whatever happens to engines."""
        return self.was_due(attempt) and attempt not in self._in_doubt

    def alive(self) -> list[AttemptId]:
        """Attempts whose leases must count now."""
        return [attempt for attempt in self._until_s if self.surely(attempt)]
