"""The fields of a story: what is read from labels, and what is left alone or reported."""

from __future__ import annotations

import pytest

from mcp_server.adapters.formats.detect import read_text
from mcp_server.core.draft import DraftStory
from mcp_server.core.planning import BadEpic, plan


def body(text: str) -> DraftStory:
    """The one story of an epic whose story has these lines."""
    (story,) = read_text(f"# Epic 1: E\n\n### Story 1.1: T\n\n{text}\n").draft.stories
    return story


def unused(text: str) -> list[str]:
    return [line.text for line in read_text(f"# Epic 1: E\n\n### Story 1.1: T\n\n{text}\n").unused]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Depends on: Story 2.1", ["2.1"]),
        ("- Depends on Story 2.1.", ["2.1"]),
        ("Depends on Story 2.1. Depends on Story 2.2.", ["2.1", "2.2"]),
        ("Depends on Story 2.1 and Story 2.2", ["2.1", "2.2"]),
        ("**Dependencies:** Story 2.1, Story 2.2", ["2.1", "2.2"]),
        ("**Dependencies**: 2.1; 2.2 & 2.3", ["2.1", "2.2", "2.3"]),
        ("Dependencies: `2.1`, **2.2**", ["2.1", "2.2"]),
        ("**Depends on:** [Story 2.1](stories/2.1.md)", ["2.1"]),
        ("**Prerequisites:** Story 2.1 (the schema, v2)", ["2.1"]),
        ("**Blocked By:** Story 2.1 - for the schema, of course", ["2.1"]),
        ("**Dependencies:** Stories 2.1, 2.2, and 2.3", ["2.1", "2.2", "2.3"]),
        ("**Dependencies:** Stories 2.1-2.3", ["2.1", "2.2", "2.3"]),
        ("**Dependencies:** 2.1 \u2013 2.3", ["2.1", "2.2", "2.3"]),
        ("**Dependencies:** Story 2.1 through Story 2.3", ["2.1", "2.2", "2.3"]),
        ("**Dependencies:** Epic 2 Story 2.1 (x)", ["2.1"]),
        ("**Dependencies:** 2-1", ["2.1"]),
        ("**Dependencies:** Story 2.1,\n  Story 2.2", ["2.1", "2.2"]),
        ("#### Dependencies\n\n- Story 2.1 (x)\n- 2.2", ["2.1", "2.2"]),
        ("**Dependencies:**\n- **Upstream:** Story 2.1\n- Story 2.2", ["2.1", "2.2"]),
        ("**Dependencies:** Story 2.1 is complete", ["2.1"]),
        ("**Dependencies:** Story 9.9", ["9.9"]),
        ("Depends on: (none)", []),
        ("**Dependencies:** None", []),
        ("**Dependencies:** None (parallel with Story 2.1)", []),
        ("**Dependencies:** N/A", []),
        ("**Dependencies:** —", []),
        ("**Dependencies:** []", []),
        ("**Dependencies:** the schema", []),
        ("**Dependencies:** Epic 2", []),
        ("This depends on Story 2.1 in a way.", []),
        ("Depends on Story 2.1 being loved.", []),
        ("Depends on Story 2.1, and a lot of luck.", []),
        ("**Dependencies:** Story 2.1\n\n- 2.2", ["2.1"]),
        ("Acceptance criteria:\n- runs after Story 2.1 lands\n- Depends on Story 2.1\n- Requires: Story 2.1 data", []),
        ("**Blocks:** Story 2.1", []),
        ("**Note:** see YAML 1.1 and Story 2.1", []),
    ],
)
def test_dependencies_are_read_from_labels_and_never_from_prose(text: str, expected: list[str]) -> None:
    others = "".join(f"### Story 2.{n}: O\n\n**Points:** 1\n\n" for n in (1, 2, 3))
    story = read_text(f"# E\n\n{others}### Story 1.1: T\n\n{text}\n").draft.stories[-1]
    assert [name for name, _ in story.depends_on] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Files:** `a.py`", ["a.py"]),
        ("- Files affected: `a.py`, `b/c.py` (new), `a.py`", ["a.py", "b/c.py"]),
        ("**Files to Create/Modify:**\n- `a.py` (new, 250 lines)\n- `b.py` - what it is for", ["a.py", "b.py"]),
        ("**Files to Modify**:\n  * a.py (lines 271-320)\n  * b/c.py: adds a flag", ["a.py"]),
        ("#### Files to Create\n\n1. src/a.py\n2. Modify: src/b.py", ["src/a.py", "src/b.py"]),
        (
            "**Files:** src/a.py, src/b/, docs/*.md, Dockerfile, .gitignore",
            ["src/a.py", "src/b/", "docs/*.md", "Dockerfile", ".gitignore"],
        ),
        ("**Files:** src/{a,b}.py, app/(auth)/[id]/page.tsx", ["src/{a,b}.py", "app/(auth)/[id]/page.tsx"]),
        ("**Files:** `a.py:12-30`, `b.py#L10`", ["a.py", "b.py"]),
        ("**Files:** `src`, `Makefile`", ["src", "Makefile"]),
        ("**Files:** [a.py](src/a.py)", ["src/a.py"]),
        ("**Files:** ../x.py, /etc/passwd", ["../x.py", "/etc/passwd"]),
        ("**Files:** None", []),
        ("**Files:** https://example.com/a.py", []),
        ("**Files:** CI config (e.g. some service)", []),
        ("**Files:** `WorkflowParser`, `run()`, version 3.10", []),
        ("See `src/a.py` for how.", []),
        ("Acceptance criteria:\n- Files: are listed", []),
    ],
)
def test_files_are_read_from_labels_without_their_comments(text: str, expected: list[str]) -> None:
    assert [path for path, _ in body(text).files] == expected


