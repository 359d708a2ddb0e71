"""Bugs of the policies and of the engine, planted one at a time: lives see the promise broken that they break."""

from __future__ import annotations

import pytest

from tests.simulation.planted_promises import BUGS, Seen
from tests.simulation.test_planted_bugs import LIVES, breaks, plant


@pytest.mark.parametrize("seen", BUGS, ids=lambda seen: seen.bug.name)
def test_the_promise_that_a_planted_bug_breaks_is_seen_broken(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(seen.bug, monkeypatch)
    assert any(seen.promise in breaks(seed) for seed in range(LIVES)), f"nobody saw that {seen.bug.name}"
