"""`epicwave init` in a repository: everything or nothing, twice the same as once, and back to what it was."""

from __future__ import annotations

import json
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.cli.init import Asked, apply
from mcp_server.cli.init_files import ProjectFile
from mcp_server.cli.init_project import Server, package_files, project_files
from mcp_server.errors import Fault, Refused
from tests.cli.contents import ignore_files, json_files

ADD, REMOVE = Asked(), Asked(remove=True)
SERVER = Server(("uvx", "epicwave", "serve"))
FILES = project_files(SERVER)
JSON_FILES = [file.path for file in FILES if file.path.endswith(".json")]


def _contents(top: Path) -> dict[str, bytes]:
    """Every file and link below; folders that are empty are nothing, as for git."""
    return {
        path.relative_to(top).as_posix(): bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in top.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _write(top: Path, contents: Mapping[str, bytes]) -> None:
    for path, content in contents.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(content)


def _words(top: Path, asked: Asked, files: tuple[ProjectFile, ...] = FILES) -> dict[str, str]:
    """The first word that is said of each file."""
    return {step.path: step.line(dry_run=asked.dry_run)[:12].rstrip() for step in apply(top, files, asked)}


# --- there and back --------------------------------------------------------------------------------------------------

REPOSITORIES = st.fixed_dictionaries(
    {"README.md": st.just(b"mine\n")},
    optional={
        ".gitignore": ignore_files(),
        ".claude/agents/mine.md": st.just(b"mine\n"),
        ".claude/agents/story-worker.md": st.just(b"mine\n"),
        **dict.fromkeys(JSON_FILES, json_files() | st.just(b"{}\n")),
    },
)


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(REPOSITORIES)
def test_init_and_remove_leave_a_repository_byte_for_byte_as_it_was(contents: Mapping[str, bytes]) -> None:
    """And in between, a second init has nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        _write(top, contents)
        apply(top, FILES, ADD)
        made = _contents(top)
        assert made.keys() >= {file.path for file in FILES} - {".gitignore"}
        assert not any(step.changes for step in apply(top, FILES, ADD))
        assert _contents(top) == made
        apply(top, FILES, REMOVE)
        assert _contents(top) == contents


def test_in_an_empty_repository_nothing_is_left_not_even_a_folder(tmp_path: Path) -> None:
    assert set(_words(tmp_path, ADD).values()) == {"made"}
    assert set(_words(tmp_path, ADD).values()) == {"unchanged"}
    assert set(_words(tmp_path, REMOVE).values()) == {"removed"}
    assert list(tmp_path.iterdir()) == []


def test_another_machines_server_is_known_for_ours_when_it_is_taken_back(tmp_path: Path) -> None:
    elsewhere = project_files(Server(("/home/you/venv/bin/epicwave", "serve"), "/home/you/venv/bin/epicwave"))
    apply(tmp_path, elsewhere, ADD)
    words = _words(tmp_path, ADD)
    assert {path for path, word in words.items() if word == "left alone"} == {".mcp.json", ".cursor/mcp.json"}
    apply(tmp_path, FILES, REMOVE)
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_has_edited_stays_and_is_named(tmp_path: Path) -> None:
    apply(tmp_path, FILES, ADD)
    worker = tmp_path / ".claude/agents/story-worker.md"
    worker.write_bytes(worker.read_bytes() + b"And be kind.\n")
    servers = tmp_path / ".mcp.json"
    changed = json.loads(servers.read_bytes())
    changed["mcpServers"]["epicwave"]["env"] = {"MINE": "1"}
    servers.write_text(json.dumps(changed, indent=2), "utf-8")
    mine = _contents(tmp_path)

    steps = {step.path: step for step in apply(tmp_path, FILES, REMOVE)}

    assert _contents(tmp_path) == {path: mine[path] for path in (".mcp.json", ".claude/agents/story-worker.md")}
    assert steps[".mcp.json"].line(dry_run=False).startswith("left alone   .mcp.json: server epicwave ")
    assert steps[".claude/agents/story-worker.md"].outcome.left
    apply(tmp_path, FILES, Asked(remove=True, force=True))
    assert list(tmp_path.iterdir()) == []


# --- everything or nothing -------------------------------------------------------------------------------------------


def test_one_file_that_cannot_be_read_keeps_all_from_being_written(tmp_path: Path) -> None:
    before = {".cursor/mcp.json": b"{\n  // mine\n}\n", ".claude/settings.json": b'{"permissions": 1}'}
    _write(tmp_path, before)
    for asked in (ADD, REMOVE):
        with pytest.raises(Refused) as refused:
            apply(tmp_path, FILES, asked)
        assert ".cursor/mcp.json, line 2: a comment" in refused.value.why
        assert ".claude/settings.json, line 1" in refused.value.why
        assert _contents(tmp_path) == before


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".mcp.json").mkdir()
    with pytest.raises(Refused, match="cannot be a file"):
        apply(tmp_path, FILES, ADD)
    assert [path.name for path in tmp_path.iterdir()] == [".mcp.json"]


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, {".cursor": b"mine"})
    with pytest.raises(Refused, match="cannot be a file"):
        apply(tmp_path, FILES, ADD)
    assert _contents(tmp_path) == {".cursor": b"mine"}


def test_when_the_disk_refuses_one_file_none_is_changed(tmp_path: Path) -> None:
    """The place where its new content would lie is taken by a folder."""
    before = {".claude/settings.json": b"{}\n", ".gitignore": b"*.log\n", "..gitignore.epicwave-new/mine": b"mine"}
    _write(tmp_path, before)
    with pytest.raises(Fault, match="gitignore"):
        apply(tmp_path, FILES, ADD)
    assert _contents(tmp_path) == before


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    _write(tmp_path, {".gitignore": b"*.log\n"})
    dry = _words(tmp_path, Asked(dry_run=True))
    assert _contents(tmp_path) == {".gitignore": b"*.log\n"}
    assert {
        path: word.replace("would make", "made").replace("would change", "changed") for path, word in dry.items()
    } == (_words(tmp_path, ADD))
    made = _contents(tmp_path)
    assert set(_words(tmp_path, Asked(remove=True, dry_run=True)).values()) == {"would remove", "would change"}
    assert _contents(tmp_path) == made


# --- links and modes -------------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and modes are of POSIX")


@posix
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    top, dotfiles = tmp_path / "top", tmp_path / "dotfiles"
    _write(dotfiles, {"settings.json": b'{"model": "opus"}\n'})
    (top / ".claude").mkdir(parents=True)
    (top / ".claude/settings.json").symlink_to("../../dotfiles/settings.json")
    (top / ".cursor").symlink_to(dotfiles / "cursor", target_is_directory=True)  # which is not there yet
    before = _contents(tmp_path)
    apply(top, FILES, ADD)
    assert (top / ".claude/settings.json").is_symlink()
    assert json.loads((dotfiles / "settings.json").read_bytes())["model"] == "opus"
    assert "permissions" in json.loads((dotfiles / "settings.json").read_bytes())
    assert (dotfiles / "cursor/mcp.json").is_file()
    apply(top, FILES, REMOVE)
    assert _contents(tmp_path) == before


@posix
def test_two_names_of_one_file_get_one_server(tmp_path: Path) -> None:
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor/mcp.json").symlink_to("../.mcp.json")
    before = _contents(tmp_path)
    words = _words(tmp_path, ADD)
    assert (words[".mcp.json"], words[".cursor/mcp.json"]) == ("made", "left alone")
    assert len(json.loads((tmp_path / ".mcp.json").read_bytes())["mcpServers"]) == 1
    apply(tmp_path, FILES, REMOVE)
    assert _contents(tmp_path) == before


@posix
def test_links_in_a_circle_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".mcp.json").symlink_to(".mcp.json")
    with pytest.raises(Fault):
        apply(tmp_path, FILES, ADD)
    assert list(tmp_path.iterdir()) == [tmp_path / ".mcp.json"]


@posix
def test_the_mode_of_a_file_stays(tmp_path: Path) -> None:
    _write(tmp_path, {".claude/settings.json": b"{}\n"})
    (tmp_path / ".claude/settings.json").chmod(0o640)
    apply(tmp_path, FILES, ADD)
    assert stat.S_IMODE((tmp_path / ".claude/settings.json").stat().st_mode) == 0o640


# --- what is written -------------------------------------------------------------------------------------------------


def test_both_editors_get_the_server_and_cursor_is_told_where(tmp_path: Path) -> None:
    apply(tmp_path, FILES, ADD)
    claude = json.loads((tmp_path / ".mcp.json").read_bytes())
    cursor = json.loads((tmp_path / ".cursor/mcp.json").read_bytes())
    assert claude == {"mcpServers": {"epicwave": {"command": "uvx", "args": ["epicwave", "serve"]}}}
    args = ["epicwave", "serve", "--repo", "${workspaceFolder}"]
    assert cursor == {"mcpServers": {"epicwave": {"type": "stdio", "command": "uvx", "args": args}}}


def test_every_agent_of_the_package_gets_to_the_project(tmp_path: Path) -> None:
    apply(tmp_path, FILES, ADD)
    source = package_files()
    agents = [*(source / ".claude/agents").glob("*.md"), *(source / ".cursor/agents").glob("*.md")]
    assert {agent.name for agent in agents} >= {"story-worker.md", "story-reviewer.md"}
    for agent in agents:
        assert (tmp_path / agent.relative_to(source)).read_bytes() == agent.read_bytes()


def test_every_file_that_a_hook_names_is_there(tmp_path: Path) -> None:
    """No hook is left that speaks of the plugin, or of a file that only the plugin has."""
    apply(tmp_path, FILES, ADD)
    for name in (".claude/settings.json", ".cursor/hooks.json"):
        text = (tmp_path / name).read_text("utf-8")
        assert "PLUGIN" not in text
        assert "plugin:" not in text
    hooks = list((tmp_path / ".claude/hooks/epicwave").iterdir())
    assert hooks
