"""Every test sees the same clean environment: an empty home, git without settings, no leftovers of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

_SHELL = dict(os.environ)
"""The environment as the caller's shell had it, before anything was cleaned."""

_KEPT = frozenset({"EPICWAVE_CORPUS", "EPICWAVE_CLAUDE"})
"""The two variables that a caller may use to switch tests on: real epics to read, the real client to run."""
_DROPPED = ("EPICWAVE_", "GIT_", "CLAUDE", "ANTHROPIC_", "MCP_")
"""Variables of a git hook or of an editor agent that would change what git, the client or we do."""


@pytest.fixture(autouse=True, scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One empty home for the whole run; it is no test's business what a developer has configured."""
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_DROPPED) and name not in _KEPT:
                patch.delenv(name)
        for name in ("HOME", "USERPROFILE"):
            patch.setenv(name, str(home))
        for name in ("APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("GIT_TERMINAL_PROMPT", "0")
        patch.setenv("EPICWAVE_IDLE_S", "20")  # an engine process that a test forgets ends itself
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Ada Author")
            patch.setenv(f"GIT_{role}_EMAIL", "ada@example.invalid")
        yield


@pytest.fixture(scope="session")
def shell_environment() -> Mapping[str, str]:
    """The caller's own environment, for the few tests that need a package client with its cache and its settings."""
    return _SHELL


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does; one that needs virtual time asks for trio itself."""
    return "asyncio"
