"""A conflict costs a story no attempt while repairs are left, and then waits for a human; who may land together."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.core.brief import RIVALS_SHOWN, brief
from mcp_server.core.events import AttemptSucceeded, BranchMerged, MergeRefused
from mcp_server.core.model import Cause
from mcp_server.core.spec import Sharing
from mcp_server.core.views import question, shown_state
from mcp_server.core.wanted import Integrate, wanted
from mcp_server.core.why import why
from tests.core.build import Life, story

SAVED = "refs/epicwave/rescue/e/a/1"


def _conflicts(life: Life, name: str = "a", *paths: str, saved: str | None = SAVED) -> None:
    """The story's work comes to the merge queue and conflicts there."""
    life.succeed(name)
    attempt = life.attempt(name)
    life.report(MergeRefused(attempt, Cause.CONFLICT, "in x.py.", "<<<<", saved, life.now_s, "tip", paths or ("x.py",)))


def _stuck(**policy: Any) -> Life:
    life = Life(story("a"), story("b", "a"))
    life.start(**dict[str, Any]({"attempts": 1, "repairs": 2, **policy}))
    while not question(life.of("a")):
        _conflicts(life)
    return life


def test_a_conflict_costs_no_attempt_as_often_as_there_are_repairs() -> None:
    life = Life(story("a"))
    life.start(attempts=1, repairs=2)
    _conflicts(life)
    assert (str(life.of("a").state), life.of("a").attempt, life.of("a").budget) == ("offered", 2, 2)
    _conflicts(life)
    life.merge("a")
    assert life.states() == {"a": "merged"}


def test_before_a_human_is_asked_the_last_repair_has_its_files_for_itself() -> None:
    life = Life(story("a", files="y", minutes=9), story("b", files="x y"), story("c", files="z"))
    life.start(overlap=Sharing.OPTIMISTIC, repairs=2, slots=3)
    _conflicts(life, "a", "x")
    assert life.agents() == ["a", "b", "c"], "the first repair runs beside the others"
    _conflicts(life, "a", "x")
    assert life.agents() == ["b", "c"]
    assert "b (offered) holds x, y" in life.why("a")
    life.merge("b")
    assert life.agents() == ["a", "c"]


def test_with_one_repair_it_is_the_first_one() -> None:
    life = Life(story("a", files="y", minutes=9), story("b", files="x y"))
    life.start(overlap=Sharing.OPTIMISTIC, repairs=1, slots=3)
    _conflicts(life, "a", "x")
    assert life.agents() == ["b"]


def test_without_repairs_nobody_is_kept_apart_for_one() -> None:
    life = Life(story("a", files="x"), story("b", files="x"))
    life.start(overlap=Sharing.OPTIMISTIC, repairs=0)
    assert life.agents() == ["a", "b"]


def test_a_repair_keeps_away_from_the_files_in_which_it_conflicted_though_nobody_declared_them() -> None:
    life = Life(story("a", files="y", minutes=9), story("b", files="x"))
    life.start(slots=3)
    _conflicts(life, "a", "x")
    assert life.agents() == ["b"]
    life.merge("b")
    assert life.agents() == ["a"]


def test_a_red_check_costs_an_attempt_as_ever() -> None:
    life = Life(story("a"))
    life.start(attempts=1, repairs=2)
    life.succeed("a")
    life.refuse("a")
    assert life.states() == {"a": "failed"}


def test_a_conflict_after_the_last_repair_waits_for_a_human_and_fails_nothing() -> None:
    life = _stuck()
    assert (life.of("a").attempt, shown_state(life.epic, life.of("a"))) == (3, "blocked")
    assert life.states() == {"a": "pending", "b": "pending"}


def test_whoever_waits_for_a_human_says_the_commands() -> None:
    life = _stuck()
    text = why(life.ledger, life.epic, life.of("a"))
    assert "it conflicted 3 times" in text
    for command in (
        "`git worktree add -b mend-a ../mend-a epicwave/e`",
        f"`git cherry-pick epicwave/e..{SAVED}`",
        "`epicwave retry e a --note 'cherry-pick epicwave/e..mend-a'`",
    ):
        assert command in text
    assert why(life.ledger, life.epic, life.of("b")).startswith("Blocked by a (waits for a human).")


