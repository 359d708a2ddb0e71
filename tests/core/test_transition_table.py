"""The table of transitions in ARCHITECTURE.md is what the code does, both ways round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mcp_server
from mcp_server.core import evolve as evolving
from mcp_server.core import outcomes
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import EpicPlanned, Event, Fact, MergeFound, StoriesRolledBack
from mcp_server.core.evolve import evolve
from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause, Ledger, is_alive
from mcp_server.core.settle import settle
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Refused
from tests.core.build import EPIC, PARALLEL, Life, plan_of, story
from tests.core.in_state import IN_STATE
from tests.core.lives import alarm, commands, crash, holds, taken_over
from tests.core.test_transitions import facts_about

Move = tuple[str, str, str]
PAGE = Path(mcp_server.__file__).parent / "ARCHITECTURE.md"


def _siblings(**policy: Any) -> Life:
    """A critical story in its last attempt, one at work, one whose worktree is made, and one that waits."""
    life = Life(story("a", critical=True), story("b"), story("c"), story("d"), story("e", "a"))
    life.start(**dict[str, Any]({"slots": 3, "attempts": 1, **policy}))
    life.claim("a", "b")
    return life


def _spent() -> Life:
    life = _siblings(budget=Budget(epic_usd=1.0))
    life.use("a", 0.99)
    return life


def _last_merge() -> Life:
    life = Life(story("a"))
    life.start(attempts=1)
    life.succeed("a")
    return life


def _freed() -> Life:
    """`b` waits in the queue for `a`, which backs off."""
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.fail("a", Cause.FAULT)
    return life


def _drained_merge() -> Life:
    life = Life(story("a"))
    life.start()
    life.succeed("a")
    life.drain()
    return life


def _living() -> Life:
    """`a` failed, `b` is cancelled, `s` skipped and `c` not in the wave, which lives on with `d`."""
    life = Life(story("a"), story("b"), story("d"), story("c", "d"), story("s"))
    life.cancel("b")
    life.skip("s")
    life.start("ready", attempts=1)
    life.fail("a")
    return life


def _asked() -> Life:
    """`a` asks while the wave lives on with `b`."""
    life = Life(story("a"), story("b"))
    life.team()
    life.lease("a")
    life.ask("a")
    return life


def _critical() -> Iterator[Life]:
    """About to fail for good, in the merge queue and by its budget, beside others that are alive."""
    life = _siblings()
    life.succeed("a")
    yield life
    life = _siblings(budget=Budget(story_usd=1.0))
    life.use("a", 1.0)
    yield life


def _lives() -> Iterator[Life]:
    yield from (make() for make in IN_STATE.values())
    yield from (_siblings(), _siblings(epic_timeout_s=9.0), _spent(), _last_merge(), _freed())
    yield from _critical()
    yield _asked()
    for steps in ((), ("b",)):
        yield _rolling(*steps)
    began = _rolling()
    began.succeed("b")
    yield began
    marked = Life(story("a", done=True))
    yield from (marked, _siblings(budget=Budget(story_usd=0.05)), _drained_merge(), _living())


def _rolling(*claimed: str) -> Life:
    """`a` is about to be taken back, and `b`, which builds on it, has begun in that moment."""
    life = Life(story("a"), story("b", "a"))
    life.start("ready")
    life.merge("a")
    life.roll_back("a")
    life.start()
    life.claim(*claimed)
    return life


def _next(ledger: Ledger) -> Iterator[Event]:
    for epic in ledger.epics.values():
        for s in epic.stories.values():
            for fact in facts_about(epic.spec.id, s, ledger.as_of_s + 1.0):
                if accept(ledger, fact) is fact:
                    yield fact
            attempt = AttemptId(epic.spec.id, s.spec.id, max(1, s.attempt))
            yield MergeFound(attempt, "onto", "tip", ("x.py",), ledger.as_of_s)
        if epic.rolling is not None:
            yield StoriesRolledBack(epic.spec.id, (), ledger.as_of_s)
    if len(ledger.epics[EPIC].stories) == 1 and not is_alive(ledger.epics[EPIC].wave):
        yield from (_marked(done=True), _marked(done=False))
    for command in (*commands(ledger, PARALLEL), *holds(ledger)):
        try:
            yield decide(ledger, command, ledger.as_of_s)
        except Refused:
            continue
    yield from crash(ledger)
    for events in taken_over(ledger):
        yield from events
    yield from alarm(ledger)


def _marked(*, done: bool) -> EpicPlanned:
    """The author marks `a` as done, or takes the mark back."""
    plan = plan_of(story("a", done=done))
    return EpicPlanned(plan.spec, dict(plan.levels), dict(plan.ranks), 0.0)


def _states(ledger: Ledger) -> dict[str, tuple[str, int]]:
    return {i: (str(s.state), s.attempt) for e in ledger.epics.values() for i, s in e.stories.items()}


def _as_it_is(ledger: Ledger, *_: str) -> Ledger:
    return ledger


def _moves(ledger: Ledger, event: Event) -> Iterator[Move]:
    """What the event does by itself, and then what settling makes of it."""
    with patch.object(evolving, "settle", _as_it_is):
        alone = evolve(ledger, event)
    before, after, settled = _states(ledger), _states(alone), _states(settle(alone))
    for name, (state, attempt) in after.items():
        own = isinstance(event, Fact) and event.attempt.story == name
        if before[name][0] != state or own:
            yield type(event).__name__, before[name][0], state
        if settled[name] != (state, attempt):
            yield "settle", state, settled[name][0]


def _happening() -> set[Move]:
    with patch.object(outcomes, "MERGE_TRIES", 1):
        last = {move for event in _next(_last_merge().ledger) for move in _moves(_last_merge().ledger, event)}
    return last | {move for life in _lives() for event in _next(life.ledger) for move in _moves(life.ledger, event)}


def _written() -> set[Move]:
    """Rows are `fact, fact | from, from → to, to; from → to | note`."""
    found: set[Move] = set()
    section = PAGE.read_text().split("## 3.")[1].split("\n## ")[0]
    for row in re.findall(r"^\| ([^|]+) \| ([^|]*→[^|]*) \|", section, re.MULTILINE):
        for group in row[1].split(";"):
            before, after = (re.findall(r"[a-z]+", side) for side in group.split("→"))
            found |= {(f, b, a) for f in re.findall(r"\w+", row[0]) for b in before for a in after}
    return {move for move in found if move[0] != "fact"}


def test_what_happens_is_in_the_table() -> None:
    assert sorted(_happening() - _written()) == []


def test_what_is_in_the_table_happens() -> None:
    assert sorted(_written() - _happening()) == []
