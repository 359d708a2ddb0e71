"""Replies that a lead can afford: the most important entries first, as many as the budget takes, and where to go on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from mcp_server.server.tokens import tokens

REPLY_TOKENS = 400
"""What one reply may cost a model."""
ENTRIES_MAX = 40
"""No page has more entries: the shortest cost 10 tokens, and each is made before it is weighed."""

PROBE = 4
"""Entries that are weighed first, to tell what one costs."""
LONGEST = 16
"""Characters of the longest token that `tokens` knows; more are not looked at."""

Entry = tuple[str, Any]
"""Something listed: the name of the list that it stands in, and itself."""
R = TypeVar("R")


class Reply(BaseModel):
    """A part of a reply. What has its default says nothing and is left out: a model pays for every key."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        for name, default in _defaults(type(self)):
            if getattr(self, name) == default:
                said.pop(name, None)
        return said


@cache
def _defaults(kind: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """Every field that may be left out, with what it is then."""
    return tuple(
        (name, field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
        if not field.is_required()
    )


def compact(said: object) -> str:
    """The JSON that a model reads: on one line, and its own letters as they are."""
    if isinstance(said, BaseModel):
        said = said.model_dump(mode="json")
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def cost(said: object) -> int:
    """Tokens of a reply, or of a part of it, estimated from above."""
    return tokens(compact(said))


@lru_cache(maxsize=4096)  # the same titles and reasons, again and again
def clip(text: str, limit: int) -> str:
    """As much of the text as costs at most `limit` tokens, marked with `...` when it was cut; 0 leaves nothing."""
    if len(text) <= limit * LONGEST and cost(text) <= limit:
        return text
    fits, over = 0, min(len(text), limit * LONGEST)
    while over - fits > 1:
        middle = (fits + over) // 2
        if cost(text[:middle] + "...") <= limit:
            fits = middle
        else:
            over = middle
    return text[:fits].rstrip() + "..." if fits else ""


def fitting(build: Callable[[int], R], most: int) -> R:
    """`build(n)`, the reply with its first n entries, for the largest n up to `most` that costs no more than it may.

    One entry is sent in any case, else nobody would ever come to the next.
    """
    fits, reply, over = min(1, most), build(min(1, most)), most + 1
    if most <= 1:
        return reply
    first_cost = fits_cost = cost(reply)
    if first_cost > REPLY_TOKENS:
        return reply
    guess = PROBE
    while over - fits > 1:  # entries cost about the same, so the first few tell where it will be full
        tried = build(middle := min(max(guess, fits + 1), over - 1))
        if (tried_cost := cost(tried)) <= REPLY_TOKENS:
            fits, fits_cost, reply = middle, tried_cost, tried
        else:
            over = middle
        each = max(1, (fits_cost - first_cost) // max(1, fits - 1))
        guess = fits + (REPLY_TOKENS - fits_cost) // each
    return reply


def page(entries: Sequence[Entry], offset: int, build: Callable[[Sequence[Entry], int | None], R]) -> R:
    """One page: `build(entries, where the next page begins)`, None with the last one."""

    def first(count: int) -> R:
        end = offset + count
        return build(entries[offset:end], end if end < len(entries) else None)

    return fitting(first, max(0, min(len(entries) - offset, ENTRIES_MAX)))


def named(name: str, listed: Iterable[Any]) -> list[Entry]:
    """Entries of one list."""
    return [(name, entry) for entry in listed]


def lists(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """The entries by the list that they stand in, in their order."""
    found: dict[str, list[Any]] = {}
    for name, entry in entries:
        found.setdefault(name, []).append(entry)
    return found


def totals(entries: Iterable[Entry]) -> dict[str, int]:
    """How long each list is."""
    return dict(Counter(name for name, _ in entries))


def cut_totals(whole: Mapping[str, int], shown: Iterable[Entry]) -> dict[str, int]:
    """The full length of each list that is shown only in part; nothing when all is shown."""
    here = totals(shown)
    return {name: number for name, number in whole.items() if number > here.get(name, 0)}


def go_on(offset: int | None) -> str:
    """What `next` says first when there is more, with a space behind it."""
    return "" if offset is None else f"The same call with offset={offset} lists more. "
