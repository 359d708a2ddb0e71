"""What claims and reports of sub-agents ask of git: a base and a worktree before, a verdict after."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_type

import anyio
import anyio.lowlevel

from mcp_server.core.commands import ClaimStory, HandIn, RenewLease
from mcp_server.core.leases import attempt_of, claimable, held, held_by, lease_name
from mcp_server.core.model import Epic, Ledger, Story
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.rooms import NotYet, Rooms
from mcp_server.errors import Code, Refused
from mcp_server.ports import Done, Lent, NoBranch, NoCommits, Uncommitted, WrongBase, WrongPlace

PATHS_SHOWN = 8
_FINISHES = {
    "(unfinished rebase)": "git -c core.editor=true rebase --continue",
    "(unfinished merge)": "git commit --no-edit",
    "(unfinished cherry-pick)": "git commit --no-edit",
    "(unfinished revert)": "git commit --no-edit",
}
"""What ends an operation of git's, by how `inspect_lent` names it, once its conflicts are settled."""


@dataclass(slots=True)
class Leasing:
    """Stores which offers are being made ready for somebody, so that no two claims get the same one."""

    new_token: Callable[[], str] = lambda: secrets.token_hex(3)
    """Names a lease; by chance, so that no report of another one is taken for it."""
    rooms: Rooms = field(default_factory=Rooms)
    _preparing: set[AttemptId] = field(default_factory=set[AttemptId])

    def open_offers(self, ledger: Ledger, epic: Epic) -> list[Story]:
        """Stories that may be claimed and nobody is claiming, most urgent first."""
        return [s for s in claimable(ledger, epic) if attempt_of(epic, s) not in self._preparing]

    async def claim(self, engine: Engine, epic_id: str, wanted: str | None, holder: str, place: Path | None) -> Story:
        """Lease the best offered story, or the wanted one. `place` is the holder's own worktree; None: we make one.

        Raises `Refused(story_not_offered)` when there is none, or its worktree is not set up yet, and `Fault`; the
        offer stands then, unless its set-up has failed.
        """
        while True:
            epic = engine.ledger.epics[epic_id]
            open_ = self.open_offers(engine.ledger, epic)
            chosen = next((s for s in open_ if wanted in (None, s.spec.id)), None)
            if chosen is None:
                raise _nothing_offered(epic, wanted, open_)
            attempt = attempt_of(epic, chosen)
            self._preparing.add(attempt)
            try:
                ready = None
                if place is None:
                    ready = await self.rooms.ready(engine, attempt)
                else:
                    await self.rooms.clear(attempt)
                return await _lend(engine, attempt, self.new_token(), holder, place, ready)
            except NotYet:
                raise
            except Refused as refused:
                if wanted is not None or refused.code is not Code.STORY_NOT_OFFERED:
                    raise  # cancelled while its worktree was made; another one may still be offered
            finally:
                self._preparing.discard(attempt)

    def lease_of_holder(self, epic: Epic, holder: str, place: Path | None) -> Story | None:
        """A story that this sub-agent, or whoever works in this place, holds already: a claim may come twice."""
        return next(held_by(epic, holder, str(place or "")), None)


async def _lend(
    engine: Engine, attempt: AttemptId, token: str, holder: str, place: Path | None, ready: tuple[Sha, Path] | None
) -> Story:
    ports = engine.ports
    if ready is not None:
        base, made = ready
    else:
        base = await ports.merge.tip(attempt.epic)
        made = await ports.worktrees.lend(attempt, base, ours=place is None)
    await anyio.lowlevel.checkpoint_if_cancelled()  # git comes to its end all the same: nobody waits for the answer
    try:
        engine.handle(ClaimStory(attempt, token, base, holder, str(made or place), ours=place is None))
    except Refused:
        with anyio.CancelScope(shield=True):
            await saved_work(ports, attempt)
        raise
    return engine.ledger.epics[attempt.epic].stories[attempt.story]


def _nothing_offered(epic: Epic, wanted: str | None, others: list[Story]) -> Refused:
    what = f"Story {wanted!r} is {epic.stories[wanted].state}" if wanted else f"No story of {epic.spec.id!r} is free"
    open_ = ", ".join(repr(s.spec.id) for s in others[:PATHS_SHOWN])
    remedy = f"Claim one of {open_}." if open_ else "There is nothing to do for you: end your turn now."
    return Refused(Code.STORY_NOT_OFFERED, f"{what} to be claimed now.", remedy)


async def hand_in(engine: Engine, attempt: AttemptId, token: str, place: Path | None, branch: str) -> None:
    """Take finished work into the merge queue. Raises `Refused(not_done)` with the commands that make it done.

    Nothing happens when it is the very work that was refused: its holder only asks what became of it. Raises
    `Refused(lease_lost)` when the lease is over, also when that happens while git is asked.
    """
    engine.handle(RenewLease(attempt, token, ""))
    _, story, lease = held(engine.ledger, attempt, token)
    base = story.base or ""
    at = Path(lease.place) if lease.ours else place or Path(lease.place)
    outcome = await engine.ports.worktrees.inspect_lent(attempt, base, at)
    await anyio.lowlevel.checkpoint_if_cancelled()
    held(engine.ledger, attempt, token)  # else git has found what saving the work left of it
    if not isinstance(outcome, Done):
        raise not_done(outcome, lease_name(attempt, token), branch, base)
    if outcome.head != lease.head:
        engine.handle(HandIn(attempt, token, outcome.head, outcome.files))


def not_done(outcome: Lent, lease: str, branch: str, base: Sha) -> Refused:
    """Why the work cannot be taken, and the commands to run, one at a time, in the story's worktree."""
    match outcome:
        case Uncommitted(paths):
            more = f" and {len(paths) - PATHS_SHOWN} more" if len(paths) > PATHS_SHOWN else ""
            why = f"There are changes that are not committed: {', '.join(paths[:PATHS_SHOWN])}{more}."
            commands = ["git add -A", _FINISHES.get(paths[0], 'git commit -m "WHAT AND WHY"')]
        case NoCommits() | Done():
            why, commands = "There is no commit on the branch, and no change.", []
        case WrongBase(head, fork):
            why = f"HEAD {head[:10]} does not descend from the base {base[:10]}."
            commands = [f"git rebase --onto {base} {fork or '--root'} {branch}"]
        case NoBranch(head, fork):
            why = f"The branch {branch} does not exist."
            commands = [f"git switch -c {branch} {base}"]
            if head is not None and fork == base:
                commands = [f"git switch -c {branch}"]
            elif head is not None and fork is not None and head != fork:
                commands.append(f"git cherry-pick {fork}..{head}")
        case _:
            assert_type(outcome, WrongPlace)
            why = f"The branch {branch} is checked out in the user's own checkout {outcome.path}, which is not yours."
            commands = [f"git -C {outcome.path} switch -"]
    steps = (
        f"Run {', then '.join(f'`{c}`' for c in commands)}; then " if commands else "Do the story and commit it; then "
    )
    return Refused(Code.NOT_DONE, why, f"{steps}call report_story({lease!r}, 'done') again.")
