"""What a reader found in an epic file, before anybody has judged it, and everything that is wrong with it."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from mcp_server.core.footprint import normalise
from mcp_server.core.spec import Argv, EpicSpec, Limits, Sharing, StorySpec
from mcp_server.errors import Code, Refused

MAX_STORIES = 2_000
MAX_DEPENDENCIES = 100_000
MAX_NUMBER = 100_000.0
"""Largest number of minutes or points of one story."""
MAX_ID = 64
_MAX_SLUG = 40
_SHOWN_ERRORS = 20
_SUGGESTIONS = 50
"""Nearest ids are searched for so many unknown ones: the search is slow, and nobody reads more."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ID_RULE = (
    f"letters, digits, `.`, `_` and `-`, at most {MAX_ID}, beginning with a letter or digit, without `..`, "
    "not ending in `.` or `.lock`"
)


class Mention(NamedTuple):
    """A name in the file, a dependency or a path, and the line it stands on."""

    text: str
    line: int | None = None


class PlanError(NamedTuple):
    """One thing that is wrong with an epic, with its line from 1 (None when it has none) and what to change."""

    line: int | None
    code: str
    message: str

    @property
    def bullet(self) -> str:
        """As one of a list."""
        return f"- line {self.line}: {self.message}" if self.line else f"- {self.message}"


@dataclass(frozen=True, slots=True)
class DraftStory:
    """A story as a reader found it: like `StorySpec`, with lines, and nothing checked."""

    id: str
    title: str
    line: int | None = None
    description: str = ""
    acceptance: tuple[str, ...] = ()
    depends_on: tuple[Mention, ...] = ()
    files: tuple[Mention, ...] = ()
    critical: bool = False
    minutes: float | None = None
    points: float | None = None
    checks: tuple[Argv, ...] = ()
    agent: str | None = None
    done: bool = False
    guards: tuple[Argv, ...] = ()
    check_limits: Limits = ()
    overlap: Sharing | None = None


@dataclass(frozen=True, slots=True)
class EpicDraft:
    """An epic as a reader found it, with the errors that only the reader could see."""

    stories: tuple[DraftStory, ...]
    id: str | None = None
    """As its author gave it; None when it has to be made from the title or the file's name."""
    title: str = ""
    goal: str = ""
    checks: tuple[Argv, ...] = ()
    agent: str | None = None
    fallback_agent: str | None = None
    source: str = "inline"
    line: int | None = None
    """Line of the id."""
    errors: tuple[PlanError, ...] = ()
    check_limits: Limits = ()
    overlap: Sharing | None = None


class BadEpic(Refused):
    """An epic that was read but cannot be planned. `errors` has all of it, in the order of the lines."""

    def __init__(self, errors: tuple[PlanError, ...], source: str = "inline") -> None:
        shown = [error.bullet for error in errors[:_SHOWN_ERRORS]]
        if len(errors) > _SHOWN_ERRORS:
            shown.append(f"- and {len(errors) - _SHOWN_ERRORS} more")
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        self.head = f"The epic ({source}) has {count}:"
        why = "\n".join([self.head, *shown])
        super().__init__(Code.BAD_EPIC, why + "\n", "Mend the epic and plan it again; nothing was changed.")
        self.errors = errors

    def in_full(self) -> Refused:
        """The same with every error in its words, for whoever has room for them."""
        why = "\n".join([self.head, *(error.bullet for error in self.errors)])
        return Refused(self.code, why + "\n", self.remedy)


def epic_id(draft: EpicDraft) -> str:
    """The given id, else a slug of the title, else of the file's name: `[a-z0-9-]`, 1 to 40 characters.

    A title without any Latin letter or digit gives `epic-` and a digest, so that two of them are not taken for one.
    """
    if draft.id is not None:
        return draft.id
    stem = re.split(r"[/\\]", draft.source)[-1].rpartition(".")[0] if draft.source != "inline" else ""
    spoken = draft.title or stem
    digest = hashlib.sha256(spoken.encode("utf-8", "replace")).hexdigest()[:8]
    return slug(draft.title) or slug(stem) or (f"epic-{digest}" if spoken else "epic")


