"""What a fact makes of the state. `evolve` never refuses, does no I/O, and ends by settling what follows."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, compress, repeat
from operator import is_not

from mcp_server.core.breakers import judged, resumed
from mcp_server.core.change import drain, having, put, stop
from mcp_server.core.events import (
    EpicCancelled,
    EpicLanded,
    EpicPaused,
    EpicPlanned,
    EpicResumed,
    Event,
    MergeFound,
    RollbackGivenUp,
    RollbackProven,
    StoriesRolledBack,
    StoryCancelled,
    StoryRetried,
    Ticked,
    WaveDrained,
    WaveInterrupted,
    WaveStarted,
    WaveWidened,
    Word,
    WorkSeen,
)
from mcp_server.core.interrupted import interrupted
from mcp_server.core.landing import landed
from mcp_server.core.learn import learned
from mcp_server.core.model import HOLDS_FILES, SETTLED, Cause, Epic, Ledger, Story, StoryState, Wave, WaveState
from mcp_server.core.outcomes import found, reported
from mcp_server.core.rollback import rolled
from mcp_server.core.settle import settle
from mcp_server.core.spec import EpicId, StoryId
from mcp_server.core.stories import Stories


def evolve(ledger: Ledger, event: Event) -> Ledger:
    """The ledger after a fact. Everything that follows from it at that moment (admission, ends of waves) is in it."""
    if event.at_s < ledger.as_of_s:  # a clock that was set back stands still
        event = replace(event, at_s=ledger.as_of_s)
    known = learned(ledger, event)
    after = Ledger(ledger.epics, ledger.breakers, event.at_s, ledger.seq + 1, ledger.quiet_until_s, known)
    match event:
        case EpicPlanned():
            epic = _planned(ledger.epics.get(event.spec.id), event)
        case MergeFound():
            epic = found(ledger.epics[event.attempt.epic], event)
        case Ticked():
            return _stamp(ledger, settle(after, ledger))
        case EpicLanded():
            epic = landed(ledger.epics[event.epic], event, after.seq)
        case RollbackProven() | StoriesRolledBack() | RollbackGivenUp():
            epic = rolled(ledger.epics[event.epic], event)
        case EpicResumed():
            epic = _told(ledger.epics[event.epic], event)
            after = having(after, breakers=resumed(after, epic))
        case _:
            if isinstance(event, Word):
                epic = _told(ledger.epics[event.epic], event)
            else:
                after = having(after, breakers=judged(ledger, event))
                epic = reported(after, ledger.epics[event.attempt.epic], event)
    after = having(after, {**ledger.epics, epic.spec.id: epic})
    if isinstance(event, WorkSeen):  # files that it has put back may be what another one waits for, in any epic
        return _stamp(ledger, settle(after))
    return _stamp(ledger, settle(after, ledger, epic.spec.id))


def _stamp(before: Ledger, after: Ledger) -> Ledger:
    """Date every change of state once, here: when, and by which fact. What a probe saw goes with the attempt."""
    known = before.epics
    dated: dict[EpicId, Epic] = {}
    others = map(is_not, after.epics.values(), chain(known.values(), repeat(None)))  # a new one is the last
    for name in compress(after.epics, others):
        epic, was = after.epics[name], known.get(name)
        if was is not None and epic.stories.stand_as(was.stories):
            continue
        stories = epic.stories
        for old, story in stories.since(was.stories if was is not None else None):
            if old is None or (old.state, old.attempt) != (story.state, story.attempt):
                if story.state not in HOLDS_FILES:
                    story = story._replace(touched=(), clashes=())  # noqa: PLW2901
                stories = stories.put(story._replace(since_s=after.as_of_s, changed=after.seq))
        dated[name] = epic._replace(stories=stories)
    return having(after, {**after.epics, **dated}) if dated else after


def _planned(before: Epic | None, event: EpicPlanned) -> Epic:
    stories: list[Story] = []
    for spec in event.spec.stories:
        known = before.stories.get(spec.id) if before is not None else None
        level, rank = event.levels[spec.id], event.ranks[spec.id]
        if known is not None:
            story = known._replace(spec=spec, level=level, rank=rank)
        else:
            story = Story(spec=spec, level=level, rank=rank)
        if spec.done and story.state is not StoryState.MERGED:
            story = story._replace(state=StoryState.MERGED)
        elif story.state is StoryState.MERGED and story.merged_as is None and not spec.done:
            story = story._replace(state=StoryState.PENDING)  # the author took the mark back
        stories.append(story)
    if before is None:
        return Epic(spec=event.spec, stories=Stories(stories))
    return before._replace(spec=event.spec, stories=Stories(stories))


def _told(epic: Epic, event: Word) -> Epic:
    """What the lead said, or that the engine which ran the wave is gone."""
    match event:
        case WaveStarted() | WaveWidened():
            return _released(epic, event)._replace(paused="")
        case WaveDrained():
            return drain(epic, event.reason)
        case WaveInterrupted():
            return interrupted(epic, event)
        case EpicPaused() | EpicResumed():
            return epic._replace(paused=event.reason if isinstance(event, EpicPaused) else "")
        case EpicCancelled():
            return _epic_cancelled(epic, event.reason)
        case StoryCancelled():
            return stop(epic, epic.stories[event.story], event.reason)
        case StoryRetried():
            return _retried(epic, event)
        case _:
            return put(epic, epic.stories[event.story], state=StoryState.SKIPPED, stop_reason=event.reason)


def _queue(epic: Epic, members: tuple[StoryId, ...], attempts: int, notes: tuple[tuple[StoryId, str], ...]) -> Epic:
    told = dict(notes)
    for story_id in members:
        story = epic.stories[story_id]
        over = story.state in SETTLED  # it had come to its end: what it cost until then is forgiven
        epic = put(
            epic,
            story,
            state=StoryState.QUEUED,
            budget=story.attempt + attempts,
            faults=0,
            conflicts=0,
            forgiven=story.used.plus(story.using) if over else story.forgiven,
            not_before_s=0.0,
            stop_reason="",
            stop_cause=Cause.STOPPED,
            rolled_back=False,
            advice=told.get(story_id, story.advice),
            failure=replace(story.failure, answered=True) if story.failure is not None else None,
        )
    return epic


def _released(epic: Epic, event: WaveStarted | WaveWidened) -> Epic:
    return _started(epic, event) if isinstance(event, WaveStarted) else _widened(epic, event)


def _started(epic: Epic, event: WaveStarted) -> Epic:
    number = epic.wave.number + 1 if epic.wave is not None else 1
    left_over = (s.spec.id for s in epic.stories.values() if s.state is StoryState.MERGING)  # of an interrupted wave
    wave = Wave(number, WaveState.RUNNING, frozenset((*event.members, *left_over)), event.policy, event.at_s)
    epic = _queue(epic, event.members, event.policy.attempts, event.notes)
    return epic._replace(wave=wave, cancelled=None, base=epic.base or event.base)


def _widened(epic: Epic, event: WaveWidened) -> Epic:
    wave = epic.wave
    assert wave is not None, "a wave is widened while it lives"  # noqa: S101 - decide saw to it
    epic = _queue(epic, event.members, wave.policy.attempts, event.notes)
    return epic._replace(wave=replace(wave, members=wave.members | frozenset(event.members)))


def _epic_cancelled(epic: Epic, reason: str) -> Epic:
    for story in list(epic.stories.values()):
        epic = stop(epic, story, reason)
    return drain(epic, "cancelled")._replace(cancelled=reason)


def _retried(epic: Epic, event: StoryRetried) -> Epic:
    """Into the living wave, or among those that the next one starts."""
    wave, story = epic.wave, epic.stories[event.story]
    notes = ((event.story, event.note),) if event.note else ()
    if wave is not None and wave.state is WaveState.RUNNING:
        epic = epic._replace(wave=replace(wave, members=wave.members | {event.story}))
        return _queue(epic, (event.story,), wave.policy.attempts, notes)
    epic = _queue(epic, (event.story,), 0, notes)
    return put(epic, epic.stories[story.spec.id], state=StoryState.PENDING)
