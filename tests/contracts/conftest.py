from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contracts.git_worlds import FakeWorld, RealWorld, World


@pytest.fixture
def no_user_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git as on a fresh machine: whoever runs the tests has settings of their own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        monkeypatch.delenv(f"GIT_{name}", raising=False)


@pytest.fixture
async def real(tmp_path: Path, no_user_config: None) -> RealWorld:
    return await RealWorld.make(tmp_path)


@pytest.fixture(params=["real", "fake"])
async def world(request: pytest.FixtureRequest, tmp_path: Path, no_user_config: None) -> World:
    """Both git ports on one repository with `git_worlds.START` in its first commit."""
    return await RealWorld.make(tmp_path) if request.param == "real" else FakeWorld()
