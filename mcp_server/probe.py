"""The port of the live probe: what running stories have changed so far, and what of it does not merge."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mcp_server.core.model import Clash
from mcp_server.core.spec import AttemptId, Sha


@dataclass(frozen=True, slots=True)
class Sight:
    """An attempt to look at: in its worktree, or, once it is in the merge queue, at its commits."""

    attempt: AttemptId
    base: Sha
    """The commit that it started from."""
    head: Sha | None = None
    """Its last commit in the merge queue; None while somebody works in its worktree."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attempt has now, committed or not, against where its history leaves the integration branch."""

    files: tuple[str, ...]
    """Paths that differ, sorted; both names of what was renamed."""
    clashes: tuple[Clash, ...]
    """With what it does not merge: other sights of the same look, and the integration branch."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found."""

    seen: Mapping[AttemptId, Seen]
    """Without those that could not be looked at yet: no worktree, or in the middle of a rebase since the start."""
    changed: bool
    """Something is not as the look before has found it."""


class Probe(Protocol):
    """Looks at attempts while they are under way, in a bounded time each; changes and locks nothing that others see."""

    async def look(self, sights: Sequence[Sight], fresh: Collection[AttemptId] | None = None) -> Look:
        """Look at them all again, or at the `fresh` ones alone and at the others as they were seen last.

        A worktree that is gone, half written, or in the middle of a rebase or merge is told as it was seen last; an
        attempt that is not among the sights is forgotten. Raises `Fault` when git cannot be asked at all.
        """
        ...

    async def close(self) -> None:
        """Nobody is at work: remove what was kept. The next `look` begins anew."""
        ...


class Blind:
    """A `Probe` that sees nothing."""

    async def look(self, sights: Sequence[Sight], fresh: Collection[AttemptId] | None = None) -> Look:  # noqa: ARG002
        """See `Probe.look`."""
        return Look({}, changed=False)

    async def close(self) -> None:
        """See `Probe.close`."""
