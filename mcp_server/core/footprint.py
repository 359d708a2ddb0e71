"""Footprints: the paths a story says it touches, and what two of them share.

An entry is a path, a folder or a glob, relative to the repository, with `/` between its parts. An entry also covers all
that lies below it, so `src`, `src/` and `src/**` are one; only to a glob is `a.md` surely no folder. In a glob, `*` and
`?` stay inside one part, `**` spans parts, `[ab]` is one of these characters (and also the literal name, since
`app/[id]/page.tsx` is a real file), `{a,b}` is either, and a glob without any `/` (`*.yaml`) matches at any depth.

Where it cannot be sure it says "shared": a false answer costs some parallelism, a missed one costs a merge conflict.
For the same reason case and Unicode composition are ignored: `A.py` and `a.py` are one file on macOS and Windows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

MAX_PATH = 1024
"""Longest entry that is accepted, in characters."""
_MAX_BRACES = 64
_MAX_RANGE = 256
_ANY_DEPTH = "**"
_WILD = re.compile(r"[*?\[{]")
_T = TypeVar("_T")


def normalise(path: str) -> str:
    """The one spelling of a footprint entry: `/` between parts, no `.` and `..`, a folder's closing `/` kept.

    Raises ValueError, in words for the author, for what is not a path inside the repository.
    """
    text = path.strip().replace("\\", "/")
    if (fault := _fault(path, text)) is not None:
        raise ValueError(fault)
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                raise ValueError(f"{path!r} leads out of the repository")
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    if not parts:
        raise ValueError(f"{path!r} is the whole repository; write `**` if that is meant")
    return "/".join(parts) + ("/" if text.endswith("/") else "")


def _fault(path: str, text: str) -> str | None:
    if not text:
        return "the path is empty"
    if any(unicodedata.category(char) == "Cc" for char in text):
        return f"{path!r} contains a control character"
    if len(text) > MAX_PATH:
        return f"the path {path[:40]!r}... is longer than {MAX_PATH} characters"
    if "://" in text:
        return f"{path!r} is a URL, not a path"
    if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
        return f"{path!r} is absolute; write it relative to the repository"
    return None


def overlap(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """What two footprints of normalised entries share, sorted.

    The narrower of two entries stands for them, and two globs of which neither is narrower both, as `x & y`.
    """
    mine, theirs = _reach(tuple(a)), _reach(tuple(b))
    if mine and theirs and mine.named.isdisjoint(theirs.passed) and theirs.named.isdisjoint(mine.passed):
        return ()  # as nearly always, and found without comparing every entry with every other
    return tuple(sorted({narrower(one, other) for one in a for other in b if meet(one, other)}))


@lru_cache(maxsize=1 << 16)
def meet(one: str, other: str) -> bool:
    """True when some path could belong to both entries."""
    if not (is_glob(one) or is_glob(other)):
        return _below(one).startswith(_below(other)) or _below(other).startswith(_below(one))
    opens = (not _is_file(one), not _is_file(other))
    return any(
        _product(left, right, many=_spans_parts, alike=_parts_meet, opens=opens)
        for left in _alternatives(one)
        for right in _alternatives(other)
    )


class _Reach(NamedTuple):
    """Of a footprint without globs: what its entries name, and that together with all folders on the way there."""

    named: frozenset[str]
    passed: frozenset[str]


@lru_cache(maxsize=1 << 15)
def _reach(entries: tuple[str, ...]) -> _Reach | None:
    if any(map(is_glob, entries)):
        return None
    named = frozenset(map(_below, entries))
    return _Reach(named, frozenset(path[: end + 1] for path in named for end, char in enumerate(path) if char == "/"))


def narrower(one: str, other: str) -> str:
    """The entry that names what two overlapping entries share; both, as `x & y`, when neither does."""
    one_below, other_below = _below(one), _below(other)
    if one_below == other_below:
        return min(one, other)
    if one_below.startswith(other_below):
        return one
    if other_below.startswith(one_below):
        return other
    if is_glob(one) and is_glob(other):
        return " & ".join(sorted((one, other)))
    return other if is_glob(one) else one


def covers(wide: str, entry: str) -> bool:
    """True when surely all of an entry, as `overlap` gives it, belongs to `wide`."""
    halves = entry.split(" & ")
    if any(_below(half).startswith(_below(wide)) for half in halves):
        return True
    return len(halves) == 1 and not is_glob(entry) and _is_file(entry) and meet(wide, entry)


def is_glob(entry: str) -> bool:
    """True for an entry with a wildcard in it."""
    return _WILD.search(entry) is not None


def touching(entries: Iterable[str], *, budget: int) -> tuple[list[tuple[str, str]], bool]:
    """Every pair of different entries that overlap, found through their folders, and whether all were compared.

    `budget` is the number of comparisons after which it stops; an ordinary epic needs a few for each entry.
    """
    by_folder: dict[tuple[str, ...], list[str]] = {}
    known = sorted(set(entries))
    for entry in known:
        for folder in {_literal_part(parts) for parts in _alternatives(entry)}:
            by_folder.setdefault(folder, []).append(entry)
    pairs: dict[tuple[str, str], None] = {}
    for entry in known:
        folders = {_literal_part(parts) for parts in _alternatives(entry)}
        above = {folder[:depth] for folder in folders for depth in range(len(folder) + 1)}
        for folder in sorted(above):
            for other in by_folder.get(folder, ()):
                pair = (entry, other) if entry < other else (other, entry)
                if other == entry or pair in pairs:
                    continue
                budget -= 1
                if budget < 0:
                    return list(pairs), False
                if meet(*pair):
                    pairs[pair] = None
    return list(pairs), True


@lru_cache(maxsize=1 << 15)
def _below(entry: str) -> str:
    return _key(entry).strip("/") + "/"


def _is_file(entry: str) -> bool:
    """True when the last part has an extension and so can be taken for a file, not for a folder with files in it."""
    return "." in entry.rpartition("/")[2][1:]


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


@lru_cache(maxsize=1 << 14)
def _alternatives(entry: str) -> tuple[tuple[str, ...], ...]:
    """The entry's parts, once for each choice of its braces."""
    return tuple(dict.fromkeys(_parts(choice) for choice in _expand(_key(entry))))


