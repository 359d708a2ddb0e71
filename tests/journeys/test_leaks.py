"""The short form of `benchmarks/leaks.py`: stopped at random moments in every way there is, nothing is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = Path(__file__).parents[2] / "benchmarks" / "leaks.py"

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


def test_epics_stopped_at_random_moments_leave_nothing_behind() -> None:
    """Two runs of each way to stop; the seed of a leak is in what it prints."""
    command = [sys.executable, LEAKS, "--runs", "16", "--jobs", "4"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ran.stdout)  # noqa: T201 - shown when it fails
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "leaks by kind: none" in ran.stdout
