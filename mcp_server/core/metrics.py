"""Facts to counts and durations: when each attempt worked, how many at once, how long all of it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    Event,
    MergeFound,
    MergeRefused,
    WaveInterrupted,
    WaveStarted,
)
from mcp_server.core.spec import AttemptId, EpicId


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt's life, in seconds since the epoch."""

    attempt: AttemptId
    started_s: float
    """Its agent was alive."""
    ended_s: float
    """Its agent was gone."""
    settled_s: float
    """Its work was merged, refused or saved."""
    outcome: str
    """`merged`, `stopped`, `interrupted`, or the cause of its failure; `unfinished` while the journal says no more."""

    @property
    def agent_s(self) -> float:
        """How long its agent worked."""
        return self.ended_s - self.started_s


def spans(events: Iterable[Event], epic: EpicId) -> list[Span]:
    """Every attempt of an epic whose agent was started, in that order."""
    started: dict[AttemptId, float] = {}
    ended: dict[AttemptId, float] = {}
    outcome: dict[AttemptId, tuple[float, str]] = {}
    last_s = 0.0
    for event in events:
        last_s = max(last_s, event.at_s)
        match event:
            case AttemptClaimed() | AttemptLeased() if event.attempt.epic == epic:
                started[event.attempt] = event.at_s
            case AttemptSucceeded():
                ended[event.attempt] = event.at_s
            case BranchMerged() | MergeFound():
                outcome[event.attempt] = event.at_s, "merged"
            case AttemptFailed() | MergeRefused():
                ended.setdefault(event.attempt, event.at_s)
                outcome[event.attempt] = event.at_s, str(event.cause)
            case AttemptStopped():
                ended.setdefault(event.attempt, event.at_s)
                outcome[event.attempt] = event.at_s, "stopped"
            case WaveInterrupted() if event.epic == epic:
                gone = started.keys() - ended.keys()
                for attempt in (a for a in gone if a.story not in event.adopted):
                    ended[attempt], outcome[attempt] = event.at_s, (event.at_s, "interrupted")
            case _:
                pass
    return [
        Span(a, start_s, ended.get(a, last_s), *outcome.get(a, (last_s, "unfinished")))
        for a, start_s in started.items()
    ]


def most_at_once(of: Iterable[Span]) -> int:
    """The largest number of agents that were at work at the same moment."""
    edges = sorted(edge for s in of for edge in ((s.started_s, 1), (s.ended_s, -1)))
    alive = most = 0
    for _, change in edges:
        alive += change
        most = max(most, alive)
    return most


def wall_s(events: Iterable[Event], epic: EpicId) -> float:
    """Seconds from the first wave's start to the last merge; 0 when there is no merge."""
    began: float | None = None
    ended: float | None = None
    for event in events:
        if isinstance(event, WaveStarted) and event.epic == epic and began is None:
            began = event.at_s
        if isinstance(event, BranchMerged) and event.attempt.epic == epic:
            ended = event.at_s
    return ended - began if began is not None and ended is not None else 0.0
