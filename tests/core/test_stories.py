"""An epic's stories: whatever is changed in whatever order, what is told at once is what a walk over the rows tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.core.invariants import check, check_change
from mcp_server.core.model import DOOMS, HOLDS_FILES, SATISFIES, Ledger, Process, Story, StoryState
from mcp_server.core.stories import ROWS, Stories, urgency
from tests.core.build import Life, story
from tests.core.in_state import IN_STATE

STATES = st.sampled_from(list(StoryState))


def rows_of(count: int) -> list[Story]:
    """Each needs the one before it, and every third the first one too."""
    return [
        Story(
            spec=story(f"s{n}", *([f"s{n - 1}"] if n else []), *(["s0"] if n > 1 and n % 3 == 0 else [])),
            level=n + 1,
            rank=float(n % 7),
        )
        for n in range(count)
    ]


def agrees(stories: Stories, rows: dict[str, Story]) -> None:
    """Every answer, told again by a walk."""
    found = list(rows.values())
    assert list(stories) == list(rows)
    assert list(stories.values()) == found
    assert dict(stories.items()) == rows
    assert dict(stories) == rows
    assert stories == Stories(found)
    for state in StoryState:
        assert list(stories.in_state(state)) == [s for s in found if s.state is state]
        assert stories.count(state) == sum(s.state is state for s in found)
        assert stories.any_in(state) == any(s.state is state for s in found)
    assert list(stories.holding()) == [s for s in found if s.state in HOLDS_FILES]
    queued = [s for s in found if s.state is StoryState.QUEUED]
    ready = [s for s in queued if all(rows[d].state in SATISFIES for d in s.spec.depends_on)]
    told: list[Story] = []
    mask = stories.ready
    while mask:
        told.append(stories.first(mask))
        mask &= mask - 1
    assert told == sorted(ready, key=urgency)
    assert list(stories.doomed()) == [s for s in queued if any(rows[d].state in DOOMS for d in s.spec.depends_on)]
    waits = (StoryState.QUEUED, StoryState.MERGING)
    assert list(stories.delayed()) == [s for s in found if s.state in waits and s.not_before_s > 0.0]


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 2, 7, ROWS, ROWS + 3]),
    puts=st.lists(
        st.tuples(st.integers(0, ROWS + 2), STATES, st.sampled_from([0.0, 5.0, 7.0]), st.integers(0, 1)), max_size=25
    ),
)
def test_after_any_changes_all_that_is_told_at_once_is_what_the_rows_tell(
    size: int, puts: list[tuple[int, StoryState, float, int]]
) -> None:
    rows = {s.spec.id: s for s in rows_of(size)}
    stories = Stories(rows.values())
    for nth, state, wait_s, attempt in puts:
        before, name = stories, f"s{nth % size}"
        changed = rows[name]._replace(state=state, not_before_s=wait_s, attempt=attempt)
        stories = before.put(changed)
        was = rows[name]
        stands = (was.state, was.not_before_s, was.attempt) == (state, wait_s, attempt)
        assert stories.stand_as(before) == stands, "nothing that can matter to another story has changed"
        assert before[name] is rows[name], "the version before is what it was"
        assert list(stories.since(before)) == [(rows[name], changed)]
        rows[name] = changed
        assert stories.is_marked_right()
    agrees(stories, rows)


def test_to_put_what_is_there_changes_nothing() -> None:
    stories = Stories(rows_of(3))
    assert stories.put(stories["s1"]) is stories
    assert list(stories.since(stories)) == []


def test_a_story_with_another_spec_is_looked_at_anew() -> None:
    stories = Stories(rows_of(3))
    free = stories["s2"]._replace(spec=story("s2"), state=StoryState.QUEUED)
    after = stories.put(free)
    assert after.first(after.ready) is free
    assert list(after.since(stories)) == [(stories["s2"], free)]
    assert [(was, now.spec.id) for was, now in stories.since(None)] == [(None, "s0"), (None, "s1"), (None, "s2")]


def test_what_is_not_there_cannot_be_put() -> None:
    with pytest.raises(KeyError):
        Stories(rows_of(1)).put(rows_of(2)[1])


def _broken(ledger: Ledger, name: str, **changes: object) -> Ledger:
    epic = ledger.epics["e"]
    stories = epic.stories.put(epic.stories[name]._replace(**changes))
    return replace(ledger, epics={**ledger.epics, "e": epic._replace(stories=stories)})


def _sentence(broken: Ledger, before: Ledger | None = None) -> bool:
    try:
        if before is None:
            check(broken)
        else:
            check_change(before, broken)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("state", IN_STATE)
@pytest.mark.parametrize("to", StoryState)
def test_a_look_at_the_change_finds_what_a_look_at_everything_finds(state: str, to: StoryState) -> None:
    """One story of each state, changed by force, beside one that depends on it and one that shares its file."""
    before = IN_STATE[state]().ledger
    for changes in ({}, {"attempt": 9}, {"process": Process(3, 1.0)}, {"lease": None}, {"head": "h", "base": "b"}):
        after = _broken(before, "a", state=to, **changes)
        assert _sentence(after, before) == _sentence(after), (state, to, changes)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_in_a_wave_a_look_at_the_change_finds_what_a_look_at_everything_finds(data: st.DataObject) -> None:
    life = Life(story("a", files="x"), story("b", "a"), story("c", files="x"), story("d", files="y"))
    life.plan(story("y", files="y"), epic="f")
    life.start(slots=data.draw(st.sampled_from([1, 2, 4])))
    life.start(epic="f", slots=4)
    for name in data.draw(st.sampled_from(["", "a", "d", "ad"])):
        if str(life.of(name).state) == "offered":
            (life.merge if data.draw(st.booleans()) else life.succeed)(name)
    before = life.ledger
    after = _broken(
        before,
        data.draw(st.sampled_from("abcd")),
        state=data.draw(STATES),
        head=data.draw(st.sampled_from([None, "h"])),
        base="b",
        attempt=data.draw(st.sampled_from([0, 1, 5])),
        not_before_s=data.draw(st.sampled_from([0.0, 1e9])),
    )
    assert _sentence(after, before) == _sentence(after)


def test_as_any_mapping_they_equal_whatever_has_the_same_rows_and_show_them() -> None:
    rows = rows_of(3)
    stories = Stories(rows)
    assert stories == {row.spec.id: row for row in rows}
    assert stories != {row.spec.id: row for row in rows[:2]}
    assert stories != "s0"
    assert repr(stories) == f"Stories({rows!r})"
