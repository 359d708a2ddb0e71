"""The short form of `benchmarks/histories.py`: two small histories on real git, in virtual minutes."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HISTORIES = Path(__file__).parents[2] / "benchmarks" / "histories.py"
STORIES = 8

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]


def a_window(seed: int) -> list[dict[str, Any]]:
    """Commits as a miner of histories writes them; every other one changes a file that all like to change."""
    dice = random.Random(seed)  # noqa: S311 - dice of a test
    return [
        {
            "sha": f"{number:040x}",
            "files": [f"src/part{number % 3}.py"] + ["CHANGELOG.md"] * (number % 2),
            "add": dice.randint(1, 400),
            "dele": dice.randint(0, 40),
            "lock": 0,
            "deps": [number - 3] if number >= 3 else [],
        }
        for number in range(STORIES)
    ]


def test_two_small_histories_are_faster_than_serial_and_end_in_the_same_tree(tmp_path: Path) -> None:
    (tmp_path / "git-histories").mkdir()
    windows = [a_window(1), a_window(2)]
    (tmp_path / "git-histories" / "some+history-50.json").write_text(json.dumps(windows), "utf-8")
    command = [sys.executable, HISTORIES, "--corpus", tmp_path, "--policies", "exclusive", "optimistic"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ran.stdout)  # noqa: T201 - shown when it fails
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "same final tree under every policy, all stories merged: 2 of 2" in ran.stdout
    faster = {name: float(x) for name, x in re.findall(r"^(\w+): median ([0-9.]+)x", ran.stdout, re.MULTILINE)}
    assert faster.keys() == {"exclusive", "optimistic"}
    assert all(1.2 < times <= 4.0 for times in faster.values()), faster
