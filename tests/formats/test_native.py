"""Our own format: what it may hold, and the words for what it may not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from mcp_server.adapters.formats import yaml_nodes
from mcp_server.adapters.formats.detect import read_epic, read_text
from mcp_server.core.draft import EpicDraft, Mention, PlanError
from mcp_server.core.planning import plan
from mcp_server.core.spec import Sharing
from mcp_server.errors import Refused

FIXTURES = Path(__file__).parent / "fixtures"


def read(text: str) -> EpicDraft:
    reading = read_text(text)
    assert reading.format == "epicwave-yaml"
    return reading.draft


def errors(text: str) -> tuple[PlanError, ...]:
    return read(text).errors


def test_every_field_is_read() -> None:
    draft = read_epic(FIXTURES / "native.yaml").draft
    assert draft.errors == ()
    assert (draft.id, draft.title, draft.goal, draft.agent) == ("garden", "A garden", "Something green.", "claude")
    assert draft.checks == (("python", "-m", "pytest", "-q"), ("sh", "-c", "ruff check . && ruff format --check ."))
    assert draft.source == str(FIXTURES / "native.yaml")
    soil, seeds, water = draft.stories
    assert (soil.id, soil.done, soil.points, soil.acceptance) == ("010", True, 2.0, ("is dark", "smells good"))
    assert soil.files == (Mention("soil/", 15),)
    assert (seeds.id, seeds.title, seeds.description, seeds.line) == ("1.10", "Seeds", "Sow them in rows.", 18)
    assert (seeds.critical, seeds.minutes, seeds.agent, seeds.done) == (True, 45.5, "codex", False)
    assert seeds.files == (Mention("seeds/*.csv", 27), Mention("./README.md", 28))
    assert seeds.checks == (("pytest", "tests/test_seeds.py"),)
    assert water.depends_on == (Mention("1.10", 36), Mention("010", 37))


def test_ids_stay_what_was_written() -> None:
    """YAML 1.1 would make 8 of 010 and 1.1 of 1.10."""
    planned = plan(read_epic(FIXTURES / "native.yaml").draft)
    assert planned.waves == (("010",), ("1.10",), ("1.1",))


def test_json_is_read_too() -> None:
    text = json.dumps({"epic": {"id": "j"}, "stories": [{"id": "a", "title": "A", "depends_on": []}, {"id": "b"}]})
    draft = read(text)
    assert [story.id for story in draft.stories] == ["a", "b"]
    assert draft.stories[1].title == "b"


def test_the_epics_own_keys_may_stand_at_the_top() -> None:
    draft = read("id: top\ntitle: T\nchecks: [pytest]\nstories: [{id: a}]\n")
    assert (draft.id, draft.title, draft.checks) == ("top", "T", (("pytest",),))
    (error,) = errors("id: top\nepic: {title: T}\nstories: [{id: a}]\n")
    assert (error.line, "move it there" in error.message) == (1, True)


def test_nothing_is_nothing() -> None:
    (story,) = read(
        "stories:\n  - id: a\n    description:\n    files: ~\n    minutes: null\n    agent: 'null'\n"
    ).stories
    assert (story.description, story.files, story.minutes, story.agent) == ("", (), None, "null")


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("depends: [b]", "`depends` is no key in a story; the nearest is `depends_on`; allowed are id, title,"),
        ("colour: red", "`colour` is no key in a story; allowed are id"),
        ("title: again", "`title` is given twice in a story, first on line 3"),
        ("acceptance_criteria: [x]\n    acceptance: [y]", "`acceptance` is given twice"),
        ("critical: maybe", "`critical` must be one of true, yes, on, false, no, off, not 'maybe'"),
        ("status: finished", "`status` must be one of todo, done, not 'finished'"),
        ("minutes: soon", "`minutes` must be a number such as 3 or 1.5, not 'soon'"),
        ("points: .inf", "`points` must be a number such as 3 or 1.5, not '.inf'"),
        ("points: [3]", "`points` must be a number such as 3 or 1.5, not a list"),
        ("description: [a]", "`description` must be a text, not a list"),
        ("depends_on: {b: c}", "`depends_on` must be a list of texts, not a mapping"),
        ("files: [[a]]", "`files` must be a list of texts, not a list"),
        (
            "acceptance: [a, 'b', {Given: c}]",
            "`acceptance` must be a list of texts (a text with `: ` in it needs quotes)",
        ),
        ("checks: pytest", "`checks` must be a list of commands"),
        ("checks: [[]]", "`checks` must be a list of commands"),
        ("checks: ['']", "The command is empty"),
        ("checks: ['a && b']", "'a && b' uses the shell's '&&'. Commands are run without a shell; wrap it: [sh, -c,"),
        ("checks: ['a | b']", "uses the shell's '|'"),
        ("checks: ['a > b']", "uses the shell's '>'"),
        ("checks: ['a>b']", "uses the shell's '>'"),
        ("checks: ['a; b']", "uses the shell's ';'"),
        ("checks: ['echo $HOME']", "uses the shell's '$'"),
        ("checks: ['echo `x`']", "uses the shell's '`'"),
        ("checks: ['A=1 pytest']", "Write 'env A=1 pytest'"),
        ('checks: ["say \'x"]', "cannot be split into words"),
        ('checks: ["a\\nb"]', "a script of several lines"),
        ("[x]: y", "a key in a story must be a word, not a list"),
        ("<<: {}", "`<<` is no key"),
    ],
)
def test_what_is_wrong_in_a_story_is_named_with_its_line(field: str, says: str) -> None:
    found = errors(f"stories:\n  - id: a\n    title: A\n    {field}\n  - id: b\n")
    assert len(found) == 1, found
    assert says in found[0].message
    assert found[0].line == (5 if "\n" in field else 4)


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = errors(
        "epic:\n  titel: x\nstorys: []\nstories:\n  - just text\n  - title: no id\n  - id: a\n    files: {}\n"
    )
    assert [error.line for error in found] == [3, 2, 5, 6, 8]
    assert "the nearest is `stories`" in found[0].message


def test_quoted_operators_are_no_operators() -> None:
    (story,) = read("""stories: [{id: a, checks: ["grep '|' x", 'grep "&&" x', "awk '{print $NF}' f"]}]""").stories
    assert story.checks == (("grep", "|", "x"), ("grep", "&&", "x"), ("awk", "{print $NF}", "f"))


def test_a_missing_list_of_stories_is_an_error_of_the_plan() -> None:
    assert "`stories` is missing" in errors("epic: {id: a}\n")[0].message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stories: []\n", "no stories"),
        ("stories:\n  - id: a\n    title: a: b: c\n", "line 3, column 13"),
        ("stories:\n\t- id: a\n", "line 2"),
        ("stories: [{id: a}\n", "cannot be read at line"),
        ("stories: [{id: a}]\n---\nstories: []\n", "second document at line 3"),
        ("stories: &s [{id: a}]\nepic: *s\n", "alias (*s) at line 2"),
        ("[1, 2]", "holds a list where a mapping is needed"),
        ("stories: " + "[" * 100_000, "nested deeper than"),
        ("stories: " + "{a: " * 100_000, "nested deeper than"),
        ("stories:\n" + "- " * 100_000 + "x", "nested deeper than"),
        ("stories: [" + "a," * 1_000_000 + "]", "more than 150000 values"),
        ("stories: [{id: \x01}]", "cannot be read"),
    ],
)
@pytest.mark.parametrize("loader", [yaml.BaseLoader, yaml_nodes.LOADER])
def test_what_is_no_yaml_is_refused_at_once(
    text: str, says: str, loader: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_nodes, "LOADER", loader)
    before = time.process_time()
    with pytest.raises(Refused, match=r"unreadable_epic") as refusal:
        read_text(text)
    assert says in str(refusal.value)
    assert time.process_time() - before < 8


@pytest.mark.parametrize("loader", [yaml.BaseLoader, yaml_nodes.LOADER])
def test_a_thousand_stories_are_read_and_planned_in_two_seconds(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "LOADER", loader)
    stories = [
        f"  - id: s{n}\n    title: Story {n}\n    depends_on: [{f's{n - 1 - n % 5}' if n > 4 else ''}]\n"
        f"    files: [src/a{n}.py, 'docs/{n}/**']\n    acceptance:\n      - it works\n"
        for n in range(1000)
    ]
    before = time.process_time()
    planned = plan(read("epic: {title: Big}\nstories:\n" + "".join(stories)))
    assert time.process_time() - before < 2
    assert len(planned.spec.stories) == 1000


def test_a_story_may_bring_guards_and_a_command_a_time_limit_of_its_own() -> None:
    draft = read(
        """
