"""The short form of `benchmarks/torture.py`: epics on real git, tortured, and an outside judge finds nothing wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[2] / "benchmarks" / "torture.py"

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


def test_tortured_epics_lose_nothing_and_double_nothing() -> None:
    """Some small epics; the seed of an exception is in what it prints."""
    command = [sys.executable, TORTURE, "--epics", "4", "--jobs", "2", "--stories", "12", "--seed", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ran.stdout)  # noqa: T201 - shown when it fails
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "epics with exceptions: 0 of 4" in ran.stdout
    [stories, merged] = re.findall(r"stories (\d+), merged (\d+)", ran.stdout)[0]
    assert stories == merged
    [strikes] = re.findall(r"strikes (\d+)", ran.stdout)
    assert int(strikes) >= 4, "somebody was struck"