def slug(text: str) -> str:
    """Lower case, `[a-z0-9-]`, at most 40 characters; empty when nothing of the text is left."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_MAX_SLUG].strip("-")


def find_errors(draft: EpicDraft) -> Iterator[PlanError]:
    """All that is wrong with an epic but its cycles."""
    yield from draft.errors
    if draft.id is not None and not is_id(draft.id):
        yield PlanError(draft.line, "bad_id", f"the epic's id {draft.id!r} cannot be used; allowed are {ID_RULE}.")
    if not draft.stories:
        yield PlanError(None, "no_stories", "the epic has no stories; write at least one.")
    if is_too_big(draft):
        yield PlanError(
            None,
            "too_big",
            f"{len(draft.stories)} stories with {_dependency_count(draft)} dependencies are too many; "
            f"at most {MAX_STORIES} with {MAX_DEPENDENCIES} can be planned as one epic. Split it.",
        )
        return
    yield from _id_errors(draft)
    yield from _dependency_errors(draft)
    for story in draft.stories:
        yield from _value_errors(story)


def is_id(text: str) -> bool:
    """True for what can be an id: it becomes a part of a git branch's name and of a folder's."""
    return (
        len(text) <= MAX_ID
        and _ID.fullmatch(text) is not None
        and ".." not in text
        and not text.lower().endswith((".", ".lock"))
    )


def is_too_big(draft: EpicDraft) -> bool:
    """True for an epic of more stories or dependencies than are planned at all."""
    return len(draft.stories) > MAX_STORIES or _dependency_count(draft) > MAX_DEPENDENCIES


def spec_of(draft: EpicDraft, *, redo: bool) -> EpicSpec:
    """The epic as the engine takes it; call it only when `find_errors` found none."""
    stories = tuple(
        StorySpec(
            id=story.id,
            title=story.title,
            description=story.description,
            acceptance=story.acceptance,
            depends_on=tuple(dict.fromkeys(mention.text for mention in story.depends_on)),
            files=tuple(dict.fromkeys(normalise(mention.text) for mention in story.files)),
            critical=story.critical,
            minutes=story.minutes,
            points=story.points,
            checks=story.checks,
            agent=story.agent,
            done=story.done and not redo,
            line=story.line,
            guards=story.guards,
            check_limits=story.check_limits,
            overlap=story.overlap,
        )
        for story in draft.stories
    )
    return EpicSpec(
        id=epic_id(draft),
        title=draft.title,
        goal=draft.goal,
        stories=stories,
        checks=draft.checks,
        agent=draft.agent,
        fallback_agent=draft.fallback_agent,
        source=draft.source,
        check_limits=draft.check_limits,
        overlap=draft.overlap,
    )


def _dependency_count(draft: EpicDraft) -> int:
    return sum(len(story.depends_on) for story in draft.stories)


def _id_errors(draft: EpicDraft) -> Iterator[PlanError]:
    seen: dict[str, DraftStory] = {}
    for story in draft.stories:
        if not is_id(story.id):
            yield PlanError(story.line, "bad_id", f"the story id {story.id!r} cannot be used; allowed are {ID_RULE}.")
            continue
        first = seen.setdefault(story.id.lower(), story)
        if first is story:
            continue
        where = f" (line {first.line})" if first.line else ""
        if first.id == story.id:
            said = f"story id {story.id!r} is used twice, first{where or ' before'}; give one of them another id."
        else:
            said = f"story ids {first.id!r}{where} and {story.id!r} differ only in case; rename one."
        yield PlanError(story.line, "duplicate_id", said)


def _dependency_errors(draft: EpicDraft) -> Iterator[PlanError]:
    known = {story.id: None for story in draft.stories}
    nearest: dict[str, str] = {}
    for story in draft.stories:
        for name, line in dict.fromkeys(story.depends_on):
            if name == story.id:
                said = f"story {story.id!r} depends on itself; remove that."
                yield PlanError(line or story.line, "self_dependency", said)
            elif name not in known:
                if name not in nearest and len(nearest) < _SUGGESTIONS:
                    nearest[name] = _nearest(name, list(known))
                said = f"story {story.id!r} depends on {name!r}, which is no story of this epic"
                hint = nearest.get(name, "") + ". Correct it, or remove it if it is another epic's."
                yield PlanError(line or story.line, "unknown_dependency", said + hint)


def _nearest(name: str, known: list[str]) -> str:
    same = [story for story in known if story.lower() == name.lower()]
    close = same or get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; the nearest is {close[0]!r}" if close else ""


def _value_errors(story: DraftStory) -> Iterator[PlanError]:
    for path, line in dict.fromkeys(story.files):
        try:
            normalise(path)
        except ValueError as error:
            yield PlanError(line or story.line, "bad_path", f"story {story.id!r}: {error}.")
    for name, value in (("minutes", story.minutes), ("points", story.points)):
        if value is not None and not (math.isfinite(value) and 0 <= value <= MAX_NUMBER):
            said = f"story {story.id!r}: {name} must be a number from 0 to {MAX_NUMBER:.0f}, not {value}."
            yield PlanError(story.line, "bad_number", said)
