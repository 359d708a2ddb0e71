"""The plugin: its files say what is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp.server import MCPServer

from mcp_server.server.app import build
from mcp_server.server.session import Session

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SKILL = ROOT / "skills" / "run-epic" / "SKILL.md"
PORTABLE = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
"""The only keys of a skill that every host knows."""


@pytest.fixture
def server(tmp_path: Path) -> MCPServer[Session]:
    return build(tmp_path)


@pytest.fixture
async def tools(server: MCPServer[Session]) -> set[str]:
    return {tool.name for tool in await server.list_tools()}


def _skill() -> tuple[dict[str, Any], str]:
    _, front, body = SKILL.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_skill_is_portable() -> None:
    front, body = _skill()
    assert set(front) <= PORTABLE
    assert front["name"] == SKILL.parent.name
    assert len(front["description"]) <= 1024
    assert len(body.splitlines()) < 100


async def test_the_skill_names_every_tool_and_no_other(tools: set[str]) -> None:
    """A tool is what stands alone in backquotes and looks like one, or is allowed without asking."""
    front, body = _skill()
    named = {name for name in re.findall(r"`([a-z]+_[a-z]+)`", body) if name.endswith(("_epic", "_wave", "_status"))}
    assert named == tools
    allowed = {name.rsplit("__", 1)[-1] for name in front["allowed-tools"].split()}
    assert allowed == tools - {"cancel_epic"}


async def test_the_skill_names_arguments_that_the_tools_have(server: MCPServer[Session]) -> None:
    """What the skill shows as `name=value` is an argument of some tool."""
    _, body = _skill()
    shown = set(re.findall(r"`([a-z_]+)=[^`]+`", body))
    assert {"wait_s", "through", "strategy", "retry"} <= shown
    assert shown <= {name for tool in await server.list_tools() for name in tool.input_schema["properties"]}


def test_the_plugin_starts_the_server_from_its_own_folder_and_the_checkout_from_itself() -> None:
    """A plugin's server starts in the user's project: only the host knows where the plugin lies."""
    plugin = json.loads((ROOT / ".claude-plugin" / "plugin.json").read_text("utf-8"))["mcpServers"]
    project = json.loads((ROOT / ".mcp.json").read_text("utf-8"))["mcpServers"]
    assert plugin.keys() == project.keys() == {"epicwave"}, "the same name, else a host would start both"
    assert plugin["epicwave"]["args"] == ["--from", "${CLAUDE_PLUGIN_ROOT}", "epicwave", "serve"]
    assert project["epicwave"]["args"] == ["--from", ".", "epicwave", "serve"]
