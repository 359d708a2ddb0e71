"""Which story a name in a list of dependencies means: the ids of a document, their other spellings, their ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mcp_server.adapters.formats.values import span
from mcp_server.core.draft import MAX_DEPENDENCIES

_COUNTED = re.compile(r"(.*?)(\d{1,9})$")


class Ids:
    """The ids of all stories in their order, and what else each is called."""

    def __init__(self, ids: Sequence[str], aliases: Iterable[tuple[str, str]]) -> None:
        self._order = {story: place for place, story in enumerate(dict.fromkeys(ids))}
        self._named: dict[str, str | None] = {story.lower(): story for story in ids}
        own = set(self._named)
        for alias, story in [*aliases, *((story.replace("-", "."), story) for story in ids if story[:1].isdigit())]:
            key = alias.lower()
            if key not in own:  # what two stories are called names neither
                self._named[key] = story if self._named.get(key, story) == story else None
        self._counted = [(found[1], int(found[2]), story) for story in ids if (found := _COUNTED.fullmatch(story))]
        self._spent = 0

    def resolve(self, name: str) -> list[str]:
        """The ids a name stands for; itself when it has a digit but names none; nothing when it is a mere word."""
        story = self._lookup(name)
        found = [story] if story else self._range(name)
        self._spent += len(found)
        if found and self._spent <= MAX_DEPENDENCIES + len(found):
            return found
        return [name] if any(char.isdigit() for char in name) else []

    def _lookup(self, name: str) -> str | None:
        return self._named.get(name.lower()) or self._named.get(name.lower().replace("-", "."))

    def _range(self, name: str) -> list[str]:
        for low, high in span(name):
            first, last = self._lookup(low), self._lookup(high)
            if first is not None and last is not None:
                return self._between(first, last)
        return []

    def _between(self, first: str, last: str) -> list[str]:
        """By number when the ids differ only in their last one, else by their order in the document."""
        low, high = _COUNTED.fullmatch(first), _COUNTED.fullmatch(last)
        if low and high and low[1] == high[1]:
            wanted = range(int(low[2]), int(high[2]) + 1)
            return [story for stem, count, story in self._counted if stem == low[1] and count in wanted]
        begin, end = self._order[first], self._order[last]
        return [story for story, place in self._order.items() if begin <= place <= end]
