"""From a draft to a plan, or to all that is wrong with it."""

from __future__ import annotations

import time

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.core.draft import MAX_STORIES
from mcp_server.core.planning import BadEpic, DraftStory, EpicDraft, Mention, PlanError, epic_id, plan
from mcp_server.errors import Code


def story(name: str, *needs: str, files: tuple[str, ...] = (), line: int | None = None, **more: object) -> DraftStory:
    return DraftStory(
        name,
        name.title(),
        line=line,
        depends_on=tuple(Mention(need, line) for need in needs),
        files=tuple(Mention(path, line) for path in files),
        **more,  # pyright: ignore[reportArgumentType] - the test names the field
    )


def epic(*stories: DraftStory, **more: object) -> EpicDraft:
    return EpicDraft(stories, **{"title": "An Epic", **more})  # pyright: ignore[reportArgumentType] - as above


def errors_of(draft: EpicDraft) -> tuple[PlanError, ...]:
    with pytest.raises(BadEpic) as refusal:
        plan(draft)
    assert refusal.value.code is Code.BAD_EPIC
    return refusal.value.errors


DIAMOND = epic(
    story("a"), story("b", "a", minutes=10.0), story("c", "a", minutes=50.0), story("d", "b", "c", points=2.0)
)


def test_a_diamond_has_three_waves_and_the_longer_arm_goes_first() -> None:
    planned = plan(DIAMOND)
    assert planned.waves == (("a",), ("c", "b"), ("d",))
    assert planned.levels == {"a": 1, "b": 2, "c": 2, "d": 3}
    assert planned.ranks == {"a": 140.0, "b": 70.0, "c": 110.0, "d": 60.0}
    assert planned.critical_path == ("a", "c", "d")
    assert planned.critical_minutes == 140.0
    assert planned.work_minutes == 150.0


def test_a_story_without_estimate_counts_like_one_point() -> None:
    planned = plan(epic(story("a"), story("b", points=1.0), story("c", points=2.0, minutes=5.0)))
    assert planned.ranks == {"a": 30.0, "b": 30.0, "c": 5.0}


def test_stories_that_queue_for_a_file_are_ranked_by_what_waits_behind_them() -> None:
    """Three stories on one file are 90 minutes of work for whoever is first, more than one of 60 alone."""
    shared = ("src/hot.py",)
    planned = plan(epic(story("free", minutes=60.0), *(story(name, files=shared) for name in "xyz")))
    assert sorted(planned.ranks[name] for name in "xyz") == [30.0, 60.0, 90.0]
    assert planned.waves[0][0] in set("xyz")


def test_a_folder_queues_with_the_files_below_it_but_they_do_not_queue_with_each_other() -> None:
    stories = (story("all", files=("src/",)), story("x", files=("src/x.py",)), story("y", files=("src/y.py",)))
    ranks = plan(epic(*stories)).ranks
    assert max(ranks.values()) == 60.0


def test_a_queue_is_carried_up_to_what_its_stories_wait_for() -> None:
    stories = (story("root"), story("x", "root", files=("f.py",)), story("y", "root", files=("f.py",)))
    assert plan(epic(*stories)).ranks["root"] == 90.0


def test_finished_stories_cost_nothing_and_redo_plans_them_again() -> None:
    draft = epic(story("a", done=True), story("b", "a"))
    planned = plan(draft)
    assert planned.critical_path == ("b",)
    assert (planned.critical_minutes, planned.work_minutes) == (30.0, 30.0)
    assert planned.levels == {"a": 1, "b": 2}
    again = plan(draft, redo=True)
    assert again.critical_path == ("a", "b")
    assert not any(spec.done for spec in again.spec.stories)


def test_overlaps_name_what_is_shared_and_whether_the_order_is_set_anyway() -> None:
    planned = plan(
        epic(
            story("a", files=("./src/x.py", "src\\y.py")),
            story("b", files=("src/",)),
            story("c", "a", files=("src/x.py",)),
            story("d", files=("docs/",)),
        )
    )
    found = [(o.a, o.b, o.shared, o.ordered) for o in planned.overlaps]
    assert found == [
        ("a", "b", ("src/x.py", "src/y.py"), False),
        ("a", "c", ("src/x.py",), True),
        ("b", "c", ("src/x.py",), False),
    ]


def test_order_counts_over_any_number_of_steps() -> None:
    stories = (story("a", files=("f",)), story("b", "a"), story("c", "b"), story("d", "c", files=("f",)))
    assert [o.ordered for o in plan(epic(*stories)).overlaps] == [True]


def test_a_story_does_not_conflict_with_itself() -> None:
    assert plan(epic(story("a", files=("src/", "src/x.py", "**/*.py")))).overlaps == ()


