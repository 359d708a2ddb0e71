"""Bringing an epic to the user's branch: what must be at rest first, and what is told of it afterwards."""

from __future__ import annotations

from mcp_server.core.events import EpicLanded
from mcp_server.core.model import HOLDS_FILES, SATISFIES, Epic, LandedAs, Ledger, StoryState
from mcp_server.core.spec import EpicId, Sha, StoryId
from mcp_server.core.steer import epic_of
from mcp_server.core.views import is_at_rest, shown_state
from mcp_server.errors import Code, Refused

NAMES_SHOWN = 10
HOW = {
    "ff": "fast-forwarded",
    "merge": "merged",
    "squash": "squashed into one commit",
    "pr": "offered as a pull request",
    "found": "there already",
}
"""In words."""


def landable(ledger: Ledger, name: EpicId, *, partial: bool) -> Epic:
    """The epic, when its branch may be brought to the user's now. Raises `Refused` with what is missing."""
    epic = epic_of(ledger, name)
    moving = [s.spec.id for s in epic.stories.in_state(*HOLDS_FILES)]
    if moving or not is_at_rest(ledger, epic):
        waiting = [s.spec.id for s in epic.stories.in_state(StoryState.QUEUED)]
        raise Refused(
            Code.EPIC_BUSY,
            f"Epic {name!r} is not at rest: {_some(moving or waiting)} {'in flight' if moving else 'about to start'}.",
            "Wait with story_status(wait_s=45), or drain it with steer_epic, then land it.",
        )
    if epic.rolling is not None:
        why = f"Stories of {name!r} are being rolled back: {_some(list(epic.rolling.stories))}."
        raise Refused(Code.EPIC_BUSY, why, "Roll the same story back again: that brings it to its end.")
    missing = [s for s in epic.stories.values() if s.state not in SATISFIES]
    if missing and not partial:
        told = _some([f"{s.spec.id} ({shown_state(epic, s)})" for s in missing])
        raise Refused(
            Code.EPIC_BUSY,
            f"{len(missing)} of {len(epic.stories)} stories of {name!r} are not merged: {told}.",
            "Bring them to an end (start_wave with retry=true, or skip them), or land what is there: partial=true.",
        )
    if not any(s.merged_as is not None for s in epic.stories.values()):
        raise Refused(
            Code.NOTHING_TO_LAND, f"No story of {name!r} was merged here.", "Run it first: start_wave(through='all')."
        )
    return epic


def is_proven(epic: Epic, tip: Sha) -> bool:
    """True when the last checks ran, green, on this very commit: at the end of a batch, or after a rollback."""
    merged = epic.stories.in_state(StoryState.MERGED)
    return tip == epic.undone or any(s.proven is not None and (s.proven.at or s.proven.head) == tip for s in merged)


def landed(epic: Epic, event: EpicLanded, seq: int) -> Epic:
    """The epic as it is known to be on a branch."""
    return epic._replace(landed=LandedAs(event.into, event.how, event.tip, event.tree, event.at_s, event.url, seq))


def since_landing(epic: Epic) -> list[StoryId]:
    """Stories that came or went after the epic was last landed: the user's branch has them otherwise."""
    at = epic.landed
    if at is None:
        return []
    states = (StoryState.MERGED, StoryState.CANCELLED)
    return [
        s.spec.id
        for s in epic.stories.in_state(*states)
        if s.changed > at.seq and (s.merged_as is not None or s.rolled_back)
    ]


def landing_words(epic: Epic) -> str:
    """Where the epic is by now, in a sentence or two; empty when it was not landed."""
    at = epic.landed
    if at is None:
        return ""
    where = f"a pull request to {at.into} ({at.url})" if at.how == "pr" else f"{at.into} as {at.tip[:12]}"
    told = f"Landed on {where}, {HOW.get(at.how, at.how)}." if at.how != "pr" else f"Offered as {where}."
    later = since_landing(epic)
    return f"{told} Changed since: {_some(later)}; land it again to bring that." if later else told


def _some(names: list[StoryId]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
