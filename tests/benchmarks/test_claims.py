"""The short form of `benchmarks/claims.py`: it prints rows with ratios, and each row says what the code does today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

CLAIMS = Path(__file__).parents[2] / "benchmarks" / "claims.py"

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]


class Line(NamedTuple):
    """A row as it was printed."""

    claim: str
    what: str
    ours: str
    other: str
    ratio: str
    n: str
    worth: str


class Printed(NamedTuple):
    """What one call printed."""

    code: int
    first: str
    rows: list[Line]
    text: str

    def ratios(self, claim: int, what: str) -> list[float]:
        """Of the rows of a claim whose name has the words in it."""
        return [float(row.ratio) for row in self.rows if row.claim == str(claim) and what in row.what]


def claims(*words: str, corpus: str | None = None) -> Printed:
    environment = {k: v for k, v in os.environ.items() if k != "EPICWAVE_CORPUS"}
    environment |= {"EPICWAVE_CORPUS": corpus} if corpus else {}
    environment["PYTHONPATH"] = str(CLAIMS.parents[1])
    command = [sys.executable, CLAIMS, *words]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]
    return Printed(
        ran.returncode, lines[0] if lines else "", [Line(*cells) for cells in found], ran.stdout + ran.stderr
    )


@pytest.fixture(scope="module")
def quick() -> Printed:
    return claims("--quick", "--only", "2,5,6", "--seed", "7")


def test_a_quick_run_prints_its_configuration_and_rows_with_ratios(quick: Printed) -> None:
    assert quick.code == 0, quick.text
    assert quick.first.startswith("seed 7, quick, Python ")
    assert "git version" in quick.first
    assert f"{os.cpu_count()} cores" in quick.first
    assert {row.claim for row in quick.rows} == {"2", "5", "6"}
    measured = [row for row in quick.rows if row.ours != "skipped"]
    assert len(measured) == 12 + 4 + 10
    assert all(float(row.ratio) > 0 and int(row.n) > 0 and row.worth.endswith(".") for row in measured), quick.text


def test_polling_shows_both_sides_of_the_trade(quick: Printed) -> None:
    """Long jobs are asked for less often and found later; who waits asks least."""
    assert quick.ratios(2, "job of 1 h: checks")[0] < 0.2
    assert quick.ratios(2, "job of 1 h: seen")[0] > 2
    assert quick.ratios(2, "job of 3 s: checks")[0] > 1
    assert max(quick.ratios(2, "calls of a lead")) < 0.2


def test_random_graphs_end_sooner_without_barriers(quick: Printed) -> None:
    assert all(ratio < 1 for ratio in quick.ratios(5, "random graphs"))


def test_real_epics_are_skipped_with_a_reason_where_there_are_none(quick: Printed) -> None:
    [skipped] = [row for row in quick.rows if row.ours == "skipped"]
    assert (skipped.claim, skipped.ratio) == ("5", "")
    assert "EPICWAVE_CORPUS" in skipped.worth


def test_the_same_seed_gives_the_same_arithmetic(quick: Printed) -> None:
    again = claims("--quick", "--only", "5", "--seed", "7")
    assert again.rows == [row for row in quick.rows if row.claim == "5"]


@pytest.mark.skipif("EPICWAVE_CORPUS" not in os.environ, reason="EPICWAVE_CORPUS names no folder of real epics")
def test_real_epics_are_measured_where_there_are_some() -> None:
    measured = claims("--quick", "--only", "5", corpus=os.environ["EPICWAVE_CORPUS"])
    assert len(measured.ratios(5, "real epics")) == 4, measured.text
    assert len(measured.ratios(5, "real commits")) == 4


def test_siblings_that_ignore_term_live_longer_than_polite_ones() -> None:
    """Real processes: polite ones are gone long before their work is done, deaf ones after the grace."""
    measured = claims("--quick", "--only", "1")
    assert measured.code == 0, measured.text
    [polite], [deaf] = (measured.ratios(1, manners) for manners in ("polite", "deaf"))
    assert polite < 0.7
    assert polite < deaf


def test_a_story_costs_more_git_than_a_bare_pair_of_worktree_commands() -> None:
    """The claim does not hold, and the table says so."""
    measured = claims("--quick", "--only", "3")
    assert measured.code == 0, measured.text
    assert all(ratio > 1 for ratio in measured.ratios(3, "git processes"))
    assert all(row.other.endswith("(2.0 commands)") for row in measured.rows if "git processes" in row.what)


def test_the_breaker_saves_attempts_and_holds_work_back() -> None:
    """Both sides again: fewer attempts are wasted in an outage, and slots stand idle after it."""
    measured = claims("--quick", "--only", "4")
    assert measured.code == 0, measured.text
    assert max(measured.ratios(4, "attempts wasted")) < 0.5
    assert min(measured.ratios(4, "slot-seconds idle")) > 1


def test_an_unknown_claim_is_refused() -> None:
    asked = claims("--only", "7")
    assert asked.code == 2
    assert "there is no claim 7; there are 1 to 6" in asked.text
