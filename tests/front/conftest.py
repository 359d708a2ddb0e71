"""What the front's tests start from."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.front.stage import Editor, Engine, Wire


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository without a commit: no engine looks at it here."""
    folder = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    return folder


@pytest.fixture
def engine(repo: Path) -> Generator[Engine]:
    with Engine(repo) as engine:
        yield engine


@pytest.fixture
def editor(repo: Path, engine: Engine) -> Generator[Editor]:
    """One whose front meets a living engine."""
    with Editor(repo) as editor:
        yield editor


@pytest.fixture
def wire(editor: Editor, engine: Engine) -> Wire:
    """The front's connection."""
    return engine.meets()
