"""Files that a story will touch, guessed from its text and from the history; and those that everything touches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_server.core.likely import NOTHING_LEARNED, Learned
from mcp_server.core.predict import NAMED_MAX, NO_PAST, Past, changed_with, hot_files, named_in, predicted
from mcp_server.core.spec import EpicSpec, Predicted, Source, StorySpec
from tests.core.build import story

FILES = ("src/app.py", "src/db.py", "tests/test_app.py", "README.md", "web/index.ts", "lib/index.ts", "Makefile")
HERE = Past(frozenset(FILES))


def _says(text: str) -> StorySpec:
    return story("a", description=text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Mend src/app.py.", ["src/app.py"]),
        ("Mend `./src/app.py`, (src/db.py) and **README.md**!", ["src/app.py", "src/db.py", "README.md"]),
        ("The bug is in app.py", ["src/app.py"]),
        ("See src/app.py:12", ["src/app.py"]),
        ("Write src/new.py", ["src/new.py"]),
        ("index.ts is named twice in the repository", []),
        ("web/index.ts is not", ["web/index.ts"]),
        ("nowhere/new.py: no such folder", []),
        ("A folder, src/, or tests, is none", []),
        ("https://example.org/src/app.py and ssh://x/README.md", []),
        ("/etc/src/app.py, ~/src/app.py, C:/src/app.py, ../app.py", []),
        ("Version 1.2.3, e.g. and/or i.e. foo.bar() at 3.5", []),
        ("app.pyc and xsrc/app.py are others", []),
        ("src\\app.py", []),
        ("", []),
    ],
)
def test_the_files_that_a_text_names_are_those_the_repository_has_or_can_have(text: str, named: list[str]) -> None:
    assert list(named_in(_says(text), HERE)) == named


def test_title_and_criteria_are_read_too_and_nothing_twice() -> None:
    spec = replace(_says("src/db.py, again"), title="Mend src/db.py", acceptance=("README.md tells it",))
    assert named_in(spec, HERE) == ("src/db.py", "README.md")


def test_where_nothing_is_known_of_a_repository_only_what_looks_like_a_path_is_taken() -> None:
    found = named_in(_says("src/new.py, .github/ci.yml, README.md, example.org/index.html"), NO_PAST)
    assert found == ("src/new.py", ".github/ci.yml")


def test_a_text_that_names_very_many_files_is_cut() -> None:
    text = " ".join(f"src/f{n}.py" for n in range(100))
    assert len(named_in(_says(text), HERE)) == NAMED_MAX


def _past(*changes: str) -> Past:
    return Past(HERE.files, tuple(frozenset(change.split()) for change in changes))


def test_what_usually_changes_together_is_likely() -> None:
    past = _past(*["src/app.py tests/test_app.py"] * 3, "src/app.py src/db.py", "src/db.py", "src/app.py gone.py")
    assert changed_with(["src/app.py"], past, ()) == ("tests/test_app.py",)


def test_too_few_commits_or_a_hot_file_or_one_of_the_footprint_say_nothing() -> None:
    twice = ["src/app.py tests/test_app.py"] * 2
    assert changed_with(["src/app.py"], _past(*twice), ()) == ()
    assert changed_with(["src/app.py"], _past(*twice * 2), {"tests/test_app.py"}) == ()
    assert changed_with(["src/app.py", "tests/"], _past(*twice * 2), ()) == ()
    assert changed_with(["src/app.py"], _past(*["src/app.py gone.py"] * 4), ()) == ()


def test_a_commit_of_very_many_files_says_nothing() -> None:
    wide = " ".join(["src/app.py", "src/db.py", *(f"f{n}" for n in range(40))])
    assert changed_with(["src/app.py"], _past(*[wide] * 9), ()) == ()


def test_hot_files_are_those_of_many_commits() -> None:
    past = _past(*["README.md src/app.py"] * 4, *["src/db.py"] * 2, *["web/index.ts gone"] * 14)
    assert hot_files(past, NOTHING_LEARNED) == {"web/index.ts": 0.7, "README.md": 0.2, "src/app.py": 0.2}
    assert hot_files(_past(*["README.md"] * 19), NOTHING_LEARNED) == {}, "too few commits to say so"


def test_hot_files_are_those_of_many_merged_stories_too() -> None:
    known = Learned(touched={"LOG.md": 5, "x": 1}, stories=10)
    assert hot_files(NO_PAST, known) == {"LOG.md": 0.5}
    assert hot_files(NO_PAST, replace(known, stories=9)) == {}
    assert hot_files(_past(*["README.md"] * 20), Learned(touched={"README.md": 2}, stories=10)) == {"README.md": 1.0}


def test_predictions_stand_beside_what_is_declared_with_their_sources() -> None:
    past = _past(*["src/app.py tests/test_app.py"] * 3)
    spec = EpicSpec(
        "e",
        "E",
        stories=(
            story("a", files="src/app.py"),
            replace(_says("src/app.py"), id="b"),
            story("c"),
            replace(_says("src/app.py"), id="d", done=True),
        ),
    )
    a, b, c, d = predicted(spec, past, NOTHING_LEARNED).stories
    together = Predicted("tests/test_app.py", Source.HISTORY)
    assert a.predicted == (together,)
    assert b.predicted == (Predicted("src/app.py", Source.TEXT), together)
    assert (a.footprint, b.footprint) == (("src/app.py",), ("src/app.py",))
    assert c.predicted == d.predicted == ()


def test_an_epic_of_which_nothing_can_be_guessed_stays_the_same() -> None:
    spec = EpicSpec("e", "E", stories=(story("a"),))
    assert predicted(spec, HERE, NOTHING_LEARNED) is spec


def test_what_the_author_wrote_is_told_from_what_was_guessed() -> None:
    spec = EpicSpec("e", "E", stories=(_says("src/app.py"),))
    guessed = predicted(spec, HERE, NOTHING_LEARNED)
    assert guessed != spec
    assert guessed.as_written() == spec == spec.as_written()
