"""Which commands a merged tree must pass, whose they are, what ran, and which of them an epic file has brought."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.core.brief import brief
from mcp_server.core.checks import (
    Timed,
    brought,
    check_words,
    checks_of,
    commands,
    digest,
    fingerprints,
    guard_lines,
    limit_s,
    limits,
    spoken,
)
from mcp_server.core.events import MergeProven, MergeRefused
from mcp_server.core.limits import Policy
from mcp_server.core.model import Cause, CheckRun, Proven
from mcp_server.core.spec import Argv, EpicSpec
from tests.core.build import Life, story

CONFIG, EPIC, OWN, LEFT, LATER = (("make",), ("lint",), ("own",), ("left", "behind"), ("later",))
POLICY = Policy(checks=(CONFIG,), check_limits=((CONFIG, 5.0),))
COMMANDS = st.lists(st.text(max_size=4), min_size=1, max_size=3).map(tuple[str, ...])


def _life() -> Life:
    """`a` and `b` bring guards, `c` checks and a guard."""
    life = Life()
    life.plan(
        story("a", guards=(LEFT,), check_limits=((LEFT, 7.0),)),
        story("b", guards=(LATER, LEFT)),
        story("c", checks=(OWN, CONFIG), guards=(("mine",),), check_limits=((OWN, 9.0), (LEFT, 1.0))),
        checks=(EPIC,),
    )
    life.start(slots=3)
    return life


def test_before_anything_is_merged_a_story_has_the_configurations_the_epics_and_its_own_checks_each_once() -> None:
    life = _life()
    assert checks_of(life.epic, life.of("c"), POLICY) == (CONFIG, EPIC, OWN, ("mine",))
    assert guard_lines(life.epic, life.of("c")) == ["its own: mine"]


def test_guards_of_merged_stories_come_before_the_own_checks_in_the_order_of_the_merges() -> None:
    life = _life()
    life.merge("b")
    assert checks_of(life.epic, life.of("c"), POLICY) == (CONFIG, EPIC, LATER, LEFT, OWN, ("mine",))
    life.merge("a")
    assert checks_of(life.epic, life.of("c"), POLICY) == (CONFIG, EPIC, LATER, LEFT, OWN, ("mine",))
    assert guard_lines(life.epic, life.of("c")) == ["b: later", "b: left behind", "a: left behind", "its own: mine"]
    assert guard_lines(life.epic, life.of("b")) == ["a: left behind", "its own: later", "its own: left behind"]


def test_a_story_that_is_not_merged_any_more_guards_nothing() -> None:
    life = Life()
    specs = (story("a", guards=(LEFT,), done=True), story("b"))
    life.plan(*specs)
    assert checks_of(life.epic, life.of("b"), POLICY) == (CONFIG, LEFT)
    life.plan(replace(specs[0], done=False), specs[1])
    assert checks_of(life.epic, life.of("b"), POLICY) == (CONFIG,)


def test_the_first_limit_that_is_named_counts_else_the_policys() -> None:
    life = _life()
    life.merge("a")
    c = life.of("c")

    def limit(command: Argv) -> float:
        return limit_s(life.epic, [c], POLICY, command)

    assert [limit(each) for each in (CONFIG, EPIC, LEFT, OWN)] == [5.0, 600.0, 7.0, 9.0]
    timed = (Timed(("a",), 3.0), Timed(("b",)))
    assert (commands(timed), limits(timed)) == ((("a",), ("b",)), ((("a",), 3.0),))


def test_a_check_is_named_with_whose_guard_it_is() -> None:
    life = _life()
    life.merge("a")
    c = life.of("c")

    def named(command: Argv, **more: object) -> str:
        ahead = [(life.of("b"), "b" * 40)] if more else []
        return check_words(life.epic, c, POLICY, command, ahead)

    assert named(CONFIG) == "The check `make`"
    assert named(EPIC) == "The check `lint`"
    assert named(OWN) == "The check `own`"
    assert named(("mine",)) == "Its own guard `mine`"
    assert named(LEFT) == "The guard `left behind` of a, merged as tip-a,"
    assert named(LATER) == "The check `later`", "whose guard it is, it is not yet"
    assert named(LATER, ahead=True) == f"The guard `later` of b, merged as {'b' * 10},"


def test_the_guard_of_a_story_that_was_done_before_we_came_says_so() -> None:
    life = Life(story("a", guards=(LEFT,), done=True), story("b"))
    assert check_words(life.epic, life.of("b"), POLICY, LEFT) == "The guard `left behind` of a, done before,"


def test_a_brief_says_which_checks_are_guards_and_whose() -> None:
    life = _life()
    life.merge("a")
    c = life.of("c")
    text = brief(life.epic, c, life.attempt("c"), checks_of(life.epic, c, POLICY))
    assert "- `left behind` (the guard of a, which is merged: keep it green)" in text
    assert "- `mine` (your story's guard: all later stories will have to keep it green)" in text
    assert "- `make`\n" in text


# --- what ran ---------------------------------------------------------------------------------------------------------


def test_a_refused_merge_keeps_what_ran_on_which_tree() -> None:
    life = _life()
    life.succeed("c")
    assert fingerprints(life.of("c")) == []
    runs = (CheckRun(CONFIG, 0, 1.26), CheckRun(OWN, 1, 12.4), CheckRun(("x" * 99,), None, 600.0))
    fact = MergeRefused(life.attempt("c"), Cause.CHECKS, "red.", "", None, 0.0, "o" * 40, head="h" * 40, checks=runs)
    life.report(fact)
    failure = life.of("c").failure
    assert failure is not None
    assert (failure.onto, failure.head, failure.checks) == ("o" * 40, "h" * 40, runs)
    assert fingerprints(life.of("c")) == [
        f"on {'o' * 10} + {'h' * 10}: `make` exit 0 in 1.3 s",
        f"on {'o' * 10} + {'h' * 10}: `own` exit 1 in 12 s",
        f"on {'o' * 10} + {'h' * 10}: `{'x' * 77}...` ended at its time limit in 600 s",
    ]


def test_a_fact_of_before_there_were_fingerprints_has_none() -> None:
    life = _life()
    life.succeed("c")
    life.refuse("c")
    assert fingerprints(life.of("c")) == []


def test_a_merged_story_keeps_what_proved_it_at_the_end_of_its_batch() -> None:
    life = _life()
    life.succeed("c")
    proven = Proven("onto", "head", (CheckRun(CONFIG, 0, 0.0),), at="end")
    life.report(MergeProven(life.attempt("c"), proven, (), 0.0))
    assert fingerprints(life.of("c")) == ["on onto + end: `make` exit 0 in 0.0 s"]
    life.merge("c")
    assert fingerprints(life.of("c")) == ["on onto + end: `make` exit 0 in 0.0 s"]


# --- what an epic file brings -----------------------------------------------------------------------------------------


def test_an_epic_file_brings_checks_guards_and_agents_that_are_command_lines() -> None:
    spec = EpicSpec(
        id="e",
        title="E",
        stories=(
            story("a", checks=(OWN,), guards=(LEFT,), agent="sh -c 'echo hi'"),
            story("b", agent=" claude ", checks=(EPIC,)),
            story("c", agent="broken 'quote"),
        ),
        checks=(EPIC,),
        agent="claude",
        fallback_agent="other --flag",
        source="/somewhere/epic.yaml",
    )
    found = (EPIC, OWN, LEFT, ("other", "--flag"), ("sh", "-c", "echo hi"))
    assert brought(spec, frozenset({"claude"})) == found
    assert brought(replace(spec, source="inline"), frozenset()) == (), "the caller's own"


@given(COMMANDS, COMMANDS)
def test_two_commands_have_one_hash_only_when_they_are_the_same_words(one: Argv, other: Argv) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert re.fullmatch("[0-9a-f]{64}", digest(one))


def test_the_hash_of_a_command_is_what_it_always_was() -> None:
    """What a user has allowed stays allowed."""
    assert digest(("pytest", "-q")) == "4cf1cf9743c2b32b29efc501eab2c095431d35da7ffba76b3d6ce971de0ccc6b"
    assert digest(("caf\u00e9 \udc80",)) == "03593883e37ea5975ce198a88ee07529c303f91106afe3e2197a12125d08979c"


@given(COMMANDS)
def test_a_shown_command_hides_nothing(command: Argv) -> None:
    shown = spoken(command)
    assert shown.isprintable()
    if all(word.isprintable() for word in command):
        assert shlex.split(shown) == list(command)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("a\nb", r"$'a\nb'"),
        ("\x1b[2K", r"$'\x1b[2K'"),
        ("it's\t\\", r"$'it\'s\t\\'"),
        ("\u202egpj", r"$'\u202egpj'"),
        ("a b", "'a b'"),
        ("caf\u00e9", "caf\u00e9" if shlex.quote("caf\u00e9") == "caf\u00e9" else "'caf\u00e9'"),
    ],
)
def test_what_is_not_seen_is_escaped_as_a_shell_takes_it(word: str, shown: str) -> None:
    assert spoken((word,)) == shown


GUARDS = st.lists(st.sampled_from([("g1",), ("g2",), ("g3",)]), max_size=2).map(tuple[Argv, ...])


@given(st.lists(GUARDS, min_size=2, max_size=5), st.permutations(range(5)), st.integers(0, 4))
def test_what_must_pass_has_every_guard_that_was_merged_once_and_no_other(
    guards: list[tuple[Argv, ...]], order: list[int], count: int
) -> None:
    """Whatever is merged in whatever order: each of them once, the first mention decides the place."""
    names = [f"s{n}" for n in range(len(guards))]
    life = Life()
    life.plan(*(story(name, guards=own) for name, own in zip(names, guards, strict=True)), checks=(("g2",),))
    life.start(slots=len(names))
    merged = [names[n] for n in order if n < len(names)][: min(count, len(names) - 1)]
    for name in merged:
        life.merge(name)
    last = next(name for name in names if name not in merged)
    found = checks_of(life.epic, life.of(last), POLICY)
    left = [guard for name in merged for guard in guards[names.index(name)]]
    assert len(set(found)) == len(found)
    assert found == tuple(dict.fromkeys((CONFIG, ("g2",), *left, *guards[names.index(last)])))
