"""Who shares files with whom."""

from __future__ import annotations

import re

import pathspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.core.footprint import MAX_PATH, meet, normalise, overlap, touching

SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "?", "[ab]", "a?", "**"])
PATTERNS = st.lists(SEGMENTS, min_size=2, max_size=4).map("/".join)
PATHS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("./src/a.py", "src/a.py"),
        ("src\\sub\\a.py", "src/sub/a.py"),
        ("src//sub/./a.py", "src/sub/a.py"),
        ("docs/../src/", "src/"),
        (" Dockerfile ", "Dockerfile"),
        ("src/**/*.py", "src/**/*.py"),
        ("app/(auth)/[id]/page.tsx", "app/(auth)/[id]/page.tsx"),
        (".github/workflows", ".github/workflows"),
    ],
)
def test_a_path_has_one_spelling(written: str, meant: str) -> None:
    assert normalise(written) == meant
    assert normalise(meant) == meant


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share", "absolute"),
        ("C:\\Users\\x", "absolute"),
        ("c:relative", "absolute"),
        ("~/x", "absolute"),
        ("../x", "leads out"),
        ("src/../../x", "leads out"),
        ("..", "leads out"),
        (".", "whole repository"),
        ("src/..", "whole repository"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("https://example.com/a.py", "URL"),
        ("a" * (MAX_PATH + 1), "longer"),
    ],
)
def test_what_is_no_path_of_the_repository_is_refused(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalise(written)


@given(st.text(max_size=40))
def test_a_normalised_path_stays_inside_and_is_stable(text: str) -> None:
    try:
        path = normalise(text)
    except ValueError:
        return
    assert normalise(path) == path
    assert ".." not in path.split("/")
    assert not path.startswith("/")


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        ("src/a.py", "src/a.py", "src/a.py"),
        ("src/A.py", "src/a.py", "src/A.py"),
        ("src/", "src/a.py", "src/a.py"),
        ("src", "src/", "src"),
        ("src/", "src/sub/", "src/sub/"),
        ("src/*.py", "src/a.py", "src/a.py"),
        ("src/*.py", "src/", "src/*.py"),
        ("**/*.py", "src/deep/a.py", "src/deep/a.py"),
        ("src/**", "src/deep/a.py", "src/deep/a.py"),
        ("src/**.py", "src/deep/a.py", "src/deep/a.py"),
        ("*.yaml", "deep/down/a.yaml", "deep/down/a.yaml"),
        ("src/{a,b}.py", "src/b.py", "src/b.py"),
        ("{src,tests}/a.py", "tests/a.py", "tests/a.py"),
        ("src/[a-c].py", "src/b.py", "src/b.py"),
        ("src/[!x].py", "src/b.py", "src/b.py"),
        ("app/[id]/page.tsx", "app/[id]/page.tsx", "app/[id]/page.tsx"),
        ("src/*_test.py", "src/test_*.py", "src/*_test.py & src/test_*.py"),
        ("src/a*", "src/*b", "src/*b & src/a*"),
        ("src/x/*", "src/*", "src/* & src/x/*"),
        ("src/*", "src/deep/a.py", "src/deep/a.py"),
        ("**/*.py", "docs", "docs"),
        ("conf.d", "conf.d/a.conf", "conf.d/a.conf"),
        ("caf\u00e9.py", "cafe\u0301.py", "cafe\u0301.py"),
    ],
)
def test_what_two_entries_share(a: str, b: str, shared: str) -> None:
    assert overlap([a], [b]) == (shared,)
    assert overlap([b], [a]) == (shared,)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("src/a.py", "src/b.py"),
        ("src/a", "src/ab"),
        ("src/", "source/"),
        ("src/*.py", "src/*.js"),
        ("src/*.py", "src/deep/a.py"),
        ("src/*.py", "tests/a.py"),
        ("src/a*", "src/b*"),
        ("src/{a,b}.py", "src/c.py"),
        ("src/[ab].py", "src/c.py"),
        ("src/?.py", "src/ab.py"),
        ("app/[id]/x", "app/(id)/x"),
        ("*.yaml", "a.yml"),
        ("**/*.py", "docs/readme.md"),
        ("src/*.py", "src/a.py/b.py"),
    ],
)
def test_what_has_nothing_in_common(a: str, b: str) -> None:
    assert overlap([a], [b]) == ()
    assert overlap([b], [a]) == ()


def test_all_that_is_shared_is_named_once_and_sorted() -> None:
    assert overlap(["src/", "b.py", "x"], ["src/z.py", "src/a.py", "b.py"]) == ("b.py", "src/a.py", "src/z.py")
    assert overlap([], ["src/"]) == ()


@given(st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=3))
def test_overlap_is_symmetric_and_reflexive(a: list[str], b: list[str]) -> None:
    assert overlap(a, b) == overlap(b, a)
    assert all(overlap([entry], a) for entry in a)


@given(PATTERNS, PATTERNS, PATHS)
def test_no_path_that_both_match_is_missed(a: str, b: str, path: str) -> None:
    """pathspec is the witness: what git would say of the path."""
    both = [pathspec.PathSpec.from_lines("gitignore", ["/" + entry]).match_file(path) for entry in (a, b)]
    if all(both):
        assert meet(a, b)


@given(PATTERNS.filter(lambda p: "**" not in p), PATTERNS.filter(lambda p: "**" not in p))
def test_without_a_common_path_there_is_no_overlap(a: str, b: str) -> None:
    """Small alphabet, so that every candidate for a part can be tried."""
    words = [x + y + z for x in ["a", "b"] for y in ["", "a", "b"] for z in ["", "a", "b"]]
    shared = all(
        any(_matches(one, word) and _matches(other, word) for word in words)
        for one, other in zip(a.split("/"), b.split("/"), strict=False)
    )
    assert meet(a, b) == shared


def _matches(part: str, word: str) -> bool:
    return re.fullmatch(part.replace("*", ".*").replace("?", "."), word) is not None


@given(st.lists(PATTERNS | PATHS, max_size=8))
def test_the_index_finds_the_pairs_that_comparing_all_finds(entries: list[str]) -> None:
    pairs, complete = touching(entries, budget=10_000)
    known = sorted(set(entries))
    assert complete
    assert sorted(pairs) == [(a, b) for a in known for b in known if a < b and meet(a, b)]


def test_the_index_says_when_its_budget_ran_out() -> None:
    pairs, complete = touching([f"*{n}*" for n in range(20)], budget=5)
    assert not complete
    assert len(pairs) <= 5


def test_braces_that_multiply_are_taken_as_anything_below() -> None:
    wild = "src/" + "{a,b,c}" * 9
    assert overlap([wild], ["src/zzz.py"])
    assert not overlap([wild], ["tests/zzz.py"])


@pytest.mark.parametrize("part", ["[!-\uffff]", "[z-a]"])
def test_a_class_too_wide_to_list_or_written_backwards_may_be_any_character(part: str) -> None:
    """A false answer costs some parallelism, a missed one a merge conflict."""
    assert overlap([f"src/{part}.py"], ["src/\u00f1.py"]) == ("src/\u00f1.py",)
    assert overlap([f"src/{part}.py"], ["src/ab.py"]) == ()
