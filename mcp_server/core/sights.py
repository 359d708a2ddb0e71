"""What a live probe saw of running stories: files outside a footprint, conflicts to come, and both in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from mcp_server.core.footprint import overlap
from mcp_server.core.model import HOLDS_FILES, Clash, Epic, Ledger, Story, StoryState
from mcp_server.core.spec import StoryId

TOUCHED_MAX = 100
"""Entries of `touched`; of more files than that their folders are named."""
CLASHES_MAX = 16
PATHS_MAX = 20
"""Files of one clash that are kept."""
SHOWN = 4
"""Files that one sentence names."""
WATCHED = frozenset({StoryState.RUNNING, StoryState.MERGING})
"""States in which a story's work is compared with that of others."""


def outside(files: Iterable[str], footprint: Sequence[str]) -> tuple[str, ...]:
    """Those of the files that no entry of the footprint covers, sorted; folders of them when they are too many."""
    return folded(file for file in files if not overlap((file,), footprint))


def folded(files: Iterable[str], most: int = TOUCHED_MAX) -> tuple[str, ...]:
    """The files, sorted; when they are more than `most`, the deepest folders above them that are not.

    So that no file is left out: what is named covers them all, and `**` everything.
    """
    found: Collection[str] = set(files)
    deepest = max((file.count("/") for file in found), default=0) if len(found) > most else 0
    for depth in range(deepest, 0, -1):
        found = {file if file.count("/") < depth else "/".join(file.split("/")[:depth]) + "/" for file in found}
        if len(found) <= most:
            break
    return tuple(sorted(found)) if len(found) <= most else ("**",)


def bounded(clashes: Iterable[Clash]) -> tuple[Clash, ...]:
    """As they are stored: in one order, and not more than a journal should have of them."""
    cut = (Clash(c.other, tuple(sorted(c.paths)[:PATHS_MAX]), c.certain) for c in clashes)
    return tuple(islice(sorted(cut, key=lambda c: (c.other is not None, c.other or (), c.paths)), CLASHES_MAX))


def clashes_now(ledger: Ledger, story: Story) -> Iterator[tuple[Clash, Epic | None, Story | None]]:
    """The story's conflicts to come that still are, with the other story; None when that is the integration branch.

    Whose other attempt has ended without being merged are none, although no look has been taken since.
    """
    if story.state not in WATCHED:
        return
    for clash in story.clashes:
        epic = ledger.epics.get(clash.other.epic) if clash.other is not None else None
        other = epic.stories.get(clash.other.story) if epic is not None and clash.other is not None else None
        if clash.other is None:
            yield clash, None, None
        elif other is not None and other.attempt == clash.other.number and other.state in _COUNTS:
            yield clash, epic, other


_COUNTS = HOLDS_FILES | {StoryState.MERGED}


def told(ledger: Ledger, epic: Epic, story: Story) -> list[str]:
    """A sentence for each conflict to come, for whoever looks at the story."""
    return [_told(ledger, epic, *found) for found in clashes_now(ledger, story)]


def _told(ledger: Ledger, epic: Epic, clash: Clash, its: Epic | None, other: Story | None) -> str:
    paths, does = _listed(clash.paths), "conflicts" if clash.certain else "may conflict"
    if other is None or its is None:
        by = _landed_by(ledger, epic, clash)
        return f"Its work {does} with what is merged{f' (by {by})' if by else ''} in {paths}."
    name = other.spec.id if its.spec.id == epic.spec.id else f"{its.spec.id}/{other.spec.id}"
    return f"Its work {does} with {name} ({other.state}) in {paths}."


def _landed_by(ledger: Ledger, epic: Epic, clash: Clash) -> StoryId:
    """The last story that was merged with one of these files; empty when none was, as far as is known."""
    now = ledger.epics[epic.spec.id].stories
    having = [s for s in now.in_state(StoryState.MERGED) if not set(clash.paths).isdisjoint(s.files_changed)]
    return max(having, key=lambda s: s.changed).spec.id if having else ""


def undeclared(story: Story) -> str:
    """That the story works outside its footprint, and where; empty when it does not, or has named no files at all."""
    if not story.spec.files or not story.touched or story.state not in WATCHED:
        return ""
    return f"It changes files outside its footprint: {_listed(story.touched)}."


def foreseen(ledger: Ledger, epic: Epic) -> list[str]:
    """The same of a whole epic, a pair of stories once, for the lead."""
    said: list[str] = []
    pairs: set[frozenset[tuple[str, str]]] = set()
    for story in epic.stories.in_state(*sorted(WATCHED)):
        name = story.spec.id
        for clash, its, other in clashes_now(ledger, story):
            if other is not None and its is not None:
                pair = frozenset({(epic.spec.id, name), (its.spec.id, other.spec.id)})
                if pair in pairs:
                    continue
                pairs.add(pair)
            said.append(f"{name}: {_told(ledger, epic, clash, its, other)}")
        if outside_words := undeclared(story):
            said.append(f"{name}: {outside_words}")
    return said


def warned(ledger: Ledger, epic: Epic, story: Story) -> str:
    """The same for the agent at work on the story, with what to do about it; empty when there is nothing to say."""
    said = [_warned(ledger, epic, *found) for found in islice(clashes_now(ledger, story), SHOWN)]
    if said:
        said.append(_ADVICE)
    if outside_words := undeclared(story):
        said.append(f"{outside_words} Leave them as they were unless the story needs them.")
    return " ".join(said)


_ADVICE = (
    "Keep your change small there and go on; talk to nobody: whoever is merged second gets the conflict to mend, with "
    "the commands."
)


def _warned(ledger: Ledger, epic: Epic, clash: Clash, its: Epic | None, other: Story | None) -> str:
    paths, does = _listed(clash.paths), "conflicts" if clash.certain else "may conflict"
    if other is None or its is None or other.state is StoryState.MERGED:
        by = other.spec.id if other is not None else _landed_by(ledger, epic, clash)
        return f"Your work {does} with what is merged already{f' by {by}' if by else ''} in {paths}."
    return f"Your work {does} with that of story {other.spec.id} ({other.spec.title}) in {paths}."


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")
