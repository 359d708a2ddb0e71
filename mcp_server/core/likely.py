"""How likely stories that share files are to conflict, and how good predictions were: what the journal has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from mcp_server.core.spec import Source

MEASURED_CONFLICTS, MEASURED_PAIRS = 14, 47
"""Branches that shared a file, and those of them that really conflicted, in a repository of 50,000 files."""
PRIOR_MEETINGS = 5.0
"""What the measured share counts for: as much as so many meetings at a file. Each file's own word comes soon."""
LIKELY = 0.5
"""Stories that conflict with at least this chance are kept apart.

Two stories of the same length, side by side: with chance `1 - p` both are done in half the time, with chance `p` the
work of one was paid for in vain. An agent's hour waited for and one paid for being worth the same, `p = 1/2` decides.
"""


class Meetings(NamedTuple):
    """How often stories that were at work together shared an entry, and how often they conflicted there."""

    met: int = 0
    conflicted: int = 0


class Hits(NamedTuple):
    """What came of the predictions of one source, over all merged stories that had one."""

    stories: int = 0
    named: int = 0
    """Entries that were predicted, and of these the ones that were touched."""
    right: int = 0
    real: int = 0
    """Files that were touched, and of these the ones that were predicted."""
    found: int = 0

    @property
    def precision(self) -> float:
        """Share of the predicted entries that were touched."""
        return self.right / self.named if self.named else 0.0

    @property
    def recall(self) -> float:
        """Share of the touched files that were predicted."""
        return self.found / self.real if self.real else 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What the stories of a repository have taught, in a bounded space: the oldest entries go first."""

    meetings: Mapping[str, Meetings] = field(default_factory=dict[str, Meetings])
    sources: Mapping[Source, Hits] = field(default_factory=dict[Source, Hits])
    touched: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many merged stories touched a file."""
    stories: int = 0
    """Merged stories in all."""


NOTHING_LEARNED = Learned()


def chance(entry: str, learned: Learned) -> float:
    """That two stories which share the entry conflict there: the mean of a Beta distribution.

    `(5 * 14/47 + conflicts) / (5 + meetings)`: 0.30 for an unknown one, 0.41 after one conflict, 0.15 after five clean
    meetings.
    """
    met, conflicted = learned.meetings.get(entry, Meetings())
    prior = PRIOR_MEETINGS * MEASURED_CONFLICTS / MEASURED_PAIRS
    return (prior + conflicted) / (PRIOR_MEETINGS + met)


def likely(shared: Iterable[str], learned: Learned) -> float:
    """The chance that two stories which share these entries conflict: `1 - prod(1 - chance)`.

    0.30 for one unknown entry, 0.51 for two. A folder or a glob counts as one entry, with meetings of its own.
    """
    return 1.0 - prod(1.0 - chance(entry, learned) for entry in shared)