def _expand(text: str) -> list[str]:
    """`a{b,c}` to `ab` and `ac`; past a bound of choices, to one glob that matches more."""
    open_, done = [text], list[str]()
    while open_:
        choice = open_.pop()
        found = re.search(r"\{([^{}]*,[^{}]*)\}", choice)
        if found is None:
            done.append(choice)
        else:
            open_ += [choice[: found.start()] + part + choice[found.end() :] for part in found[1].split(",")]
        if len(open_) + len(done) > _MAX_BRACES:
            return [text.partition("{")[0] + _ANY_DEPTH]
    return done


def _parts(text: str) -> tuple[str, ...]:
    found = [part for part in text.split("/") if part]
    if len(found) == 1 and is_glob(found[0]):
        found.insert(0, _ANY_DEPTH)
    parts: list[str] = []
    for part in found:
        if _ANY_DEPTH in part and part != _ANY_DEPTH:
            parts += [_ANY_DEPTH, "*" + part.replace(_ANY_DEPTH, "*")]  # `src/**.py`: some tools let it span folders
        else:
            parts.append(part)
    return tuple(parts)


def _literal_part(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts before the first wildcard: nothing outside of that folder can match."""
    for index, part in enumerate(parts):
        if is_glob(part):
            return parts[:index]
    return parts


def _spans_parts(part: str) -> bool:
    return part == _ANY_DEPTH


@lru_cache(maxsize=1 << 16)
def _parts_meet(one: str, other: str) -> bool:
    if one == other or _ANY_DEPTH in {one, other}:
        return True
    if not (is_glob(one) or is_glob(other)):
        return False
    return _product(_characters(one), _characters(other), many=_is_star, alike=_characters_meet, opens=(False, False))


class _Character(NamedTuple):
    allowed: frozenset[str] | None
    """None for any."""
    star: bool = False


def _is_star(character: _Character) -> bool:
    return character.star


def _characters_meet(one: _Character, other: _Character) -> bool:
    return one.allowed is None or other.allowed is None or not one.allowed.isdisjoint(other.allowed)


def _characters(part: str) -> tuple[_Character, ...]:
    found: list[_Character] = []
    rest = part
    while rest:
        bracket = re.match(r"\[(!|\^)?(\]?[^\]]*)\]", rest)
        if rest[0] == "*":
            found.append(_Character(None, star=True))
        elif rest[0] == "?":
            found.append(_Character(None))
        elif bracket is not None and bracket[2]:
            found.append(_Character(None if bracket[1] else _class(bracket[2])))
            rest = rest[bracket.end() :]
            continue
        else:
            found.append(_Character(frozenset(rest[0])))
        rest = rest[1:]
    return tuple(found)


def _class(text: str) -> frozenset[str] | None:
    """The characters of `[text]`; None, any, for a range too wide to list."""
    allowed: set[str] = set(text)
    for first, last in re.findall(r"(.)-(.)", text):
        if not 0 <= ord(last) - ord(first) <= _MAX_RANGE:
            return None
        allowed.update(chr(code) for code in range(ord(first), ord(last) + 1))
    return frozenset(allowed)


def _product(
    one: Sequence[_T],
    other: Sequence[_T],
    *,
    many: Callable[[_T], bool],
    alike: Callable[[_T, _T], bool],
    opens: tuple[bool, bool],
) -> bool:
    """True when two patterns match a common sequence; one that `opens` also matches whatever begins with its match.

    A walk through the product of the two automata: every pair of positions is seen once.
    """
    seen = {(0, 0)}
    stack = [(0, 0)]
    while stack:
        i, j = stack.pop()
        one_ended, other_ended = i == len(one), j == len(other)
        if (one_ended and (other_ended or opens[0])) or (other_ended and opens[1]):
            return True
        steps: list[tuple[int, int]] = []
        if not one_ended and many(one[i]):
            steps.append((i + 1, j))
        if not other_ended and many(other[j]):
            steps.append((i, j + 1))
        if not (one_ended or other_ended) and alike(one[i], other[j]):
            steps.append((i if many(one[i]) else i + 1, j if many(other[j]) else j + 1))
        for step in steps:
            if step not in seen:
                seen.add(step)
                stack.append(step)
    return False
