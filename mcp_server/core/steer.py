"""What a lead says to an epic or to one story on the way, and the fact that it becomes, or its refusal."""

from __future__ import annotations

from mcp_server.core.breakers import held, holding_names
from mcp_server.core.commands import (
    CancelEpic,
    CancelStory,
    DrainWave,
    PauseEpic,
    ResumeEpic,
    RetryStory,
    SkipStory,
    SteerCommand,
)
from mcp_server.core.events import (
    EpicCancelled,
    EpicPaused,
    EpicResumed,
    StoryCancelled,
    StoryRetried,
    StorySkipped,
    WaveDrained,
)
from mcp_server.core.model import HOLDS_FILES, SETTLED, Epic, Ledger, Story, StoryState, WaveState, is_alive
from mcp_server.core.spec import EpicId, StoryId
from mcp_server.core.views import question
from mcp_server.errors import Code, Refused

Steered = EpicCancelled | StoryCancelled | EpicPaused | EpicResumed | WaveDrained | StoryRetried | StorySkipped


def epic_of(ledger: Ledger, epic_id: EpicId) -> Epic:
    """The epic. Raises `Refused(unknown_epic)` that names the known ones."""
    epic = ledger.epics.get(epic_id)
    if epic is None:
        known = ", ".join(repr(e) for e in sorted(ledger.epics)) or "none yet"
        raise Refused(
            Code.UNKNOWN_EPIC, f"No epic {epic_id!r} is planned here (known: {known}).", "Call plan_epic first."
        )
    return epic


def story_of(epic: Epic, story_id: StoryId) -> Story:
    """The story. Raises `Refused(unknown_story)` that names some that exist."""
    story = epic.stories.get(story_id)
    if story is None:
        some = ", ".join(list(epic.stories)[:20])
        raise Refused(
            Code.UNKNOWN_STORY,
            f"Epic {epic.spec.id!r} has no story {story_id!r}.",
            f"Use one of: {some}.",
        )
    return story


def decide_steer(ledger: Ledger, command: SteerCommand, now_s: float) -> Steered:
    """The fact that the command becomes. Raises `Refused`."""
    epic = epic_of(ledger, command.epic)
    match command:
        case CancelEpic():
            return _cancel_epic(epic, command, now_s)
        case CancelStory():
            return _cancel_story(epic, command, now_s)
        case PauseEpic():
            return _pause(epic, command, now_s)
        case ResumeEpic():
            return _resume(ledger, epic, now_s)
        case DrainWave():
            return _drain(epic, command, now_s)
        case RetryStory():
            return _retry(epic, command, now_s)
        case _:
            return _skip(epic, command, now_s)


def _cancel_epic(epic: Epic, command: CancelEpic, now_s: float) -> EpicCancelled:
    if all(s.state in SETTLED for s in epic.stories.values()) and not is_alive(epic.wave):
        counts = ", ".join(sorted({str(s.state) for s in epic.stories.values()}))
        raise Refused(
            Code.TOO_LATE,
            f"Nothing of epic {command.epic!r} is left to cancel (all its stories are {counts}).",
            "Ask story_status for what became of them.",
        )
    return EpicCancelled(command.epic, command.reason, now_s)


def _cancel_story(epic: Epic, command: CancelStory, now_s: float) -> StoryCancelled:
    story = story_of(epic, command.story)
    if story.state in SETTLED or story.state in (StoryState.MERGING, StoryState.STOPPING):
        raise Refused(
            Code.TOO_LATE,
            f"Story {command.story!r} is {story.state}.",
            "A merge comes to its end by itself; ask story_status for the outcome."
            if story.state is StoryState.MERGING
            else "Ask story_status for what became of it.",
        )
    return StoryCancelled(command.epic, command.story, command.reason, now_s)


def _pause(epic: Epic, command: PauseEpic, now_s: float) -> EpicPaused:
    _require_wave(epic, "paused")
    if epic.paused:
        why = f"Epic {command.epic!r} is paused already ({epic.paused})."
        raise Refused(Code.TOO_LATE, why, "Resume it to let stories start.")
    return EpicPaused(command.epic, command.reason or "the lead paused it", now_s)


def _resume(ledger: Ledger, epic: Epic, now_s: float) -> EpicResumed:
    if not epic.paused and not any(held(ledger, name) for name in holding_names(epic)):
        raise Refused(
            Code.TOO_LATE,
            f"Nothing holds epic {epic.spec.id!r} back: it is not paused, and neither is an agent of it.",
            "Ask story_status why a story is not running.",
        )
    return EpicResumed(epic.spec.id, now_s)


def _drain(epic: Epic, command: DrainWave, now_s: float) -> WaveDrained:
    _require_wave(epic, "drained")
    if epic.wave is not None and epic.wave.state is WaveState.DRAINING:
        why = f"Wave {epic.wave.number} comes to its end already ({epic.wave.ended_because})."
        raise Refused(Code.TOO_LATE, why, "Wait with story_status(wait_s=45) until it has finished.")
    return WaveDrained(command.epic, command.reason or "the lead drains it", now_s)


def _require_wave(epic: Epic, what: str) -> None:
    if not is_alive(epic.wave):
        raise Refused(
            Code.TOO_LATE,
            f"No wave of epic {epic.spec.id!r} is alive, so there is nothing to be {what}.",
            "Nothing starts before start_wave says so.",
        )


def _retry(epic: Epic, command: RetryStory, now_s: float) -> StoryRetried:
    story = story_of(epic, command.story)
    if not (story.state in (StoryState.FAILED, StoryState.CANCELLED, StoryState.SKIPPED) or question(story)):
        raise Refused(
            Code.TOO_LATE,
            f"Story {command.story!r} is {story.state}: it has not come to an end that could be tried again.",
            "Retry stories that failed, were cancelled or skipped, or that ask a question.",
        )
    built_on = [s.spec.id for s in epic.stories.dependents(story) if s.state in HOLDS_FILES]
    if built_on:
        raise Refused(
            Code.TOO_LATE,
            f"{', '.join(built_on)} went on without story {command.story!r}, which was {story.state}, and is at work.",
            f"Wait until that has come to its end, or cancel it; then retry {command.story!r}.",
        )
    return StoryRetried(command.epic, command.story, command.note, now_s)


def _skip(epic: Epic, command: SkipStory, now_s: float) -> StorySkipped:
    story = story_of(epic, command.story)
    idle = (StoryState.PENDING, StoryState.QUEUED, StoryState.FAILED, StoryState.CANCELLED)
    if story.state not in idle:
        alive = story.state not in SETTLED
        raise Refused(
            Code.TOO_LATE,
            f"Story {command.story!r} is {story.state}" + (": its attempt is alive." if alive else "."),
            "Cancel the story first, then skip it." if alive else "Ask story_status for what became of it.",
        )
    return StorySkipped(command.epic, command.story, command.reason or "the lead skipped it", now_s)
