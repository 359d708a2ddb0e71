"""What the tools answer: pydantic models, numbers with their unit in the name, small enough for a model to read."""

from __future__ import annotations

from pydantic import BaseModel, Field

from mcp_server.core.model import Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.planning import Plan
from mcp_server.core.views import counts, epic_state, shown_state
from mcp_server.core.why import ended, why

LIST_MAX = 50
"""Entries of a list that are sent before the rest is counted: 50 stories stay near 2,000 tokens."""
TEXT_MAX = 400
"""Characters of a reason in a list; the story's own status has all of it."""


def cut(text: str, limit: int = TEXT_MAX) -> str:
    """The text, shortened in the middle of nowhere only when it must be, and marked then."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Conflict(BaseModel):
    """Two stories that may touch the same files and are not ordered by a dependency."""

    stories: tuple[str, str]
    shared: list[str]


class UnusedText(BaseModel):
    """A line of the epic file that could not be used."""

    line: int
    text: str
    why: str


class PlanReply(BaseModel):
    """An epic, planned."""

    epic: str
    title: str
    stories: int
    done: int
    waves: list[list[str]]
    critical_path: list[str]
    critical_path_minutes: float
    work_minutes: float
    conflicts: list[Conflict]
    conflicts_total: int
    warnings: list[str]
    unused_lines: list[UnusedText]
    unused_lines_total: int
    notices: list[str]
    next: str

    @classmethod
    def of(cls, plan: Plan, unused: list[UnusedText], notices: list[str]) -> PlanReply:
        """The reply for a plan."""
        conflicts = [Conflict(stories=(o.a, o.b), shared=list(o.shared[:3])) for o in plan.overlaps if not o.ordered]
        return cls(
            epic=plan.spec.id,
            title=plan.spec.title,
            stories=len(plan.spec.stories),
            done=sum(s.done for s in plan.spec.stories),
            waves=[list(w) for w in plan.waves],
            critical_path=list(plan.critical_path),
            critical_path_minutes=round(plan.critical_minutes, 1),
            work_minutes=round(plan.work_minutes, 1),
            conflicts=conflicts[:LIST_MAX],
            conflicts_total=len(conflicts),
            warnings=list(plan.warnings)[:LIST_MAX],
            unused_lines=unused[:LIST_MAX],
            unused_lines_total=len(unused),
            notices=notices,
            next=f"start_wave(epic={plan.spec.id!r}) runs the ready stories; through='all' runs to the end.",
        )


class StoryLine(BaseModel):
    """One story in an epic's status."""

    story: str
    title: str
    state: str
    attempt: int
    in_state_s: float
    why: str = Field(description="Why it is not running; empty when it runs or is merged.")

    @classmethod
    def of(cls, ledger: Ledger, epic: Epic, story: Story, now_s: float) -> StoryLine:
        """The line of a story."""
        return cls(
            story=story.spec.id,
            title=cut(story.spec.title, 80),
            state=shown_state(epic, story),
            attempt=story.attempt,
            in_state_s=round(max(0.0, now_s - story.since_s), 1),
            why=cut(why(ledger, epic, story)),
        )


class EpicStatus(BaseModel):
    """How far an epic is."""

    epic: str
    title: str
    state: str
    counts: dict[str, int]
    wave: int
    slots: int
    strategy: str
    branch: str
    merged_percent: float

    @classmethod
    def of(cls, epic: Epic) -> EpicStatus:
        """The summary of an epic."""
        merged = sum(s.state is StoryState.MERGED for s in epic.stories.values())
        return cls(
            epic=epic.spec.id,
            title=epic.spec.title,
            state=str(epic_state(epic)),
            counts=counts(epic),
            wave=epic.wave.number if epic.wave is not None else 0,
            slots=epic.wave.policy.slots if epic.wave is not None and is_alive(epic.wave) else 0,
            strategy=str(epic.wave.policy.strategy) if epic.wave is not None else "",
            branch=f"epicwave/{epic.spec.id}",
            merged_percent=round(100.0 * merged / len(epic.stories), 1),
        )


class StoryDetail(BaseModel):
    """Everything about one story."""

    depends_on: list[str]
    files: list[str]
    files_changed: list[str]
    base: str
    merged_as: str
    last_failure: str
    last_failure_tail: str
    saved_ref: str
    log: str
    log_tail: str

    @classmethod
    def of(cls, story: Story, log: str, log_tail: str) -> StoryDetail:
        """The detail of a story; `log` is the path of its latest log, if there is one."""
        failure = story.failure
        return cls(
            depends_on=list(story.spec.depends_on),
            files=list(story.spec.files)[:LIST_MAX],
            files_changed=list(story.files_changed)[:LIST_MAX],
            base=story.base or "",
            merged_as=story.merged_as or "",
            last_failure=ended(failure),
            last_failure_tail=failure.tail if failure is not None else "",
            saved_ref=(failure.saved_ref or "") if failure is not None else "",
            log=log,
            log_tail=log_tail,
        )


class StatusReply(BaseModel):
    """The answer of story_status."""

    cursor: int = Field(description="Pass as `since` to be told only what changed after this.")
    changed: bool
    epics: list[EpicStatus]
    stories: list[StoryLine]
    stories_total: int
    detail: StoryDetail | None = None
    poll_after_s: float
    next: str


class WaveReply(BaseModel):
    """A wave was started, or more stories were added to it."""

    epic: str
    wave: int
    strategy: str
    slots: int
    agent: str
    started: list[str]
    waiting: list[str]
    retried: list[str]
    branch: str
    base: str
    notices: list[str]
    cursor: int
    next: str


class Stopped(BaseModel):
    """What became of a story that was cancelled."""

    story: str
    state: str
    processes_gone: bool
    saved_ref: str


class CancelReply(BaseModel):
    """The answer of cancel_epic."""

    epic: str
    state: str
    stopped: list[Stopped]
    never_started: list[str]
    still_stopping: list[str]
    merged: list[str]
    branch: str
    cursor: int
    next: str
