"""`.cursor/worktrees.json`: taken for the set-up of worktrees when our own configuration says nothing about it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import Code, Refused
from mcp_server.server.settings import Settings, load_settings


def repository(top: Path, document: object, config: str = "") -> Settings:
    for folder in (".cursor", ".epicwave"):
        (top / folder).mkdir(exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (top / ".cursor" / "worktrees.json").write_text(text, "utf-8")
    (top / ".epicwave" / "config.yaml").write_text(config, "utf-8")
    return load_settings(top)


def setup_of(top: Path, document: object, config: str = "") -> tuple[tuple[str, ...], ...]:
    return repository(top, document, config).policy().environment.setup


def test_its_commands_are_lines_for_a_shell(tmp_path: Path) -> None:
    lines = ["npm ci", 'cp "$ROOT_WORKTREE_PATH/.env" .env && echo done']
    assert setup_of(tmp_path, {"setup-worktree": lines}) == (("sh", "-c", lines[0]), ("sh", "-c", lines[1]))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"setup-worktree": ["any"], "setup-worktree-unix": ["unix"]}, ["unix"]),
        ({"setup-worktree": ["any"], "setup-worktree-windows": ["windows"]}, ["any"]),
        ({"setup-worktree": ["any"], "setup-worktree-unix": []}, []),
        ({"setup-worktree-windows": ["windows"]}, []),
        ({"setup-worktree-unix": None, "setup-worktree": ["any"]}, ["any"]),
        ({}, []),
    ],
)
def test_the_key_for_this_kind_of_system_counts_first(
    tmp_path: Path, document: dict[str, Any], said: list[str]
) -> None:
    assert [line for _, _, line in setup_of(tmp_path, document)] == said


@pytest.mark.parametrize("executable", [True, False])
def test_a_script_is_meant_from_beside_the_file(tmp_path: Path, executable: bool) -> None:
    """It runs by its own first line when it may be executed."""
    (tmp_path / ".cursor").mkdir()
    script = tmp_path / ".cursor" / "setup.sh"
    script.write_text("#!/usr/bin/env bash\n")
    script.chmod(0o755 if executable else 0o644)
    if os.name != "posix":
        pytest.skip("mode bits of POSIX")
    expected = (str(script),) if executable else ("sh", str(script))
    assert setup_of(tmp_path, {"setup-worktree-unix": "setup.sh"}) == (expected,)


@pytest.mark.parametrize("ours", ["[]", "[make]"])
def test_our_own_configuration_stands_above_it_also_when_it_says_nothing_is_to_be_done(
    tmp_path: Path, ours: str
) -> None:
    found = setup_of(tmp_path, {"setup-worktree": ["npm ci"]}, f"epic: {{setup: {ours}}}")
    assert found == ((("make",),) if "make" in ours else ())


def test_without_the_file_nothing_is_set_up(tmp_path: Path) -> None:
    assert load_settings(tmp_path).policy().environment.setup == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "it is no JSON"),
        ("[1]", "it holds no keys with values"),
        ("[" * 100_000, "it is no JSON"),
        ({"setup-worktree": 3}, "setup-worktree is 3; allowed: a list of shell commands"),
        ({"setup-worktree": ["ok", 3]}, "setup-worktree is ['ok', 3]"),
        ({"setup-worktree": ["ok", " "]}, "setup-worktree is ['ok', ' ']"),
        ({"setup-worktree-unix": "gone.sh"}, "setup-worktree-unix names 'gone.sh', which is no file"),
    ],
)
def test_what_cannot_be_taken_is_refused_when_a_wave_starts_and_nothing_else_is(
    tmp_path: Path, document: object, words: str
) -> None:
    settings = repository(tmp_path, document)
    with pytest.raises(Refused) as caught:
        settings.policy()
    assert caught.value.code is Code.BAD_CONFIG
    assert words in caught.value.why
    assert "setup: []" in caught.value.remedy
    assert repository(tmp_path, document, "epic: {setup: []}").policy().environment.setup == ()
