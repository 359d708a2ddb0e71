"""Requests, in the imperative, of a lead or of the holder of a lease. `decide` makes each a fact, or refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mcp_server.core.limits import Policy
from mcp_server.core.model import Cause
from mcp_server.core.planning import Plan
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId

Through = Literal["ready", "all"] | int
"""How far a wave goes: the stories that are ready now, all, or every story up to a level of the plan."""


@dataclass(frozen=True, slots=True)
class PlanEpic:
    """Take an epic into the ledger, or take its edited file again."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class StartWave:
    """Release stories. `base` is the commit that the integration branch starts from if there is none yet."""

    epic: EpicId
    through: Through
    policy: Policy
    base: Sha
    named: bool = True
    """The lead named strategy, slots or agent; else a living wave's own settings hold."""
    retry: bool = False
    """Give failed and cancelled stories, and those with an open question, new attempts."""
    notes: tuple[tuple[StoryId, str], ...] = ()
    """Answers and advice for the next briefs of these stories; who has an open question is started by its answer."""


@dataclass(frozen=True, slots=True)
class CancelEpic:
    """Stop everything of an epic that is not merged."""

    epic: EpicId
    reason: str


@dataclass(frozen=True, slots=True)
class CancelStory:
    """Stop one story; its dependents stay blocked."""

    epic: EpicId
    story: StoryId
    reason: str


@dataclass(frozen=True, slots=True)
class PauseEpic:
    """Start nothing more until `ResumeEpic`; what is alive goes on."""

    epic: EpicId
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeEpic:
    """Let stories start again, also those whose agent is paused by its breaker or parked by a rate limit."""

    epic: EpicId


@dataclass(frozen=True, slots=True)
class DrainWave:
    """Admit nothing more into the wave; what is alive comes to its end."""

    epic: EpicId
    reason: str


@dataclass(frozen=True, slots=True)
class RetryStory:
    """Give a failed, cancelled or skipped story, or one that asks, new attempts; `note` is for its next brief."""

    epic: EpicId
    story: StoryId
    note: str = ""


@dataclass(frozen=True, slots=True)
class SkipStory:
    """Go on without a story that is not alive: what builds on it need not wait."""

    epic: EpicId
    story: StoryId
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimStory:
    """Take an offered attempt for a sub-agent; its base is noted and its worktree ready."""

    attempt: AttemptId
    token: str
    base: Sha
    holder: str
    place: str
    ours: bool


@dataclass(frozen=True, slots=True)
class RenewLease:
    """The holder is alive and at work."""

    attempt: AttemptId
    token: str
    note: str
    for_s: float | None = None
    """How long it is sure to be silent, in seconds: a human is being asked. None for the policy's time."""


@dataclass(frozen=True, slots=True)
class EndLease:
    """The holder gives up, or the host knows that it is gone."""

    attempt: AttemptId
    token: str
    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class HandIn:
    """The holder says done, and git agrees."""

    attempt: AttemptId
    token: str
    head: Sha
    files: tuple[str, ...]


LeaseCommand = ClaimStory | RenewLease | EndLease | HandIn
SteerCommand = CancelEpic | CancelStory | PauseEpic | ResumeEpic | DrainWave | RetryStory | SkipStory
Command = PlanEpic | StartWave | SteerCommand | LeaseCommand
