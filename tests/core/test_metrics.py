"""What the journal tells of time: when each attempt worked and how it ended, how many at once, how long it all took."""

from __future__ import annotations

from mcp_server.core.metrics import Span, most_at_once, spans, wall_s
from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId
from tests.core.build import Life, story


def _started(*names: str) -> Life:
    """Agents of these stories are at work since second 10."""
    life = Life(*(story(name) for name in names))
    life.tick(10.0)
    life.start(slots=9)
    life.claim(*names)
    return life


def _spans(life: Life) -> dict[str, Span]:
    """The last span of each story."""
    return {span.attempt.story: span for span in spans(life.log, "e")}


def _at(started_s: float, ended_s: float) -> Span:
    return Span(AttemptId("e", "a", 1), started_s, ended_s, ended_s, "merged")


def test_a_merged_attempt_worked_until_its_agent_ended_and_is_settled_when_its_branch_landed() -> None:
    life = _started("a")
    life.tick(20.0)
    life.succeed("a")
    life.tick(5.0)
    life.merge("a")
    assert spans(life.log, "e") == [Span(life.attempt("a"), 10.0, 30.0, 35.0, "merged")]
    assert _spans(life)["a"].agent_s == 20.0


def test_an_attempt_that_failed_is_settled_when_its_agent_ended_and_names_its_cause() -> None:
    life = _started("a")
    life.tick(20.0)
    life.fail("a", Cause.TIMEOUT)
    assert spans(life.log, "e") == [Span(AttemptId("e", "a", 1), 10.0, 30.0, 30.0, "timeout")]


def test_a_refused_merge_says_nothing_of_when_the_agent_ended() -> None:
    life = _started("a")
    life.tick(20.0)
    life.succeed("a")
    life.tick(7.0)
    life.refuse("a", Cause.CONFLICT)
    assert spans(life.log, "e") == [Span(AttemptId("e", "a", 1), 10.0, 30.0, 37.0, "conflict")]


def test_an_attempt_that_was_told_to_stop_worked_until_it_had_stopped() -> None:
    life = _started("a", "b")
    life.tick(20.0)
    life.succeed("b")
    life.cancel()
    life.tick(3.0)
    life.stopped("a", "b")
    assert {n: (s.ended_s, s.settled_s, s.outcome) for n, s in _spans(life).items()} == {
        "a": (33.0, 33.0, "stopped"),
        "b": (30.0, 33.0, "stopped"),
    }


def test_the_end_of_an_engine_ends_what_was_at_work_and_nothing_else() -> None:
    life = _started("a", "b", "c")
    life.plan(story("x"), epic="f")
    life.start(epic="f", slots=9)
    life.claim("f/x")
    life.tick(5.0)
    life.succeed("b")
    life.tick(5.0)
    life.interrupt(epic="f")
    life.tick(5.0)
    life.interrupt()
    life.tick(5.0)
    life.merge("b")
    found = _spans(life)
    assert found["a"] == Span(AttemptId("e", "a", 1), 10.0, 25.0, 25.0, "interrupted")
    assert found["b"] == Span(AttemptId("e", "b", 1), 10.0, 15.0, 30.0, "merged")
    assert [(s.ended_s, s.outcome) for s in spans(life.log, "f")] == [(20.0, "interrupted")]


def test_what_the_journal_does_not_see_the_end_of_is_unfinished_up_to_its_last_fact() -> None:
    life = _started("a", "b")
    life.tick(20.0)
    life.fail("b")
    assert _spans(life)["a"] == Span(AttemptId("e", "a", 1), 10.0, 30.0, 30.0, "unfinished")


def test_every_attempt_of_a_story_has_a_span_of_its_own_and_other_epics_have_none() -> None:
    life = _started("a")
    life.plan(story("x"), epic="f")
    life.start(epic="f", slots=9)
    life.claim("f/x")
    life.fail("a")
    life.merge("a")
    assert [(s.attempt.number, s.outcome) for s in spans(life.log, "e")] == [(1, "agent_failed"), (2, "merged")]


def test_an_attempt_whose_agent_never_started_has_no_span() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a", Cause.SPAWN)
    assert spans(life.log, "e") == []


def test_a_merge_that_was_found_in_git_is_one() -> None:
    life = _started("a")
    life.interrupt()
    life.tick(50.0)
    life.found("a", 1)
    assert [(s.settled_s, s.outcome) for s in spans(life.log, "e")] == [(60.0, "merged")]


def test_agents_that_take_over_from_each_other_in_one_moment_were_not_at_work_at_once() -> None:
    assert most_at_once([_at(0.0, 10.0), _at(10.0, 20.0)]) == 1
    assert most_at_once([_at(0.0, 10.0), _at(9.0, 20.0), _at(5.0, 9.5)]) == 3
    assert most_at_once([]) == 0


def test_the_wall_time_runs_from_the_first_wave_to_the_last_merge_of_its_epic() -> None:
    life = Life(story("a"), story("b"))
    life.plan(story("x"), epic="f")
    life.start(epic="f")
    life.tick(10.0)
    life.start(slots=2)
    life.tick(5.0)
    life.merge("a")
    life.cancel()
    life.stopped("b")
    life.tick(100.0)
    life.start(retry=True)
    life.merge("b")
    life.tick(100.0)
    life.merge("f/x")
    assert (wall_s(life.log, "e"), wall_s(life.log, "f")) == (105.0, 215.0)


def test_without_a_merge_there_is_no_wall_time() -> None:
    assert wall_s(_started("a").log, "e") == 0.0
    assert wall_s([], "e") == 0.0
