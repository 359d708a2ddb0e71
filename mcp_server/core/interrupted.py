"""What becomes of an epic when the engine that ran its wave is gone: everything is put back, or the wave goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcp_server.core.change import put
from mcp_server.core.events import WaveInterrupted
from mcp_server.core.limits import Policy
from mcp_server.core.model import LIVE, Epic, Failure, Story, StoryState, WaveState, is_alive
from mcp_server.core.outcomes import fail_fast, kept, stopped_state
from mcp_server.core.policy import backoff_s, jitter

ENDED = "the engine that ran it ended"


def interrupted(epic: Epic, event: WaveInterrupted) -> Epic:
    """The epic as it is without that engine. What waits in the merge queue stays there in any case."""
    before, saved = epic, dict(event.saved)
    for story in list(epic.stories.values()):
        ref = saved.get(story.spec.id)
        if story.state is StoryState.STOPPING:  # it has stopped, as if its own job had told so
            stopped = {"state": stopped_state(story), "process": None, "head": None, "proven": None}
            epic = put(epic, story, failure=kept(story, ref), **stopped)
        elif story.state is StoryState.RUNNING and story.spec.id in event.adopted:
            epic = put(epic, story, adopted=True)
        elif story.state in LIVE or story.state is StoryState.QUEUED:
            epic = put(epic, story, **_put_back(epic, story, ref, event))
    if not is_alive(epic.wave):
        return epic
    return _all_fail_fast(before, epic) if event.goes_on else _end_wave(epic)


def _end_wave(epic: Epic) -> Epic:
    assert epic.wave is not None, "only a wave can end"  # noqa: S101 - its caller looked
    return epic._replace(wave=replace(epic.wave, state=WaveState.FINISHED, ended_because=ENDED))


def _all_fail_fast(before: Epic, after: Epic) -> Epic:
    """The epic after all of it, with the siblings stopped of those that have failed for good by it."""
    for was, story in after.stories.since(before.stories):
        if was is not None and was.state is not story.state and story.state is StoryState.FAILED:
            after = fail_fast(after, story)
    return after


def _put_back(epic: Epic, story: Story, ref: str | None, event: WaveInterrupted) -> dict[str, Any]:
    """The changes of a story that is in flight no more: it is pending, or queued in a wave that goes on."""
    wave = epic.wave
    if event.goes_on and wave is not None and wave.state is WaveState.RUNNING:
        return _queued(wave.policy, story, ref, event.at_s)
    return {**_PENDING, "failure": kept(story, ref)}


_PENDING: dict[str, Any] = {
    "state": StoryState.PENDING,
    "stop_reason": ENDED,
    "process": None,
    "head": None,
    "proven": None,
}


def _queued(policy: Policy, story: Story, ref: str | None, at_s: float) -> dict[str, Any]:
    """It starts again by itself, after `backoff_s`; what waits in the queue waits as long.

    The wait leaves the start to the next engine: where one closes, there is none in that moment. An end of an engine
    costs no attempt, `fault_tries` times; then one each, and without one left a lead has to say that it may go on.
    """
    gone = story.state in LIVE
    wait_s = backoff_s(story.faults + gone, share=jitter(policy.seed, story.spec.id, story.attempt))
    not_before_s = max(story.not_before_s, at_s + wait_s)
    if not gone:
        return {"not_before_s": not_before_s}
    is_free = story.faults < policy.fault_tries
    worked = story.state is StoryState.RUNNING
    failure = Failure(story.stop_cause, ENDED, story.attempt, saved_ref=ref) if worked else kept(story, ref)
    if story.attempt >= story.budget + is_free:
        return {**_PENDING, "failure": failure}
    return {
        "state": StoryState.QUEUED,
        "process": None,
        "failure": failure,
        "budget": story.budget + is_free,
        "faults": story.faults + is_free,
        "not_before_s": not_before_s,
    }
