"""The agent's text: all it needs to know, nothing it does not, within bounds."""

from __future__ import annotations

from dataclasses import replace

from mcp_server.core.brief import FILES_SHOWN, STORIES_SHOWN, brief
from mcp_server.core.model import Cause, Epic
from tests.core.build import Life, story

CHECKS = (("make", "test"), ("sh", "-c", "echo 'a b'"))


def _brief(life: Life, name: str) -> str:
    return brief(life.epic, life.of(name), life.attempt(name), CHECKS)


def _sections(text: str) -> list[str]:
    return [line[3:] for line in text.splitlines() if line.startswith("## ")]


def test_a_brief_has_the_storys_words_its_place_and_the_rules() -> None:
    life = Life()
    spec = story("a", files="src/ x.py", description="Do it.", acceptance=("It works.", "It is fast."))
    life.plan(spec, goal="A better world.")
    life.start()
    text = _brief(life, "a")
    assert text.startswith("# Story a: Title of a\n\nEpic: Epic e (e). Attempt 1.\n")
    for needed in (
        "A better world.",
        "Do it.",
        "- It works.\n- It is fast.",
        "- src/\n- x.py",
        "`make test`",
        "git commit",
    ):
        assert needed in text
    assert "`sh -c 'echo '\"'\"'a b'\"'\"''`" in text, "a check can be copied into a shell as it stands"


def test_what_is_not_known_has_no_section() -> None:
    life = Life(story("a"))
    life.start()
    text = brief(life.epic, life.of("a"), life.attempt("a"), ())
    assert _sections(text) == ["How your work is taken"]


def test_a_brief_names_what_earlier_stories_changed_the_own_dependencies_first() -> None:
    life = Life(story("a"), story("b"), story("z", done=True), story("c", "a"))
    life.start()
    life.merge("a", "b")
    text = _brief(life, "c")
    assert "- a Title of a: `x.py`\n- b Title of b: `x.py`" in text
    assert "Title of z" not in text, "nobody knows what a story changed that was done before we came"


def test_the_next_attempt_is_told_how_the_last_one_ended_and_where_its_work_is() -> None:
    life = Life(story("a"))
    life.start()
    life.claim("a")
    life.fail("a", Cause.CONFLICT, saved="refs/epicwave/rescue/e/a/1")
    text = _brief(life, "a")
    assert "Attempt 2." in text
    assert "Attempt 1 ended as `conflict`: it broke." in text
    assert "```text\nlast line\n```" in text
    assert "git cherry-pick HEAD..refs/epicwave/rescue/e/a/1" in text


def _with_files_changed(epic: Epic, name: str, count: int) -> Epic:
    changed = epic.stories[name]._replace(files_changed=tuple(f"f{i}.py" for i in range(count)))
    return epic._replace(stories=epic.stories.put(changed))


def test_a_long_list_of_changed_files_is_cut_and_counted() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.merge("a")
    epic = _with_files_changed(life.epic, "a", FILES_SHOWN + 3)
    text = brief(epic, life.of("b"), life.attempt("b"), ())
    assert text.count(".py`") == FILES_SHOWN
    assert "and 3 more" in text


def test_a_long_list_of_earlier_stories_is_cut_and_counted() -> None:
    names = [f"s{i}" for i in range(STORIES_SHOWN + 4)]
    life = Life(*(story(n) for n in names), story("z", names[0]))
    life.start(slots=30)
    life.merge(*names)
    text = _brief(life, "z")
    assert text.count("Title of s") == STORIES_SHOWN
    assert ("and 4 more" in text, "Title of s0" in text) == (True, True)


def test_a_tail_that_has_a_fence_of_its_own_does_not_end_the_block() -> None:
    life = Life(story("a"))
    life.start()
    life.fail("a")
    failed = life.of("a")
    assert failed.failure is not None
    failed = failed._replace(failure=replace(failed.failure, tail="```\n## Goal of the epic\n```"))
    text = brief(life.epic, failed, life.attempt("a"), ())
    assert "````text\n```\n## Goal of the epic\n```\n````" in text
