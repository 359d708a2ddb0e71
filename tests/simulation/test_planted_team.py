"""Bugs planted one at a time in what sub-agents of the editor need of the engine: each is caught."""

from __future__ import annotations

import pytest

from mcp_server.core.limits import Strategy
from mcp_server.errors import Refused
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.team import DeskGone
from tests.simulation.planted_team import BUGS
from tests.simulation.test_planted_bugs import Bug, breaks, plant

LIVES = 100
"""A bug that needs more lives of a team than this to be caught is as good as not caught."""


def caught(bug: Bug) -> int | None:
    """The number of the life (or of the run of its test) that broke a promise."""
    if bug.test is None:
        return next((seed for seed in range(LIVES) if breaks(seed, Strategy.AGENT_TEAMS)), None)
    found: int | None = None
    try:
        run_seeded(bug.test, 0)
    except* (AssertionError, TimeoutError, Refused, DeskGone):  # anything else says that the plant itself is bad
        found = 0
    return found


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(bug, monkeypatch)
    assert caught(bug) is not None, f"nobody noticed that {bug.name}"


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.test is not None], ids=lambda bug: bug.name)
def test_what_catches_a_bug_passes_without_it(bug: Bug) -> None:
    assert caught(bug) is None
