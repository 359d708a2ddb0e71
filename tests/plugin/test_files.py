"""The plugin's files have only keys that their hosts know, and point at each other rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mcp_server
from tests.plugin.texts import (
    CLAUDE_AGENTS,
    CURSOR_AGENTS,
    CURSOR_HOOKS,
    HOOKS,
    ROOT,
    SCRIPT,
    SKILLS,
    read,
    read_json,
    relative,
)

PORTABLE = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
"""The only keys of a skill that every host knows."""
PLUGIN_AGENT = {
    *("name", "description", "model", "effort", "maxTurns", "tools", "disallowedTools", "skills"),
    *("memory", "background", "isolation"),
}
"""Keys of a plugin's agent in Claude Code; permissions, servers and hooks of its own are ignored there."""
CURSOR_AGENT = {"name", "description", "model", "readonly", "is_background"}
CLAUDE_PLUGIN = {
    *("$schema", "name", "displayName", "version", "description", "author", "license", "keywords"),
    *("agents", "hooks", "mcpServers"),
}
CURSOR_PLUGIN = {
    *("name", "displayName", "description", "version", "author", "publisher", "homepage", "repository", "license"),
    *("logo", "keywords", "category", "tags", "commands", "agents", "skills", "rules", "hooks", "variables"),
    *("mcpServers", "minClientVersions"),
}
"""Cursor's schema allows no other."""
HOOK = {"type", "command", "timeout", "if", "server", "tool", "input"}


def _paths(manifest: dict[str, Any], *keys: str) -> list[str]:
    found: list[str] = []
    for key in keys:
        value = manifest.get(key, [])
        found += [value] if isinstance(value, str) else list(value)
    return found


def test_there_are_three_skills() -> None:
    assert [path.parent.name for path in SKILLS] == ["epic-status", "plan-epic", "run-epic"]


@pytest.mark.parametrize("path", SKILLS, ids=relative)
def test_a_skill_is_portable_and_short(path: Path) -> None:
    text = read(path)
    assert set(text.head) <= PORTABLE
    assert text.head["name"] == path.parent.name
    assert len(text.head["description"]) <= 1024
    assert text.head["metadata"]["version"] == mcp_server.__version__
    assert len(path.read_text("utf-8").splitlines()) < 60


@pytest.mark.parametrize("path", CLAUDE_AGENTS, ids=relative)
def test_an_agent_has_keys_that_a_plugins_agent_may_have(path: Path) -> None:
    text = read(path)
    assert set(text.head) <= PLUGIN_AGENT
    assert text.head["name"] == path.stem
    assert len(path.read_text("utf-8").splitlines()) < 60


@pytest.mark.parametrize("path", CURSOR_AGENTS, ids=relative)
def test_an_agent_of_cursor_has_keys_that_cursor_knows(path: Path) -> None:
    text = read(path)
    assert set(text.head) <= CURSOR_AGENT
    assert text.head["name"] == path.stem
    assert text.head["readonly"] is False, "a read-only agent is given no MCP tools"
    assert len(path.read_text("utf-8").splitlines()) < 60


def test_the_worker_is_isolated_by_claude_code_and_by_words_in_cursor() -> None:
    assert read(ROOT / ".claude" / "agents" / "story-worker.md").head["isolation"] == "worktree"
    assert "absolute paths" in read(ROOT / ".cursor" / "agents" / "story-worker.md").body


def test_the_plugin_of_claude_code_points_at_what_there_is() -> None:
    manifest = read_json(ROOT / ".claude-plugin" / "plugin.json")
    assert set(manifest) <= CLAUDE_PLUGIN
    assert _paths(manifest, "agents") == [f"./{relative(p)}" for p in reversed(CLAUDE_AGENTS)]
    assert _paths(manifest, "hooks") == [f"./{relative(HOOKS)}"]


def test_the_plugin_of_cursor_points_at_what_there_is() -> None:
    manifest = read_json(ROOT / ".cursor-plugin" / "plugin.json")
    assert set(manifest) <= CURSOR_PLUGIN
    named = _paths(manifest, "agents", "hooks", "skills", "mcpServers")
    assert named
    for path in named:
        assert (ROOT / path).exists(), path
    assert {Path(path).name for path in manifest["agents"]} == {p.name for p in CLAUDE_AGENTS}


def test_both_manifests_say_the_same_of_the_product() -> None:
    claude, cursor = (read_json(ROOT / folder / "plugin.json") for folder in (".claude-plugin", ".cursor-plugin"))
    for key in ("name", "displayName", "version", "description", "author", "license", "keywords"):
        assert claude[key] == cursor[key], key
    assert claude["version"] == mcp_server.__version__
    [listed] = read_json(ROOT / ".claude-plugin" / "marketplace.json")["plugins"]
    assert (listed["name"], listed["source"], listed["description"]) == ("epicwave", "./", claude["description"])


def test_each_host_starts_the_same_server_from_the_folder_that_it_knows() -> None:
    """One name, else a host would start two. Cursor starts servers in the user's home, so it names the repository."""
    serve = ["epicwave", "serve"]
    starts = {
        ".claude-plugin/plugin.json": ["--from", "${CLAUDE_PLUGIN_ROOT}", *serve],
        ".mcp.json": ["--from", ".", *serve],
        "mcp.json": ["--from", "${CURSOR_PLUGIN_ROOT}", *serve, "--repo", "${workspaceFolder}"],
    }
    for path, arguments in starts.items():
        servers = read_json(ROOT / path)["mcpServers"]
        assert servers.keys() == {"epicwave"}
        assert servers["epicwave"]["command"] == "uvx"
        assert servers["epicwave"]["args"] == arguments


def test_hooks_have_keys_that_claude_code_knows_and_a_limit() -> None:
    for groups in read_json(HOOKS)["hooks"].values():
        for group in groups:
            assert set(group) <= {"matcher", "hooks"}
            for hook in group["hooks"]:
                assert set(hook) <= HOOK
                assert hook["timeout"] <= 15


def test_cursors_two_hook_files_differ_only_in_where_the_script_lies() -> None:
    project, plugin = (read_json(path) for path in CURSOR_HOOKS)
    assert set(project) == {"version", "hooks"}
    assert project["version"] == 1
    [of_project], [of_plugin] = project["hooks"]["preToolUse"], plugin["hooks"]["preToolUse"]
    assert set(of_project) == {"command", "matcher", "timeout"}
    path = relative(SCRIPT)
    assert of_project["command"].replace(path, f'"${{CURSOR_PLUGIN_ROOT}}/{path}"') == of_plugin["command"]
    del of_project["command"], of_plugin["command"]
    assert project == plugin
