"""The short form of `benchmarks/faults.py`: one run of each kind of real fault, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults.py"

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


def test_real_faults_lose_nothing_and_double_nothing() -> None:
    """Small epics; the seed of a breach is in what it prints. Without root the runs with a full disk are left out."""
    command = [sys.executable, FAULTS, "--runs", "11", "--jobs", "4", "--most-stories", "4", "--seed", "5"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ran.stdout)  # noqa: T201 - shown when it fails
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "runs with a breach: 0 of 11" in ran.stdout
    assert ran.stdout.count("did not hit") <= 3
