"""What a host sees before anything is called, and what it costs a model to read."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from tests.server.lead import Lead, text_of
from tests.server.scene import Scene, story
from tests.tokens import ALL_TOOLS, EACH_TOOL, TOOLS, count_definition

pytestmark = pytest.mark.anyio


async def _tools(lead: Lead) -> list[dict[str, Any]]:
    listed = await lead.client.list_tools()
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools]


async def test_all_eight_tools_are_under_thirteen_kilobytes(lead: Lead) -> None:
    size = len(json.dumps(await _tools(lead), separators=(",", ":")).encode())
    print(f"tools/list: {size} bytes")  # noqa: T201 - shown by `pytest -s`
    assert size < 13_000


async def test_the_definitions_cost_a_model_little(lead: Lead) -> None:
    """What a host sends with every request: name, description and arguments."""
    costs = {tool["name"]: count_definition(tool) for tool in await _tools(lead)}
    print(f"definitions: {costs}, {sum(costs.values())} tokens")  # noqa: T201 - shown by `pytest -s`
    assert len(costs) <= TOOLS
    assert max(costs.values()) <= EACH_TOOL
    assert sum(costs.values()) <= ALL_TOOLS


async def test_the_tools_are_six_for_a_lead_and_two_for_its_sub_agents(lead: Lead) -> None:
    names = [tool["name"] for tool in await _tools(lead)]
    of_the_lead = ["plan_epic", "start_wave", "story_status", "cancel_epic", "steer_epic", "land_epic"]
    assert names == [*of_the_lead, "claim_story", "report_story"]


async def test_every_tool_has_all_four_annotations(lead: Lead) -> None:
    hints = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    tools = await _tools(lead)
    for tool in tools:
        assert hints <= tool["annotations"].keys(), tool["name"]
    assert [t["name"] for t in tools if t["annotations"]["readOnlyHint"]] == ["story_status"]
    assert [t["name"] for t in tools if t["annotations"]["destructiveHint"]] == ["cancel_epic", "land_epic"]


async def test_schemas_are_valid_strict_and_without_generated_titles(lead: Lead) -> None:
    for tool in await _tools(lead):
        assert tool["inputSchema"]["additionalProperties"] is False
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert not _titles(schema)


def _titles(schema: Any) -> list[str]:
    """Values of `title` where it is a keyword; a property of that name has a schema, not a text."""
    if isinstance(schema, dict):
        own = [schema["title"]] if isinstance(schema.get("title"), str) else []  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - any JSON
        return own + [found for value in schema.values() for found in _titles(value)]  # pyright: ignore[reportUnknownVariableType] - any JSON
    if isinstance(schema, list):
        return [found for value in schema for found in _titles(value)]  # pyright: ignore[reportUnknownVariableType] - any JSON
    return []


async def test_every_argument_but_an_id_says_what_it_is(lead: Lead) -> None:
    """A model has nothing but this to go by."""
    for tool in await _tools(lead):
        assert tool["description"]
        for name, schema in tool["inputSchema"]["properties"].items():
            assert schema.get("description") or name in {"epic", "strategy", "reason", "outcome"}, (tool["name"], name)


async def test_no_schema_says_what_goes_without_saying(lead: Lead) -> None:
    """An argument that may be left out is null, false or 0 then; no schema has a choice at its root."""
    for tool in await _tools(lead):
        assert "anyOf" not in tool["inputSchema"]
        assert "null" not in json.dumps(tool["inputSchema"])
        for schema in tool["inputSchema"]["properties"].values():
            assert schema.get("default", True)


async def test_numbers_of_a_reply_say_their_unit(lead: Lead) -> None:
    counted = {
        *("stories", "done", "line", "attempt", "wave", "slots", "useful_slots", "spawn"),
        *("cursor", "counts", "totals", "more_offset", "brief_left"),
    }
    for tool in await _tools(lead):
        for name in _number_fields(tool["outputSchema"]):
            assert name in counted or name.endswith(("_s", "_minutes")), f"{tool['name']}: {name}"


def _number_fields(schema: dict[str, Any]) -> set[str]:
    objects = [schema, *schema.get("$defs", {}).values()]
    fields = [item for found in objects for item in found.get("properties", {}).items()]
    return {name for name, value in fields if {"number", "integer"} & set(re.findall(r"\w+", json.dumps(value)))}


async def test_replies_are_compact(lead: Lead, scene: Scene) -> None:
    """Indentation is a third of a reply's bytes and tells a model nothing."""
    scene.epic(story("S1"))
    result = await lead.client.call_tool("plan_epic", {"epic_file": "epic.yaml"})
    assert "\n" not in text_of(result)


async def test_a_host_that_only_lists_tools_opens_nothing(lead: Lead, scene: Scene) -> None:
    before = scene.everything()
    await lead.client.list_tools()
    assert scene.everything() == before
    assert not (scene.repo / ".git" / "epicwave").exists()
