"""What a project gets: a start of the server that works for whoever gets the files, and files that fit together."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mcp_server
from mcp_server.cli.init_project import Installed, Server, project_files, server_of, start_of
from mcp_server.errors import Code, Refused

Origin = dict[str, Any] | None
FOLDER: Origin = {"url": "file:///home/me/epicwave", "dir_info": {"editable": True}}
GIT: Origin = {"url": "https://example.invalid/epicwave.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}
TAGGED: Origin = {**GIT, "vcs_info": {**GIT["vcs_info"], "requested_revision": "v1"}}
WHEEL: Origin = {"url": "https://example.invalid/epicwave-1-py3-none-any.whl", "archive_info": {}}
PROGRAM = ("/home/me/venv/bin/epicwave",)


def _start(origin: Origin, *, uvx: bool = True, on_path: bool = False) -> Server:
    return start_of(Installed(origin, uvx=uvx, on_path=on_path, program=PROGRAM))


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (None, "uvx epicwave serve"),
        (GIT, "uvx --from git+https://example.invalid/epicwave.git epicwave serve"),
        (TAGGED, "uvx --from git+https://example.invalid/epicwave.git@v1 epicwave serve"),
        (WHEEL, "uvx --from https://example.invalid/epicwave-1-py3-none-any.whl epicwave serve"),
    ],
)
def test_what_was_fetched_is_fetched_again_by_whoever_gets_the_files(origin: Origin, words: str) -> None:
    assert _start(origin, on_path=True) == Server(tuple(words.split()))


@pytest.mark.parametrize("origin", [None, FOLDER, GIT])
def test_without_uvx_the_program_on_the_path_does_for_everybody(origin: Origin) -> None:
    assert _start(origin, uvx=False, on_path=True) == Server(("epicwave", "serve"))


def test_a_folder_is_named_only_when_nothing_else_will_do() -> None:
    assert _start(FOLDER, on_path=True) == Server(("epicwave", "serve"))
    assert _start(FOLDER) == Server(("uvx", "--from", "/home/me/epicwave", "epicwave", "serve"), "/home/me/epicwave")
    assert _start(FOLDER, uvx=False) == Server((*PROGRAM, "serve"), PROGRAM[0])


def test_the_command_that_is_asked_for_is_taken_word_by_word() -> None:
    assert server_of("uvx --from 'a b' epicwave serve") == Server(("uvx", "--from", "a b", "epicwave", "serve"))


@pytest.mark.parametrize("command", ["", "epicwave serve | tee log", "epicwave 'serve"])
def test_a_command_that_needs_a_shell_is_refused(command: str) -> None:
    with pytest.raises(Refused) as refused:
        server_of(command)
    assert refused.value.code is Code.BAD_ARGUMENT
    assert "--command" in refused.value.why


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "uvx", "args": ["epicwave", "run", "epic.md"]},
        {"command": "epicwave", "args": ["status"]},
        {"command": "other", "args": ["serve"]},
        {"command": "my-epicwave", "args": ["serve"]},
        {"command": "epicwave", "args": ["serve"], "env": {"MINE": "1"}},
        {"type": "http", "command": "epicwave", "args": ["serve"]},
        {"url": "http://127.0.0.1:1"},
    ],
)
def test_a_server_that_no_init_writes_is_not_taken_for_ours(entry: dict[str, Any]) -> None:
    servers, *_ = project_files(Server(("uvx", "epicwave", "serve")))
    content = json.dumps({"mcpServers": {"epicwave": entry}}).encode()
    taken = servers.take(content, force=False)
    assert taken.content == content
    assert taken.left


def test_the_wheel_carries_what_a_checkout_has_on_top() -> None:
    """A wheel that lacks one of the files could not init; a name that differs would be the same."""
    checkout = Path(mcp_server.__file__).parents[1]
    targets = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    carried: dict[str, str] = targets["wheel"]["force-include"]
    assert set(carried) == {".claude/agents", ".claude/hooks", ".cursor/agents", ".cursor/hooks.json"}
    for source, place in carried.items():
        assert place == f"mcp_server/cli/project/{source}"
        assert (checkout / source).exists()
    assert carried.keys() <= set(targets["sdist"]["include"]), "a wheel may be built from the sdist"
