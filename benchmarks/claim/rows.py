"""What a claim hands to the table, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


class NotYet(Exception):  # noqa: N818 - it says what the caller meets
    """The claim cannot be measured with this code or on this machine; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Config:
    """What all claims are told."""

    seed: int
    quick: bool

    def of(self, full: int, quick: int) -> int:
        """How many, in a full run and in a quick one."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. The ratio is ours by the other's: below 1 is less of what is counted."""

    claim: int
    what: str
    ours: str
    other: str
    ratio: float | None
    n: int
    note: str


def chance(*names: object) -> Random:
    """Chance that the same names always give."""
    return Random("/".join(map(str, names)))  # noqa: S311 - to be repeated by its seed


def ratio_of(ours: float, other: float) -> float | None:
    """None where there is nothing to divide by."""
    return ours / other if other else None


def seconds(value_s: float) -> str:
    """With as many digits as it is worth."""
    return f"{value_s:.2f} s" if value_s < 10 else f"{value_s:.0f} s"


def milliseconds(value_s: float) -> str:
    """The same for short times."""
    value_ms = value_s * 1000
    return f"{value_ms:.2f} ms" if value_ms < 10 else f"{value_ms:.0f} ms"


def at(values: list[float], part: float) -> float:
    """The value that this part of them (0 to 1) does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))]
