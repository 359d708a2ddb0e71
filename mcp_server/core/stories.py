"""An epic's stories by id, and what can be told of them at once. A change copies little and looks only around itself.

Sets of stories are whole numbers used as masks: bit n is the nth story in the author's order, or for `ready` in the
order of urgency, so that the lowest bit is the next one to be admitted.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from itertools import chain, compress
from operator import is_not
from typing import NamedTuple, TypeVar

from mcp_server.core.model import DOOMS, HOLDS_FILES, SATISFIES, Story, StoryState
from mcp_server.core.spec import StoryId

ROWS = 128
"""Stories in a chunk: to change one of 10,000 copies this many pointers and 79 more."""
_DELAYS = frozenset({StoryState.QUEUED, StoryState.MERGING})
"""States in which `not_before_s` is waited for."""

_T = TypeVar("_T")
_Chunks = tuple[tuple[Story, ...], ...]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What stays as long as the plan does, shared by all versions of an epic's stories."""

    place: Mapping[StoryId, int]
    needs: tuple[int, ...]
    """Place to the mask of the stories that it depends on."""
    dependents: tuple[tuple[int, ...], ...]
    urgency: tuple[int, ...]
    """Place to position in the order of urgency."""
    by_urgency: tuple[int, ...]
    """The other way round."""


class _Marks(NamedTuple):
    """What follows from the rows."""

    states: Mapping[StoryState, int]
    ready: int
    """Queued with all dependencies satisfied, in order of urgency."""
    doomed: int
    """With a dependency that this wave will not satisfy."""
    delayed: int
    """Queued or merging with a `not_before_s`, be it past or to come."""
    held: tuple[int, ...]
    """Places of those in a state of `HOLDS_FILES`, which are few."""


