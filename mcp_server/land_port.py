"""What landing an epic and taking stories back ask of git: a port of its own, beside `MergePort`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mcp_server.core.spec import AttemptId, EpicId, Sha


class Desk(StrEnum):
    """Worktrees of ours that nobody else uses, one of each an epic."""

    LANDING = "_landing"
    ROLLBACK = "_rollback"


class How(StrEnum):
    """How a branch takes an epic's work in."""

    FF = "ff"
    MERGE = "merge"
    SQUASH = "squash"


@dataclass(frozen=True, slots=True)
class Target:
    """The user's branch, as it was when it was looked at."""

    branch: str
    """Without `refs/heads/`."""
    head: Sha
    place: Path | None
    """The user's checkout when that is on the branch; None when nobody has it checked out."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A commit that the branch could be moved to; `sha == onto` when that has all of it already."""

    onto: Sha
    sha: Sha
    tree: str


@dataclass(frozen=True, slots=True)
class Clash:
    """Two sides do not go together; nothing was changed."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undo:
    """A story that is to be taken back."""

    attempt: AttemptId
    head: Sha
    """What the integration branch was when it had just landed."""
    onto: Sha | None = None
    """Where the journal says that its commits begin; None when it does not know."""


@dataclass(frozen=True, slots=True)
class Reverts:
    """Reverts on top of the tip, one a story; `head == onto` when there was nothing to revert."""

    onto: Sha
    head: Sha


class LandPort(Protocol):
    """The one door to the user's branches, and to taking back what is on an integration branch. Raises `Fault`.

    Nothing here runs the user's hooks, but for those of a push. A worktree is one of ours, never the user's.
    """

    async def target(self, into: str | None, top: Path) -> Target:
        """The branch to land on, by default the one that the checkout `top` is on.

        Raises `Refused`: HEAD is detached, no such branch, it is one of ours, another worktree has it; and where `top`
        itself has it: an operation that is not finished, or tracked files that are changed.
        """
        ...

    async def tree(self, sha: Sha) -> str:
        """The name of a commit's tree: equal trees have equal names."""
        ...

    async def compose(self, epic: EpicId, target: Target, tip: Sha, how: How | None, message: str) -> Candidate | Clash:
        """The commit by which `target` would take `tip` in; None for fast-forward if possible, else a merge.

        Merged in our own worktree where both have moved, else only written. Commits are signed where the user's
        configuration says so. Raises `Refused`: `not_fast_forward`, `cannot_sign`, `nothing_to_land` (no history in
        common).
        """
        ...

    async def desk(self, epic: EpicId, desk: Desk, sha: Sha) -> Path:
        """Our worktree for the checks to run in, new, clean and at the commit."""
        ...

    async def close(self, epic: EpicId) -> None:
        """Remove these worktrees, and what a crash left of them."""
        ...

    async def move(self, epic: EpicId, target: Target, candidate: Candidate) -> str:
        """Move the user's branch to the candidate, and the checkout with it that has it. Returns the recovery ref.

        Raises `Refused` when the branch is not where it was any more, or files in the checkout are in the way; nothing
        is changed then.
        """
        ...

    async def offer(self, epic: EpicId, tip: Sha, into: str, title: str, body: str) -> str:
        """Push `tip` as the integration branch and open a pull request; returns its address. Raises `Refused`."""
        ...

    async def revert(self, epic: EpicId, undos: Sequence[Undo], reason: str) -> Reverts | Clash:
        """Undo each story's whole range, one commit each, in this order, on top of the tip. No ref moves."""
        ...

    async def take_back(self, epic: EpicId, undos: Sequence[Undo], reverts: Reverts) -> dict[AttemptId, str] | None:
        """Move the integration branch to the reverts, compare-and-set; None when it is neither there nor at `onto`.

        In the same step git forgets that the stories had landed, and keeps their commits: returns their rescue refs.
        Safe to repeat after a crash at any point. Fault `branch_checked_out` when a checkout has the branch.
        """
        ...
