"""An engine that dies at any one of its awaits: whatever that await was for, the next engines finish the work."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from functools import partial

import anyio
import pytest

from mcp_server.core.limits import Budget
from mcp_server.core.model import Cause, Usage
from mcp_server.errors import Refused
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.world import World, a_world, assert_same, story


async def _begin(world: World) -> None:
    """Three stories; one is done badly first, one meets its provider's trouble, one is stopped by its budget."""
    world.git.delay_s = dict.fromkeys(("tip", "hold", "inspect", "release", "rescue", "rebase", "advance", "forget"), 1)
    world.does(
        a=[Play(seconds=5, act=world.truth.scribble), world.good()],
        b=[Play(seconds=5, trouble=Cause.API_ERROR, exit_code=1, act=world.truth.work), world.good()],
        c=[world.good(seconds=30, usage=Usage(9.0, 0), tells=3), world.good()],
    )
    world.plan(story("a"), story("b", "a"), story("c"))
    world.start(budget=Budget(story_usd=5.0))


async def _finish(world: World) -> None:
    for _ in range(10):
        if not world.is_up:
            await world.kill()
            assert_same(world.replayed(world.ledger.seq), world.ledger)
            world.line.forget_awaits()
            await world.open()
        if set(world.states().values()) == {"merged"}:
            return
        if all(state != "running" for state in world.states().values()):
            with suppress(Refused):
                world.start(retry=True)
        await anyio.sleep(200)


async def _life(die_at: float, when: str, *, goes_on: bool) -> int:
    """Die at that await: of a run, of an orderly close, or of the recovery from a kill. Counts the awaits."""
    async with a_world(goes_on=goes_on) as world:
        if when == "at work":
            world.line.die_at_await(die_at)
        await _begin(world)
        await anyio.sleep(9 if when != "at work" else 120)
        if when == "while it closes":
            world.line.die_at_await(die_at)
            await world.close()
        elif when == "while it recovers":
            await world.kill()
            world.line.die_at_await(die_at)
            await world.open()
            await anyio.sleep(60)  # what is left is saved, or followed to its end
        awaits, died = world.line.awaits, not world.is_up
        assert died or math.isinf(die_at)
        await _finish(world)
        assert set(world.states().values()) == {"merged"}
        return awaits


@pytest.mark.parametrize("goes_on", [False, True], ids=["ends", "goes on"])
@pytest.mark.parametrize("when", ["at work", "while it closes", "while it recovers"])
def test_an_engine_may_die_at_any_of_its_awaits(when: str, goes_on: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The world that `a_world` yields keeps the truth: nothing is lost, doubled or resurrected by any of these."""
    awaits = run_seeded(partial(_life, math.inf, when, goes_on=goes_on), 0)
    for number in range(1, awaits + 1):
        run_seeded(partial(_life, number, when, goes_on=goes_on), 0)
    with capsys.disabled():
        sys.stdout.write(f"\n{when}: {awaits} awaits, a death at each\n")
    assert awaits >= 5
