"""Markdown epics: the shapes of BMAD and TappsCodingAgents, with stories as headings or as list items."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcp_server.adapters.formats.fields import NO_SHARING, Fields, read_fields
from mcp_server.adapters.formats.heads import Head, find_heads, is_rule, lacks_id
from mcp_server.adapters.formats.ids import Ids
from mcp_server.adapters.formats.labels import Field, label_of
from mcp_server.adapters.formats.lines import Kind, Line, cut
from mcp_server.adapters.formats.reading import SHAPES, Reading, UnusedLine, unreadable
from mcp_server.adapters.formats.values import is_done
from mcp_server.core.checks import commands, limits
from mcp_server.core.draft import DraftStory, EpicDraft, Mention, is_id

FORMAT = "markdown"
_SHOWN_HEADINGS = 5
_MAX_UNUSED = 200
_EPIC = re.compile(r"epics?\b(?:\s+[\w.-]*\d[\w.-]*)?\s*(?:[:\uff1a\u2013\u2014-]\s*|$)", re.IGNORECASE)
_NUMBERED_EPIC = re.compile(r"epic\s+\S*\d", re.IGNORECASE)
_EPIC_ID = re.compile(r"\s*\*{0,2}Epic ID\s*:?\s*\*{0,2}\s*:?\s*(\S.*)$", re.IGNORECASE)
_GOAL_HEADING = re.compile(r"(?:epic\s+)?(?:goal|summary|overview)s?", re.IGNORECASE)
_GOAL_LINE = re.compile(r"\s*\*\*(?:epic\s+)?goal\s*:?\s*\*\*\s*:?\s*(\S.*)$", re.IGNORECASE)
_SAYS_DEPENDS = re.compile(r"stor(?:y|ies)\b.{0,200}\bdepends\s+on\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Story:
    head: Head
    fields: Fields

    @property
    def id(self) -> str:
        return self.fields.id.text if self.fields.id else self.head.id


def read_markdown(text: str, source: str) -> Reading:
    """Read a Markdown epic. Raises `Refused` (unreadable_epic) when it has no stories."""
    lines, notes = cut(text)
    all_stories = [_Story(head, read_fields(head.body)) for head in find_heads(lines)]
    stories = _choose([story for story in all_stories if not story.head.struck])
    if not stories:
        raise _no_stories(lines, struck=len(all_stories))
    inside = {line.number for story in all_stories for line in (story.head.line, *story.head.body)}
    outside = [line for line in lines if line.number not in inside]
    about = read_fields(outside)
    unused = [*_unused_outside(lines, inside), *(line for story in stories for line in story.fields.unused)]
    unused += [line for line in about.unused if line.why == NO_SHARING]
    unused += [
        UnusedLine(story.head.line.number, story.head.line.text.strip(), "the story is crossed out")
        for story in all_stories
        if story.head.struck
    ]
    drafts = tuple(_drafts(stories, unused))
    given, given_line = _given_id(outside)
    headings = [line.body for line in lines if line.level == 1] + [line.body for line in outside if line.level]
    title = headings[0] if headings else ""
    draft = EpicDraft(
        stories=drafts,
        id=given,
        title=_EPIC.sub("", title.replace("**", "").strip(), count=1).strip() or title,
        goal=_goal(outside),
        checks=commands(about.checks),
        check_limits=limits(about.checks),
        agent=None,
        source=source,
        line=given_line,
        overlap=about.overlap,
        errors=(*about.errors, *(error for story in stories for error in story.fields.errors)),
    )
    cut_notes = [f"{len(unused) - _MAX_UNUSED} more lines could not be used."] if len(unused) > _MAX_UNUSED else []
    return Reading(
        draft,
        unused=tuple(sorted(set(unused))[:_MAX_UNUSED]),
        format=FORMAT,
        notes=(*notes, *_notes(lines, outside, all_stories, drafts), *cut_notes),
    )


def _choose(stories: Sequence[_Story]) -> list[_Story]:
    """Of several places that name one story, the one that tells of it; those that only list it again are no stories.

    Two that both tell of it are both kept, so that the plan names the duplicate.
    """
    told = {story.head.id.lower() for story in stories if story.fields.labelled}
    groups: dict[str, list[_Story]] = {}
    for story in stories:
        if story.fields.labelled or story.head.id.lower() not in told:
            groups.setdefault(story.id.lower(), []).append(story)
    chosen: list[_Story] = []
    for group in groups.values():
        candidates = [story for story in group if not story.head.in_summary] or group
        chosen += candidates if candidates[0].fields.labelled else candidates[:1]
    return sorted(chosen, key=lambda story: story.head.line.number)


def _drafts(stories: Sequence[_Story], unused: list[UnusedLine]) -> Iterator[DraftStory]:
    aliases = [(alias, story.id) for story in stories for alias in (story.head.id, *story.fields.aliases)]
    ids = Ids([story.id for story in stories], aliases)
    for story in stories:
        fields = story.fields
        needed: list[Mention] = []
        for name, line in fields.depends_on:
            found = ids.resolve(name)
            needed += [Mention(story_id, line) for story_id in found]
            if not found:
                unused.append(UnusedLine(line or 0, name, "it names no story"))
        yield DraftStory(
            id=story.id,
            title=story.head.title or story.id,
            line=story.head.line.number,
            description=_joined(fields.description),
            acceptance=tuple(item for item in fields.acceptance if item),
            depends_on=tuple({mention.text: mention for mention in reversed(needed)}.values())[::-1],
            files=tuple({mention.text: mention for mention in reversed(fields.files)}.values())[::-1],
            critical=fields.critical,
            minutes=fields.minutes,
            points=fields.points,
            checks=commands(fields.checks),
            guards=commands(fields.guards),
            check_limits=limits((*fields.checks, *fields.guards)),
            agent=fields.agent,
            done=story.head.finished if fields.done is None else fields.done,
            overlap=fields.overlap,
        )


def _joined(lines: Sequence[str]) -> str:
    return textwrap.dedent("\n".join(lines)).strip()


def _given_id(outside: Sequence[Line]) -> tuple[str | None, int | None]:
    """The id the author gave the epic, when it can be one."""
    for line in outside:
        if line.kind is Kind.TEXT and (found := _EPIC_ID.match(line.text)) is not None:
            given = found[1].strip(" `*")
            return (given, line.number) if is_id(given) else (None, None)
    return None, None


def _goal(outside: Sequence[Line]) -> str:
    """The text of `**Goal:**`, or below the first heading that promises one."""
    gathered: list[str] | None = None
    for line in outside:
        if line.kind is Kind.TEXT and (found := _GOAL_LINE.match(line.text)) is not None:
            return found[1].strip()
        if line.level:
            if gathered is not None and _joined(gathered):
                break
            gathered = [] if _GOAL_HEADING.fullmatch(line.body) else None
        elif gathered is not None and line.kind is Kind.TEXT and not is_rule(line):
            gathered.append(line.text)
    return _joined(gathered or [])


def _unused_outside(lines: Sequence[Line], inside: set[int]) -> Iterator[UnusedLine]:
    """Lines outside of every story that belong to one by what they say."""
    in_stories = after_rule = before = False
    for line in lines:
        if line.kind is not Kind.TEXT:
            continue
        text = line.text.strip()
        if line.number in inside:
            before, after_rule = True, False
            continue
        if line.level:
            in_stories, after_rule = "stories" in line.body.lower(), False
        elif is_rule(line):
            after_rule = before
        before = False
        label = label_of(line.body) if after_rule and text else None
        if lacks_id(line):
            yield UnusedLine(line.number, text, "it looks like a story without an id; write `Story 1.1: Title`")
        elif in_stories and line.bullet and not line.indent and line.body.startswith("**"):
            yield UnusedLine(line.number, text, "it stands where a story is expected; write `**Story 1.1: Title**`")
        elif _SAYS_DEPENDS.search(text):
            yield UnusedLine(line.number, text, "dependencies are read only inside their story")
        elif label is not None and label.field in {Field.ACCEPTANCE, Field.DEPENDS, Field.FILES}:
            yield UnusedLine(line.number, text, "a rule (`---`) has ended the story above")


def _notes(
    lines: Sequence[Line], outside: Sequence[Line], found: Sequence[_Story], drafts: Sequence[DraftStory]
) -> Iterator[str]:
    epics = [line for line in lines if 0 < line.level <= 2 and _NUMBERED_EPIC.match(line.body)]  # noqa: PLR2004 - h1, h2
    if len(epics) > 1:
        yield f"The file has {len(epics)} epics; all their stories are read as one."
    todo = {story.id: story for story in drafts if not story.done}
    ticked = {story.id for story in found if story.head.finished and story.id in todo}
    if ticked:
        yield (
            f"{len(ticked)} stories are ticked in another list but have no status of their own (the first is "
            f"{min(ticked)}): they are planned as not done. Write `**Status:** done` into a story to skip it."
        )
    for line in outside:
        label = label_of(line.body) if line.kind is Kind.TEXT and "status" in line.body.lower() else None
        if todo and label is not None and label.field is Field.STATUS and is_done(label.value):
            yield f"Line {line.number} says that all is done, but {len(todo)} stories do not say so; they are planned."
            return


def _no_stories(lines: Sequence[Line], *, struck: int) -> Exception:
    headings = [line.body[:60] for line in lines if line.level][:_SHOWN_HEADINGS]
    in_code = sum(1 for line in lines if line.kind is Kind.CODE and re.match(r"[\s#*\d.]*Story\s+\S*\d", line.text))
    seen = f" Its first headings: {'; '.join(headings)}." if headings else " It has no headings."
    if in_code:
        seen += f" {in_code} lines that look like stories stand in code blocks, which are not read."
    if struck:
        seen += " Stories that are crossed out are not read."
    return unreadable(f"No stories were found.{seen}", SHAPES)
