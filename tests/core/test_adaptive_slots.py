"""Slots that give way to trouble and come back with calm, when the policy says so."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.core.model import Cause
from mcp_server.core.policy import CALM_S
from mcp_server.core.settle import slots_of
from mcp_server.core.why import why
from tests.core.build import Life, story

NAMES = tuple(f"s{n:02}" for n in range(20))


def _life(**policy: Any) -> Life:
    life = Life(*(story(n) for n in NAMES))
    life.start(**dict[str, Any]({"slots": 3, "attempts": 9, "breaker_faults": 0, "adaptive_slots": True, **policy}))
    return life


@pytest.mark.parametrize("cause", [Cause.CRASH, Cause.RATE_LIMIT, Cause.API_ERROR])
def test_a_fault_or_a_rate_limit_too_many_gives_up_a_slot(cause: Cause) -> None:
    life = _life()
    life.claim("s00")
    life.fail("s00", cause)
    assert slots_of(life.wave) == 2


def test_what_agents_do_badly_costs_no_slot() -> None:
    life = _life()
    for _ in range(3):
        life.claim("s00")
        life.fail("s00", Cause.AGENT_FAILED)
    assert slots_of(life.wave) == 3


def test_good_ends_count_too() -> None:
    life = _life()
    for name in NAMES[:9]:
        life.merge(name)
    life.claim("s09")
    life.fail("s09", Cause.CRASH)
    assert life.wave.ends == (*[False] * 9, True)
    assert slots_of(life.wave) == 3, "one of ten is not too many"


def test_only_the_last_ten_ends_count() -> None:
    life = _life()
    for name in NAMES[:12]:
        life.merge(name)
    assert len(life.wave.ends) == 10


def test_one_slot_is_always_left() -> None:
    life = _life()
    for name in ("s00", "s01", "s02", "s03", "s04"):
        if name in life.agents():
            life.fail(name, Cause.SPAWN)
    assert slots_of(life.wave) == 1


def test_calm_gives_them_back_one_by_one_and_never_more_than_there_were() -> None:
    life = _life()
    life.fail("s00", Cause.SPAWN)
    life.fail("s01", Cause.SPAWN)
    assert slots_of(life.wave) == 1
    assert "(fewer for now, because of faults)" in why(life.ledger, life.epic, life.of("s10"))
    life.tick(CALM_S - 1.0)
    assert slots_of(life.wave) == 1
    life.tick(1.0)
    assert slots_of(life.wave) == 2
    assert len(life.agents()) == 2
    life.tick(CALM_S)
    assert slots_of(life.wave) == 3
    life.tick(10 * CALM_S)
    assert slots_of(life.wave) == 3


def test_another_fault_makes_the_calm_begin_anew() -> None:
    life = _life()
    life.fail("s00", Cause.SPAWN)
    life.merge("s01", "s02")
    for name in NAMES[3:8]:
        life.merge(name)
    life.tick(CALM_S / 2)
    life.fail(life.agents()[0], Cause.SPAWN)
    life.tick(CALM_S / 2)
    assert slots_of(life.wave) == 2
    life.tick(CALM_S / 2)
    assert slots_of(life.wave) == 3


def test_without_the_policy_nothing_changes() -> None:
    life = _life(adaptive_slots=False)
    life.fail("s00", Cause.SPAWN)
    assert slots_of(life.wave) == 3
    assert life.wave.ends == ()