def test_where_nothing_was_saved_there_is_nothing_to_pick() -> None:
    life = Life(story("a"))
    life.start(repairs=0)
    _conflicts(life, saved=None)
    text = why(life.ledger, life.epic, life.of("a"))
    assert "Waits for you" in text
    assert "cherry-pick epicwave/e..refs" not in text


def test_a_retry_gives_it_all_its_repairs_again() -> None:
    life = _stuck()
    life.retry("a")
    life.start()
    _conflicts(life)
    assert (str(life.of("a").state), question(life.of("a"))) == ("offered", "")


def test_repairs_in_place_count_too() -> None:
    life = Life(story("a"))
    life.team(repairs=1)
    _conflicts(life)
    assert str(life.of("a").state) == "running"
    _conflicts(life)
    assert question(life.of("a")) == "in x.py."


def _landed(life: Life, *names: str) -> None:
    for name in names:
        life.merge(name)


def _brief(life: Life) -> str:
    return brief(life.epic, life.of("a"), life.attempt("a"), ())


def test_the_next_brief_has_both_sides_and_what_the_others_wanted() -> None:
    life = Life(story("a"), story("b", description="Make x\n  faster."))
    life.start(slots=2)
    _landed(life, "b")
    _conflicts(life)
    text = _brief(life)
    assert "- b Title of b: Make x faster." in text
    assert f"Their side: `git diff {SAVED}...HEAD -- x.py`. Yours: `git diff HEAD...{SAVED} -- x.py`." in text
    assert f"`git cherry-pick HEAD..{SAVED}`" in text


def test_only_those_who_changed_the_same_files_are_rivals_the_last_first() -> None:
    names = [f"r{n}" for n in range(RIVALS_SHOWN + 1)]
    life = Life(story("a"), *(story(n) for n in names))
    life.start(slots=9)
    _landed(life, *names)
    _conflicts(life, "a", "other.py")
    assert "Whom it conflicted with" not in _brief(life)
    _conflicts(life, "a", "x.py", saved=None)
    told = _brief(life).partition("## Whom it conflicted with")[2].partition("##")[0]
    assert [line.split()[1] for line in told.split("\n") if line.startswith("- ")] == names[:0:-1]
    assert "cherry-pick" not in told


def _queue(*files: str, **policy: Any) -> Life:
    """Stories `a`, `b` ... in the merge queue, each with its files."""
    names = "abcdefgh"[: len(files)]
    life = Life(*(story(n) for n in names))
    life.start(**dict[str, Any]({"slots": 9, **policy}))
    life.claim(*names)
    for name, of in zip(names, files, strict=True):
        life.report(AttemptSucceeded(life.attempt(name), "base", f"head-{name}", tuple(of.split()), life.now_s))
    return life


def _batch(life: Life) -> str:
    (job,) = (j for j in wanted(life.ledger) if isinstance(j, Integrate))
    return "".join(a.story for a in (job.attempt, *job.behind))


@pytest.mark.parametrize(
    ("files", "policy", "batch"),
    [
        (("x", "y", "z"), {}, "abc"),
        (("x", "x y", "z"), {}, "ac"),
        (("x", "y", "y", "z"), {}, "abd"),
        (("1", "2", "3", "4", "5"), {}, "abcd"),
        (("1", "2", "3"), {"batch": 2}, "ab"),
        (("1", "2", "3"), {"batch": 1}, "a"),
    ],
)
def test_those_whose_files_are_disjoint_may_land_together(
    files: tuple[str, ...], policy: dict[str, Any], batch: str
) -> None:
    assert _batch(_queue(*files, **policy)) == batch


def test_whoever_the_world_has_failed_has_a_turn_of_its_own() -> None:
    life = _queue("x", "y", "z")
    life.report(MergeRefused(life.attempt("b"), Cause.FAULT, "no disk.", "", None, life.now_s))
    assert _batch(life) == "ac"


def test_it_is_the_same_job_whoever_joins_the_queue() -> None:
    life = _queue("x")
    before = wanted(life.ledger)
    life = _queue("x", "y")
    assert wanted(life.ledger) == before


def test_those_behind_may_land_before_the_head_is_told_of() -> None:
    life = _queue("x", "y")
    life.report(BranchMerged(life.attempt("b"), "tip-b", ("y",), life.now_s))
    assert life.states() == {"a": "merging", "b": "merged"}
    assert _batch(life) == "a"
