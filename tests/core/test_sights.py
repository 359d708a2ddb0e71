"""What a live probe saw: what counts as outside a footprint, what it locks, and in which words it is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.core.footprint import overlap
from mcp_server.core.invariants import check, check_settled
from mcp_server.core.model import Clash
from mcp_server.core.policy import probe_after_s
from mcp_server.core.sights import (
    CLASHES_MAX,
    PATHS_MAX,
    TOUCHED_MAX,
    bounded,
    folded,
    outside,
    told,
    undeclared,
    warned,
)
from mcp_server.core.spec import AttemptId
from mcp_server.core.why import alerts, why
from tests.core.build import Life, replayed, story

A, B = AttemptId("e", "a", 1), AttemptId("e", "b", 1)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "d.py"]), min_size=1, max_size=5).map("/".join)


def both(life: Life, *, certain: bool = True) -> None:
    """`a` and `b` change the same lines."""
    life.see("a", clashes=(Clash(B, ("x.py",), certain),))
    life.see("b", clashes=(Clash(A, ("x.py",), certain),))


def pair() -> Life:
    """`a` and `b` at work."""
    life = Life(story("a", files="a.py"), story("b", files="b.py"))
    life.start()
    life.claim("a", "b")
    return life


def words(life: Life, name: str) -> str:
    return why(life.ledger, life.epic, life.of(name))


def answer(life: Life, name: str) -> str:
    return warned(life.ledger, life.epic, life.of(name))


# --- outside the footprint -------------------------------------------------------------------------------------------


def test_what_no_entry_covers_is_outside() -> None:
    files = ("lib/z.py", "src/deep/a.py", "README.md", "docs/b.md")
    assert outside(files, ("src/", "docs/*.md", "readme.MD")) == ("lib/z.py",)
    assert outside(files, ()) == ("README.md", "docs/b.md", "lib/z.py", "src/deep/a.py")


@settings(deadline=None, max_examples=60)
@given(st.sets(PATHS, max_size=40), st.integers(1, 10))
def test_folded_names_few_and_covers_all(files: set[str], most: int) -> None:
    found = folded(files, most)
    assert len(found) <= most
    assert all(overlap((file,), found) for file in files)
    assert len(files) > most or found == tuple(sorted(files))


def test_of_many_files_their_deepest_folders_are_named() -> None:
    files = {f"src/core/{number}.py" for number in range(TOUCHED_MAX)} | {"README.md"}
    assert folded(files) == ("README.md", "src/core/")
    assert folded(str(number) for number in range(TOUCHED_MAX + 1)) == ("**",)
    assert folded({"a/x/1", "a/x/2", "b/z/3"}, 2) == ("a/x/", "b/z/")


def test_what_is_stored_of_conflicts_is_in_order_and_bounded() -> None:
    many = [Clash(AttemptId("e", f"s{n}", 1), tuple(f"{f:03}" for f in range(99, 0, -1))) for n in range(40, 0, -1)]
    kept = bounded([*many, Clash(None, ("z",))])
    assert len(kept) == CLASHES_MAX
    assert kept[0] == Clash(None, ("z",))
    assert kept[1].paths == tuple(f"{f:03}" for f in range(1, PATHS_MAX + 1))
    assert bounded(many) == bounded(many[::-1])


# --- what it locks ---------------------------------------------------------------------------------------------------


def test_a_file_outside_the_footprint_is_locked_for_later_stories_until_it_is_put_back_or_the_attempt_ends() -> None:
    life = Life(story("a", files="a.py"), story("w", files="w.py"), story("b", files="b.py"), story("c", "w"))
    life.start(slots=2)
    life.claim("a", "w")
    life.see("a", "b.py")
    life.fail("w")
    life.fail("w")
    assert str(life.of("b").state) == "queued"
    assert "Waits for its files: a (running) holds b.py" in words(life, "b")
    life.see("a")
    assert str(life.of("b").state) == "offered"
    assert replayed(life.log) == life.ledger


def test_the_lock_goes_with_the_merge() -> None:
    life = Life(story("a", files="a.py"), story("b", files="b.py", minutes=0.5))
    life.start(slots=1)
    life.claim("a")
    life.see("a", "b.py")
    life.succeed("a")
    assert str(life.of("b").state) == "queued"
    life.merge("a")
    assert str(life.of("b").state) == "offered"
    assert life.of("a").touched == ()


def test_what_an_attempt_was_seen_to_do_is_nothing_to_the_next_one() -> None:
    life = pair()
    life.see("a", "z.py", clashes=(Clash(B, ("x.py",)),))
    life.fail("a")
    a = life.of("a")
    assert (str(a.state), a.attempt, a.touched, a.clashes) == ("offered", 2, (), ())


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_what_it_was_seen_to_do_goes_with_the_story(end: str) -> None:
    life = pair()
    life.see("a", "z.py", clashes=(Clash(None, ("x.py",)),))
    if end == "fail":
        life.fail("a")
        life.fail("a")
    else:
        life.cancel("a")
        assert life.of("a").touched == ("z.py",), "its files are its own until its processes are gone"
        life.stopped("a")
    assert (life.of("a").touched, life.of("a").clashes) == ((), ())


def test_two_that_work_already_may_touch_the_same_file() -> None:
    life = pair()
    life.see("a", "b.py")
    life.see("b", "a.py")
    check(life.ledger)
    check_settled(life.ledger)
    assert life.states() == {"a": "running", "b": "running"}


# --- in words --------------------------------------------------------------------------------------------------------


def test_a_conflict_to_come_is_told_of_both_stories_and_once_to_the_lead() -> None:
    life = pair()
    both(life)
    assert words(life, "a") == "Its work conflicts with b (running) in x.py."
    assert words(life, "b") == "Its work conflicts with a (running) in x.py."
    assert alerts(life.ledger, life.epic) == ["a: Its work conflicts with b (running) in x.py."]


def test_a_worker_is_told_with_whom_where_and_what_to_do() -> None:
    life = pair()
    assert answer(life, "a") == ""
    both(life)
    said = answer(life, "a")
    assert said.startswith("Your work conflicts with that of story b (Title of b) in x.py. Keep your change small")
    assert "talk to nobody" in said


def test_a_conflict_that_is_resolved_disappears() -> None:
    life = pair()
    both(life)
    life.see("a")
    life.see("b")
    assert (words(life, "a"), alerts(life.ledger, life.epic), answer(life, "b")) == ("", [], "")


def test_a_conflict_with_an_attempt_that_is_over_is_none() -> None:
    life = pair()
    both(life)
    life.fail("b")
    assert (words(life, "a"), alerts(life.ledger, life.epic)) == ("", [])
    life.cancel("a")
    assert told(life.ledger, life.epic, life.of("a")) == []


def test_nor_is_one_with_the_last_attempt_of_a_story_that_has_failed() -> None:
    life = Life(story("a"), story("b"))
    life.start(attempts=1)
    life.claim("a", "b")
    both(life)
    life.fail("b")
    assert (life.states()["b"], words(life, "a")) == ("failed", "")


def test_once_the_other_story_is_merged_that_is_said() -> None:
    life = pair()
    both(life)
    life.succeed("b")
    assert words(life, "a") == "Its work conflicts with b (merging) in x.py."
    assert words(life, "b").endswith("Its work conflicts with a (running) in x.py.")
    life.merge("b")
    assert words(life, "a") == "Its work conflicts with b (merged) in x.py."
    assert answer(life, "a").startswith("Your work conflicts with what is merged already by b in x.py.")


def test_a_conflict_with_the_branch_names_who_landed_there_last_when_that_is_known() -> None:
    life = Life(story("a"), story("b"), story("c"))
    life.start(slots=3)
    life.claim("a", "b", "c")
    life.see("a", clashes=(Clash(None, ("x.py",)),))
    assert words(life, "a") == "Its work conflicts with what is merged in x.py."
    assert answer(life, "a").startswith("Your work conflicts with what is merged already in x.py.")
    life.merge("c")
    life.tick(1.0)
    life.merge("b")
    assert words(life, "a") == "Its work conflicts with what is merged (by b) in x.py."
    assert answer(life, "a").startswith("Your work conflicts with what is merged already by b in x.py.")
    assert alerts(life.ledger, life.epic) == ["a: Its work conflicts with what is merged (by b) in x.py."]


def test_where_git_cannot_try_a_merge_a_conflict_is_only_possible() -> None:
    life = pair()
    both(life, certain=False)
    assert words(life, "a") == "Its work may conflict with b (running) in x.py."
    assert answer(life, "a").startswith("Your work may conflict with that of story b")


def test_a_story_of_another_epic_is_named_with_it() -> None:
    life = pair()
    life.plan(story("a"), epic="f")
    life.start(epic="f", slots=3)
    life.claim("f/a")
    life.see("a", clashes=(Clash(AttemptId("f", "a", 1), ("x.py",)),))
    assert words(life, "a") == "Its work conflicts with f/a (running) in x.py."


def test_a_story_that_nobody_knows_is_not_in_anybodys_way() -> None:
    life = pair()
    life.see("a", clashes=(Clash(AttemptId("gone", "a", 1), ("x.py",)), Clash(AttemptId("e", "gone", 1), ("x.py",))))
    assert words(life, "a") == ""


def test_files_outside_the_footprint_are_named_and_not_too_many() -> None:
    life = pair()
    life.see("a", "p.py", "q.py", "r.py", "s.py", "t.py")
    said = "It changes files outside its footprint: p.py, q.py, r.py, s.py and 1 more."
    assert words(life, "a") == undeclared(life.of("a")) == said
    assert alerts(life.ledger, life.epic) == [f"a: {said}"]
    assert answer(life, "a") == f"{said} Leave them as they were unless the story needs them."


def test_a_story_without_a_footprint_has_no_outside() -> None:
    life = Life(story("a"))
    life.start()
    life.claim("a")
    life.see("a", "p.py")
    assert (words(life, "a"), life.of("a").touched) == ("", ("p.py",))


# --- the clock -------------------------------------------------------------------------------------------------------


def test_looks_come_every_five_seconds_and_slower_while_nothing_changes() -> None:
    assert [probe_after_s(quiet_s) for quiet_s in (-1.0, 0.0, 20.0, 80.0, 1e6)] == [5.0, 5.0, 10.0, 25.0, 25.0]


def test_one_story_alone_is_looked_at_as_slowly_as_possible() -> None:
    assert probe_after_s(0.0, alone=True) == 25.0


@given(st.floats(0, 1e6), st.floats(0, 5), st.booleans())
def test_a_conflict_is_seen_within_thirty_seconds_by_looks_of_up_to_five(
    quiet_s: float, took_s: float, alone: bool
) -> None:
    assert 5.0 <= probe_after_s(quiet_s, took_s=took_s, alone=alone) + took_s <= 30.0


@given(st.floats(0, 1e6), st.floats(0, 1e3))
def test_the_probe_is_at_work_for_a_fifth_of_the_time_at_most(quiet_s: float, took_s: float) -> None:
    assert took_s <= 0.2 * (probe_after_s(quiet_s, took_s=took_s) + took_s) + 1e-9
