"""What the engine knows: the epic as it was written (specs), and what has become of it (states). All frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from mcp_server.core.likely import NOTHING_LEARNED, Learned
from mcp_server.core.limits import Policy, Strategy, Terms
from mcp_server.core.spec import AttemptId, EpicId, EpicSpec, Sha, StoryId, StorySpec

if TYPE_CHECKING:
    from mcp_server.core.stories import Stories


class StoryState(StrEnum):
    """Stored states. `ready` and `blocked` are derived from pending."""

    PENDING = "pending"  # not in a wave, or put back
    QUEUED = "queued"  # in the wave, waiting for dependencies, a slot or its files
    OFFERED = "offered"  # admitted: its worktree is being made, or a sub-agent may claim it
    RUNNING = "running"  # its agent works
    STOPPING = "stopping"  # told to stop; its processes and worktree still count
    MERGING = "merging"  # in the merge queue: rebase, checks, fast-forward
    MERGED = "merged"  # on the integration branch, or done before we came
    FAILED = "failed"  # attempts used up
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # the lead said to go on without it


LIVE = frozenset({StoryState.OFFERED, StoryState.RUNNING, StoryState.STOPPING})
"""States in which a worktree or a process may exist for the attempt."""
HOLDS_FILES = LIVE | {StoryState.MERGING}
"""States in which no overlapping story may start: the merged tree does not have this one's changes yet."""
SATISFIES = frozenset({StoryState.MERGED, StoryState.SKIPPED})
"""States of a story that those which build on it need not wait for."""
DOOMS = frozenset({StoryState.FAILED, StoryState.CANCELLED, StoryState.PENDING})
"""States of a story that put what builds on it back out of the queue."""
SETTLED = SATISFIES | {StoryState.FAILED, StoryState.CANCELLED}


class Cause(StrEnum):
    """Why an attempt or a merge did not end merged. The words after it are the view's."""

    AGENT_FAILED = "agent_failed"  # exit code other than 0
    NO_COMMITS = "no_commits"
    UNCOMMITTED = "uncommitted_changes"
    WRONG_BASE = "wrong_base"  # its commits do not descend from the base it was given
    TIMEOUT = "timeout"
    STALL = "stall"
    LEASE_LOST = "lease_lost"  # its sub-agent was not heard of until the deadline, or the host said that it died
    QUESTION = "question"  # it cannot go on before a human has answered
    CONFLICT = "conflict"
    CHECKS = "checks"
    STOPPED = "stopped"  # cancelled, or the engine ended; its work is saved
    BUDGET = "budget"  # its money or its tokens are spent
    RATE_LIMIT = "rate_limit"  # the provider of its agent wants to be left alone for a while
    API_ERROR = "api_error"  # its agent gave up because its provider did not answer, or refused it
    SPAWN = "spawn"  # its agent could not be started
    CRASH = "crash"  # its agent was ended by a signal that we did not send
    FAULT = "fault"  # git or the disk
    SETUP = "setup"  # its worktree could not be set up: a command of the configuration failed
    QUOTA = "quota"  # its worktree grew beyond what the configuration allows


@dataclass(frozen=True, slots=True)
class CheckRun:
    """One check's fingerprint: what was run on which tree and how it ended."""

    command: tuple[str, ...]
    exit_code: int | None
    """None when it was ended at its time limit."""
    seconds: float
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """How the last attempt ended, kept for the next brief and for the status."""

    cause: Cause
    detail: str
    attempt: int
    tail: str = ""
    """Last lines of the log that shows it."""
    saved_ref: str | None = None
    """Ref that holds the attempt's work, or None when there was none."""
    onto: Sha | None = None
    """Tip that a refused merge was tried on."""
    paths: tuple[str, ...] = ()
    """Files in which it conflicted."""
    answered: bool = False
    """The lead had the story started again since: a question is not open any more."""
    stuck: bool = False
    """It conflicted again and again: the story waits for a human."""
    head: Sha | None = None
    """What its commits were rebased to, and `checks` ran on."""
    checks: tuple[CheckRun, ...] = ()
    """What ran, up to the red one."""


@dataclass(frozen=True, slots=True)
class Proven:
    """A rebased result whose checks are green and which is about to become the tip. Durable before the ref moves."""

    onto: Sha
    head: Sha
    checks: tuple[CheckRun, ...]
    at: Sha | None = None
    """The end of the batch, where the checks ran; None when that is `head` itself."""
    flaky: tuple[tuple[str, ...], ...] = ()
    """Checks that were red first and then green on the same tree."""


