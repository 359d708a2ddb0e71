"""`epicwave doctor`: in a sound repository nothing is wrong; each test differs from that by one thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mcp_server.adapters.git import repository as git_repository
from mcp_server.cli.findings import Subject
from tests.cli.patient import levels, posix, the
from tests.cli.shell import document, epicwave, refused
from tests.server.scene import Scene

pytestmark = posix


def test_in_a_sound_repository_every_subject_is_looked_at_and_none_is_wrong(scene: Scene) -> None:
    """So each of the tests below differs from this one by the one thing that it is about."""
    before = scene.everything()
    done = epicwave(scene, "doctor", "--json")
    said = document(done)
    assert {finding["code"] for finding in said["findings"]} == set(Subject)
    assert {finding["level"] for finding in said["findings"]} == {"ok"}, said
    assert said["counts"] == {"ok": len(said["findings"]), "note": 0, "warning": 0, "error": 0}
    assert said["fixed"] == []
    assert done.exit_code == 0
    assert scene.everything() == before
    assert not (scene.repo / ".git/epicwave").exists(), "looking makes nothing"


def test_the_words_for_a_human_have_level_code_reason_and_remedy(scene: Scene) -> None:
    scene.configure({"agent": "claude"})
    done = epicwave(scene, "doctor")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("error    agent: "))
    assert "stories cannot be started" in lines[at + 1]
    assert lines[at + 2].startswith("         -> Install Claude Code")
    assert lines[-1].endswith("0 note, 0 warning, 1 error")


def test_outside_of_a_repository_it_is_refused(tmp_path: Path, scene: Scene) -> None:
    scene.repo = tmp_path / "bin"
    assert refused(epicwave(scene, "doctor")).code == "not_a_repository"


def test_a_git_that_is_too_old_is_the_one_finding(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_repository, "OLDEST_GIT", (99, 0))
    done = epicwave(scene, "doctor", "--json")
    assert [(f["code"], f["level"]) for f in document(done)["findings"]] == [("git", "error")]
    assert done.exit_code == 1


def test_a_repository_without_a_commit_is_found(scene: Scene) -> None:
    shutil.rmtree(scene.repo / ".git")
    scene.git("init", "-q")
    done = epicwave(scene, "doctor", "--json")
    assert [(f["code"], f["level"]) for f in document(done)["findings"]] == [("commits", "error")]
    assert done.exit_code == 1


def test_a_configuration_that_cannot_be_used_is_found_and_the_rest_is_looked_at_all_the_same(scene: Scene) -> None:
    scene.configure({"max_paralel_stories": 3})
    found = the(scene, "config")
    assert "max_paralel_stories is no key" in found["what"]
    assert set(levels(scene)) == set(Subject)


def test_a_check_that_cannot_even_look_is_a_finding_and_the_others_look(scene: Scene) -> None:
    (scene.repo / "lib").mkdir()
    (scene.repo / "lib/a.py").touch()
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "Lib")
    tree = scene.git("rev-parse", "HEAD:lib")
    (scene.repo / ".git/objects" / tree[:2] / tree[2:]).unlink()
    assert the(scene, "long_paths")["what"].startswith("It could not be looked at: ")
    assert set(levels(scene)) == set(Subject) - {"submodules", "lfs"}, "those are seen by the same look"
