"""What a host sees before anything is called, and what it costs a model to read."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.server.lead import REPLY_MAX_BYTES, Lead, text_of
from tests.server.scene import Scene, exit_with, story

pytestmark = pytest.mark.anyio


async def _tools(lead: Lead) -> list[dict[str, Any]]:
    listed = await lead.client.list_tools()
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools]


async def test_all_tools_are_under_ten_kilobytes(lead: Lead) -> None:
    size = len(json.dumps(await _tools(lead), separators=(",", ":")).encode())
    print(f"tools/list: {size} bytes")  # noqa: T201 - shown by `pytest -s`
    assert size < 10_000


async def test_the_tools_are_the_four(lead: Lead) -> None:
    names = [tool["name"] for tool in await _tools(lead)]
    assert names == ["plan_epic", "start_wave", "story_status", "cancel_epic"]


async def test_every_tool_has_all_four_annotations(lead: Lead) -> None:
    hints = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    tools = await _tools(lead)
    for tool in tools:
        assert hints <= tool["annotations"].keys(), tool["name"]
    assert [t["name"] for t in tools if t["annotations"]["readOnlyHint"]] == ["story_status"]
    assert [t["name"] for t in tools if t["annotations"]["destructiveHint"]] == ["cancel_epic"]


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
            assert schema.get("description") or name in {"strategy", "reason"}, f"{tool['name']}.{name}"


async def test_numbers_of_a_reply_say_their_unit(lead: Lead) -> None:
    counted = {
        *("stories", "done", "conflicts_total", "unused_lines_total", "line", "attempt", "wave", "slots"),
        *("stories_total", "cursor", "merged_percent", "counts"),
    }
    for tool in await _tools(lead):
        for name in _number_fields(tool["outputSchema"]):
            assert name in counted or name.endswith(("_s", "_minutes")), f"{tool['name']}: {name}"


def _number_fields(schema: dict[str, Any]) -> set[str]:
    objects = [schema, *schema.get("$defs", {}).values()]
    fields = [item for found in objects for item in found.get("properties", {}).items()]
    return {name for name, value in fields if value.get("type") in {"number", "integer"}}


async def test_the_status_of_fifteen_stories_stays_under_2000_tokens(lead: Lead, scene: Scene) -> None:
    """With failures and what is blocked by them, which have the most to say."""
    names = [f"STORY-{n:02d}" for n in range(15)]
    for name in names:
        scene.play(name, exit_with(3))
    scene.configure({"attempts": 1, "fail_fast": False})
    title = "A title of the length that people write for stories"
    scene.epic(*[story(n, *(names[:1] if i % 2 else ()), title=title) for i, n in enumerate(names)])
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", through="all", strategy="asyncio", slots=3)
    states = await lead.until_rest()
    assert sorted(set(states.values())) == ["blocked", "failed"]
    said = text_of(await lead.client.call_tool("story_status", {"epic": "notes"}))
    print(f"status of 15 stories: {len(said.encode())} bytes")  # noqa: T201 - shown by `pytest -s`
    assert len(said.encode()) < REPLY_MAX_BYTES


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