def test_a_path_outside_of_the_repository_is_an_error_of_the_plan() -> None:
    reading = read_text("# E\n\n### Story 1.1: T\n\n**Files:** `../x.py`, `/etc/passwd`\n")
    with pytest.raises(BadEpic) as refusal:
        plan(reading.draft)
    assert [(error.line, error.code) for error in refusal.value.errors] == [(5, "bad_path"), (5, "bad_path")]


@pytest.mark.parametrize(
    "text",
    [
        "Acceptance criteria:\n- one\n- two",
        "   Acceptance criteria:\n   - one\n   - two",
        "- Acceptance criteria:\n  - one\n  - two",
        "**Acceptance Criteria:**\n\n1. one\n2. two",
        "**Acceptance Criteria**\n\n- [ ] one\n- [x] two",
        "**Acceptance criteria**:\n* ✅ one\n* ⏳ two",
        "#### Acceptance Criteria\n\n- one\n\n- two",
        "**Acceptance Criteria:** one; two",
        "- Acceptance criteria: one; two",
        "**AC:**\n- one\n- two",
        "Acceptance criteria:\n- one\n- two\n\n- Files affected: `x.py`\n- Notes: none",
        "Acceptance criteria:\n- one\n- two\n**Points:** 2\n- not a criterion",
        "Acceptance criteria:\n- one\n- two\n\nAnd then some prose.\n- not a criterion",
        "**Acceptance Criteria:**\n- one\n- two\n\n**Technical Notes:**\n- not a criterion",
    ],
)
def test_criteria_are_found_in_every_spelling(text: str) -> None:
    assert body(text).acceptance == ("one", "two")


def test_criteria_go_on_in_the_next_line() -> None:
    assert body("Acceptance criteria:\n- one\n  and more\n- two").acceptance == ("one and more", "two")


@pytest.mark.parametrize(
    ("text", "points", "critical", "done"),
    [
        ("**Points:** 2 | **Size:** S | **Priority:** P0", 2.0, False, False),
        ("**Story Points:** 5\n**Priority:** 🔴 Critical", 5.0, True, False),
        ("Priority: non-critical", None, False, False),
        ("**Critical:** yes", None, True, False),
        ("#### Status\n\nDone", None, False, True),
        ("**Status:** ✅ COMPLETE", None, False, True),
        ("**Status:** not done", None, False, False),
        ("**Status:** Incomplete", None, False, False),
        ("**Effort:** M (5 points)", 5.0, False, False),
        ("**Effort:** 3 people", None, False, False),
    ],
)
def test_points_priority_and_status(text: str, points: float | None, critical: bool, done: bool) -> None:
    story = body(text)
    assert (story.points, story.critical, story.done) == (points, critical, done)


