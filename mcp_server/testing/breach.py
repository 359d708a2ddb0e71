"""What must never happen, by the promise that it breaks: the truth-keeper counts it, and a life that saw it is red."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Promise(StrEnum):
    """What epicwave promises; the first three are about work, and what everybody asks first."""

    LOST = "lost"  # work that is on no branch and on no rescue ref
    DUPLICATED = "duplicated"  # done twice: two attempts of a story at once, or both on the branch
    RESURRECTED = "resurrected"  # done although it was over: merged, cancelled, skipped, or given to another attempt
    SLOTS = "slots"
    FILES = "files"  # two that need the same file, at the same time
    ORDER = "order"  # started without what it builds on
    PROOF = "proof"  # landed without green checks on the very tree, or the branch went elsewhere
    BREAKER = "breaker"  # started while it was open, a second probe, or failed by the world's doing
    HELD = "held"  # started while paused, parked, or after its time
    BUDGET = "budget"
    LIMIT = "limit"  # an agent was let work beyond its time
    LEASE = "lease"  # a sub-agent was not given what it was promised
    TOLD = "told"  # the engine says otherwise than git does
    REPLAY = "replay"  # the journal says otherwise than memory did
    PROGRESS = "progress"  # calm times, and it does not come to its end
    STATE = "state"  # an invariant, or an error that nobody expected


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken promise as it was seen."""

    promise: Promise
    words: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.words}"


class Broken(AssertionError):  # noqa: N818 - it says what became of promises
    """Promises were broken; all that were seen are in it."""

    def __init__(self, breaches: Iterable[Breach]) -> None:
        self.breaches = tuple(breaches)
        super().__init__("; ".join(map(str, self.breaches)))


def breaches_of(error: BaseException) -> tuple[Breach, ...]:
    """What an error says of promises, wherever in a group it is; any other error breaks `STATE`."""
    if isinstance(error, Broken):
        return error.breaches
    if isinstance(error, BaseExceptionGroup):
        within: list[BaseException] = list(error.exceptions)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        return tuple(breach for inner in within for breach in breaches_of(inner))
    promise = Promise.PROGRESS if isinstance(error, TimeoutError) else Promise.STATE
    return (Breach(promise, f"{type(error).__name__}: {error}"),)