@dataclass(frozen=True, slots=True)
class Clash:
    """What a live probe saw: the work of an attempt does not merge with somebody else's as both are now."""

    other: AttemptId | None
    """None: what is on the integration branch already."""
    paths: tuple[str, ...]
    """Sorted, and cut to a bound."""
    certain: bool = True
    """False: this git cannot try the merge; both have changed the same files."""


class Process(NamedTuple):
    """A started process; pid and start time, as the runner counts it, together identify it for good."""

    pid: int
    started_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What work has cost, as far as its agent tells."""

    usd: float = 0.0
    tokens: int = 0
    """Read and written, without what came from the provider's cache, which would dwarf the rest."""

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(self.usd + other.usd, self.tokens + other.tokens)


NOTHING_USED = Usage()
NO_PORTS = range(0)


@dataclass(frozen=True, slots=True)
class Lease:
    """A sub-agent's hold on an attempt. It has a deadline because hosts do not tell of every agent that dies."""

    token: str
    """Names the lease together with its attempt; made at random."""
    began_s: float
    until_s: float
    holder: str = ""
    """How the host calls the sub-agent; empty when nobody told us."""
    place: str = ""
    """Absolute path of the worktree it works in."""
    ours: bool = True
    """We made that worktree; else the host did."""
    note: str = ""
    """Its last words about how far it is."""
    ended: tuple[Cause, str] | None = None
    """Why it is over, although the story still runs: its work is being saved."""
    head: Sha | None = None
    """The commit that it handed in last."""


class Story(NamedTuple):
    """What has become of one story."""

    spec: StorySpec
    level: int
    """Longest chain of dependencies below it; 1 for a story without any. Its wave in the plan."""
    rank: float
    """Minutes of work from its start to the end of the epic along its longest path; admission goes by it."""
    state: StoryState = StoryState.PENDING
    attempt: int = 0
    budget: int = 0
    """The last attempt number it may use."""
    not_before_s: float = 0.0
    merge_rank: int = 0
    """Place in the merge queue, by arrival."""
    base: Sha | None = None
    """Commit its current attempt started from."""
    head: Sha | None = None
    """Last commit of an attempt in the merge queue."""
    proven: Proven | None = None
    merged_as: Sha | None = None
    """Tip of the integration branch after it landed; None for a story that was done before we came."""
    files_changed: tuple[str, ...] = ()
    failure: Failure | None = None
    agent: str = ""
    """Profile that the current attempt was admitted for."""
    ports: range = NO_PORTS
    """Of the current attempt alone, by convention, until it is merged or over."""
    faults: int = 0
    """Faults that cost it no attempt, since a wave last released it."""
    used: Usage = NOTHING_USED
    """What its earlier attempts have cost."""
    using: Usage = NOTHING_USED
    """What its current attempt has cost so far."""
    forgiven: Usage = NOTHING_USED
    """What it had cost when it was last tried again on purpose: its own budget counts from there."""
    process: Process | None = None
    """The agent of the current attempt, while it may be alive."""
    adopted: bool = False
    """The current attempt outlived the engine that started it, and another one follows it."""
    lease: Lease | None = None
    """The current attempt's, from the claim on; kept after its end for whoever still reports with it."""
    repairs: int = 0
    """Times the current attempt was given back to its sub-agent after a conflict or a red check."""
    conflicts: int = 0
    """Attempts that ended with a conflict and cost it none, since a wave last released it."""
    advice: str = ""
    """What the lead answered or advised; the next brief has it."""
    touched: tuple[str, ...] = ()
    """Files (and, past a bound, folders) outside its footprint that its current attempt has changed so far."""
    clashes: tuple[Clash, ...] = ()
    """With whose work that of its current attempt does not merge as it is now."""
    merge_faults: int = 0
    """Times the world failed us while merging the current attempt."""
    stop_reason: str = ""
    """Why it was told to stop, was cancelled or skipped."""
    stop_cause: Cause = Cause.STOPPED
    """BUDGET when it was told to stop because its own is spent: then it has failed."""
    rolled_back: bool = False
    """It was merged and taken back, and nobody has tried it again yet."""
    since_s: float = 0.0
    """When it entered its present state."""
    changed: int = 0
    """Number of the fact that brought it into its present state."""
    terms: Terms = Terms()
    """Of its current attempt, against whoever shares its files."""
    beside_since: int = 0
    """Number of the fact since which what lands does so beside its current attempt, and is not judged yet."""


