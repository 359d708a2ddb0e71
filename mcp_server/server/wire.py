"""What the tools answer: pydantic models, numbers with their unit in the name, cut to what one reply may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import Field

from mcp_server.core.checks import fingerprints, guard_lines
from mcp_server.core.model import LIVE, Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.settle import slots_of
from mcp_server.core.views import counts, epic_state, shown_state
from mcp_server.core.why import alerts, ended, why
from mcp_server.server.paging import Entry, Reply, clip, cost, cut_totals, lists, named, page, totals

TITLE_TOKENS = 24
TEXT_TOKENS = 60
"""Of a text that is one of many."""
PATH_TOKENS = 120
FIRST = 6
"""Entries of a long list that come before those of the next list."""
SHA_SHOWN = 12


def cut(text: str, limit: int = 400) -> str:
    """The text, shortened in the middle of nowhere only when it must be, and marked then."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


class StoryLine(Reply):
    """One story in an epic's status."""

    story: str
    epic: str = Field(default="", description="Where several epics are listed.")
    title: str = ""
    state: str
    attempt: int = 0
    in_state_s: int = Field(default=0, description="Of a story that moves.")
    why: str = Field(default="", description="Why it is not running; empty when it runs or is merged.")

    @classmethod
    def of(
        cls, ledger: Ledger, epic: Epic, story: Story, now_s: float, *, title: int, text: int, named: bool = False
    ) -> StoryLine:
        """The line of a story; `title` and `text` are the tokens that its title and its reason may cost."""
        moves = story.state in LIVE or story.state is StoryState.MERGING
        return cls(
            story=story.spec.id,
            epic=epic.spec.id if named else "",
            title=clip(story.spec.title, title),
            state=shown_state(epic, story),
            attempt=story.attempt,
            in_state_s=round(max(0.0, now_s - story.since_s)) if moves else 0,
            why=clip(why(ledger, epic, story), text),
        )


ALERTS_MAX = 4
"""Alerts that one summary has."""


class EpicStatus(Reply):
    """How far an epic is."""

    epic: str
    title: str = ""
    state: str
    counts: dict[str, int]
    wave: int = 0
    slots: int = 0
    strategy: str = ""
    alerts: list[str] = Field(default_factory=list[str])

    @classmethod
    def of(cls, ledger: Ledger, epic: Epic, *, title: bool) -> EpicStatus:
        """The summary of an epic, for who has not been told its title yet with it."""
        wave = epic.wave if is_alive(epic.wave) else None
        return cls(
            epic=epic.spec.id,
            title=clip(epic.spec.title, TITLE_TOKENS) if title else "",
            state=str(epic_state(ledger, epic)),
            counts=counts(epic),
            wave=wave.number if wave is not None else 0,
            slots=slots_of(wave) if wave is not None else 0,
            strategy=str(wave.policy.strategy) if wave is not None else "",
            alerts=[clip(alert, TEXT_TOKENS) for alert in alerts(ledger, epic)[:ALERTS_MAX]],
        )


class StoryDetail(Reply):
    """Everything about one story; the lists one line an entry."""

    depends_on: list[str] = Field(default_factory=list[str])
    files: list[str] = Field(default_factory=list[str])
    files_changed: list[str] = Field(default_factory=list[str])
    base: str = ""
    merged_as: str = ""
    last_failure: str = Field(default="", description="When `why` does not say it.")
    last_failure_tail: list[str] = Field(default_factory=list[str])
    saved_ref: str = ""
    checks: list[str] = Field(default_factory=list[str])
    guards: list[str] = Field(default_factory=list[str])
    log: str = ""
    log_tail: list[str] = Field(default_factory=list[str])

    @classmethod
    def of(cls, found: Mapping[str, list[Any]]) -> StoryDetail:
        """The detail with just these entries; the lines of a tail come last first and are put in order."""
        single = ("base", "merged_as", "last_failure", "saved_ref", "log")
        reply = cls.model_validate({name: each[0] if name in single else each for name, each in found.items()})
        reply.last_failure_tail.reverse()
        reply.log_tail.reverse()
        return reply


