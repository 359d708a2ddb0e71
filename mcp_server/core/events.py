"""Facts, in the past tense: all that is ever stored. Each says when: `at_s`, in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_server.core.limits import Policy
from mcp_server.core.model import NOTHING_USED, Cause, CheckRun, Clash, Lease, Process, Proven, RollingBack, Usage
from mcp_server.core.spec import AttemptId, EpicId, EpicSpec, Sha, StoryId


@dataclass(frozen=True, slots=True)
class EpicPlanned:
    """An epic was planned, or planned again; what its known stories have become stays."""

    spec: EpicSpec
    levels: Mapping[StoryId, int]
    ranks: Mapping[StoryId, float]
    at_s: float


@dataclass(frozen=True, slots=True)
class WaveStarted:
    """The lead released stories. The integration branch existed at `base` or beyond when this was written."""

    epic: EpicId
    members: tuple[StoryId, ...]
    retried: tuple[StoryId, ...]
    """Members that had failed or were cancelled and get new attempts."""
    policy: Policy
    base: Sha
    at_s: float
    notes: tuple[tuple[StoryId, str], ...] = ()
    """What the lead has to say to single members: the answer to a question, or advice."""


@dataclass(frozen=True, slots=True)
class WaveWidened:
    """The lead released more stories into the living wave."""

    epic: EpicId
    members: tuple[StoryId, ...]
    retried: tuple[StoryId, ...]
    at_s: float
    notes: tuple[tuple[StoryId, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WaveInterrupted:
    """The engine that ran the wave is gone (killed, or closed); of its attempts only `adopted` ones are alive."""

    epic: EpicId
    saved: tuple[tuple[StoryId, str], ...]
    """Story and the rescue ref that holds its unfinished work."""
    at_s: float
    goes_on: bool = False
    """The wave lives on: what is not adopted waits to be started again. Else everything is put back and it ends."""
    adopted: tuple[StoryId, ...] = ()
    """Stories whose agents outlived their engine, or came to their end without one: the next engine follows them."""


@dataclass(frozen=True, slots=True)
class AttemptClaimed:
    """The agent is alive in its worktree."""

    attempt: AttemptId
    process: Process
    base: Sha
    at_s: float


@dataclass(frozen=True, slots=True)
class AttemptLeased:
    """A sub-agent of the editor took the offered story."""

    attempt: AttemptId
    lease: Lease
    base: Sha
    at_s: float


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """A sign of life: the holder's word, or a change in its worktree."""

    attempt: AttemptId
    until_s: float
    note: str
    at_s: float


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The holder gave up, died, or was not heard of in time. From here on it is too late for a report."""

    attempt: AttemptId
    cause: Cause
    detail: str
    at_s: float


@dataclass(frozen=True, slots=True)
class WorkSeen:
    """A look into the attempt's worktree, or at what it has in the merge queue, found something else than the last."""

    attempt: AttemptId
    touched: tuple[str, ...]
    """Files and folders outside its footprint that it has changed, sorted."""
    clashes: tuple[Clash, ...]
    """All that there are now; what was told before and is not among them is resolved."""
    at_s: float


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """The agent ended well and left commits on the right base and nothing else."""

    attempt: AttemptId
    base: Sha
    head: Sha
    files: tuple[str, ...]
    at_s: float
    usage: Usage = NOTHING_USED
    """What the attempt has cost in all."""


@dataclass(frozen=True, slots=True)
class UsageReported:
    """What the running attempt has cost so far."""

    attempt: AttemptId
    usage: Usage
    at_s: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The current attempt ended without a branch worth merging."""

    attempt: AttemptId
    cause: Cause
    detail: str
    tail: str
    saved_ref: str | None
    at_s: float
    resumes_at_s: float | None = None
    """When the rate limit is over, as the agent's output named it."""
    usage: Usage = NOTHING_USED
    """What the attempt has cost in all."""


@dataclass(frozen=True, slots=True)
class AttemptStopped:
    """What was told to stop has stopped: its processes are gone, its work is saved."""

    attempt: AttemptId
    saved_ref: str | None
    at_s: float


