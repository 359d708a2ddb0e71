"""Whole lives with kills, faults and meddling: nothing lost, nothing merged twice, nothing resurrected, all merged."""

from __future__ import annotations

import sys
import time

import pytest

from mcp_server.testing.lives import Config, Tally, run_life

BUDGET_S = 20.0
ENOUGH = 25
"""Lives that even a slow machine gets through in that time."""


def test_every_life_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds from 0 on, as many as fit. A failure names its seed; `mcp_server.testing.lives --seed` repeats it."""
    total, until_s = Tally(), time.monotonic() + BUDGET_S
    while time.monotonic() < until_s:
        total.add(run_life(total.lives))
    with capsys.disabled():
        sys.stdout.write(f"\n{total}\n")
    assert total.lives >= ENOUGH
    assert total.crashes >= total.lives


def test_a_seed_is_one_life() -> None:
    seed = next(s for s in range(100) if Config.of(s).crashes and Config.of(s).fault and Config.of(s).meddles)
    assert run_life(seed) == run_life(seed)