class WaveState(StrEnum):
    """A wave's life."""

    RUNNING = "running"
    DRAINING = "draining"  # admits nothing more; what is alive comes to its end
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Wave:
    """One start_wave: a moving ceiling, not a barrier. Its members are admitted as each becomes ready."""

    number: int
    state: WaveState
    members: frozenset[StoryId]
    policy: Policy
    started_s: float
    ended_because: str = ""
    fewer: int = 0
    """Slots that are given up for now, under `adaptive_slots`; `ends` are the last ones, True for a bad one."""
    ends: tuple[bool, ...] = ()
    calm_since_s: float = 0.0
    """When the last of those happened, or the slots last changed."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """How the attempts of an agent profile have fared, or how git and the disk have: open, it lets nothing start."""

    faults: int = 0
    """In a row, by order of completion."""
    opened: int = 0
    """Times that it opened in a row; 0 when it is closed."""
    until_s: float = 0.0
    """Opened: nothing starts before that. Afterwards it is half open: one probe does."""
    probe: AttemptId | None = None
    parked_until_s: float = 0.0
    """Rate limit: nothing starts before that."""
    parks: int = 0
    """Rate limits in a row that named no end."""
    because: str = ""
    changed: int = 0
    """Number of the fact that opened or parked it, as `because` says."""


@dataclass(frozen=True, slots=True)
class LandedAs:
    """How an epic came to a branch of the user's."""

    into: str
    how: str
    """`ff`, `merge`, `squash`, `pr`, or `found`: it was there already."""
    tip: Sha
    """The commit that the branch was moved to; of a pull request the one that was pushed."""
    tree: str
    at_s: float
    url: str = ""
    """Of the pull request."""
    seq: int = 0
    """Number of the fact that says so."""


@dataclass(frozen=True, slots=True)
class RollingBack:
    """Reverts that are checked and about to become the tip. Durable before the ref moves."""

    stories: tuple[StoryId, ...]
    """In the order in which they are taken back: the last that landed first."""
    attempts: tuple[int, ...]
    """Of each the attempt that had landed."""
    heads: tuple[Sha, ...]
    """Of each the commit that it had landed as."""
    onto: Sha
    head: Sha
    checks: tuple[CheckRun, ...]
    reason: str


REPOSITORY = "*"
"""Name of the breaker of git and the disk; the others have the names of agent profiles."""


class Epic(NamedTuple):
    """One epic's whole state."""

    spec: EpicSpec
    stories: Stories
    wave: Wave | None = None
    merges: int = 0
    """Merge ranks given out so far."""
    cancelled: str | None = None
    """Reason of the last cancel, until the next wave starts."""
    base: Sha | None = None
    """Commit the integration branch was made from; None before the first wave."""
    paused: str = ""  # why the lead paused it; empty when nobody did
    used: Usage = NOTHING_USED
    """What all its attempts have cost so far."""
    landed: LandedAs | None = None
    """Where its branch was last brought to."""
    rolling: RollingBack | None = None
    """A rollback that is proven and may be in git already."""
    undone: Sha | None = None
    """Tip of the integration branch after the last rollback: its checks were green, too."""
    flaky: frozenset[tuple[str, ...]] = frozenset()
    """Checks that were red and green on the same tree."""
    recent: tuple[StoryId, ...] = ()
    """The last stories that have landed, in their order."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything the journal says: all epics of one repository."""

    epics: Mapping[EpicId, Epic] = field(default_factory=dict[EpicId, Epic])
    breakers: Mapping[str, Breaker] = field(default_factory=dict[str, Breaker])
    as_of_s: float = 0.0
    seq: int = 0
    """Number of facts folded in; the cursor of `since`."""
    quiet_until_s: float = field(default=0.0, compare=False)
    """Until then time alone changes nothing: it follows from the rest, and `settle` keeps it."""
    learned: Learned = NOTHING_LEARNED
    """What merged stories have taught about files."""


def is_team(epic: Epic) -> bool:
    """True when the editor's own sub-agents claim the epic's stories."""
    return epic.wave is not None and epic.wave.policy.strategy is Strategy.AGENT_TEAMS


def is_alive(wave: Wave | None) -> bool:
    """True while a wave may still admit or wait for anything."""
    return wave is not None and wave.state is not WaveState.FINISHED
