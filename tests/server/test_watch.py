"""story_status with wait_s: a lead is woken by what it may act on, and by nothing else; each waking costs it a turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcp_server.server import tools_status
from tests.server.lead import Lead, all_are, until
from tests.server.scene import Scene, commit, exit_with, story, write
from tests.server.sub_agent import SubAgent

pytestmark = pytest.mark.anyio

AN_HOUR = 3_600


async def _started(lead: Lead, scene: Scene, *stories: dict[str, object], **wave: object) -> int:
    """The epic is under way; the cursor of the start."""
    scene.epic(*stories)
    await lead.ask("plan_epic", epic_file="epic.yaml")
    return (await lead.ask("start_wave", epic="notes", **{"through": "all", **wave}))["cursor"]


@asynccontextmanager
async def _watching(lead: Lead, since: int, **more: object) -> AsyncGenerator[list[dict[str, Any]]]:
    """A lead that waits for news meanwhile. What it was told is there at the end of the block, and it was woken."""
    told: list[dict[str, Any]] = []

    async def watch() -> None:
        told.append(await lead.ask("story_status", epic="notes", since=since, wait_s=AN_HOUR, **more))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            yield told


async def test_steps_of_a_healthy_story_wake_nobody_and_are_told_with_what_does(lead: Lead, scene: Scene) -> None:
    """Queued, offered, running and merging are the engine's business; merged is the lead's."""
    scene.play("S1", scene.gate("first"), write("S1.md"), commit())
    scene.play("S2", scene.gate("second"), write("S2.md"), commit())
    cursor = await _started(lead, scene, story("S1"), story("S2"), strategy="asyncio", slots=2)
    async with _watching(lead, cursor) as told:
        await lead.watch(all_are("running"))
        assert told == []
        scene.open("first")
    [news] = told
    assert news["changed"] is True
    assert {line["story"]: line["state"] for line in news["stories"]} == {"S1": "merged", "S2": "running"}
    scene.open("second")
    await lead.until_rest()


async def test_an_attempt_that_is_tried_again_wakes_nobody_and_the_last_failure_does(
    modern: Lead, scene: Scene
) -> None:
    scene.play("S1", exit_with(1), attempt=1)
    scene.play("S1", scene.gate("go"), exit_with(2), attempt=2)
    scene.play("S2", scene.gate("never"))
    cursor = await _started(modern, scene, story("S1"), story("S2"), strategy="asyncio", slots=2)
    async with _watching(modern, cursor) as told:
        await until(lambda: scene.starts("S1") == 2)
        await modern.watch(all_are("running"))
        assert told == []
        scene.open("go")
    assert next(line["state"] for line in told[0]["stories"] if line["story"] == "S1") == "failed"
    await modern.ask("cancel_epic", epic="notes")


async def test_the_end_of_an_epic_wakes_who_watches_it(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("never"))
    cursor = await _started(modern, scene, story("S1"))
    async with _watching(modern, cursor) as told:
        await until(lambda: len(scene.children()) == 1)
        await modern.ask("cancel_epic", epic="notes")
    assert told[0]["epics"][0]["state"] == "cancelled"


async def test_a_watch_of_one_story_is_not_woken_by_another_and_ends_with_its_own(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("first"), write("S1.md"), commit())
    scene.play("S2", scene.gate("second"), write("S2.md"), commit())
    cursor = await _started(modern, scene, story("S1"), story("S2"), strategy="asyncio", slots=2)
    async with _watching(modern, cursor, story="S2") as told:
        scene.open("first")
        await modern.watch(lambda states: states["S1"] == "merged")
        assert told == []
        with anyio.fail_after(5):
            done = await modern.ask("story_status", epic="notes", story="S1", since=AN_HOUR, wait_s=AN_HOUR)
        assert done["stories"][0]["state"] == "merged"
        scene.open("second")
    assert [line["story"] for line in told[0]["stories"]] == ["S2"]


async def test_a_story_that_waits_for_a_sub_agent_again_wakes_the_lead_and_a_claim_does_not(
    lead: Lead, scene: Scene
) -> None:
    """Nobody but the lead can spawn one."""
    cursor = await _started(lead, scene, story("S1"), story("S2", "S1"), strategy="agent-teams")
    agent = SubAgent(lead, scene, "a1")
    async with _watching(lead, cursor) as told:
        await agent.claim()
        await lead.watch(lambda states: states["S1"] == "running")
        assert told == []
        await agent.report("failed", "the index is locked")
    assert told[0]["stories"][0]["state"] == "offered"
    assert told[0]["spawn"] == 1


async def test_a_question_wakes_the_lead(modern: Lead, scene: Scene) -> None:
    cursor = await _started(modern, scene, story("S1"), story("S2"), strategy="agent-teams")
    one, two = SubAgent(modern, scene, "a1"), SubAgent(modern, scene, "a2")
    await one.claim("S1")
    await two.claim("S2")
    async with _watching(modern, cursor) as told:
        await one.report("blocked", "Postgres or SQLite?")
    assert "Postgres or SQLite?" in next(line["why"] for line in told[0]["stories"] if line["story"] == "S1")


async def test_who_waits_long_is_told_that_the_call_is_alive_and_how_far_it_is(
    lead: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools_status, "PROGRESS_S", 0.05)
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    cursor = await _started(lead, scene, story("S1"))
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))
        if len(heard) == 3:
            scene.open("go")

    with anyio.fail_after(30):
        arguments = {"epic": "notes", "since": cursor, "wait_s": AN_HOUR}
        result = await lead.client.call_tool("story_status", arguments, progress_callback=hear)
    assert not result.is_error
    assert [total for _, total, _ in heard] == [AN_HOUR] * len(heard)
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)
    assert heard[0][2] in {"1 offered", "1 running"}
    await lead.until_rest()
