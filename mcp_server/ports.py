"""What the engine asks of the world. Each Protocol has a real adapter and a fake one; both pass the same contracts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mcp_server.core.merge_rules import MergeRule
from mcp_server.core.model import NO_PORTS, NOTHING_USED, Cause, CheckRun, Process, Usage
from mcp_server.core.predict import Past
from mcp_server.core.spec import AttemptId, EpicId, Sha, StoryId
from mcp_server.land_port import LandPort
from mcp_server.probe import Blind, Probe

if TYPE_CHECKING:
    from mcp_server.core.events import Event


class Clock(Protocol):
    """Wall-clock seconds since the epoch: they are kept in the journal and survive a restart."""

    def now_s(self) -> float: ...


class History(Protocol):
    """What the repository has been through, for guesses: never refuses, and is empty when nothing can be said."""

    async def past(self) -> Past:
        """As of HEAD."""
        ...


class Journal(Protocol):
    """The append-only truth. `append` returns when the facts survive a kill -9 of this process."""

    def append(self, events: Sequence[Event]) -> None: ...

    def replay(self) -> list[Event]:
        """All facts in order; refuses (`journal_unreadable`) what it cannot read and changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """Commits on the right base and nothing left uncommitted."""

    head: Sha
    files: tuple[str, ...]
    """Paths that differ between base and head, sorted."""


@dataclass(frozen=True, slots=True)
class NoCommits:
    """The worktree is exactly as it was handed out."""


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """Work was left uncommitted, whether or not there are commits besides."""

    paths: tuple[str, ...]
    """Sorted; before them, in brackets, an operation of git's that is not finished: `(unfinished rebase)`."""


@dataclass(frozen=True, slots=True)
class WrongBase:
    """HEAD does not descend from the base commit that was handed out."""

    head: Sha
    fork: Sha | None = None
    """Last commit that it has in common with the base; None when there is none."""


@dataclass(frozen=True, slots=True)
class NoBranch:
    """The attempt's branch does not exist: whoever was lent the attempt has not made it in a worktree of theirs."""

    head: Sha | None = None
    """HEAD of the worktree that they say they are in, when it is one of this repository."""
    fork: Sha | None = None
    """Last commit that it has in common with the base."""


@dataclass(frozen=True, slots=True)
class WrongPlace:
    """The attempt's branch is checked out in the user's own checkout, which no agent may use."""

    path: Path


Outcome = Done | NoCommits | Uncommitted | WrongBase
Lent = Outcome | NoBranch | WrongPlace


class Worktrees(Protocol):
    """One git worktree and one branch an attempt, made from a commit, locked while held, nothing ever lost.

    Into each that is made, the ignored files that `.worktreeinclude` names are copied from the user's checkout.
    Raises `Fault` (git, disk). Every call is safe to repeat after a crash at any point.
    """

    def hold(self, attempt: AttemptId, base: Sha) -> AbstractAsyncContextManager[Path]:
        """Yield the attempt's worktree; on every way out (error and cancellation too) it is gone.

        A clean result (`inspect` said `Done` while it was held) leaves its commits on the attempt's branch; anything
        else is saved first, as by `rescue`.
        """
        ...

    def retake(self, attempt: AttemptId, base: Sha) -> AbstractAsyncContextManager[Path]:
        """Yield the worktree that an engine which is gone held for the attempt; the way out is that of `hold`.

        When that engine had let it go already, clean, `inspect` says so once more. Raises `Fault(git)` when there is
        nothing of it any more, and has changed nothing then. The way in cannot be cancelled.
        """
        ...

    async def inspect(self, attempt: AttemptId, base: Sha) -> Outcome:
        """What the held worktree contains now, measured against `base`."""
        ...

    async def lend(self, attempt: AttemptId, base: Sha, *, ours: bool) -> Path | None:
        """Begin an attempt that somebody outside works on, until `give_back` or `rescue`; survives a restart.

        `ours`: its branch and a locked worktree are made, and its folder is returned. Else only its base is noted: the
        borrower has a worktree (the host made it) and makes the branch `epicwave-work/<attempt>` there, from `base`.
        What a crash left of the same attempt is rescued first. After a `Fault` too, `rescue` clears what there is.
        """
        ...

    async def inspect_lent(self, attempt: AttemptId, base: Sha, at: Path | None) -> Lent:
        """What was done with a lent attempt, in our worktree or in whichever one has its branch checked out.

        A worktree in the middle of rebasing the branch has it; `Uncommitted` says so before anything else.
        `at` is where the borrower says it is, a folder below a worktree will do, and only looked at when there is no
        branch. A branch that no worktree has is judged by its tip. Reads only: the borrower may be at work.
        """
        ...

    async def touched_s(self, attempt: AttemptId) -> float | None:
        """When something last changed in a lent attempt's worktree: a commit, the index, a changed or new file.

        Seconds since the epoch; None when no worktree has its branch.
        """
        ...

    async def give_back(self, attempt: AttemptId, head: Sha) -> None:
        """The lent attempt has landed with `head`: remove our worktree of it. What is beyond `head` is saved first.

        A worktree of the host's is its own business and stays, and the branch in it where it is. Removing the branch
        is left to `MergePort.forget`; after that, another call changes nothing.
        """
        ...

    async def rescue(self, attempt: AttemptId) -> str | None:
        """Save what is left of an attempt under `refs/epicwave/rescue/<attempt>`; remove its worktree and branch.

        Commits, uncommitted changes and untracked files (not ignored ones) are saved. Returns the ref, None when there
        is nothing beyond its base and never was. Idempotent: a second call finds the ref of the first and returns it;
        what came to the branch meanwhile is added. A worktree that the host made stays as it is, and the branch with
        it, as long as it has the branch checked out (its agent may still be alive): a later call removes it.
        """
        ...

    async def free_mb(self) -> float:
        """Room on the disk where worktrees are made, in millions of bytes."""
        ...

    async def weight_mb(self, worktree: Path) -> float:
        """What a worktree takes on the disk now, without what git keeps of it, in millions of bytes; 0 when gone."""
        ...

    async def held(self) -> list[AttemptId]:
        """Attempts that have a worktree, a branch or a base now: after a crash, what `rescue` is called for."""
        ...


