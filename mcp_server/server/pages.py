"""What a person reads who mentions an epic, a story or a brief: a page of Markdown for each URI, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mcp_server.core.brief import brief
from mcp_server.core.checks import checks_of, fingerprints, guard_lines
from mcp_server.core.draft import is_id
from mcp_server.core.limits import Policy
from mcp_server.core.model import Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.spec import AttemptId, EpicId, Source, StoryId
from mcp_server.core.steer import epic_of, story_of
from mcp_server.core.views import counts, epic_state, question, shown_state
from mcp_server.core.why import alerts, ended, why
from mcp_server.server.wire import cut

ALL = "epics://all"
"""The page of all epics."""
EPIC, STORY, BRIEF = "epic://{epic}", "epic://{epic}/story/{story}", "brief://{epic}/{story}"

LINES_MAX = 30
"""Epics or stories on a page; the rest is counted."""
LINE_MAX = 240
"""Characters of such a line."""
TEXT_MAX = 2_000
"""Characters of a description, or of a log's last lines."""
BRIEF_MAX = 40_000
"""Characters of a brief: editors cut what is longer."""


class Place(NamedTuple):
    """What a URI names; no epic is all epics."""

    epic: EpicId | None = None
    story: StoryId | None = None
    brief: bool = False


def place_of(uri: str) -> Place | None:
    """What the URI names, whether it is planned or not; None for a URI that is none of ours."""
    scheme, _, path = uri.partition("://")
    match scheme, path.split("/"):
        case "epics", ["all"]:
            return Place()
        case "epic", [epic]:
            place = Place(epic)
        case "epic", [epic, "story", story]:
            place = Place(epic, story)
        case "brief", [epic, story]:
            place = Place(epic, story, brief=True)
        case _:
            return None
    return place if all(is_id(name) for name in (place.epic, place.story) if name is not None) else None


def page(ledger: Ledger, place: Place, now_s: float, configured: Callable[[], Policy]) -> str:
    """The page as it is now. `configured` answers the settings of the next wave, whose checks a brief names.

    Raises `Refused(unknown_epic, unknown_story)`.
    """
    if place.epic is None:
        return _all(ledger)
    epic = epic_of(ledger, place.epic)
    if place.story is None:
        return _epic(ledger, epic)
    story = story_of(epic, place.story)
    return _brief(epic, story, configured) if place.brief else _story(ledger, epic, story, now_s)


def newest_first(ledger: Ledger) -> list[Epic]:
    """The epics, the one that was planned last first."""
    return list(ledger.epics.values())[::-1]


def _all(ledger: Ledger) -> str:
    epics = newest_first(ledger)
    lines = [cut(f"- {_head(ledger, epic)}. {_progress(epic)}", LINE_MAX) for epic in epics[:LINES_MAX]]
    if len(epics) > LINES_MAX:
        lines.append(f"- and {len(epics) - LINES_MAX} more, planned earlier")
    return "\n".join(["# Epics", "", *(lines or ["None is planned: plan_epic reads one from a file."]), ""])


def _head(ledger: Ledger, epic: Epic) -> str:
    return f"{epic.spec.id}, {cut(epic.spec.title, 80)}: {epic_state(ledger, epic)}"


def _progress(epic: Epic) -> str:
    merged = sum(s.state is StoryState.MERGED for s in epic.stories.values())
    return f"{merged} of {len(epic.stories)} stories are merged"


_STATES = """
failed blocked cancelled running offered stopping merging ready queued pending skipped
"""
_PLACES = {state: place for place, state in enumerate(_STATES.split())}
"""A person looks for what asks or needs somebody, then for what moves; what is not named is over and comes last."""


def _epic(ledger: Ledger, epic: Epic) -> str:
    stories = sorted(epic.stories.values(), key=lambda s: _place(epic, s))
    lines = [f"# {_head(ledger, epic)}", "", f"{_progress(epic)}{_where(epic)}.{_wave(epic)}", ""]
    lines += [cut(f"**{alert}**", LINE_MAX) for alert in alerts(ledger, epic)]
    lines += [_line(ledger, epic, story) for story in stories[:LINES_MAX]]
    if len(stories) > LINES_MAX:
        lines.append(f"- and {len(stories) - LINES_MAX} more")
    lines += ["", f"In all: {', '.join(f'{n} {state}' for state, n in counts(epic).items())}.", ""]
    return "\n".join(lines)


