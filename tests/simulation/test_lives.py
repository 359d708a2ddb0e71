"""Whole lives with kills, faults and meddling: nothing lost, nothing done twice, nothing resurrected, all merged."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from mcp_server.core.limits import Strategy
from mcp_server.testing.fate import Config
from mcp_server.testing.lives import run_life
from mcp_server.testing.simulation import simulate
from mcp_server.testing.tally import Tally

BUDGET_S = 4.0
ENOUGH = 60
"""Lives that even a slow machine gets through in that time."""
SEEN = (
    "EpicPaused",
    "EpicResumed",
    "StorySkipped",
    "StoryCancelled",
    "EpicCancelled",
    "WaveInterrupted",
    "WaveWidened",
    "agents adopted",
)
"""What happens in these lives, besides the plain course of things."""
CAUSES = ("fault", "rate_limit", "api_error", "crash", "lease_lost", "spawn")


@pytest.mark.parametrize("strategy", [None, Strategy.AGENT_TEAMS], ids=["all strategies", "teams"])
def test_every_life_keeps_every_promise(strategy: Strategy | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds from 0 on, as many as fit. A failure names its seed; `epicwave simulate --seed` repeats it."""
    total, until_s = Tally(), time.monotonic() + BUDGET_S
    while time.monotonic() < until_s or total.lives < ENOUGH:
        total.add(run_life(total.lives, strategy).tally)
    with capsys.disabled():
        sys.stdout.write(f"\n{strategy or 'all strategies'}: {total}\n")
    assert not total.broken
    assert total.deaths >= total.lives
    assert total.claims >= total.lives
    assert total.merged >= total.lives
    if strategy is None:
        missing = {*SEEN, *(f"AttemptFailed: {cause}" for cause in CAUSES)} - total.seen.keys()
        assert not missing, f"these lives never saw {missing}"


def test_a_seed_is_one_life_fact_by_fact() -> None:
    seed = next(s for s in range(100) if Config.of(s).troubles.crashes and Config.of(s).troubles.fault)
    assert run_life(seed) == run_life(seed)
    assert run_life(seed).digest != run_life(seed + 1).digest


def test_every_strategy_has_its_share_of_the_lives() -> None:
    lived = [Config.of(seed).policy.strategy for seed in range(100)]
    assert lived.count(Strategy.AGENT_TEAMS) == 50
    assert {*lived} == {*Strategy}


def test_most_lives_are_small_and_some_are_big() -> None:
    sizes = [Config.of(seed).stories for seed in range(1000)]
    assert sum(size <= 3 for size in sizes) > 500
    assert max(sizes) == 12


def test_the_digest_is_the_same_for_any_number_of_processes() -> None:
    alone, shared = (simulate(0, 45, None, jobs, lambda _: None) for jobs in (1, 2))
    assert alone.broken is None
    assert (alone.digest, alone.tally) == (shared.digest, shared.tally)
    assert alone.tally.lives == 45


def test_the_digest_is_the_same_whatever_python_makes_of_hashes() -> None:
    words = [
        subprocess.run(
            [sys.executable, "-m", "mcp_server.cli", "simulate", "--lives", "8", "--jobs", "1"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    first, second = (text[text.index("digest") :] for text in words)
    assert first == second
    assert len(first.split()[1]) == 64
