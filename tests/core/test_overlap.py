"""Who may be at work beside whom: `overlap` of a wave and of a story, exempt files, and what was learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_server.core.footprint import covers
from mcp_server.core.likely import Learned, Meetings
from mcp_server.core.spec import Predicted, Sharing, Source
from tests.core.build import Life, story

EXCLUSIVE, AUTO, OPTIMISTIC = Sharing
BOTH, FIRST = ["a", "b"], ["a"]


@pytest.mark.parametrize(
    ("wave", "one", "other", "alive"),
    [
        (EXCLUSIVE, None, None, FIRST),
        (OPTIMISTIC, None, None, BOTH),
        (AUTO, None, None, BOTH),
        (OPTIMISTIC, EXCLUSIVE, None, FIRST),
        (OPTIMISTIC, None, EXCLUSIVE, FIRST),
        (EXCLUSIVE, OPTIMISTIC, None, FIRST),
        (EXCLUSIVE, OPTIMISTIC, OPTIMISTIC, BOTH),
        (OPTIMISTIC, AUTO, None, BOTH),
        (EXCLUSIVE, AUTO, AUTO, BOTH),
    ],
)
def test_of_two_stories_that_share_a_file_the_stricter_word_counts(
    wave: Sharing, one: Sharing | None, other: Sharing | None, alive: list[str]
) -> None:
    life = Life(story("a", files="x", overlap=one), story("b", files="x", overlap=other))
    life.start(overlap=wave)
    assert life.agents() == alive


def test_auto_keeps_those_apart_that_are_likely_to_conflict_and_says_so() -> None:
    life = Life(story("a", files="x y"), story("b", files="x y"), story("c", files="y"))
    life.start(overlap=AUTO, slots=3)
    assert life.agents() == ["a", "c"], "two shared files conflict with 51 %, one with 30 %"
    assert "a (offered) holds x, y, which would conflict by 51%" in life.why("b")


def test_the_stricter_word_counts_over_epics_too() -> None:
    life = Life(story("a", files="x"))
    life.plan(story("z", files="x"), epic="f")
    life.start(overlap=OPTIMISTIC)
    life.start(epic="f", overlap=EXCLUSIVE)
    assert life.agents() == FIRST


def test_dependencies_count_under_every_policy() -> None:
    life = Life(story("a", files="x"), story("b", "a", files="x"))
    life.start(overlap=OPTIMISTIC)
    assert life.agents() == FIRST


@pytest.mark.parametrize(("seen", "alive"), [(Meetings(5, 5), FIRST), (Meetings(5, 0), BOTH)])
def test_auto_goes_by_what_was_seen_of_the_file(seen: Meetings, alive: list[str]) -> None:
    life = Life(story("a", files="x"), story("b", files="x"))
    life.ledger = replace(life.ledger, learned=Learned({"x": seen}))
    life.start(overlap=AUTO)
    assert life.agents() == alive


def test_exempt_files_keep_nobody_apart() -> None:
    life = Life(story("a", files="LOG.md src/a"), story("b", files="LOG.md"), story("c", files="LOG.md src/"))
    life.start(slots=3, exempt=("LOG.md",))
    assert life.agents() == BOTH


@pytest.mark.parametrize("exempt", [("x", "y"), ("y", "x")])
def test_an_exempt_file_of_one_wave_is_none_of_a_wave_that_does_not_exempt_it(exempt: tuple[str, str]) -> None:
    life = Life(story("a", files="x"))
    life.plan(story("z", files="x"), epic="f")
    life.start(exempt=exempt[:1])
    life.start(epic="f", exempt=exempt[1:])
    assert life.agents() == FIRST


def test_a_story_keeps_the_terms_it_was_admitted_under() -> None:
    life = Life(story("a", files="x", overlap=OPTIMISTIC), story("b", files="x"))
    life.plan(story("z", files="x", overlap=OPTIMISTIC), epic="f")
    life.start("ready")
    life.succeed("a")
    life.interrupt()
    life.start(epic="f")
    assert life.agents() == ["f/z"], "both are optimistic"
    life.start(overlap=EXCLUSIVE, retry=True)
    assert life.agents() == ["f/z"], "a is in the merge queue beside it, and b waits for them"
    assert life.of("a").terms.overlap is OPTIMISTIC


def test_files_that_only_the_text_names_are_held_unless_files_are_declared() -> None:
    guess, more = Predicted("x", Source.TEXT), Predicted("y", Source.HISTORY)
    life = Life(
        story("a", predicted=(guess, more)),
        story("b", files="x"),
        story("c", files="y"),
        story("d", files="z", predicted=(guess,)),
    )
    life.start(slots=4)
    assert life.agents() == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("wide", "entry", "whole"),
    [
        ("a.md", "a.md", True),
        ("docs/", "docs/a.md", True),
        ("docs/", "docs/*.md", True),
        ("*.lock", "deep/x.lock", True),
        ("a.md", "docs/", False),
        ("*.md", "docs/", False),
        ("*.md", "docs/*", False),
        ("docs/a.md", "docs/", False),
        ("docs/", "docs/*.md & *a.md", True),
        ("x/", "docs/*.md & *a.md", False),
    ],
)
def test_only_what_is_surely_all_of_an_entry_covers_it(wide: str, entry: str, whole: bool) -> None:
    assert covers(wide, entry) is whole


def test_of_those_that_may_run_together_who_shares_no_file_with_anybody_starts_first() -> None:
    life = Life(story("a", files="x", minutes=9), story("b", files="x", minutes=8), story("c", files="y", minutes=3))
    life.start(overlap=OPTIMISTIC, slots=2)
    assert life.agents() == ["a", "c"], "b would share x with a"
    life.merge("c")
    assert life.agents() == ["a", "b"], "a slot is better used than left empty"


def test_who_is_three_times_as_urgent_does_not_stand_behind_for_the_sake_of_its_files() -> None:
    long, longer = story("b", files="x", minutes=8), story("a", files="x", minutes=9)
    life = Life(longer, long, story("c", minutes=3), story("d", minutes=2), story("e", minutes=1))
    life.start(overlap=OPTIMISTIC, slots=3)
    assert life.agents() == ["a", "b", "c"], "c may go before b, d may not"


def test_those_that_have_to_share_keep_their_order() -> None:
    life = Life(*(story(name, files="x", minutes=9 - nth) for nth, name in enumerate("abcd")))
    life.start(overlap=OPTIMISTIC, slots=3)
    assert life.agents() == ["a", "b", "c"]
