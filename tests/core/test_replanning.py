"""An epic that is planned again: what its stories have become stays, what the author changed counts."""

from __future__ import annotations

from mcp_server.core.views import epic_state
from tests.core.build import Life, story


def test_an_edited_epic_keeps_what_is_merged_and_takes_the_new_words() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start("ready")
    life.merge("a")
    life.plan(story("a", description="new"), story("b", "a", minutes=7), story("c", "a"))
    assert life.states() == {"a": "merged", "b": "pending", "c": "pending"}
    assert (life.of("a").merged_as, life.of("a").spec.description, life.of("b").rank) == ("tip-a", "new", 7.0)
    life.start("ready")
    assert life.agents() == ["b", "c"]


def test_a_story_that_is_dropped_is_gone_with_what_became_of_it() -> None:
    life = Life(story("a"), story("b"))
    life.start(attempts=1)
    life.fail("a")
    life.merge("b")
    life.plan(story("b"), story("c"))
    assert life.states() == {"b": "merged", "c": "pending"}
    life.start()
    assert (life.agents(), life.wave.number) == (["c"], 2)


def test_a_failed_story_stays_failed_until_it_is_retried() -> None:
    life = Life(story("a"))
    life.start(attempts=1)
    life.fail("a")
    life.plan(story("a", description="clearer"))
    assert life.states() == {"a": "failed"}
    life.start(retry=True)
    assert (life.agents(), life.of("a").attempt, life.of("a").spec.description) == (["a"], 2, "clearer")


def test_a_mark_counts_a_story_as_done_and_frees_its_dependents() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start("ready", attempts=1)
    life.fail("a")
    life.plan(story("a", done=True), story("b", "a"))
    assert (life.states(), life.of("a").merged_as) == ({"a": "merged", "b": "pending"}, None)
    life.start("ready")
    assert life.agents() == ["b"]


def test_a_mark_that_is_taken_back_makes_the_story_pending_again() -> None:
    life = Life(story("a", done=True))
    life.plan(story("a"))
    assert life.states() == {"a": "pending"}


def test_a_story_that_we_merged_is_not_run_again_for_want_of_a_mark() -> None:
    life = Life(story("a"))
    life.start()
    life.merge("a")
    life.plan(story("a", done=True))
    life.plan(story("a"))
    assert (life.states(), life.of("a").merged_as) == ({"a": "merged"}, "tip-a")


def test_new_dependencies_count_from_the_next_wave() -> None:
    life = Life(story("a"), story("b"))
    life.plan(story("b"), story("a", "b"))
    life.start()
    assert life.states() == {"a": "queued", "b": "offered"}
    assert life.of("a").level == 2


def test_planning_again_leaves_other_epics_alone() -> None:
    life = Life(story("a"))
    life.plan(story("x"), epic="f")
    life.start(epic="f")
    before = life.ledger.epics["f"]
    life.plan(story("a"), story("b"))
    assert life.ledger.epics["f"] == before
    assert epic_state(life.ledger, life.epic) == "planned"
