"""The state for programs: whole once, and then what has changed, which adds up to the whole again."""

from __future__ import annotations

import random

import pytest

from mcp_server.core.decide import decide
from mcp_server.core.events import Event
from mcp_server.core.forecast import Times
from mcp_server.core.model import Ledger
from mcp_server.errors import Refused
from mcp_server.server.wire_whole import Whole, whole
from tests.core.build import PARALLEL, Life, story
from tests.core.lives import alarm, commands, crash, reports

STEPS = 60


def _told(life: Life, before: Ledger | None = None) -> Whole:
    return whole(life.ledger, life.ledger.epics.values(), life.now_s, Times(), {}, before=before)


def _states(said: Whole) -> dict[str, tuple[str, int, str]]:
    return {s.story: (s.state, s.attempt, s.merged_as) for epic in said.epics for s in epic.stories}


def _what_may_happen(life: Life) -> list[Event]:
    found: list[Event] = [*reports(life.ledger), *alarm(life.ledger), *crash(life.ledger)]
    for command in commands(life.ledger, PARALLEL):
        try:
            found.append(decide(life.ledger, command, life.now_s))
        except Refused:
            continue
    return found


@pytest.mark.parametrize("seed", range(40))
def test_lines_of_changes_add_up_to_the_state(seed: int) -> None:
    """Derived states too: what becomes ready or blocked has not changed itself."""
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    life = Life(story("a"), story("b", critical=True), story("c", "a"), story("d", "c", "b"), story("e"))
    life.start(chance.choice((1, "ready", "all")), attempts=2)
    added_up, lines = _states(_told(life)), 0
    for _ in range(STEPS):
        before = life.ledger
        life.submit(chance.choice(_what_may_happen(life)))
        change = _told(life, before)
        lines += sum(len(epic.stories) for epic in change.epics)
        added_up |= _states(change)
        assert added_up == _states(_told(life))
    assert lines < STEPS * 5, "and what has not changed is not told again"


def test_what_has_not_changed_is_left_out() -> None:
    life = Life(story("a"), story("b"), story("c", "a"))
    life.start(slots=1)
    before = life.ledger
    life.claim("a")
    change = _told(life, before)
    assert _states(change).keys() == {"a", "c"}, "c waits for a, and says so"
    assert change.epics[0].counts == {"running": 1, "queued": 2}
    assert _told(life, life.ledger).epics == []


def test_every_number_says_its_unit() -> None:
    counted = {"cursor", "attempt", "level", "wave", "slots", "left_from", "used_tokens", "counts"}
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.claim("a")
    life.use("a", 0.5, 100)
    life.tick(10.0)
    life.merge("a")
    times = Times()
    for event in life.log:
        times.note(event)
    said = whole(life.ledger, life.ledger.epics.values(), life.now_s, times, {("e", "b"): "hello"})
    told = said.model_dump(mode="json")
    [epic] = told["epics"]
    for part in (told, epic, *epic["stories"]):
        for name, value in part.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert name in counted or name.endswith(("_s", "_usd")), name
    first, second = epic["stories"]
    assert (first["took_s"], first["used_usd"], first["used_tokens"], first["merged_as"]) == (10, 0.5, 100, "tip-a")
    assert second["last_line"] == "hello"
    assert (epic["left_s"], epic["left_from"]) == (10, 1)
    assert "in_state_s" not in first, "what is 0 or empty is left out"
