"""From a clone to the user's branch, in a terminal: run, roll one story back, land, look."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.programs import Said, epicwave
from tests.server.engines import IDLE_S, ended_engines
from tests.server.scene import Scene, commit, environment, story, write

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform == "win32", reason="no engine process there yet")]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Its checkout is a fresh clone of a remote."""
    found = Scene(tmp_path)
    found.git("add", "-A")
    found.git("commit", "-q", "--allow-empty", "-m", "Configured")
    remote = tmp_path / "remote.git"
    found.git("clone", "-q", "--bare", found.repo, remote)
    found.repo.rename(tmp_path / "first")
    subprocess.run(["git", "clone", "-q", str(remote), str(found.repo)], check=True)
    with ended_engines(found.repo):
        yield found


def say(scene: Scene, *words: str, code: int = 0) -> Said:
    said = epicwave(scene.repo, *words, env=environment(EPICWAVE_IDLE_S=IDLE_S))
    assert said.code == code, said
    assert "Traceback" not in said.err
    return said


def test_an_epic_is_run_one_story_taken_back_and_what_is_left_lands(scene: Scene) -> None:
    for name in ("S1", "S2", "S3"):
        scene.play(name, write(f"{name}.md", f"{name}\n"), commit())
    scene.epic(story("S1"), story("S2"), story("S3", "S1"), checks=[[sys.executable, "app.py"]])
    before, config = scene.git("rev-parse", "main"), (scene.repo / ".git" / "config").read_bytes()
    said = say(scene, "run", "epic.yaml", "--strategy", "asyncio")
    assert "epicwave land notes" in said.out
    assert scene.git("rev-parse", "main") == before, "a run moves no branch of the user's"

    refused = say(scene, "rollback", "notes", "S1", code=2)
    assert "built_on" in refused.err
    assert "--with-dependants" in refused.err
    undone = say(scene, "rollback", "notes", "S1", "--with-dependants", "--note", "it broke the login")
    assert "S3 is off epicwave/notes" in undone.out
    assert "kept at refs/epicwave/rescue/notes/S1/1" in undone.out
    missing = say(scene, "land", "notes", code=2)
    assert "2 of 3 stories" in missing.err
    (scene.repo / "app.py").write_text("print('mine')\n", "utf-8")
    assert "app.py" in say(scene, "land", "notes", "--partial", code=2).err
    scene.git("checkout", "-q", "app.py")
    landed = json.loads(say(scene, "land", "notes", "--partial", "--json").out)
    assert (landed["landed"], landed["into"], landed["how"]) == (True, "main", "ff")
    assert scene.tree("main") == scene.tree("epicwave/notes")
    assert sorted(path.name for path in scene.repo.glob("*.md")) == ["S2.md"]
    assert scene.git("status", "--porcelain") == "?? epic.yaml"
    assert (scene.repo / ".git" / "config").read_bytes() == config

    assert scene.leftovers() == []