def test_a_check_that_needs_a_shell_is_an_error_with_its_line() -> None:
    reading = read_text("# E\n\n### Story 1.1: T\n\n**Checks:** `a && b`, `pytest`\n")
    assert reading.draft.stories[0].checks == (("pytest",),)
    assert [(error.line, error.code) for error in reading.draft.errors] == [(5, "bad_command")]


def test_checks_in_words_are_not_run() -> None:
    assert body("**Checks:** all tests pass").checks == ()
    assert unused("**Checks:** all tests pass") == ["all tests pass"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("### Story: Login\n", "### Story: Login"),
        ("## Stories\n\n1. **Login page**\n", "1. **Login page**"),
        ("- Story 1.1 depends on Story 1.2\n", None),
        ("---\n\n**Dependencies:** Story 1.2\n", "**Dependencies:** Story 1.2"),
        ("**Points:** many", "many"),
        ("Depends on the weather", "Depends on the weather"),
        ("Plain prose is nobody's loss.", None),
    ],
)
def test_lines_that_should_have_told_something_are_reported(text: str, expected: str | None) -> None:
    assert unused(text) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("text", "guards"),
    [
        ("**Guards:** `pytest tests/a`", (("pytest", "tests/a"),)),
        ("**Guards:**\n\n- `pytest tests/a`\n- `lint .`", (("pytest", "tests/a"), ("lint", "."))),
        ("**Guard checks:**\n\n```sh\n# all of it\n$ pytest tests/a\n```", (("pytest", "tests/a"),)),
        ("- Guards: `a`, `b`", (("a",), ("b",))),
        ("**Guards:** all stays green", ()),
    ],
)
def test_guards_are_commands_that_a_story_leaves_behind(text: str, guards: tuple[tuple[str, ...], ...]) -> None:
    story = body(text)
    assert (story.guards, story.checks) == (guards, ())
    assert bool(unused(text)) == (not guards)


def test_a_command_may_have_a_time_limit_of_its_own() -> None:
    story = body("**Checks:** `a` (90 s), `b` (at most 2 min), `c` (slow), `d`\n\n**Guards:** `e` (1.5 min)")
    assert story.checks == (("a",), ("b",), ("c",), ("d",))
    assert story.check_limits == ((("a",), 90.0), (("b",), 120.0), (("e",), 90.0))


def test_a_time_limit_beyond_a_week_is_named_and_left_out() -> None:
    text = "**Checks:** `a` (999999 s)"
    assert body(text).check_limits == ()
    assert unused(text) == [text]


def test_the_checks_of_a_whole_epic_may_have_limits_too() -> None:
    draft = read_text("# Epic 1: E\n\n**Checks:** `a` (90 s)\n\n### Story 1.1: T\n\nText.\n").draft
    assert (draft.checks, draft.check_limits) == ((("a",),), ((("a",), 90.0),))


@pytest.mark.parametrize("text", ["**Overlap:** optimistic", "- Overlap: Optimistic", "**Overlap**\n\n`optimistic`"])
def test_a_story_says_what_it_does_about_shared_files(text: str) -> None:
    assert body(text).overlap == "optimistic"


def test_an_overlap_that_is_none_is_told() -> None:
    assert unused("**Overlap:** perhaps") == ["perhaps"]


def test_the_epics_own_overlap_stands_outside_of_its_stories() -> None:
    text = "# Epic 1: E\n\n**Overlap:** {}\n\n### Story 1.1: T\n\nDo it.\n"
    assert read_text(text.format("auto")).draft.overlap == "auto"
    wrong = read_text(text.format("sometimes"))
    assert (wrong.draft.overlap, [line.text for line in wrong.unused]) == (None, ["sometimes"])
