"""The labels people put before a story's fields, in all their spellings."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from mcp_server.adapters.formats.values import dependencies


class Field(Enum):
    """A field of a story, as a label announces it."""

    ID = auto()
    ALIAS = auto()  # another id it goes by
    DESCRIPTION = auto()
    ACCEPTANCE = auto()
    DEPENDS = auto()
    DEPENDENTS = auto()  # stories that wait for this one: not where dependencies are read
    FILES = auto()
    POINTS = auto()
    EFFORT = auto()
    PRIORITY = auto()
    CRITICAL = auto()
    STATUS = auto()
    CHECKS = auto()
    GUARDS = auto()  # checks that later stories must keep green, too
    AGENT = auto()
    OVERLAP = auto()  # what it does about files that others need too
    OTHER = auto()  # a label we know to be none of ours


VALUES = frozenset(
    {
        Field.ID,
        Field.ALIAS,
        Field.POINTS,
        Field.EFFORT,
        Field.PRIORITY,
        Field.CRITICAL,
        Field.STATUS,
        Field.AGENT,
        Field.OVERLAP,
    }
)
"""Fields of one value, on the label's line or the next one."""

_NAMES = {
    Field.ID: "story id|id",
    Field.ALIAS: "ref id|ref|reference id",
    Field.DESCRIPTION: "description|user story|story|goal",
    Field.ACCEPTANCE: "acceptance criteria|acceptance criterion|acceptance|ac|critères d'acceptation",
    Field.DEPENDS: "depends on|dependencies|dependency|depends|prerequisites|prerequisite|blocked by|requires|upstream|"
    "depends on stories|story dependencies|prérequis|dépend de|dépendances|dependências|依赖",
    Field.DEPENDENTS: "blocks|enables|downstream|required by|dependents",
    Field.POINTS: "points|story points|story point|sp",
    Field.EFFORT: "effort|estimate|estimated effort|estimated time|estimation|size|duration|minutes|hours",
    Field.PRIORITY: "priority",
    Field.CRITICAL: "critical",
    Field.STATUS: "status|execution status|story status|state|implementation status",
    Field.CHECKS: "checks|check",
    Field.GUARDS: "guards|guard|guard checks|guard check",
    Field.AGENT: "agent",
    Field.OVERLAP: "overlap",
    Field.OTHER: "tests required|tests|github issue|technical notes|technical details|tasks|tasks / subtasks|notes|"
    "dev notes|scope|risk|risks|testing|implementation notes|artifacts|track",
}
_BY_NAME = {name: field for field, names in _NAMES.items() for name in names.split("|")}
_FILE_WORD = re.compile(
    r"files?|affected|touched|changed?|to|created?|modify|modified|updated?|edit|delete|add(?:ed)?|and|or|be|list|new"
    r"|paths?|involved|test|source|key|main|expected|likely"
)
_BOLD = re.compile(r"(?:\*\*|__)([^*_:\uff1a]{1,60}?)\s*(?:[:\uff1a]\s*(?:\*\*|__)|(?:\*\*|__)\s*[:\uff1a])\s*(.*)$")
_BOLD_ALONE = re.compile(r"(?:\*\*|__)([^*_:\uff1a]{1,60})(?:\*\*|__)\s*$")
_PLAIN = re.compile(r"[*_]?([^\W\d_][^:\uff1a*`]{0,40}?)\s*[:\uff1a]\s*[*_]?\s*(.*)$")
_DEPENDS_ON = re.compile(r"(?:depends on|requires|blocked by)\s+(?=\S)", re.IGNORECASE)
_PICTURES = re.compile(r"^[^\w*`(\[]+")


class Label(NamedTuple):
    """A label at the beginning of a line, and what stands behind it."""

    field: Field | None
    """None for a bold label that is nobody's."""
    value: str
    bold: bool


def label_of(text: str) -> Label | None:
    """The label a line begins with, None when it begins with none."""
    text = _PICTURES.sub("", text)
    if (found := _BOLD.match(text) or _BOLD_ALONE.match(text)) is not None:
        value = found[2] if found.re is _BOLD else ""
        return Label(field_named(found[1]), value.strip(), bold=True)
    if (found := _PLAIN.match(text)) is not None and (field := field_named(found[1])) is not None:
        return Label(field, found[2].strip(), bold=False)
    if (said := _DEPENDS_ON.match(text)) is not None and _is_strict(text[said.end() :]):
        return Label(Field.DEPENDS, text[said.end() :].strip(), bold=False)
    return None


def heading_label(text: str) -> Label:
    """What a heading inside a story announces."""
    name, _, value = _PICTURES.sub("", text).replace("**", "").partition(":")
    return Label(field_named(name), value.strip(), bold=True)


def field_named(name: str) -> Field | None:
    """The field that a label means."""
    plain = " ".join(re.sub(r"\([^()]*\)", " ", name).replace("*", " ").strip(" _:").lower().split())
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    words = re.findall(r"[a-z]+", plain)
    if {"file", "files"} & set(words) and all(map(_FILE_WORD.fullmatch, words)):
        return Field.FILES
    return None


def _is_strict(value: str) -> bool:
    """True when nothing but stories is named: without a colon, prose is never taken for a dependency."""
    found = dependencies(value)
    return bool(found.used) and found.whole and all(any(char.isdigit() for char in name) for name in found.used)