def _place(epic: Epic, story: Story) -> int:
    return -1 if question(story) else _PLACES.get(shown_state(epic, story), len(_PLACES))


def _where(epic: Epic) -> str:
    return f", on the branch epicwave/{epic.spec.id}" if epic.base is not None else ""


def _wave(epic: Epic) -> str:
    wave = epic.wave
    if wave is None:
        return " No wave has been started."
    slots = f"{wave.policy.slots} slot{'s' * (wave.policy.slots != 1)}"
    because = f", {wave.ended_because}" if wave.ended_because else ""
    return f" Wave {wave.number} is {wave.state}{because} ({wave.policy.strategy}, {slots})."


def _line(ledger: Ledger, epic: Epic, story: Story) -> str:
    tries = f", attempt {story.attempt}" if story.attempt > 1 else ""
    text = f"- {story.spec.id} {cut(story.spec.title, 80)}: {shown_state(epic, story)}{tries}. "
    return cut(text + why(ledger, epic, story), LINE_MAX).rstrip()


def _story(ledger: Ledger, epic: Epic, story: Story, now_s: float) -> str:
    spec = story.spec
    tried = f"Attempt {story.attempt} of {max(story.budget, story.attempt)}" if story.attempt else "Not tried yet"
    since = f", {_for(now_s - story.since_s)} in this state" if now_s else ""
    needs = ", ".join(f"{d} ({shown_state(epic, epic.stories[d])})" for d in spec.depends_on)
    facts = [
        f"# {spec.id} {cut(spec.title, 120)}: {shown_state(epic, story)}",
        f"Epic {_head(ledger, epic)}. {tried}{since}.",
        why(ledger, epic, story),
        f"Needs: {cut(needs, TEXT_MAX)}" if needs else "",
        f"Files: {_some(spec.files)}" if spec.files else "",
        f"Files that its text names: {_some(spec.footprint)}" if spec.footprint and not spec.files else "",
        f"Usually change with them: {_some(more)}" if (more := spec.guessed(Source.HISTORY)) else "",
        f"Changed: {_some(story.files_changed)}" if story.files_changed else "",
        f"Merged as {story.merged_as[:12]}" if story.merged_as is not None else "",
        cut(spec.description, TEXT_MAX),
        "\n".join(f"- {cut(a, LINE_MAX)}" for a in spec.acceptance[:LINES_MAX]),
        _listed("Guards to keep green", guard_lines(epic, story)),
        _listed("Checks that ran last", fingerprints(story)),
        _failure(story),
        f"Its agent's brief: {BRIEF.format(epic=epic.spec.id, story=spec.id)}",
    ]
    return "\n\n".join(fact for fact in facts if fact) + "\n"


def _listed(head: str, lines: list[str]) -> str:
    shown = "\n".join(f"- {cut(line, LINE_MAX)}" for line in lines[:LINES_MAX])
    return f"{head}:\n\n{shown}" if lines else ""


def _for(seconds: float) -> str:
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _some(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - LINES_MAX} more" if len(paths) > LINES_MAX else ""
    return ", ".join(paths[:LINES_MAX]) + more


def _failure(story: Story) -> str:
    if story.failure is None or story.state is StoryState.MERGED:
        return ""
    tail = story.failure.tail[-TEXT_MAX:]
    fence = "```"
    while fence in tail:
        fence += "`"
    return f"## Last failure\n\n{ended(story.failure)}" + (f"\n\n{fence}text\n{tail}\n{fence}" if tail else "")


def _brief(epic: Epic, story: Story, configured: Callable[[], Policy]) -> str:
    """What the story's agent has, or what its next one will get."""
    begun = story.state in (StoryState.OFFERED, StoryState.RUNNING, StoryState.STOPPING, StoryState.MERGING)
    over = begun or story.state is StoryState.MERGED
    attempt = AttemptId(epic.spec.id, story.spec.id, max(1, story.attempt if over else story.attempt + 1))
    policy = epic.wave.policy if is_alive(epic.wave) and epic.wave is not None else configured()
    text = brief(epic, story, attempt, checks_of(epic, story, policy))
    if len(text) <= BRIEF_MAX:
        return text
    return f"{text[:BRIEF_MAX]}\n\n(cut here: the agent gets {len(text) - BRIEF_MAX} characters more)\n"
