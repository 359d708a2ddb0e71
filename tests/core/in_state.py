"""One story in each of its states, and how it came there."""

from __future__ import annotations

from collections.abc import Callable

from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause
from tests.core.build import Life, story


def _made(*steps: Callable[[Life], None]) -> Life:
    life = Life(story("a"))
    for step in steps:
        step(life)
    return life


def _twice(step: Callable[[Life], None]) -> Callable[[Life], None]:
    def again(life: Life) -> None:
        step(life)
        step(life)

    return again


_LEASED: tuple[Callable[[Life], None], ...] = (Life.team, lambda life: life.lease("a"))

IN_STATE: dict[str, Callable[[], Life]] = {
    "pending": _made,
    "queued": lambda: _made(Life.start, lambda life: life.fail("a", Cause.FAULT)),
    "offered": lambda: _made(Life.start),
    "running": lambda: _made(Life.start, lambda life: life.claim("a")),
    "stopping": lambda: _made(Life.start, lambda life: life.claim("a"), lambda life: life.cancel("a")),
    "stopping_merge": lambda: _made(Life.start, lambda life: life.succeed("a"), lambda life: life.cancel()),
    "merging": lambda: _made(Life.start, lambda life: life.succeed("a")),
    "merged": lambda: _made(Life.start, lambda life: life.merge("a")),
    "failed": lambda: _made(Life.start, _twice(lambda life: life.fail("a"))),
    "cancelled": lambda: _made(lambda life: life.cancel("a")),
    "offered_team": lambda: _made(Life.team),
    "leased": lambda: _made(*_LEASED),
    "silent": lambda: _made(*_LEASED, Life.tick_to_wake),
    "leased_ended": lambda: _made(*_LEASED, lambda life: life.end("a")),
    "merging_leased": lambda: _made(*_LEASED, lambda life: life.hand_in("a")),
    "repairing": lambda: _made(*_LEASED, lambda life: life.hand_in("a"), lambda life: life.refuse("a")),
    "stopping_leased": lambda: _made(*_LEASED, lambda life: life.cancel("a")),
    "asking": lambda: _made(*_LEASED, lambda life: life.ask("a")),
    "skipped": lambda: _made(lambda life: life.skip("a")),
    "paused": lambda: _made(Life.start, lambda life: life.fail("a", Cause.FAULT), Life.pause),
    "parked": lambda: _made(Life.start, lambda life: life.fail("a", Cause.RATE_LIMIT)),
    "held": lambda: _made(lambda life: life.start(breaker_faults=1), lambda life: life.fail("a", Cause.SPAWN)),
    "draining": lambda: _made(Life.start, lambda life: life.claim("a"), Life.drain),
    "stopping_budget": lambda: _made(
        lambda life: life.start(budget=Budget(story_usd=1.0)),
        lambda life: life.claim("a"),
        lambda life: life.use("a", 1.0),
    ),
}
"""For each state, how a life of the one story `a` comes to it."""
