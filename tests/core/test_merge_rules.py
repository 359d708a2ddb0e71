"""Which rule settles a path: the first glob that means it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.core.merge_rules import DEFAULTS, MergeRule, Way, matches, rule_of

NAMES = st.text(st.characters(exclude_characters="/\n", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PLAIN = st.lists(st.text("ab._-1", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)
RULES = st.lists(
    st.builds(MergeRule, st.sampled_from(["*", "a*", "a/**", "**/b", "[ab]*", "{a,b}", "a?b"]), st.sampled_from(Way))
)


@pytest.mark.parametrize(
    ("glob", "path", "means"),
    [
        ("uv.lock", "uv.lock", True),
        ("uv.lock", "a/b/uv.lock", True),
        ("uv.lock", "uvxlock", False),
        ("uv.lock", "uv.lock/x", False),
        ("/uv.lock", "uv.lock", True),
        ("/uv.lock", "a/uv.lock", False),
        ("a/*.md", "a/x.md", True),
        ("a/*.md", "a/b/x.md", False),
        ("a/**/*.md", "a/x.md", True),
        ("a/**/*.md", "a/b/c/x.md", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b/a/c", False),
        ("?.py", "x.py", True),
        ("?.py", "xy.py", False),
        ("[a-c]*", "beta", True),
        ("[!a-c]*", "beta", False),
        ("[!a-c]*", "delta", True),
        ("[!]", "!", True),
        ("[z-a]", "[z-a]", True),
        ("[z-a]", "m", False),
        ("a[&b]", "a&", True),
        ("{a,b*}.md", "bcd.md", True),
        ("{a,b*}.md", "c.md", False),
        ("{a}", "{a}", True),
        ("[", "[", True),
    ],
)
def test_a_glob_means_these_paths(glob: str, path: str, means: bool) -> None:
    assert matches(glob, path) is means


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("CHANGELOG.md", Way.UNION),
        ("docs/CHANGES-2.x.rst", Way.UNION),
        ("NEWS.txt", Way.UNION),
        ("HISTORY.md", Way.UNION),
        ("HISTORY.py", None),
        ("uv.lock", Way.REGENERATE),
        ("web/package-lock.json", Way.REGENERATE),
        ("package.json", None),
    ],
)
def test_change_logs_and_lock_files_have_rules_without_a_word(path: str, way: Way | None) -> None:
    rule = rule_of(DEFAULTS, path)
    assert (rule.way if rule else None) is way


def test_the_agent_can_be_put_in_front_of_a_rule() -> None:
    assert rule_of((MergeRule("web/uv.lock", Way.AGENT), *DEFAULTS), "web/uv.lock") is None
    assert rule_of((MergeRule("web/uv.lock", Way.AGENT), *DEFAULTS), "uv.lock") is not None


def test_exactly_the_rules_that_make_a_file_anew_have_a_command() -> None:
    assert all(bool(rule.command) == (rule.way is Way.REGENERATE) for rule in DEFAULTS)


@given(PLAIN)
def test_a_path_without_wildcards_means_itself_and_nothing_longer(path: str) -> None:
    assert matches(f"/{path}", path)
    assert not matches(f"/{path}", f"x/{path}")
    assert not matches(f"/{path}", f"{path}x")


@given(st.text(max_size=30), PATHS)
def test_every_glob_can_be_asked_of_every_path(glob: str, path: str) -> None:
    assert matches(glob, path) in {True, False}


@given(PATHS)
def test_two_stars_mean_everything_and_one_star_every_name(path: str) -> None:
    assert matches("**", path)
    assert matches("*", path)
    assert matches("/*", path) == ("/" not in path)


@given(RULES, PATHS)
def test_of_several_rules_the_first_that_matches_counts(rules: list[MergeRule], path: str) -> None:
    found = rule_of(rules, path)
    meant = [rule for rule in rules if matches(rule.glob, path)]
    assert found == (meant[0] if meant and meant[0].way is not Way.AGENT else None)
