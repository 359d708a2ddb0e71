"""What journeys start from."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.journeys.fronts import IDLE_S, Engines
from tests.server.scene import Scene, allow


@pytest.fixture
def engines(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Generator[Engines]:
    """The engine processes of the module's own scene; they are ended with the test."""
    monkeypatch.setenv("EPICWAVE_IDLE_S", IDLE_S)
    engines = Engines(scene.repo, scene.outside)
    try:
        yield engines
    finally:
        engines.end()


@pytest.fixture
def scratch_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository with one commit on `main`."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / "app.py").write_text("print('hello')\n", "utf-8")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    return repository


TRIO = """\
id: trio
title: Three small stories
checks:
  - python app.py
stories:
  - id: S1
    title: First note
    files: [notes/S1.md]
  - id: S2
    title: Second note
    files: [notes/S2.md]
  - id: S3
    title: Third note
    depends_on: [S1, S2]
    files: [notes/S3.md]
"""


@pytest.fixture
def epic_repository(scratch_repository: Path) -> Path:
    """The same with an epic of three stories, the third behind both others; not committed, and its check allowed."""
    (scratch_repository / "trio.yaml").write_text(TRIO, "utf-8")
    allow(scratch_repository, ("python", "app.py"))
    return scratch_repository