@dataclass(frozen=True, slots=True)
class MergeProven:
    """The checks are green on the rebased result; the branch is about to move there."""

    attempt: AttemptId
    proven: Proven
    files: tuple[str, ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class BranchMerged:
    """The integration branch has the attempt's work."""

    attempt: AttemptId
    tip: Sha
    files: tuple[str, ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class MergeFound:
    """Git has the attempt's work on the integration branch, and the journal did not know: it was lost, or cut short."""

    attempt: AttemptId
    onto: Sha
    """Where the merge before it ended; for the first one, where the branch began."""
    tip: Sha
    files: tuple[str, ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class MergeRefused:
    """The rebase conflicted, a check was red, or the world failed us."""

    attempt: AttemptId
    cause: Cause
    detail: str
    tail: str
    saved_ref: str | None
    at_s: float
    onto: Sha | None = None
    """The tip that it was tried on."""
    paths: tuple[str, ...] = ()
    """Files in conflict."""
    head: Sha | None = None
    """What it was rebased to, when checks ran."""
    checks: tuple[CheckRun, ...] = ()
    """All that ran, the red one last."""


@dataclass(frozen=True, slots=True)
class EpicCancelled:
    """The lead stopped the whole epic."""

    epic: EpicId
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class StoryCancelled:
    """The lead stopped one story."""

    epic: EpicId
    story: StoryId
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class EpicPaused:
    """The lead wants nothing more to start; what is alive goes on."""

    epic: EpicId
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class EpicResumed:
    """The lead lets stories start again, those of paused and parked agents too."""

    epic: EpicId
    at_s: float


@dataclass(frozen=True, slots=True)
class WaveDrained:
    """The lead ends the wave softly: it admits nothing more, what is alive comes to its end."""

    epic: EpicId
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class StoryRetried:
    """The lead gives one story new attempts: in the living wave, or in the next."""

    epic: EpicId
    story: StoryId
    note: str
    at_s: float


@dataclass(frozen=True, slots=True)
class StorySkipped:
    """The lead goes on without a story: what builds on it need not wait."""

    epic: EpicId
    story: StoryId
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class EpicLanded:
    """A branch of the user's has the epic's work, or a pull request offers it."""

    epic: EpicId
    into: str
    how: str
    """`ff`, `merge`, `squash`, `pr`, or `found`: it was there already."""
    tip: Sha
    tree: str
    at_s: float
    before: Sha | None = None
    """Where that branch was."""
    saved_ref: str = ""
    """Recovery ref that holds `before`."""
    url: str = ""
    """Of the pull request."""
    checks: tuple[CheckRun, ...] = ()
    """What had to be checked anew, because it was not what had been proven."""


@dataclass(frozen=True, slots=True)
class RollbackProven:
    """The checks are green without these stories; the integration branch is about to move there."""

    epic: EpicId
    rolling: RollingBack
    at_s: float


@dataclass(frozen=True, slots=True)
class StoriesRolledBack:
    """The integration branch has the reverts, and git has forgotten that the stories had landed."""

    epic: EpicId
    saved: tuple[tuple[StoryId, str], ...]
    """Story and the rescue ref that keeps its commits."""
    at_s: float


@dataclass(frozen=True, slots=True)
class RollbackGivenUp:
    """What was proven is not what the integration branch came to: the stories stay merged."""

    epic: EpicId
    at_s: float


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed and changed something."""

    at_s: float


Fact = (
    AttemptClaimed
    | AttemptLeased
    | LeaseRenewed
    | LeaseEnded
    | UsageReported
    | WorkSeen
    | AttemptSucceeded
    | AttemptFailed
    | AttemptStopped
    | MergeProven
    | BranchMerged
    | MergeRefused
)
"""What jobs and the holders of leases report; each names its attempt, the fence."""

Word = (
    WaveStarted
    | WaveWidened
    | WaveDrained
    | WaveInterrupted
    | EpicPaused
    | EpicResumed
    | EpicCancelled
    | StoryCancelled
    | StoryRetried
    | StorySkipped
)
"""What the lead says, and the end of an engine: each names its epic."""

Rollback = RollbackProven | StoriesRolledBack | RollbackGivenUp
"""The steps of taking merged stories back."""

Event = EpicPlanned | Word | Fact | MergeFound | EpicLanded | Rollback | Ticked
