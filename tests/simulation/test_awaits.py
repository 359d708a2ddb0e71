"""An engine that dies at any one of its awaits: whatever that await was for, the next engines finish the work."""

from __future__ import annotations

import sys

import anyio
import pytest

from mcp_server.core.model import Budget, Cause, Usage
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
            try:
                world.start(retry=True)
            except Exception:  # noqa: BLE001 - nothing to start, or it died in this moment
                await anyio.sleep(1)
        await anyio.sleep(200)


async def _life(die_at: float, *, closing: bool) -> int:
    """Die at that await of a run, or of the recovery and the close that come after its middle. Counts the awaits."""
    async with a_world() as world:
        if closing:
            await _begin(world)
            await anyio.sleep(9)
            world.line.die_at_await(die_at)
            await world.close()
        else:
            world.line.die_at_await(die_at)
            await _begin(world)
            await anyio.sleep(120)
        counted = world.line.awaits
        if closing and world.line.deaths == 0:
            await world.open()  # and die in the recovery
            counted = world.line.awaits
        await _finish(world)
        assert set(world.states().values()) == {"merged"}
        return counted


@pytest.mark.parametrize("closing", [False, True], ids=["at work", "while it closes and opens"])
def test_an_engine_may_die_at_any_of_its_awaits(closing: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def alive() -> int:
        return await _life(float("inf"), closing=closing)

    awaits = run_seeded(alive, 0)
    for number in range(1, awaits + 1):

        async def one(number: int = number) -> int:
            return await _life(number, closing=closing)

        run_seeded(one, 0)
    with capsys.disabled():
        sys.stdout.write(f"\n{awaits} awaits, a death at each\n")
    assert awaits > 30