class Stories(Mapping[StoryId, Story]):
    """Stores the rows in chunks that versions share, and marks that are derived from them. Immutable.

    Iterates in the author's order. Two are equal when their rows are.
    """

    __slots__ = ("_chunks", "_marks", "_shape")
    _chunks: _Chunks
    _marks: _Marks
    _shape: _Shape

    def __init__(self, rows: Iterable[Story] = ()) -> None:
        every = tuple(rows)
        self._shape = _shape_of(every)
        self._chunks = tuple(every[at : at + ROWS] for at in range(0, len(every), ROWS))
        self._marks = _marks_of(self._shape, every)

    def put(self, story: Story) -> Stories:
        """The stories with this one in the place of the one of its id. Raises KeyError when there is none."""
        place = self._shape.place[story.spec.id]
        high, low = divmod(place, ROWS)
        chunk = self._chunks[high]
        old = chunk[low]
        if story is old:
            return self
        if story.spec is not old.spec or story.level != old.level or story.rank != old.rank:
            return Stories(story if s is old else s for s in self.values())
        changed = object.__new__(Stories)
        changed._shape = self._shape
        changed._chunks = _with(self._chunks, high, _with(chunk, low, story))
        changed._marks = _moved(self._shape, self._marks, place, old, story)
        return changed

    # --- as a mapping

    def __getitem__(self, key: StoryId) -> Story:
        return self._at(self._shape.place[key])

    def __iter__(self) -> Iterator[StoryId]:
        return iter(self._shape.place)

    def __len__(self) -> int:
        return len(self._shape.place)

    def __contains__(self, key: object) -> bool:
        return key in self._shape.place

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Stories):
            return self._chunks == other._chunks
        return dict(self.items()) == other

    __hash__ = None  # type: ignore[assignment]  # as of any mapping

    def __repr__(self) -> str:
        return f"Stories({list(self.values())!r})"

    def values(self) -> ValuesView[Story]:
        """The rows, in the author's order."""
        return _Rows(self)

    def items(self) -> ItemsView[StoryId, Story]:
        """Ids and rows, in the author's order."""
        return _Pairs(self)

    def rows(self) -> Iterator[Story]:
        """As `values`, to be gone through once."""
        return chain.from_iterable(self._chunks)

    # --- at once

    def in_state(self, *states: StoryState) -> Iterator[Story]:
        """Those in one of the states, in the author's order."""
        return self._of(self._in(states))

    def count(self, *states: StoryState) -> int:
        """How many are in one of the states."""
        return self._in(states).bit_count()

    def any_in(self, *states: StoryState) -> bool:
        """True when one at least is in one of the states."""
        return self._in(states) != 0

    def holding(self) -> Iterator[Story]:
        """Those in a state of `HOLDS_FILES`, in the author's order."""
        return map(self._at, self._marks.held)

    @property
    def ready(self) -> int:
        """The mask of the queued ones whose dependencies are satisfied; the lowest bit is the most urgent one."""
        return self._marks.ready

    def first(self, ready: int) -> Story:
        """The most urgent one of a mask like `ready`, which is not empty."""
        return self._at(self._shape.by_urgency[(ready & -ready).bit_length() - 1])

    def doomed(self) -> Iterator[Story]:
        """Queued ones with a dependency that this wave will not satisfy."""
        return self._of(self._marks.states[StoryState.QUEUED] & self._marks.doomed)

    def delayed(self) -> Iterator[Story]:
        """Queued or merging ones that were told not to go on before some moment, be it past or to come."""
        return self._of(self._marks.delayed)

    def dependents(self, story: Story) -> Iterator[Story]:
        """Those that name the story as a dependency."""
        return map(self._at, self._shape.dependents[self._shape.place[story.spec.id]])

    def since(self, before: Stories | None) -> Iterator[tuple[Story | None, Story]]:
        """What is another row now than it was, as (was, is); None for what was not there."""
        if before is self:
            return
        if before is None or before._shape is not self._shape:  # noqa: SLF001 - of its own class
            for story in self.rows():
                was = before.get(story.spec.id) if before is not None else None
                if was is not story:
                    yield was, story
            return
        for old, new in _differing(before._chunks, self._chunks):  # noqa: SLF001
            yield from _differing(old, new)

    def stand_as(self, before: Stories) -> bool:
        """True when all are in the states and attempts in which they were, and wait for the same moments."""
        return self._marks is before._marks

    def is_marked_right(self) -> bool:
        """True when all that is derived agrees with the rows."""
        rows = tuple(self.rows())
        shape = _shape_of(rows)
        return self._shape == shape and self._marks == _marks_of(shape, rows)

    def is_marked_right_at(self, story: Story) -> bool:
        """The same of one story alone."""
        place = self._shape.place[story.spec.id]
        here, marks = 1 << place, self._marks
        satisfied, dooming = _union(marks.states, SATISFIES), _union(marks.states, DOOMS)
        needs = self._shape.needs[place]
        is_ready = story.state is StoryState.QUEUED and not needs & ~satisfied
        return (
            [s for s, mask in marks.states.items() if mask & here] == [story.state]
            and bool(marks.ready >> self._shape.urgency[place] & 1) == is_ready
            and bool(marks.doomed & here) == bool(needs & dooming)
            and bool(marks.delayed & here) == _is_delayed(story)
        )

    def _at(self, place: int) -> Story:
        return self._chunks[place // ROWS][place % ROWS]

    def _in(self, states: Iterable[StoryState]) -> int:
        return _union(self._marks.states, states)

    def _of(self, mask: int) -> Iterator[Story]:
        chunks = self._chunks
        while mask:
            low = mask & -mask
            place = low.bit_length() - 1
            yield chunks[place // ROWS][place % ROWS]
            mask ^= low


class _Rows(ValuesView[Story]):
    """As `ValuesView`, without a look-up a row."""

    _mapping: Stories

    def __iter__(self) -> Iterator[Story]:
        return self._mapping.rows()


class _Pairs(ItemsView[StoryId, Story]):
    """As `ItemsView`, without a look-up a row."""

    _mapping: Stories

    def __iter__(self) -> Iterator[tuple[StoryId, Story]]:
        return zip(self._mapping, self._mapping.rows(), strict=True)


def urgency(story: Story) -> tuple[float, int, StoryId]:
    """What admission goes by: the longest way to the end of the epic first."""
    return -story.rank, story.level, story.spec.id


def _shape_of(rows: tuple[Story, ...]) -> _Shape:
    place = {story.spec.id: nth for nth, story in enumerate(rows)}
    dependents: list[list[int]] = [[] for _ in rows]
    needs: list[int] = []
    for nth, story in enumerate(rows):
        mask = 0
        for dependency in story.spec.depends_on:
            mask |= 1 << place[dependency]
            dependents[place[dependency]].append(nth)
        needs.append(mask)
    by_urgency = sorted(range(len(rows)), key=lambda nth: urgency(rows[nth]))
    positions = [0] * len(rows)
    for position, nth in enumerate(by_urgency):
        positions[nth] = position
    return _Shape(place, tuple(needs), tuple(map(tuple, dependents)), tuple(positions), tuple(by_urgency))


def _marks_of(shape: _Shape, rows: tuple[Story, ...]) -> _Marks:
    """From the rows alone."""
    states = {state: _mask(nth for nth, story in enumerate(rows) if story.state is state) for state in StoryState}
    satisfied, dooming = _union(states, SATISFIES), _union(states, DOOMS)
    return _Marks(
        states,
        _mask(
            shape.urgency[nth]
            for nth, story in enumerate(rows)
            if story.state is StoryState.QUEUED and not shape.needs[nth] & ~satisfied
        ),
        _mask(nth for nth, needs in enumerate(shape.needs) if needs & dooming),
        _mask(nth for nth, story in enumerate(rows) if _is_delayed(story)),
        tuple(nth for nth, story in enumerate(rows) if story.state in HOLDS_FILES),
    )


def _moved(shape: _Shape, marks: _Marks, place: int, old: Story, new: Story) -> _Marks:
    """The marks after one row has changed: it and, if it matters to them, its direct dependents are looked at."""
    was, state = old.state, new.state
    late = _is_delayed(new)
    here = 1 << place
    if late != bool(marks.delayed & here) or new.not_before_s != old.not_before_s:
        marks = marks._replace(delayed=marks.delayed | here if late else marks.delayed & ~here)
    if was is state and new.attempt == old.attempt:
        return marks
    states = {**marks.states, was: marks.states[was] ^ here, state: marks.states[state] | here}
    held = marks.held
    if (was in HOLDS_FILES) != (state in HOLDS_FILES):
        held = tuple(sorted({*held} ^ {place}))
    ready, doomed = marks.ready, marks.doomed
    if state is StoryState.QUEUED and not shape.needs[place] & ~_union(states, SATISFIES):
        ready |= 1 << shape.urgency[place]
    elif was is StoryState.QUEUED:
        ready &= ~(1 << shape.urgency[place])
    if (was in SATISFIES, was in DOOMS) != (state in SATISFIES, state in DOOMS):
        queued, satisfied, dooming = states[StoryState.QUEUED], _union(states, SATISFIES), _union(states, DOOMS)
        for nth in shape.dependents[place]:
            one, urgent, needs = 1 << nth, 1 << shape.urgency[nth], shape.needs[nth]
            ready = ready | urgent if queued & one and not needs & ~satisfied else ready & ~urgent
            doomed = doomed | one if needs & dooming else doomed & ~one
    return _Marks(states, ready, doomed, marks.delayed, held)


def _with(items: tuple[_T, ...], at: int, item: _T) -> tuple[_T, ...]:
    """The tuple with another item in one place."""
    copy = list(items)
    copy[at] = item
    return tuple(copy)


def _differing(before: tuple[_T, ...], after: tuple[_T, ...]) -> Iterator[tuple[_T, _T]]:
    """The pairs that are not one and the same object; a row costs some 10 ns that way."""
    return compress(zip(before, after, strict=True), map(is_not, before, after))


def _is_delayed(story: Story) -> bool:
    return story.not_before_s > 0.0 and story.state in _DELAYS


def _union(states: Mapping[StoryState, int], some: Iterable[StoryState]) -> int:
    mask = 0
    for state in some:
        mask |= states[state]
    return mask


def _mask(places: Iterable[int]) -> int:
    """The bits as one number, in a single pass over their bytes: 10,000 shifts and sums would each copy it all."""
    bits = bytearray()
    for place in places:
        if place >> 3 >= len(bits):
            bits.extend(bytes((place >> 3) + 1 - len(bits)))
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")