def test_two_globs_of_which_neither_covers_the_other_are_told_as_shared_and_make_no_queue() -> None:
    """Other stories could go in between: it does not make one of them more urgent."""
    crossed = plan(epic(story("a", files=("src/a*",), minutes=5.0), story("b", files=("src/*b",), minutes=7.0)))
    assert [o.shared for o in crossed.overlaps] == [("src/*b & src/a*",)]
    assert crossed.ranks == {"a": 5.0, "b": 7.0}
    covered = plan(epic(story("a", files=("src/a*",), minutes=5.0), story("b", files=("src/",), minutes=7.0)))
    assert covered.ranks == {"a": 5.0, "b": 12.0}


def test_finished_stories_conflict_with_nobody() -> None:
    assert plan(epic(story("a", files=("f",), done=True), story("b", files=("f",)))).overlaps == ()


def test_the_spec_is_normalised() -> None:
    spec = plan(epic(story("a"), story("b", "a", "a", files=("./x", "x", "d/"), line=7))).spec
    assert spec.id == "an-epic"
    assert spec.stories[1].depends_on == ("a",)
    assert spec.stories[1].files == ("x", "d/")
    assert spec.stories[1].line == 7


def test_warnings_say_what_the_plan_cannot_promise() -> None:
    text = " ".join(plan(epic(story("a"), story("b", files=("x",)))).warnings)
    assert "1 of 2 stories name no files (a)" in text
    assert "2 of 2 stories have no checks" in text
    silent = plan(epic(story("a", files=("x",)), checks=(("true",),))).warnings
    assert silent == ()
    assert "nothing to run" in plan(epic(story("a", done=True))).warnings[0]


def test_every_error_is_named_at_once_in_the_order_of_the_lines() -> None:
    draft = epic(
        story("ok", line=1),
        story("self", "self", line=2),
        story("typo", "okk", line=3),
        story("OK", line=4),
        story("self", line=5),
        story("../../x", line=6),
        story("x", "y", line=7),
        story("y", "x", line=8),
        story("out", files=("../x", "/etc/passwd"), line=9),
        story("num", minutes=-1.0, points=float("nan"), line=10),
        id="bad id",
        line=1,
        errors=(PlanError(11, "unknown_key", "odd"),),
    )
    found = [(error.line, error.code) for error in errors_of(draft)]
    assert found == [
        (1, "bad_id"),
        (2, "self_dependency"),
        (3, "unknown_dependency"),
        (4, "duplicate_id"),
        (5, "duplicate_id"),
        (6, "bad_id"),
        (7, "cycle"),
        (9, "bad_path"),
        (9, "bad_path"),
        (10, "bad_number"),
        (10, "bad_number"),
        (11, "unknown_key"),
    ]


def test_messages_name_the_lines_and_what_to_change() -> None:
    draft = epic(
        story("alpha", line=3),
        story("alpha", line=9),
        story("b", "alhpa", line=12),
        story("C", line=1),
        story("c", line=2),
    )
    with pytest.raises(BadEpic) as refusal:
        plan(draft)
    text = str(refusal.value)
    assert "line 9: story id 'alpha' is used twice, first (line 3)" in text
    assert "line 12: story 'b' depends on 'alhpa', which is no story of this epic; the nearest is 'alpha'" in text
    assert "'C' (line 1) and 'c' differ only in case" in text
    assert "nothing was changed" in text


def test_the_nearest_id_may_differ_in_case_only() -> None:
    (error,) = errors_of(epic(story("S1"), story("other", "s1")))
    assert "the nearest is 'S1'" in error.message


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a..b", "x.lock", "X.LOCK", "end.", "-a", ".a", "a/b", "a;rm", "é", "a" * 65]
)
def test_ids_that_cannot_be_a_branch_are_refused(name: str) -> None:
    assert [error.code for error in errors_of(epic(story(name)))] == ["bad_id"]


@pytest.mark.parametrize("name", ["a", "2.10", "ENH-001-S1", "a" * 64, "1A.1", "x_y"])
def test_ids_that_people_use_are_allowed(name: str) -> None:
    assert plan(epic(story(name))).spec.stories[0].id == name


def test_a_cycle_is_shown_as_a_shortest_way_round_with_its_lines() -> None:
    draft = epic(
        story("a", "c", line=1), story("b", "a", line=4), story("c", "b", line=8), story("d", "c", "a", line=9)
    )
    (error,) = errors_of(draft)
    assert error.line == 1
    assert "a -> c -> b -> a" in error.message
    assert "lines 1, 8, 4" in error.message


def test_two_knots_are_two_errors() -> None:
    draft = epic(story("a", "b"), story("b", "a"), story("c", "d"), story("d", "c"), story("e", "a", "c"))
    assert [error.code for error in errors_of(draft)] == ["cycle", "cycle"]


