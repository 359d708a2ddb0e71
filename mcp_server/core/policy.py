"""Policies: numbers in, numbers out. Each formula stands in its docstring."""

from __future__ import annotations

MERGE_TRIES = 10
"""Times a merge is tried when the world fails us (a checked-out branch, a full disk) before the story is failed.

With `backoff_s` between them that is 8 minutes; its work is saved and no agent is started again for it."""


def backoff_s(faults: int, *, first_s: float = 2.0, cap_s: float = 120.0) -> float:
    """`min(cap_s, first_s * 2 ** (faults - 1))`: 2, 4, 8 ... 120 seconds before the next try after a fault."""
    return min(cap_s, first_s * 2.0 ** (max(faults, 1) - 1))


def poll_after_s(quiet_s: float, *, first_s: float = 2.0, cap_s: float = 45.0) -> float:
    """`min(cap_s, max(first_s, quiet_s / 4))`: ask again after a quarter of the time that nothing has changed for."""
    return min(cap_s, max(first_s, quiet_s / 4.0))
