"""The arithmetic of waits: between its bounds, never shorter than before, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.core.model import Cause
from mcp_server.core.policy import (
    BACKED_OFF,
    FAULTS,
    WORLDS_DOING,
    Category,
    backoff_s,
    category,
    cooldown_s,
    jitter,
    park_s,
    poll_after_s,
    too_bad,
)

HOUSE = settings(deadline=None, derandomize=True, database=None)
counts = st.integers(-3, 10_000)
shares = st.floats(0.0, 1.0)


@settings(HOUSE)
@given(counts, shares)
def test_a_backoff_doubles_up_to_its_cap_and_jitter_takes_at_most_half(faults: int, share: float) -> None:
    full_s = min(120.0, 2.0 ** min(max(faults, 1), 30))
    assert full_s / 2 <= backoff_s(faults, share=share) <= full_s
    assert backoff_s(faults + 1, share=share) >= backoff_s(faults, share=share)


def test_the_series_are_those_of_the_docstrings() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 6, 7, 8)] == [2.0, 4.0, 8.0, 64.0, 120.0, 120.0]
    assert [cooldown_s(n, first_s=30.0, cap_s=300.0) for n in (1, 2, 3, 4, 5)] == [30.0, 60.0, 120.0, 240.0, 300.0]
    assert [park_s(n, share=1.0) for n in (1, 2, 3, 7)] == [60.0, 120.0, 240.0, 3600.0]
    assert backoff_s(1, share=0.0) == 1.0


@settings(HOUSE)
@given(st.integers(), st.text(), st.integers())
def test_jitter_is_from_0_up_to_1_and_the_same_for_the_same_names(seed: int, name: str, number: int) -> None:
    share = jitter(seed, name, number)
    assert 0.0 <= share < 1.0
    assert share == jitter(seed, name, number)


def test_jitter_is_spread() -> None:
    found = [jitter(seed, "a", 1) for seed in range(1000)]
    assert 0.45 < sum(found) / 1000 < 0.55
    assert len({jitter(0, name, 1) for name in "abcdefgh"}) == 8


@settings(HOUSE)
@given(st.floats(-10.0, 1e6), shares)
def test_polls_wait_between_two_seconds_and_the_cap(quiet_s: float, share: float) -> None:
    wait_s = poll_after_s(quiet_s, share=share)
    assert 1.8 <= wait_s <= 45.0
    assert poll_after_s(quiet_s + 1.0, share=share) >= wait_s


def test_the_intervals_of_polls_grow_by_the_same_factor_and_begin_anew_after_activity() -> None:
    at_s, waits = 0.0, [poll_after_s(0.0)]
    for _ in range(5):
        at_s += waits[-1]
        waits.append(poll_after_s(at_s))
    assert waits == pytest.approx([2.0 * 1.25**n for n in range(6)])
    assert poll_after_s(1e9) == 45.0


@pytest.mark.parametrize(
    ("ends", "bad"),
    [((), False), ((True,), True), ((False,) * 4 + (True,), False), ((False,) * 3 + (True,), True), ((False,), False)],
)
def test_more_than_a_fifth_is_too_bad(ends: tuple[bool, ...], bad: bool) -> None:
    assert too_bad(ends) is bad


CATEGORIES = {
    **dict.fromkeys(FAULTS, Category.TRANSIENT),
    Cause.RATE_LIMIT: Category.RATE_LIMIT,
    Cause.TIMEOUT: Category.TIMEOUT,
    Cause.BUDGET: Category.PERMANENT,
    Cause.STOPPED: Category.PERMANENT,
}


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_its_category(cause: Cause) -> None:
    assert category(cause) is CATEGORIES.get(cause, Category.WORK)


def test_what_is_whose_doing() -> None:
    assert {Cause.SPAWN, Cause.API_ERROR, Cause.FAULT, Cause.SETUP} == WORLDS_DOING
    assert {Cause.CRASH, Cause.STALL, Cause.LEASE_LOST} == FAULTS - WORLDS_DOING
    assert {Cause.CRASH} == BACKED_OFF - WORLDS_DOING