def detail_entries(epic: Epic, story: Story, said: str, log: str, log_tail: str) -> list[Entry]:
    """Everything about a story, what explains its state first; `said` is the reason that its line gives already."""
    failure, spec = story.failure, story.spec
    failed = _last_first(failure.tail) if failure is not None else []
    logged = _last_first(log_tail)
    if set(failed[:3]) <= set(logged):
        failed = []  # the agent's own last words, and its log has more of them
    last = ended(failure)
    saved = failure.saved_ref if failure is not None else ""
    single = {
        "last_failure": "" if last in said else clip(last, TEXT_TOKENS),
        "merged_as": (story.merged_as or "")[:SHA_SHOWN],
        "base": (story.base or "")[:SHA_SHOWN],
        "log": clip(log, PATH_TOKENS),
    }
    tails = {"last_failure_tail": failed[FIRST:], "log_tail": logged}
    paths = {
        "depends_on": list(spec.depends_on),
        "files": [clip(path, PATH_TOKENS) for path in spec.files],
        "files_changed": [clip(path, PATH_TOKENS) for path in story.files_changed],
    }
    proof = {
        "checks": [clip(line, PATH_TOKENS) for line in fingerprints(story)],
        "guards": [clip(line, TEXT_TOKENS) for line in guard_lines(epic, story)],
    }
    many = {**proof, **tails, **paths}
    return [
        *([("saved_ref", saved)] if saved else []),
        *named("last_failure_tail", failed[:FIRST]),
        *((name, text) for name, text in single.items() if text),
        *(entry for name, listed in many.items() for entry in named(name, listed[:FIRST])),
        *(entry for name, listed in many.items() for entry in named(name, listed[FIRST:])),
    ]


def _last_first(text: str) -> list[str]:
    """The lines of a log from the last to the first; one too long to be sent at once is several."""
    return [piece for line in text.splitlines() if line.strip() for piece in _pieces(line)][::-1]


def _pieces(line: str) -> list[str]:
    if len(line) <= 1 or cost(line) <= TEXT_TOKENS:
        return [line]
    half = len(line) // 2
    return [*_pieces(line[:half]), *_pieces(line[half:])]


class StatusReply(Reply):
    """The answer of story_status: all of it, or one page."""

    cursor: int = Field(description="Pass as `since` to be told only what changed after this.")
    changed: bool
    epics: list[EpicStatus] = Field(default_factory=list[EpicStatus])
    stories: list[StoryLine] = Field(default_factory=list[StoryLine])
    detail: StoryDetail | None = None
    totals: dict[str, int] = Field(default_factory=dict[str, int], description="How long a list is that was cut.")
    more_offset: int | None = None
    poll_after_s: float = Field(default=0, description="For who cannot wait with wait_s.")
    spawn: int = Field(default=0, description="Sub-agents to start now, under agent-teams.")
    instruction: str = ""
    next: str


class LandReply(Reply):
    """The epic has landed, or is being checked still."""

    epic: str
    landed: bool = False
    into: str = ""
    how: str = ""
    tip: str = ""
    saved_ref: str = ""
    url: str = ""
    checks: list[str] = Field(default_factory=list[str])
    next: str


class SteerReply(Reply):
    """The epic was steered."""

    epic: str
    state: str
    under_way: bool = False
    in_flight: list[str] = Field(default_factory=list[str])
    alerts: list[str] = Field(default_factory=list[str])
    totals: dict[str, int] = Field(default_factory=dict[str, int])
    cursor: int
    spawn: int = 0
    instruction: str = ""
    next: str


class WaveReply(Reply):
    """A wave was started, or more stories were added to it."""

    epic: str
    wave: int
    strategy: str
    slots: int
    agent: str
    started: list[str] = Field(default_factory=list[str])
    waiting: list[str] = Field(default_factory=list[str])
    retried: list[str] = Field(default_factory=list[str])
    branch: str
    base: str
    notices: list[str] = Field(default_factory=list[str])
    totals: dict[str, int] = Field(default_factory=dict[str, int], description="How long a list is that was cut.")
    cursor: int
    spawn: int = Field(default=0, description="Sub-agents to start now, under agent-teams.")
    instruction: str = ""
    next: str


class Stopped(Reply):
    """What became of a story that was cancelled."""

    story: str
    state: str
    processes_gone: bool
    saved_ref: str = ""


class CancelReply(Reply):
    """The answer of cancel_epic."""

    epic: str
    state: str
    still_stopping: list[str] = Field(default_factory=list[str])
    stopped: list[Stopped] = Field(default_factory=list[Stopped])
    stop_agents: list[str] = Field(default_factory=list[str], description="The host's ids of sub-agents to end.")
    never_started: list[str] = Field(default_factory=list[str])
    merged: list[str] = Field(default_factory=list[str])
    totals: dict[str, int] = Field(default_factory=dict[str, int], description="How long a list is that was cut.")
    cursor: int
    next: str


Listing = TypeVar("Listing", WaveReply, CancelReply, SteerReply)


def first_page(reply: Listing, entries: Sequence[Entry]) -> Listing:
    """The reply with as many of the entries as fit; story_status has the others, a page at a time."""
    whole = totals(entries)

    def build(shown: Sequence[Entry], more: int | None) -> Listing:
        rest = "" if more is None else f" story_status(epic={reply.epic!r}) lists all stories."
        here = {"totals": cut_totals(whole, shown), "next": reply.next + rest}
        return reply.model_copy(update={**lists(shown), **here})

    return page(entries, 0, build)
