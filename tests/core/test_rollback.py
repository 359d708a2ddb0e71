"""Which merged stories may be taken back, in which order, and what becomes of everybody around them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_server.core.checks import tree_checks
from mcp_server.core.events import EpicLanded, RollbackGivenUp
from mcp_server.core.landing import is_proven, landing_words, since_landing
from mcp_server.core.model import CheckRun, Proven, RollingBack
from mcp_server.core.rollback import still_stands, to_roll_back
from mcp_server.core.why import alerts, why
from mcp_server.errors import Code, Refused
from tests.core.build import EPIC, PARALLEL, Life, replayed, story
from tests.core.in_state import IN_STATE


def _merged(*specs: str) -> Life:
    """`b:a` builds on `a`; merged in this order."""
    told = [name.partition(":") for name in specs]
    life = Life(*(story(name, *([on] if on else [])) for name, _, on in told))
    life.start()
    for name, _, _ in told:
        life.merge(name)
    return life


def _order(life: Life, name: str) -> list[str]:
    return [s.spec.id for s in to_roll_back(life.ledger, EPIC, name, with_dependants=True)]


def _refusal(life: Life, name: str, *, whole: bool = False) -> Refused:
    with pytest.raises(Refused) as refused:
        to_roll_back(life.ledger, EPIC, name, with_dependants=whole)
    return refused.value


@pytest.mark.parametrize("before", IN_STATE)
def test_only_what_was_merged_here_is_taken_back(before: str) -> None:
    life = IN_STATE[before]()
    if before != "merged":
        assert _refusal(life, "a").code is Code.TOO_LATE
        return
    life.roll_back("a")
    assert life.states() == {"a": "merged"}, "until git has moved"
    life.rolled_back(("a", "refs/saved"))
    a = life.of("a")
    assert (life.states(), a.merged_as, a.proven, a.rolled_back) == ({"a": "cancelled"}, None, None, True)
    said = why(life.ledger, life.epic, a)
    assert "cancelled (rolled back: it broke). Its work is kept at refs/saved. To go on:" in said
    assert replayed(life.log) == life.ledger


def test_a_story_that_its_author_marked_as_done_is_not_ours_to_take_back() -> None:
    assert "by its mark" in _refusal(Life(story("a", done=True)), "a").why


def test_all_that_builds_on_it_goes_first_the_last_that_landed_before_all() -> None:
    life = _merged("a", "b:a", "x", "c:b", "d:a")
    assert _order(life, "a") == ["d", "c", "b", "a"]
    assert _order(life, "c") == ["c"]
    assert "first: d, c, b." in _refusal(life, "a").why
    assert "1 merged story builds" in _refusal(life, "b").why


def test_who_is_alive_on_top_is_named_whatever_was_asked_for() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "a"))
    life.start(slots=2)
    life.merge("a")
    assert "b, c build on" in _refusal(life, "a", whole=True).why
    life.cancel("c")
    life.stopped("c")
    assert "b builds on" in _refusal(life, "a", whole=True).why


def test_a_retry_runs_it_again_as_its_next_attempt() -> None:
    life = _merged("a")
    life.roll_back("a")
    life.rolled_back()
    life.retry("a")
    life.start()
    a = life.of("a")
    assert (life.states(), a.attempt, a.rolled_back) == ({"a": "offered"}, 2, False)


def test_what_waits_for_it_waits_again() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "b"))
    life.start(slots=1)
    life.merge("a")
    life.fail("b")
    life.cancel("b")
    life.stopped("b")
    life.roll_back("a")
    life.rolled_back()
    assert life.states() == {"a": "cancelled", "b": "cancelled", "c": "pending"}


def test_what_began_on_it_while_git_moved_is_stopped() -> None:
    life = Life(story("a"), story("b", "a"), story("c"))
    life.start("ready")
    life.merge("a")
    life.roll_back("a")
    life.start()
    life.claim("b")
    life.rolled_back()
    assert life.states() == {"a": "cancelled", "b": "stopping", "c": "offered"}
    assert life.of("b").stop_reason == "story 'a', which it builds on, is rolled back"


def test_one_that_is_given_up_leaves_everything_as_it_was() -> None:
    life = _merged("a")
    before = life.epic
    life.roll_back("a")
    life.submit(RollbackGivenUp(EPIC, life.now_s))
    assert life.epic == before


def _rolling(attempt: int = 1, head: str = "tip-a") -> RollingBack:
    return RollingBack(("a",), (attempt,), (head,), "tip", "reverted", (), "")


def test_a_proof_counts_for_the_very_merge_with_nothing_new_on_top() -> None:
    life = _merged("a")
    assert still_stands(life.ledger, EPIC, _rolling())
    assert not still_stands(life.ledger, EPIC, _rolling(attempt=2))
    assert not still_stands(life.ledger, EPIC, _rolling(head="other"))
    assert not still_stands(life.ledger, "other", _rolling())
    assert not still_stands(life.ledger, EPIC, replace(_rolling(), stories=("gone",)))
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.merge("a")
    assert not still_stands(life.ledger, EPIC, _rolling()), "b is alive"
    life.merge("b")
    assert not still_stands(life.ledger, EPIC, _rolling()), "b has landed"


# --- what is told of a landing


def _landed(life: Life, how: str = "ff", url: str = "") -> None:
    life.submit(EpicLanded(EPIC, "main", how, "0123456789abcdef", "tree", life.now_s, url=url))


@pytest.mark.parametrize(
    ("how", "url", "words"),
    [
        ("ff", "", "Landed on main as 0123456789ab, fast-forwarded."),
        ("squash", "", "Landed on main as 0123456789ab, squashed into one commit."),
        ("pr", "https://x/1", "Offered as a pull request to main (https://x/1)."),
        ("in a way to come", "", "Landed on main as 0123456789ab, in a way to come."),
    ],
)
def test_where_it_has_landed_is_among_its_alerts(how: str, url: str, words: str) -> None:
    life = _merged("a")
    assert landing_words(life.epic) == ""
    _landed(life, how, url)
    assert alerts(life.ledger, life.epic) == [words]
    assert replayed(life.log) == life.ledger


def test_what_came_or_went_since_is_named() -> None:
    life = _merged("a", "b")
    _landed(life)
    life.roll_back("a")
    life.rolled_back()
    assert "Changed since: a; land it again" in landing_words(life.epic)


def test_what_was_cancelled_and_never_merged_is_no_change() -> None:
    life = Life(story("a"), story("b"))
    life.start()
    life.merge("a")
    _landed(life)
    life.cancel("b")
    life.stopped("b")
    assert "Changed" not in landing_words(life.epic)


def test_a_proof_is_of_the_commit_where_its_checks_ran() -> None:
    life = _merged("a")
    run = CheckRun(("make", "test"), 0, 1.0)
    a = life.of("a")

    def proven(at: str | None) -> bool:
        stories = life.epic.stories.put(a._replace(proven=Proven("onto", "head", (run,), at)))
        return is_proven(life.epic._replace(stories=stories), "head")

    assert proven(None)
    assert not proven("the end of its batch")
    assert is_proven(life.epic._replace(undone="head"), "head")
    assert not is_proven(life.epic, "head")


def test_the_whole_tree_must_pass_each_check_of_the_epic_once_and_the_guards_of_who_is_there() -> None:
    lint, test, one, two = (("make", word) for word in ("lint", "test", "one", "two"))
    life = Life()
    life.plan(story("a", checks=(one,), guards=(two, test)), story("b", guards=(one,)), story("c"), checks=(test, lint))
    policy = replace(PARALLEL, checks=(lint,))
    assert tree_checks(life.epic, policy) == (lint, test)
    life.start()
    life.merge("a", "b")
    assert tree_checks(life.epic, policy) == (lint, test, two, one)
    assert tree_checks(life.epic, policy, without=("a",)) == (lint, test, one)


def test_what_builds_on_it_in_two_ways_goes_once() -> None:
    life = Life(story("a"), story("b", "a"), story("c", "a"), story("d", "b", "c"))
    life.start()
    life.merge("a", "b", "c", "d")
    assert _order(life, "a") == ["d", "c", "b", "a"]


def test_of_an_epic_that_was_never_landed_nothing_came_since() -> None:
    assert since_landing(_merged("a").epic) == []
