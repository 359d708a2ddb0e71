"""Whole lives with kills, faults and meddling: nothing lost, nothing merged twice, nothing resurrected, all merged."""

from __future__ import annotations

import sys
import time

import pytest

from mcp_server.core.model import Strategy
from mcp_server.testing.lives import Config, Tally, run_life

BUDGET_S = 10.0
ENOUGH = 15
"""Lives that even a slow machine gets through in that time."""


@pytest.mark.parametrize("strategy", [None, Strategy.AGENT_TEAMS], ids=["all strategies", "teams"])
def test_every_life_keeps_every_promise(strategy: Strategy | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds from 0 on, as many as fit. A failure names its seed; `mcp_server.testing.lives --seed` repeats it."""
    total, until_s = Tally(), time.monotonic() + BUDGET_S
    while time.monotonic() < until_s:
        total.add(run_life(total.lives, strategy))
    with capsys.disabled():
        sys.stdout.write(f"\n{strategy or 'all strategies'}: {total}\n")
    assert total.lives >= ENOUGH
    assert total.crashes >= total.lives
    assert total.claims >= total.lives


@pytest.mark.parametrize("strategy", [Strategy.ASYNCIO, Strategy.AGENT_TEAMS])
def test_a_seed_is_one_life(strategy: Strategy) -> None:
    seed = next(s for s in range(100) if Config.of(s).crashes and Config.of(s).fault and Config.of(s).meddles)
    assert run_life(seed, strategy) == run_life(seed, strategy)


def test_every_strategy_has_its_share_of_the_lives() -> None:
    lived = [Config.of(seed).strategy for seed in range(100)]
    assert lived.count(Strategy.AGENT_TEAMS) == 50
    assert {*lived} == {*Strategy}
