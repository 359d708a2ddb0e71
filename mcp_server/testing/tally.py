"""What became of a life, or of many: counted, and folded into one digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from mcp_server.testing.breach import Promise

WORK = (Promise.LOST, Promise.DUPLICATED, Promise.RESURRECTED)


@dataclass(slots=True)
class Tally:
    """Counts; all but the first few are of what was seen in journals."""

    lives: int = 0
    deaths: int = 0
    """Engines that were killed."""
    engines: int = 0
    calls: int = 0
    """What the engines asked of the world."""
    facts: int = 0
    agents: int = 0
    claims: int = 0
    days: float = 0.0
    merged: int = 0
    broken: Counter[str] = field(default_factory=Counter[str])
    """Breaches, by the promise that they break."""
    seen: Counter[str] = field(default_factory=Counter[str])
    """Facts by kind, and ends of attempts by cause."""

    def add(self, other: Tally) -> None:
        """Count another life."""
        for each in fields(Tally):
            mine: Any = getattr(self, each.name)
            setattr(self, each.name, mine + getattr(other, each.name))

    def __str__(self) -> str:
        work = ", ".join(f"{self.broken[promise]} {promise}" for promise in WORK)
        others = {name: count for name, count in self.broken.items() if name not in WORK}
        return (
            f"{self.lives:,} lives, {self.deaths:,} engines killed of {self.engines:,}, {self.calls:,} calls of the "
            f"world, {self.facts:,} facts, {self.agents:,} agents, {self.claims:,} sub-agents, {self.merged:,} stories "
            f"merged in {self.days:,.0f} virtual days\nwork: {work}; other promises broken: {others or 'none'}"
        )


def digest(rows: Iterable[object]) -> str:
    """A fingerprint of what was written, the same on every machine and in every process."""
    fold = hashlib.sha256()
    for row in rows:
        fold.update(repr(row).encode())
        fold.update(b"\n")
    return fold.hexdigest()
