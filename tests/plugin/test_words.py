"""Skills, agents and hooks name what the server has, by the names that hosts give it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp_types import Tool

from mcp_server.adapters.agents.profiles import BUILT_IN
from mcp_server.server.app import build
from mcp_server.server.session import Session
from tests.plugin.test_hook import load
from tests.plugin.texts import (
    CLAUDE_AGENTS,
    CURSOR_AGENTS,
    CURSOR_HOOKS,
    HOOKS,
    SKILLS,
    claude_hooks,
    read,
    read_json,
    relative,
    tools_of,
)
from tests.server.lead import text_of

pytestmark = pytest.mark.anyio

FORMS = ("mcp__plugin_epicwave_epicwave__", "mcp__epicwave__")
"""A tool as Claude Code calls it: from the plugin, and from a project's `.mcp.json`."""
HOST_TOOLS = {"Read", "Grep", "Glob", "Edit", "Write", "NotebookEdit", "Bash", "Agent", "Skill"}
OTHER_WORDS = {"name", "files"}
"""Of the host's Agent tool; of an epic file."""
FOR_THE_LEAD = {"plan_epic", "start_wave", "story_status", "cancel_epic", "steer_epic", "land_epic"}
FOR_A_HUMAN = {"cancel_epic", "steer_epic", "land_epic"}
"""Tools that no hook allows without a question."""
FOR_THE_WORKER = {"claim_story", "report_story"}


@pytest.fixture
def server(tmp_path: Path) -> MCPServer[Session]:
    return build(tmp_path)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tool]:
    server = build(tmp_path_factory.mktemp("nowhere"))
    return {tool.name: tool for tool in anyio.run(server.list_tools)}


def _names_in(schema: Any) -> Iterator[str]:
    """Names of all properties of a schema, and all values that it lists."""
    if isinstance(schema, dict):
        for key, value in schema.items():  # pyright: ignore[reportUnknownVariableType] - any JSON
            if key in ("properties", "enum"):
                yield from value
            if key == "const":
                yield value
            yield from _names_in(value)
    elif isinstance(schema, list):
        for value in schema:  # pyright: ignore[reportUnknownVariableType] - any JSON
            yield from _names_in(value)


def _vocabulary(tools: dict[str, Tool]) -> set[str]:
    names = {path.parent.name for path in SKILLS} | set(tools) | OTHER_WORDS
    for tool in tools.values():
        names |= {*_names_in(tool.input_schema), *_names_in(tool.output_schema)}
    return names


def test_every_tool_has_its_reader(tools: dict[str, Tool]) -> None:
    assert set(tools) == FOR_THE_LEAD | FOR_THE_WORKER


@pytest.mark.parametrize("path", [*SKILLS, *CLAUDE_AGENTS, *CURSOR_AGENTS], ids=relative)
def test_a_text_names_only_what_there_is(path: Path, tools: dict[str, Tool]) -> None:
    """A tool, an argument, a field of a reply, a value: each word that stands alone in backquotes."""
    assert read(path).words() <= _vocabulary(tools)


@pytest.mark.parametrize("path", [*SKILLS, *CLAUDE_AGENTS, *CURSOR_AGENTS], ids=relative)
def test_a_text_shows_only_arguments_that_tools_take(path: Path, tools: dict[str, Tool]) -> None:
    takes = {name for tool in tools.values() for name in tool.input_schema["properties"]}
    assert read(path).arguments() <= takes


def test_the_lead_is_told_of_its_tools_and_the_worker_of_its_own() -> None:
    told = {path.parent.name: read(path).words() & (FOR_THE_LEAD | FOR_THE_WORKER) for path in SKILLS}
    assert told == {"run-epic": FOR_THE_LEAD, "plan-epic": {"plan_epic"}, "epic-status": {"story_status"}}
    for path in [*CLAUDE_AGENTS, *CURSOR_AGENTS]:
        expected = FOR_THE_WORKER if path.name == "story-worker.md" else set[str]()
        assert read(path).words() & (FOR_THE_LEAD | FOR_THE_WORKER) == expected


def test_the_worker_is_told_what_to_do_with_every_answer(tools: dict[str, Tool]) -> None:
    output = tools["report_story"].output_schema
    assert output is not None
    answers = set(output["properties"]["answer"]["enum"])
    outcomes = set(tools["report_story"].input_schema["properties"]["outcome"]["enum"])
    for path in [*CLAUDE_AGENTS, *CURSOR_AGENTS]:
        if path.name == "story-worker.md":
            assert answers | outcomes <= read(path).words()


