"""Policies: numbers in, numbers out. Each formula stands in its docstring."""

from __future__ import annotations

import zlib
from enum import StrEnum

from mcp_server.core.model import Cause

MERGE_TRIES = 10
"""Times a merge is tried when the world fails us (a checked-out branch, a full disk) before the story is failed.

With `backoff_s` between them that is 8 minutes; its work is saved and no agent is started again for it."""
ENDS_KEPT = 10
"""How many ends of attempts `adaptive_slots` looks at."""
BAD_SHARE = 0.2
"""Share of faults and rate limits among them above which a slot is given up."""
CALM_S = 600.0
"""Time without any after which one is taken back, in seconds."""
CROWDED = 1 / 3
"""A story that may run beside others with its files lets those go first that need not, from this share of its rank on.

A conflict costs more than the order, but the longest way to the end may not wait for all others. With
`benchmarks/histories.py --policies optimistic` the median speed-up is 3.58; it was 3.29 when those who share came last
and the ranks had them as a queue, as under `exclusive`.
"""
WARN_AT = 0.8
"""Share of a budget from which on the status warns."""

PROBE_FIRST_S, PROBE_CAP_S = 5.0, 25.0
"""Between two looks at running stories: while they change something, and after a while in which they do not."""

WORLDS_DOING = frozenset({Cause.SPAWN, Cause.API_ERROR, Cause.FAULT, Cause.SETUP})
"""Faults that no story can be the reason of: they cost it no attempt."""
FAULTS = WORLDS_DOING | {Cause.CRASH, Cause.STALL, Cause.LEASE_LOST}
"""What a breaker counts."""
REPOSITORYS = frozenset({Cause.FAULT, Cause.SETUP})
"""Those that every agent would meet: the breaker of the repository counts them, and not the agent's."""
BACKED_OFF = WORLDS_DOING | {Cause.CRASH}
"""Faults that come so fast that the next try has to wait."""


class Category(StrEnum):
    """What the end of an attempt says about the next one."""

    WORK = "work"  # the agent's own result: tried again at once, with the reason in the brief
    TRANSIENT = "transient"  # a fault: tried again
    TIMEOUT = "timeout"  # tried again
    RATE_LIMIT = "rate_limit"  # costs no attempt; the whole profile is parked
    PERMANENT = "permanent"  # not tried again


def category(cause: Cause) -> Category:
    """The category of a cause."""
    if cause in FAULTS:
        return Category.TRANSIENT
    match cause:
        case Cause.RATE_LIMIT:
            return Category.RATE_LIMIT
        case Cause.TIMEOUT:
            return Category.TIMEOUT
        case Cause.BUDGET | Cause.STOPPED:
            return Category.PERMANENT
        case _:
            return Category.WORK


def jitter(seed: int, *names: object) -> float:
    """A number from 0 up to 1 that the same seed and names always give: replay knows no chance."""
    return zlib.crc32("/".join(map(str, (seed, *names))).encode()) / 2.0**32


def backoff_s(faults: int, *, first_s: float = 2.0, cap_s: float = 120.0, share: float = 1.0) -> float:
    """`min(cap_s, first_s * 2 ** (faults - 1)) * (1 + share) / 2`: 2, 4, 8 ... 120 seconds before the next try.

    `share` is the jitter, from 0 (half of it) to 1 (all of it).
    """
    return min(cap_s, first_s * 2.0 ** min(max(faults, 1) - 1, 30)) * (1.0 + share) / 2.0


def cooldown_s(opened: int, *, first_s: float, cap_s: float) -> float:
    """`min(cap_s, first_s * 2 ** (opened - 1))`: how long a breaker stays open that opened so often in a row."""
    return backoff_s(opened, first_s=first_s, cap_s=cap_s)


def park_s(parks: int, *, share: float) -> float:
    """60, 120, 240 ... 3600 seconds, jittered as in `backoff_s`: after so many rate limits that named no end."""
    return backoff_s(parks, first_s=60.0, cap_s=3600.0, share=share)


def poll_after_s(
    quiet_s: float, *, first_s: float = 2.0, growth: float = 1.25, cap_s: float = 45.0, share: float = 1.0
) -> float:
    """When to look again at what cannot push: `min(cap_s, first_s + (growth - 1) * quiet_s)`, less up to a tenth.

    Whoever looks again and again in intervals that grow by `growth` from `first_s` has waited for
    `first_s * (growth ** n - 1) / (growth - 1)` seconds before interval number n: so the next interval follows from the
    quiet time alone, and any activity (quiet again 0) resets it.
    """
    return min(cap_s, first_s + (growth - 1.0) * max(quiet_s, 0.0)) * (0.9 + share / 10.0)


def probe_after_s(quiet_s: float, *, took_s: float = 0.0, alone: bool = False) -> float:
    """When running stories are looked at again: `min(25, max(5 + quiet_s / 4, 20 * took_s))`, 25 for one `alone`.

    `quiet_s` is how long no look has found a change, `took_s` what the last one took: it is at work for a twentieth
    of the time, and in a repository so big that 25 s are too soon for that, for a fifth. With 25 s, what begins right
    after a look is seen within 30.
    """
    wait_s = PROBE_CAP_S if alone else max(PROBE_FIRST_S + max(quiet_s, 0.0) / 4.0, 20.0 * took_s)
    return max(min(PROBE_CAP_S, wait_s), 4.0 * took_s)


def too_bad(ends: tuple[bool, ...]) -> bool:
    """True when more than `BAD_SHARE` of the last ends were faults or rate limits."""
    return sum(ends) > BAD_SHARE * len(ends)
