"""JSON as text: one entry is put in or taken out, and every other byte stays as its owner wrote it.

How a container is opened says whose it is. One that we make goes on in a new line, as tools write JSON; one that we
find empty gets its first entry right behind the bracket. So when ours is the last entry to go, the first kind goes
with it and the second is empty again, and nothing about it has to be remembered anywhere.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, Never

BOM = "\ufeff"
_SPACE = " \t\r\n"
_CONSTANT = re.compile(r"\b(NaN|Infinity)\b")


class Entry(NamedTuple):
    """A member of an object, or an element of a list (`key` is None), and where it stands in the text."""

    key: str | None
    value: object
    start: int
    value_at: int
    end: int


class NotJsonError(ValueError):
    """The text is not what an editor reads. `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


def _constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_constant)
"""Integers as floats: they are compared, never written, and the limit on the digits of an int is not JSON's."""


def checked(content: bytes) -> str:
    """The text of a file that is one JSON object. Raises `NotJsonError`."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJsonError(content.count(b"\n", 0, error.start) + 1, "a byte that is not UTF-8") from error
    try:
        value: object = _DECODER.decode(text.removeprefix(BOM))
    except json.JSONDecodeError as error:
        is_comment = error.doc[error.pos :].lstrip(_SPACE).startswith(("//", "/*"))
        why = "a comment, which JSON does not have" if is_comment else error.msg[0].lower() + error.msg[1:]
        raise NotJsonError(error.lineno, why) from error
    except (ValueError, RecursionError) as error:
        found = _CONSTANT.search(text)
        raise NotJsonError(_line(text, found.start() if found else 0), str(error)) from error
    if not isinstance(value, dict):
        raise NotJsonError(_line(text, _root(text)), "the file is not an object in braces")
    return text


def entries(text: str, path: tuple[str, ...], *, listed: bool) -> list[Entry]:
    """What is in the object, or the list, at this path; nothing when it is not there.

    Raises `NotJsonError` when something else is.
    """
    at = _root(text)
    for depth, name in enumerate(path, 1):
        entry = _member(text, at, name)
        if entry is None:
            return []
        at = entry.value_at
        wanted = "[" if listed and depth == len(path) else "{"
        if text[at] != wanted:
            kind = "a list in brackets" if wanted == "[" else "an object in braces"
            raise NotJsonError(_line(text, at), f"{'.'.join(path[:depth])!r} is not {kind}")
    return _inside(text, at)


def added(text: str | None, path: tuple[str, ...], key: str | None, value: object) -> str:
    """The text with an entry at the end of a container; those on the way are made. None: there is no file yet."""
    if text is None:
        return json.dumps(_nested(path, key, value), indent=2, ensure_ascii=False) + "\n"
    at = _root(text)
    for depth, name in enumerate(path, 1):
        entry = _member(text, at, name)
        if entry is None:
            return _appended(text, at, name, _nested(path[depth:], key, value))
        at = entry.value_at
    return _appended(text, at, key, value)


def replaced(text: str, entry: Entry, value: object) -> str:
    """The text with another value for an entry."""
    return text[: entry.value_at] + _laid_out(text, entry.start, value) + text[entry.end :]


def cut(text: str, path: tuple[str, ...], entry: Entry) -> str | None:
    """The text without an entry, nor the containers that were made for it; None when that is all of the file."""
    at = _root(text)
    owner: Entry | None = None
    for name in path:
        owner = _member(text, at, name)
        if owner is None:
            raise LookupError(path)
        at = owner.value_at
    inside = _inside(text, at)
    place = inside.index(entry)
    if place > 0:
        return text[: inside[place - 1].end] + text[entry.end :]
    if len(inside) > 1:
        return text[: entry.start] + text[inside[1].start :]
    if entry.start == at + 1:
        return text[: entry.start] + text[entry.end :]
    return cut(text, path[:-1], owner) if owner is not None else None


def _root(text: str) -> int:
    return _skip(text, len(BOM) if text.startswith(BOM) else 0)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _inside(text: str, at: int) -> list[Entry]:
    """Entries of the container that opens here; the text is sound, so nothing is doubted."""
    found: list[Entry] = []
    closing = "}" if text[at] == "{" else "]"
    at = _skip(text, at + 1)
    while text[at] != closing:
        start, key = at, None
        if closing == "}":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        value, end = _DECODER.raw_decode(text, at)
        found.append(Entry(key, value, start, at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _member(text: str, at: int, name: str) -> Entry | None:
    """The member of that name; of two the later one, as every reader of JSON takes it."""
    return next((entry for entry in reversed(_inside(text, at)) if entry.key == name), None)


def _nested(path: tuple[str, ...], key: str | None, value: object) -> object:
    nest: object = [value] if key is None else {key: value}
    for name in reversed(path):
        nest = {name: nest}
    return nest


def _appended(text: str, at: int, key: str | None, value: object) -> str:
    inside = _inside(text, at)
    name = "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
    if not inside:
        return text[: at + 1] + name + _laid_out(text, at, value) + text[at + 1 :]
    last = inside[-1]
    before = text[: last.start]
    space = before[len(before.rstrip(_SPACE)) :]
    if "\n" in space:
        space = _newline(text) + space.rpartition("\n")[2]
    return text[: last.end] + "," + (space or " ") + name + _laid_out(text, last.start, value) + text[last.end :]


def _laid_out(text: str, at: int, value: object) -> str:
    """A value as the file would have it, going on from the indentation of the line that `at` is in."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    indented = re.search(r"\n([ \t]+)\S", text)
    dumped = json.dumps(value, indent=indented[1] if indented else 2, ensure_ascii=False)
    return dumped.replace("\n", _newline(text) + line[: len(line) - len(line.lstrip(" \t"))])


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
