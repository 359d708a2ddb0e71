"""The time of a wave: when it is over, agents are stopped, and what is done is merged."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.build import Life, story


def _life(*names: str, **policy: Any) -> Life:
    life = Life(*(story(n) for n in names or "abc"))
    life.start(**dict[str, Any]({"slots": 2, "epic_timeout_s": 100.0, **policy}))
    return life


def test_when_the_time_is_over_agents_are_stopped_and_done_work_is_merged() -> None:
    life = _life()
    life.claim("a")
    life.succeed("b")
    life.tick(99.0)
    assert life.states() == {"a": "running", "b": "merging", "c": "offered"}
    life.tick_to_wake()
    assert life.now_s == 100.0
    assert life.states() == {"a": "stopping", "b": "merging", "c": "stopping"}
    assert "timeout: the 100 s" in life.wave.ended_because
    life.stopped("a", "c")
    life.merge("b")
    assert life.states() == {"a": "cancelled", "b": "merged", "c": "cancelled"}
    assert str(life.wave.state) == "finished"


def test_what_waits_is_put_back_when_the_time_is_over() -> None:
    life = _life(slots=1)
    life.merge("a")
    life.tick(100.0)
    assert life.states() == {"a": "merged", "b": "stopping", "c": "pending"}


def test_a_merge_that_is_refused_afterwards_is_not_tried_again_in_this_wave() -> None:
    life = _life("a", attempts=3)
    life.succeed("a")
    life.tick(100.0)
    life.refuse("a")
    assert life.states() == {"a": "pending"}
    assert str(life.wave.state) == "finished"


def test_a_sub_agent_that_should_repair_afterwards_is_stopped() -> None:
    life = Life(story("a"))
    life.team(epic_timeout_s=50.0)
    life.lease("a")
    life.hand_in("a")
    life.tick(50.0)
    life.refuse("a")
    assert life.states() == {"a": "stopping"}
    life.stopped("a")
    assert life.states() == {"a": "cancelled"}


def test_the_time_counts_also_while_the_epic_is_paused() -> None:
    life = _life("a")
    life.claim("a")
    life.pause()
    life.tick_to_wake()
    assert life.states() == {"a": "stopping"}


def test_the_time_is_that_of_one_wave() -> None:
    life = _life("a")
    life.tick(100.0)
    life.stopped("a")
    life.start(retry=True, epic_timeout_s=100.0)
    life.tick(99.0)
    assert life.states() == {"a": "offered"}
    life.tick(1.0)
    assert life.states() == {"a": "stopping"}


@pytest.mark.parametrize("limit_s", [None, 1e9])
def test_without_a_limit_nothing_is_stopped(limit_s: float | None) -> None:
    life = _life("a", epic_timeout_s=limit_s)
    life.tick(1e6)
    assert life.states() == {"a": "offered"}
