"""What people write behind `Depends on:`, `Files:`, `Points:`, `Status:`: what can be used of it and what is left."""

from __future__ import annotations

import re
from typing import NamedTuple

_ID = r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*"
_ONE_ID = re.compile(_ID)
_RANGE = re.compile(rf"({_ID})\s*(?:\u2013|\u2014|\bto\b|\bthrough\b|\.\.\.?)\s*(?:story\s+)?({_ID})", re.IGNORECASE)
_SPACED_RANGE = re.compile(r"(\d)\s+[-\u2013\u2014]\s+(?=\d[\w.]*(?:\s*[,;.]|\s*$))")
_EPIC_PREFIX = re.compile(r"epics?\s+\S+\s+(?=stor(?:y|ies)\b)", re.IGNORECASE)
_PREFIX = re.compile(
    r"(?:(?:user\s+)?stor(?:y|ies)|tasks?|tickets?|on|the|after|both|depends\s+on|requires)\s+|#", re.IGNORECASE
)
_SUFFIX = re.compile(r"\s+(?:is\s+|being\s+)?(?:complete|completed|completion|done|merged|finished)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;]|\.(?=\s|$)|(?:\s|^)(?:&|\+|and|plus|as well as|depends on:?)(?=\s)", re.IGNORECASE)
_EXPLANATION = re.compile(r"\s[-\u2013\u2014]+\s")
_LINK = re.compile(r"\[([^\[\]]{0,200})\]\(([^()\s]{0,400})\)")
_NONE = {"none", "n/a", "na", "nothing", "no", "nil", "null", "independent", ""}
_TICKED = re.compile(r"`([^`]+)`")
_LINE_NUMBERS = re.compile(r"(?::\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*|#L\d+(?:-L?\d+)?)$")
_VERB = re.compile(
    r"(?:new|create[ds]?|modif(?:y|ied|ies)|update[ds]?|add(?:ed)?|edit(?:ed)?|delete[ds]?|remove[ds]?|extend|tests?|file)"
    r"\s*:?\s+",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\.[A-Za-z0-9_]{1,10}$")
_WELL_KNOWN = re.compile(r"[A-Z][a-z]+file|LICENSE|README|CHANGELOG|NOTICE|AUTHORS|CODEOWNERS|VERSION|\.[a-z][\w.-]*")
_FOLDER = re.compile(r"[a-z][a-z0-9_-]*")
_MINUTES = re.compile(
    r"(\d{1,5}(?:\.\d{1,3})?)(?: ?[-\u2013] ?(\d{1,5}(?:\.\d{1,3})?))? ?(min(?:ute)?s?|h(?:ou)?rs?|h)\b", re.IGNORECASE
)
_DONE = {"done", "complete", "completed", "closed", "merged", "finished", "shipped", "implemented", "delivered"}
_OPEN = re.compile(
    r"todo|to|ready(?:-for-dev)?|draft(?:ed)?|pending|in(?:[_-]?progress)?|wip|blocked|failed|planned|backlog|open|approved"
    r"|review|deferred|not|proposed|active|new|next|progress|doing|started|incomplete|partial(?:ly)?|on|contexted|queued"
)


class Found(NamedTuple):
    """The usable parts of a value, and the words that are none."""

    used: tuple[str, ...]
    left: tuple[str, ...]
    none: bool = False
    """The author says that there is nothing."""

    @property
    def whole(self) -> bool:
        """True when all of the value made sense."""
        return not self.left and (bool(self.used) or self.none)


def dependencies(text: str) -> Found:
    """Story ids and ranges out of a list of dependencies; prose is left over, words in parentheses are dropped."""
    plain = _LINK.sub(r"\1", without_parentheses(" ".join(text.split()))).replace("*", "").replace("`", "")
    plain = _SPACED_RANGE.sub("\\1\u2013", plain.strip(" \t.:[]-\u2013\u2014"))
    if re.split(r"[\s,.;:(]", plain, maxsplit=1)[0].lower() in _NONE:
        return Found((), (), none=True)
    plain = _EXPLANATION.split(plain, maxsplit=1)[0]
    used: list[str] = []
    left: list[str] = []
    for piece in _SEPARATOR.split(plain):
        name = _SUFFIX.sub("", _bare(_EPIC_PREFIX.sub("", piece.strip(" \t.:[]'\""))))
        if _ONE_ID.fullmatch(name) or _RANGE.fullmatch(name):
            used.append(name)
        elif name:
            left.append(piece.strip())
    return Found(tuple(used), tuple(left))


def span(name: str) -> list[tuple[str, str]]:
    """The ways to read a name as a range of ids, first and last: `7.2-7.6` has one, `a-1-a-3` three."""
    if (found := _RANGE.fullmatch(name)) is not None:
        return [(found[1], found[2])]
    return [(name[:at], name[at + 1 :]) for at, char in enumerate(name) if char == "-"]


def files(text: str) -> Found:
    """Paths, folders and globs out of a list of files; comments in parentheses and line numbers are dropped."""
    used: list[str] = []
    left: list[str] = []
    plain = _LINK.sub(_link_target, " ".join(text.split()))
    for piece in _TICKED.findall(plain):
        (used if _is_path(_stripped(piece), ticked=True) else left).append(_stripped(piece))
    rest = without_parentheses(_TICKED.sub("`", plain)).replace("**", "")
    if rest.strip(" \t.:-\u2013\u2014").lower() in _NONE:
        return Found(tuple(dict.fromkeys(used)), tuple(left), none=not used)
    for piece in _split(rest):
        if "`" in piece:
            continue  # the words around a path in backticks only explain it
        name = _stripped(_EXPLANATION.split(_VERB.sub("", piece.lstrip(" \t✅☑⏳⏸️❌🔄"), count=1), maxsplit=1)[0])
        if _is_path(name, ticked=False):
            used.append(name)
        elif name:
            left.append(name)
    return Found(tuple(dict.fromkeys(used)), tuple(left))


def number(text: str) -> float | None:
    """The points in `3`, `3 points`, `M (5 points)`; None when there is no number."""
    found = re.search(r"(\d{1,6}(?:\.\d{1,4})?)\s*(?:story\s+)?points?\b", text, re.IGNORECASE)
    found = found or re.match(r"[^\w]*(\d{1,6}(?:\.\d{1,4})?)\b(?!\s*[-\u2013]\s*\d)", text)
    return float(found[1]) if found else None


def minutes(text: str) -> float | None:
    """The minutes in `90 minutes`, `2 hours`, `1-2 hours` (the middle); None when neither unit is named."""
    unit = _MINUTES.search(" ".join(text.split()))
    if unit is None:
        return None
    middle = (float(unit[1]) + float(unit[2] or unit[1])) / 2
    return middle * (1 if unit[3].lower().startswith("m") else 60)


def is_done(text: str) -> bool | None:
    """True for a finished story, False for one that is not, None for words that say neither."""
    words = re.findall(r"[a-z_-]+", text.lower())
    if not words:
        return "✅" in text
    if words[0] in _DONE:
        return True
    return False if _OPEN.fullmatch(words[0]) else None


def without_parentheses(text: str) -> str:
    """The text without what stands in parentheses after a blank; those inside a word, as in `app/(auth)/x`, stay."""
    kept: list[str] = []
    depth = 0
    before = " "
    for char in text:
        if char == "(" and (depth or before.isspace()):
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(char)
        before = char
    return "".join(kept)


def _split(text: str) -> list[str]:
    """Cut at commas and semicolons, but not at those in braces, as in `src/{a,b}.py`."""
    pieces = [""]
    depth = 0
    for char in text:
        depth = max(0, depth + (char == "{") - (char == "}"))
        if char in ",;" and not depth:
            pieces.append("")
        else:
            pieces[-1] += char
    return pieces


def _bare(name: str) -> str:
    while (prefix := _PREFIX.match(name)) is not None:
        name = name[prefix.end() :].lstrip(" \t:")
    return name


def _link_target(found: re.Match[str]) -> str:
    return f"`{found[1].strip('`')}`" if "://" in found[2] or found[2].startswith("#") else f"`{found[2]}`"


def _stripped(piece: str) -> str:
    return _LINE_NUMBERS.sub("", piece.strip(" \t'\"").rstrip(".:"))


def _is_path(name: str, *, ticked: bool) -> bool:
    """True for what can only be meant as a path; in backticks a single small word is one too, a folder."""
    if not name or "://" in name or name.startswith("www.") or re.search(r"[\s(<>|\"]|::", name.replace("/(", "")):
        return False
    if "/" in name or "\\" in name:
        return True
    if _WELL_KNOWN.fullmatch(name) or (ticked and ("*" in name or _FOLDER.fullmatch(name))):
        return True
    return _EXTENSION.search(name) is not None and not re.fullmatch(r"[\d.]+", name)
