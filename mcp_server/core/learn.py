"""What a merge, or a conflict, teaches about files: a fold of the journal, bounded, so that replay knows it too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from mcp_server.core.apart import footprint_of
from mcp_server.core.events import BranchMerged, Event, MergeRefused
from mcp_server.core.footprint import meet, overlap
from mcp_server.core.likely import Hits, Learned, Meetings
from mcp_server.core.model import Cause, Epic, Ledger, Story, StoryState
from mcp_server.core.spec import Source

FILES_KEPT = 1_000
"""Entries that are kept of each table; the one that nothing was heard of for the longest goes first."""
FILES_JUDGED = 64
"""Files of one story that are looked at: a story that touches more, such as a mass rename, says little of each."""
RECENT = 64
"""Landings of an epic that are remembered: at most so many stories are at work at once."""
_V = TypeVar("_V")


def learned(ledger: Ledger, event: Event) -> Learned:
    """What is known after a fact about an attempt; `ledger` is as it was before it."""
    match event:
        case BranchMerged():
            epic = ledger.epics[event.attempt.epic]
            story = epic.stories[event.attempt.story]
            return _merged(ledger.learned, epic, story, event.files[:FILES_JUDGED])
        case MergeRefused(cause=Cause.CONFLICT):
            epic = ledger.epics[event.attempt.epic]
            return _conflicted(ledger.learned, epic, epic.stories[event.attempt.story], event.paths)
        case _:
            return ledger.learned


def remembered(epic: Epic, story: Story) -> Epic:
    """The epic with a story as the last one that has landed."""
    return epic._replace(recent=(*epic.recent[1 - RECENT :], story.spec.id))


def beside(epic: Epic, story: Story) -> Iterator[Story]:
    """Stories that have landed on the epic's branch while the story was at work on an older tip."""
    for name in reversed(epic.recent):
        other = epic.stories.get(name)
        if other is None or other.state is not StoryState.MERGED:
            continue  # planned away, or undone
        if other.changed <= story.beside_since:
            return
        yield other


def _merged(known: Learned, epic: Epic, story: Story, files: tuple[str, ...]) -> Learned:
    meetings = dict[str, Meetings]()
    for other in beside(epic, story):
        for entry in _met_at(story, files, other):
            meetings[entry] = _plus(meetings.get(entry), conflicted=False)
    sources = {source: _judged(known, source, entries, real) for source, entries, real in _predictions(story, files)}
    touched = {path: known.touched.get(path, 0) + 1 for path in files}
    return Learned(
        _newest(known.meetings, _summed(known, meetings)),
        {**known.sources, **sources},
        _newest(known.touched, touched),
        known.stories + 1,
    )


def _conflicted(known: Learned, epic: Epic, story: Story, paths: tuple[str, ...]) -> Learned:
    """Of what the story shares with each that landed beside it, the paths in conflict, else all of it."""
    files = story.files_changed[:FILES_JUDGED]
    meetings = dict[str, Meetings]()
    for other in beside(epic, story):
        both = set(files) & set(other.files_changed[:FILES_JUDGED])
        guilty = both & set(paths) if paths else both
        for entry in _met_at(story, files, other):
            meetings[entry] = _plus(meetings.get(entry), conflicted=any(meet(entry, path) for path in guilty))
    return replace(known, meetings=_newest(known.meetings, _summed(known, meetings))) if meetings else known


def _met_at(story: Story, files: tuple[str, ...], other: Story) -> set[str]:
    """What two stories share: by what they were expected to touch, and by what they really did."""
    expected = overlap(footprint_of(story), footprint_of(other))[:FILES_JUDGED]
    return {*expected, *(set(files) & set(other.files_changed[:FILES_JUDGED]))}


def _plus(before: Meetings | None, *, conflicted: bool) -> Meetings:
    met, conflicts = before or Meetings()
    return Meetings(met + 1, conflicts + conflicted)


def _summed(known: Learned, meetings: Mapping[str, Meetings]) -> dict[str, Meetings]:
    old = {entry: known.meetings.get(entry, Meetings()) for entry in meetings}
    return {
        entry: Meetings(old[entry].met + new.met, old[entry].conflicted + new.conflicted)
        for entry, new in meetings.items()
    }


def _predictions(story: Story, files: tuple[str, ...]) -> Iterator[tuple[Source, tuple[str, ...], tuple[str, ...]]]:
    """Each source that said something about the story, what it said, and the files that it is measured by.

    History adds to a footprint, so it answers for the files that the footprint does not have.
    """
    spec = story.spec
    by_source = {Source.DECLARED: spec.files, Source.TEXT: spec.guessed(Source.TEXT)}
    for source, entries in by_source.items():
        if entries:
            yield source, entries[:FILES_JUDGED], files
    if added := spec.guessed(Source.HISTORY):
        yield Source.HISTORY, added, tuple(path for path in files if not _is_in(path, spec.footprint))


def _judged(known: Learned, source: Source, entries: tuple[str, ...], files: tuple[str, ...]) -> Hits:
    before = known.sources.get(source, Hits())
    return Hits(
        before.stories + 1,
        before.named + len(entries),
        before.right + sum(_is_in(entry, files) for entry in entries),
        before.real + len(files),
        before.found + sum(_is_in(path, entries) for path in files),
    )


def _is_in(one: str, entries: Iterable[str]) -> bool:
    return any(meet(one, entry) for entry in entries)


def _newest(before: Mapping[str, _V], news: Mapping[str, _V]) -> Mapping[str, _V]:
    """Both, the news last, as far as there is room."""
    if not news:
        return before
    left = dict(before)
    for key, value in news.items():
        left.pop(key, None)  # it comes last again
        left[key] = value
    while len(left) > FILES_KEPT:
        del left[next(iter(left))]
    return left