def test_no_stories_and_too_many_are_refused() -> None:
    assert [error.code for error in errors_of(epic())] == ["no_stories"]
    many = epic(*(story(f"s{n}") for n in range(MAX_STORIES + 1)))
    assert [error.code for error in errors_of(many)] == ["too_big"]


def test_a_long_list_of_errors_is_cut_in_the_text_but_not_in_the_fields() -> None:
    with pytest.raises(BadEpic) as refusal:
        plan(epic(*(story(f"s{n}", "nobody") for n in range(60))))
    assert len(refusal.value.errors) == 60
    assert "and 40 more" in refusal.value.why
    assert "60 errors" in refusal.value.why


def test_whoever_has_room_for_them_gets_every_error_in_its_words() -> None:
    with pytest.raises(BadEpic) as refusal:
        plan(epic(*(story(f"s{n}", "nobody") for n in range(60))))
    cut, full = refusal.value, refusal.value.in_full()
    assert all(error.bullet in full.why for error in cut.errors)
    assert (full.why.splitlines()[0], " more" in full.why) == (cut.why.splitlines()[0], False)
    assert (full.code, full.remedy) == (cut.code, cut.remedy)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        (epic(id="Given-1"), "Given-1"),
        (epic(title="Größe & Café: the 2nd!"), "große-cafe-the-2nd".replace("ß", "")),
        (epic(title="x" * 100), "x" * 40),
        (epic(title="", source="/home/ada/My Epic.v2.md"), "my-epic-v2"),
        (epic(title="", source="C:\\epics\\Login.md"), "login"),
        (epic(title=""), "epic"),
    ],
)
def test_the_id_of_an_epic(draft: EpicDraft, expected: str) -> None:
    assert epic_id(draft) == expected


def test_titles_without_latin_letters_give_different_ids() -> None:
    one, other = epic_id(epic(title="登録")), epic_id(epic(title="支払い"))
    assert one != other
    assert one.startswith("epic-")


def test_two_thousand_stories_are_planned_in_a_moment() -> None:
    hot = ("README.md",)
    stories = [
        story(f"s{n}", *([f"s{n - 1 - n % 7}"] if n > 7 else []), files=(*hot, f"src/{n}/*.py")) for n in range(2000)
    ]
    before = time.process_time()
    planned = plan(epic(*stories))
    assert time.process_time() - before < 5
    assert "Not all shared files are listed" in planned.warnings[-1]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """For each story the earlier ones it depends on."""
    size = draw(st.integers(1, 12))
    return [draw(st.lists(st.integers(0, n - 1), max_size=4)) if n else [] for n in range(size)]


@given(graphs(), st.randoms())
def test_levels_and_waves_are_the_generations_of_the_graph(needs: list[list[int]], random: object) -> None:
    stories = [story(f"s{n}", *(f"s{m}" for m in needed)) for n, needed in enumerate(needs)]
    random.shuffle(stories)  # type: ignore[attr-defined]
    planned = plan(epic(*stories))
    graph = nx.DiGraph([(f"s{m}", f"s{n}") for n, needed in enumerate(needs) for m in needed])
    graph.add_nodes_from(s.id for s in stories)
    assert [set(wave) for wave in planned.waves] == [
        set(generation) for generation in nx.topological_generations(graph)
    ]
    assert all(planned.levels[name] == level for level, wave in enumerate(planned.waves, 1) for name in wave)
    for s in stories:
        assert all(planned.ranks[need.text] >= planned.ranks[s.id] + 30 for need in s.depends_on)
    assert planned.critical_minutes == 30.0 * len(planned.waves) == 30.0 * len(planned.critical_path)


@given(graphs(), st.integers(1, 3), st.integers(0, 3))
def test_every_planted_cycle_and_unknown_is_named(needs: list[list[int]], cycles: int, unknowns: int) -> None:
    stories = [story(f"s{n}", *(f"s{m}" for m in needed)) for n, needed in enumerate(needs)]
    for n in range(cycles):
        stories += [story(f"x{n}", f"y{n}"), story(f"y{n}", f"z{n}", "s0"), story(f"z{n}", f"x{n}")]
    stories += [story(f"u{n}", f"gone-{n}") for n in range(unknowns)]
    found = errors_of(epic(*stories))
    assert sum(error.code == "cycle" for error in found) == cycles
    assert all(any(f"x{n} -> y{n} -> z{n} -> x{n}" in error.message for error in found) for n in range(cycles))
    assert all(any(f"'gone-{n}'" in error.message for error in found) for n in range(unknowns))
    assert len(found) == cycles + unknowns
