"""Bad input on the command line: two lines, exit code 2, and nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.programs import Process, epicwave, finish, start
from tests.server.scene import Scene, environment, epic_text, story

pytestmark = pytest.mark.journey

ONE = epic_text(story("S1"))
BAD_EPICS: dict[str, tuple[bytes, str]] = {
    "no stories": (b"id: notes\ntitle: Notes\nstories: []\n", "epic"),
    "no stories in Markdown": (b"# Epic 1: Notes\n\nNothing here.\n", "epic"),
    "empty": (b"", "unreadable_epic"),
    "binary junk": (bytes(range(256)) * 40, "unreadable_epic"),
    "50 MB": (b"# Epic\n" + b"x" * 50_000_000, "unreadable_epic"),
    "UTF-16": (ONE.encode("utf-16"), "unreadable_epic"),
    "UTF-16 without its mark": (ONE.encode("utf-16-le"), "unreadable_epic"),
    "latin-1": ("id: notes\ntitle: Käse\nstories: []\n".encode("latin-1"), "unreadable_epic"),
    "a story that leaves the repository": (epic_text(story("S1", files=["../../etc/passwd"])).encode(), "bad_epic"),
    "a story with an absolute path": (epic_text(story("S1", files=["/etc/passwd"])).encode(), "bad_epic"),
    "an id that is a path": (epic_text({**story("S1"), "id": "../../x"}).encode(), "bad_epic"),
    "an id that is a command": (epic_text({**story("S1"), "id": "a b;rm -rf"}).encode(), "bad_epic"),
    "an epic id that is a path": (epic_text(story("S1"), id="../../x").encode(), "bad_epic"),
    "an epic id that is an option": (epic_text(story("S1"), id="--upload-pack=x").encode(), "bad_epic"),
    "a cycle": (epic_text(story("S1", "S2"), story("S2", "S1")).encode(), "bad_epic"),
    "no YAML": (b"id: notes\nstories: [\n", "unreadable_epic"),
    "a YAML bomb": (
        "\n".join(
            ["stories: &a0 [x]", *(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
        ).encode(),
        "epic",
    ),
}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Scene, dict[str, Any], Process]]]:
    """`epicwave run` on each of them, all at once: most of a refusal's time is the program's start."""
    found: dict[str, tuple[Scene, dict[str, Any], Process]] = {}
    for name, (content, _) in BAD_EPICS.items():
        scene = Scene(tmp_path_factory.mktemp("bad"))
        (scene.repo / "epic.yaml").write_bytes(content)
        before = scene.everything()
        found[name] = scene, before, start(scene.repo, "run", "epic.yaml")
    yield found
    for _, _, process in found.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", BAD_EPICS)
def test_a_bad_epic_is_refused_and_nothing_changes(
    runs: dict[str, tuple[Scene, dict[str, Any], Process]], name: str
) -> None:
    scene, before, process = runs[name]
    said = finish(process).refused()
    assert BAD_EPICS[name][1] in said.partition(": ")[0]
    assert scene.everything() == before
    assert not (scene.repo / ".git" / "epicwave").exists()


def test_plan_refuses_the_same_way(scene: Scene) -> None:
    (scene.repo / "epic.yaml").write_bytes(BAD_EPICS["binary junk"][0])
    before = scene.everything()
    run, plan = (epicwave(scene.repo, word, "epic.yaml").refused() for word in ("run", "plan"))
    assert run == plan
    assert scene.everything() == before


@pytest.mark.parametrize("path", ["missing.yaml", ".", "../../../../../../nowhere.yaml"])
def test_a_path_without_a_file_is_refused(scene: Scene, path: str) -> None:
    before = scene.everything()
    assert epicwave(scene.repo, "run", path).refused().startswith("unreadable_epic: ")
    assert scene.everything() == before


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--strategy", "agent-teams"], "strategy_unavailable"),
        (["--strategy", "threads"], "bad_argument"),
        (["--slots", "0"], "bad_argument"),
        (["--agent", "no-such-agent"], "unknown_agent"),
        (["--through", "tomorrow"], "bad_argument"),
        (["--through", "-1"], "bad_argument"),
    ],
)
def test_a_bad_option_is_refused_and_nothing_is_started(scene: Scene, words: list[str], code: str) -> None:
    scene.epic(story("S1"))
    before = {**scene.everything(), "journal": None}
    assert epicwave(scene.repo, "run", "epic.yaml", *words).refused().startswith(f"{code}: ")
    assert {**scene.everything(), "journal": None} == before


def test_a_bad_configuration_is_refused_with_its_key(scene: Scene) -> None:
    scene.configure({"fail_fast": "perhaps"})
    scene.epic(story("S1"))
    before = {**scene.everything(), "journal": None}
    assert "epic.fail_fast" in epicwave(scene.repo, "run", "epic.yaml").refused()
    assert {**scene.everything(), "journal": None} == before


@pytest.mark.parametrize(
    ("commands", "code"),
    [([], "not_a_repository"), ([["init", "-q", "--bare"]], "bare_repository"), ([["init", "-q"]], "no_commits")],
)
def test_a_folder_that_cannot_be_worked_in_is_refused(tmp_path: Path, commands: list[list[str]], code: str) -> None:
    for command in commands:
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "epic.yaml").write_text(ONE, "utf-8")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert epicwave(tmp_path, "run", "epic.yaml").refused().startswith(f"{code}: ")
    assert epicwave(tmp_path, "status").refused().startswith(f"{code}: ")
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "epic.yaml").write_text(ONE, "utf-8")
    said = epicwave(tmp_path, "run", "epic.yaml", "--repo", "nowhere").refused()
    assert said.startswith("not_a_repository: ")


@pytest.mark.skipif(sys.platform == "win32", reason="a program is a file with a mode")
@pytest.mark.parametrize(
    ("git", "code"),
    [
        (None, "git_missing"),
        ("#!/bin/sh\necho git version 2.20.1\n", "git_too_old"),
        ("#!/bin/sh\necho something else\n", "git_missing"),
        ("#!/bin/sh\nexit 1\n", "git_missing"),
        ("not a program", "git_missing"),
    ],
)
def test_git_that_is_missing_or_too_old_or_broken_is_refused(scene: Scene, git: str | None, code: str) -> None:
    scene.epic(story("S1"))
    before = scene.everything()
    programs = scene.outside / "bin"
    programs.mkdir()
    if git is not None:
        (programs / "git").write_text(git, "utf-8")
        (programs / "git").chmod(0o755)
    env = environment(PATH=str(programs))
    for words in (["run", "epic.yaml"], ["status"]):
        assert epicwave(scene.repo, *words, env=env).refused().startswith(f"{code}: ")
    assert scene.everything() == before


def test_a_state_folder_that_cannot_be_made_is_said_in_two_lines(scene: Scene) -> None:
    scene.epic(story("S1"))
    (scene.repo / ".git" / "epicwave").write_text("in the way", "utf-8")
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 2, said
    assert "Traceback" not in said.err
    assert str(scene.repo / ".git" / "epicwave") in said.err
    assert len(said.err.splitlines()) == 2


def test_a_journal_that_cannot_be_read_is_refused_and_left_as_it_is(scene: Scene) -> None:
    scene.epic(story("S1"))
    journal = scene.repo / ".git" / "epicwave" / "journal.db"
    journal.parent.mkdir()
    journal.write_bytes(os.urandom(5_000))
    before = journal.read_bytes()
    for words in (["run", "epic.yaml"], ["status"]):
        assert epicwave(scene.repo, *words).refused().startswith("journal_unreadable: ")
    assert journal.read_bytes() == before
    assert not scene.refs("refs/heads/epicwave")
