"""What tests of the command line start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.server.scene import Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A sound repository, and a PATH with git and little more."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "sleep"):
        (programs / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(programs))
    return Scene(tmp_path)