@pytest.mark.parametrize("path", SKILLS, ids=relative)
def test_a_skill_is_allowed_the_tools_that_it_names_but_not_to_cancel_or_to_steer(path: Path) -> None:
    named = read(path).words() & FOR_THE_LEAD
    assert tools_of(read(path).head, "allowed-tools") == {form + tool for form in FORMS for tool in named - FOR_A_HUMAN}


def test_the_worker_has_both_of_its_tools_under_both_names_and_no_tool_of_the_lead() -> None:
    """Named in its list, a tool's schema is in its first request; otherwise it would have to be looked up."""
    [path] = [path for path in CLAUDE_AGENTS if path.name == "story-worker.md"]
    given = tools_of(read(path).head, "tools")
    assert given - HOST_TOOLS == {form + tool for form in FORMS for tool in FOR_THE_WORKER}


def test_the_reviewer_has_no_tool_that_writes_files_or_calls_us() -> None:
    [path] = [path for path in CLAUDE_AGENTS if path.name == "story-reviewer.md"]
    assert tools_of(read(path).head, "tools") == {"Read", "Grep", "Glob", "Bash"}


def test_the_hook_watches_our_tools_and_git_and_nothing_else(tools: dict[str, Tool]) -> None:
    watched = dict[str, str]((matcher, hook.get("if", "")) for matcher, hook in claude_hooks("PreToolUse"))
    ours = [matcher for matcher in watched if matcher != "Bash"]
    assert len(ours) == 1
    assert watched["Bash"] == "Bash(git *)", "else every command of the user would start the script"
    for form in FORMS:
        for tool in tools:
            assert re.fullmatch(ours[0], form + tool)
    for foreign in ("mcp__other__claim_story", "Agent", "mcp__epicwave2__claim_story", "Read"):
        assert not re.fullmatch(ours[0], foreign)


def test_the_script_knows_the_tools_and_the_agents_that_there_are(tools: dict[str, Tool]) -> None:
    hook = load()
    assert set(tools) == hook.ALLOWED | FOR_A_HUMAN
    assert {
        name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint
    } == hook.READ_ONLY
    takes = {name for name, tool in tools.items() if {"agent", "cwd"} <= tool.input_schema["properties"].keys()}
    assert takes == hook.PLACED
    assert set(BUILT_IN) - {"scripted"} == hook.AGENTS


@pytest.mark.parametrize("path", CURSOR_HOOKS, ids=relative)
def test_cursors_hook_watches_the_tools_that_it_has_an_answer_for(path: Path) -> None:
    hook = load()
    [entry] = read_json(path)["hooks"]["preToolUse"]
    watched = {name for name in hook.ALLOWED | FOR_A_HUMAN if re.fullmatch(entry["matcher"], f"MCP:{name}")}
    assert watched == hook.PLACED | hook.READ_ONLY


@pytest.mark.parametrize("event", ["SubagentStart", "SubagentStop"])
def test_only_story_workers_are_reported_to_the_server(event: str) -> None:
    """What else a user's sub-agents do is no business of the server, and costs them nothing."""
    [(matcher, _)] = claude_hooks(event)
    assert re.search(matcher, "story-worker")
    assert re.search(matcher, "epicwave:story-worker")
    for other in ("general-purpose", "story-reviewer", "my-story-worker", "story-worker-2"):
        assert not re.search(matcher, other)


@pytest.mark.parametrize(
    ("event", "word"), [("SubagentStart", "started"), ("SubagentStop", "stopped"), ("StopFailure", "failed")]
)
async def test_the_server_takes_what_a_hook_sends(event: str, word: str, server: MCPServer[Session]) -> None:
    """A tool that is not listed costs the model nothing. Whoever is nobody's worker may always go."""
    [(_, hook)] = claude_hooks(event)
    assert hook["server"] == "plugin:epicwave:epicwave"
    more = {"error": "${error}"} if event == "StopFailure" else {}
    assert hook["input"] == {"event": word, "agent": "${agent_id}", "cwd": "${cwd}", **more}
    async with Client(server) as client:
        assert hook["tool"] not in {tool.name for tool in (await client.list_tools()).tools}
        answer = await client.call_tool(hook["tool"], {"event": word, "agent": "", "cwd": "/", **more})
    assert not answer.is_error, text_of(answer)
    assert text_of(answer) == "{}", "the host takes the text for the hook's answer"


def test_the_hooks_are_those_that_are_tested_here() -> None:
    assert set(read_json(HOOKS)["hooks"]) == {"PreToolUse", "SubagentStart", "SubagentStop", "StopFailure"}