checks: [{run: "pytest -q", timeout_s: 120}, plain]
stories:
  - id: a
    checks: [{run: [sh, -c, "a && b"]}]
    guards: ["keep green", {run: slow, timeout_s: 0.5}]
"""
    )
    (story,) = draft.stories
    assert (draft.checks, draft.check_limits) == ((("pytest", "-q"), ("plain",)), ((("pytest", "-q"), 120.0),))
    assert story.checks == (("sh", "-c", "a && b"),)
    assert (story.guards, story.check_limits) == ((("keep", "green"), ("slow",)), ((("slow",), 0.5),))
    spec = plan(draft).spec
    assert (spec.check_limits, spec.stories[0].guards) == (draft.check_limits, story.guards)
    assert spec.stories[0].check_limits == story.check_limits


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("guards: pytest", "`guards` must be a list of commands"),
        ("guards: ['a && b']", "`guards`: 'a && b' uses the shell's '&&'"),
        ("checks: [{run: x, timeout_s: 0}]", "`timeout_s` must be more than 0 and at most 604800 seconds, not '0'"),
        ("checks: [{run: x, timeout_s: soon}]", "`timeout_s` must be a number"),
        ("checks: [{timeout_s: 3}]", "each a string, a list of arguments, or `{run: COMMAND, timeout_s: SECONDS}`"),
        ("checks: [{run: x, timeout: 3}]", "`timeout` is no key in an entry of `checks`; the nearest is `timeout_s`"),
        ("setup: [npm ci]", "`setup` is no key in a story"),
    ],
)
def test_what_is_wrong_with_a_check_is_named(field: str, says: str) -> None:
    (error,) = errors(f"stories:\n  - id: a\n    {field}\n")
    assert says in error.message
    assert error.line == 3


def test_an_epic_cannot_bring_set_up_commands() -> None:
    """They come from the configuration alone."""
    (error,) = errors("epic: {id: a, setup: [npm ci]}\nstories: [{id: a}]\n")
    assert "`setup` is no key in `epic`" in error.message


def test_an_epic_and_a_story_may_say_what_they_do_about_shared_files() -> None:
    draft = read("overlap: auto\nstories:\n  - {id: a, overlap: Optimistic}\n  - {id: b}\n")
    assert (draft.overlap, [story.overlap for story in draft.stories]) == ("auto", ["optimistic", None])
    spec = plan(draft).spec
    assert (spec.overlap, [story.overlap for story in spec.stories]) == (Sharing.AUTO, [Sharing.OPTIMISTIC, None])
    (error,) = errors("stories:\n  - id: a\n    overlap: never\n")
    assert (error.line, error.message) == (3, "`overlap` must be one of exclusive, auto, optimistic, not 'never'.")