@dataclass(frozen=True, slots=True)
class Landing:
    """A branch rebased onto the tip, checked out nowhere; `head == onto` when the tip has all of it already."""

    onto: Sha
    head: Sha
    files: tuple[str, ...]
    """Paths that differ between onto and head, sorted."""
    regenerate: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Paths that have the tip's side by a merge rule, sorted, and the command that makes each anew in its folder."""


@dataclass(frozen=True, slots=True)
class Landed:
    """An attempt whose work git knows to be on the integration branch."""

    attempt: AttemptId
    landing: Landing
    """As far as git can tell: `onto` is where the merge before it ended."""


@dataclass(frozen=True, slots=True)
class Conflicted:
    """The rebase stopped, and left nothing behind; or a file could not be made anew."""

    onto: Sha
    paths: tuple[str, ...]
    detail: str
    """Both sides: the conflicted hunks as git shows them, cut to a bound."""


class MergePort(Protocol):
    """The one door to the integration branch `epicwave/<epic>`. Raises `Fault`. Idempotent after a crash.

    Every commit that the branch was ever moved from by us is on a ref `refs/epicwave/recovery/<epic>/<number>`.

    The integration worktree gets the files that `.worktreeinclude` names, as each worktree of ours does.
    """

    async def tip(self, epic: EpicId) -> Sha:
        """Present tip of the integration branch."""
        ...

    async def rebase(
        self, attempt: AttemptId, base: Sha, head: Sha, onto: Sha | None = None, rules: Sequence[MergeRule] = ()
    ) -> Landing | Conflicted:
        """Replay base..head onto the tip, or onto what was rebased onto it before: the landings of a batch are a chain.

        Files that both sides have changed and a rule settles are no conflict. Nothing moves; where the integration
        worktree stands afterwards, and whether there is one, is not told: `checkout` says where.
        """
        ...

    async def amend(self, attempt: AttemptId, landing: Landing, paths: Sequence[str]) -> Landing:
        """The landing with these files as they lie in the integration worktree now, in its last commit."""
        ...

    async def checkout(self, epic: EpicId, at: Sha | None = None) -> Path:
        """The integration worktree's folder, for the checks to run in: clean at a commit when one is named."""
        ...

    async def set_up_by(self, epic: EpicId) -> str:
        """What `note_set_up` was told of the integration worktree; empty for one that was made since, or is gone."""
        ...

    async def note_set_up(self, epic: EpicId, by: str) -> None:
        """Note for as long as there is this integration worktree that it was set up, and by what."""
        ...

    async def advance(
        self, attempt: AttemptId, onto: Sha, head: Sha, before: Sequence[tuple[AttemptId, Sha]] = ()
    ) -> bool:
        """Move the branch from `onto` to `head`, compare-and-set. True when it is at `head` or beyond it now.

        In the same step git notes for good that the attempt has landed with `head`, and those of a batch `before` it
        with theirs, and never does so without it; and the commit that the branch was at gets its recovery ref.
        False when the branch is elsewhere: rebase again. Fault `branch_checked_out` when a checkout has the branch.
        """
        ...

    async def landed(self, epic: EpicId, but: Collection[StoryId] = ()) -> list[Landed]:
        """What git has noted, other stories than `but`, the last attempt of each, in the order of the branch.

        Only what the branch has: nothing when the branch is gone, or begins anew.
        """
        ...

    async def contains(self, epic: EpicId, sha: Sha) -> bool:
        """True when the integration branch has the commit."""
        ...

    async def forget(self, attempt: AttemptId) -> None:
        """Remove the branch of an attempt that has landed, and a worktree of ours that was never given back.

        While a worktree that is not ours has the branch, it stays, and `held` tells of it; a later call removes it.
        What came to it after the head that was given back, or after the first call, is saved as by `rescue`.
        """
        ...

    async def close(self, epic: EpicId) -> None:
        """Remove the integration worktree (never the branch); the next `checkout` makes it again."""
        ...


