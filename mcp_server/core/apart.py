"""Who may not be at work beside whom: footprints, and what the policy `overlap` makes of what two of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mcp_server.core.footprint import covers, overlap
from mcp_server.core.likely import LIKELY, likely
from mcp_server.core.limits import Policy, Terms
from mcp_server.core.model import Cause, Epic, Ledger, Story, Wave
from mcp_server.core.spec import Sharing

_STRICT = tuple(Sharing)
"""From the strictest on."""


class Clash(NamedTuple):
    """A story that keeps another one from starting."""

    epic: Epic
    story: Story
    shared: tuple[str, ...]
    chance: float | None = None
    """That they would conflict, where that decided."""


def footprint_of(story: Story) -> tuple[str, ...]:
    """What a story that is at work keeps others away from, undeclared files too: the one place that says so."""
    return story.spec.footprint + story.touched


def _wanted(story: Story) -> tuple[str, ...]:
    """What a story that is to start wants for itself: its footprint, and where its last attempt conflicted."""
    failure = story.failure
    return story.spec.footprint + (failure.paths if failure is not None and failure.cause is Cause.CONFLICT else ())


def terms_of(policy: Policy, story: Story) -> Terms:
    """What a story is admitted under: its own word, else its wave's; by itself when its repairs are nearly used up."""
    if 0 < policy.repairs <= story.conflicts:  # one more, and a human is asked
        return Terms(Sharing.EXCLUSIVE, policy.exempt)
    return Terms(story.spec.overlap or policy.overlap, policy.exempt)


def stricter(one: Sharing, other: Sharing) -> Sharing:
    """Of the policies of two stories the one that counts for them both."""
    return min(one, other, key=_STRICT.index)


def not_exempt(shared: tuple[str, ...], exempt: Sequence[str]) -> tuple[str, ...]:
    """What is left of shared entries without those that keep nobody apart."""
    return tuple(entry for entry in shared if not any(covers(wide, entry) for wide in exempt)) if exempt else shared


def contested(mine: tuple[str, ...], terms: Terms, theirs: tuple[str, ...], their_terms: Terms) -> tuple[str, ...]:
    """What two footprints share, without what the terms of both exempt."""
    shared = overlap(mine, theirs)
    if not (shared and terms.exempt and their_terms.exempt):
        return shared
    left = {*not_exempt(shared, terms.exempt), *not_exempt(shared, their_terms.exempt)}
    return tuple(entry for entry in shared if entry in left)


def clash(ledger: Ledger, begun: Sequence[tuple[Epic, Story]], wave: Wave, story: Story) -> Clash | None:
    """The one of the stories that have begun which keeps this one from starting, and why; None when nothing does."""
    mine = _wanted(story)
    if not mine:
        return None
    terms = terms_of(wave.policy, story)
    for epic, other in begun:
        rule = stricter(terms.overlap, other.terms.overlap)
        if rule is Sharing.OPTIMISTIC:
            continue
        shared = contested(mine, terms, footprint_of(other), other.terms)
        if not shared:
            continue
        if rule is Sharing.EXCLUSIVE:
            return Clash(epic, other, shared)
        if (odds := likely(shared, ledger.learned)) >= LIKELY:
            return Clash(epic, other, shared, odds)
    return None


def shares(begun: Sequence[tuple[Epic, Story]], wave: Wave, story: Story) -> bool:
    """True when one of the stories that have begun has files of this one, although that keeps neither from running."""
    terms = terms_of(wave.policy, story)
    if terms.overlap is Sharing.EXCLUSIVE:
        return False  # whoever had some of them would be a clash
    mine = _wanted(story)
    return any(contested(mine, terms, footprint_of(other), other.terms) for _, other in begun)