class Ended(StrEnum):
    """How a process came to its end."""

    EXITED = "exited"
    TIMEOUT = "timeout"
    STALL = "stall"
    QUOTA = "quota"  # its worktree grew beyond its quota


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """The end of a process and of everything it had started."""

    how: Ended
    exit_code: int | None
    seconds: float
    tail: str
    """Last lines of its output, cut to a bound."""
    trouble: Cause | None = None
    """RATE_LIMIT, API_ERROR or CRASH when its output or its exit shows that it is none of the agent's own doing."""
    resumes_at_s: float | None = None
    """When the rate limit is over, as its output named it: seconds since the epoch; None when it named none."""
    usage: Usage = NOTHING_USED
    """All that it has cost, as far as its output tells."""


@dataclass(frozen=True, slots=True)
class AgentCall:
    """All that one attempt's agent needs."""

    attempt: AttemptId
    profile: str
    """Name of a profile, or a whole command line."""
    worktree: Path
    brief: str
    timeout_s: float
    stall_s: float
    ports: range = NO_PORTS
    """Those that are its own; their first is in its environment."""
    outlives: bool = False
    """It may outlive its engine, for the next one to adopt."""
    ran_s: float = 0.0
    """How long it has run already, when it is adopted."""


class Left(StrEnum):
    """What there is of an agent that an engine which is gone had started."""

    RUNS = "runs"  # it waits for somebody to follow it
    ENDED = "ended"  # by itself, and how is on record
    GONE = "gone"  # or it cannot be followed


class Runner(Protocol):
    """Starts agents and checks, never through a shell; leaves no process behind, on cancellation and kill -9 too."""

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """Run the agent to its end. Calls `claimed` once, when it is alive. Raises `Fault(spawn)`.

        Calls `used` with all that this run has cost so far, whenever its output tells of more.

        Cancellation ends the whole process group (TERM, grace, KILL) and returns only when it is gone.
        """
        ...

    async def look_for(self, attempt: AttemptId, process: Process) -> Left:
        """What is left of an agent, by pid and start time. One that runs waits for `adopt` from here on."""
        ...

    async def adopt(self, call: AgentCall, process: Process, used: Callable[[Usage], None]) -> ProcessEnd:
        """Follow an agent of another engine's to its end, as `run_agent` would have, from all its output on.

        It is ours from the call on: on every way out it is gone, with its process group. One that came to its end
        meanwhile is told as if it had been followed, and one that is gone without a word as killed.
        """
        ...

    async def run_check(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """Run one check. A command that cannot be started is a failed check with exit code 127, not a fault."""
        ...

    async def run_setup(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """Run one command that sets a worktree up, as a check, but with a log of its own and told of the checkout."""
        ...

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """End what an engine that died left of an attempt: this very process, by pid and start time, and its group.

        None when none is on record: an agent that was started may be about to end for want of a claim; wait for that.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The world, as one engine sees it."""

    clock: Clock
    journal: Journal
    worktrees: Worktrees
    merge: MergePort
    runner: Runner
    land: LandPort
    probe: Probe = field(default_factory=Blind)
