"""Two servers on one repository: one has the engine, the other looks on until it may take over."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from mcp_server.server.app import build
from tests.server.lead import ERAS, Lead, all_are, leading, until
from tests.server.scene import Scene, commit, story, write

pytestmark = pytest.mark.anyio


@pytest.fixture(params=ERAS)
async def pair(request: pytest.FixtureRequest, scene: Scene) -> AsyncGenerator[tuple[Lead, Lead]]:
    """Two leads with a server each, and an epic that the first one's agents are working on."""
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"), story("S2", "S1"))
    async with leading(build(scene.repo), request.param) as first, leading(build(scene.repo)) as second:
        await first.ask("plan_epic", epic_file="epic.yaml")
        await first.ask("start_wave", epic="notes")
        await first.watch(lambda states: states["S1"] == "running")
        yield first, second


async def test_the_second_shows_everything_and_changes_nothing(pair: tuple[Lead, Lead], scene: Scene) -> None:
    _, second = pair
    assert await second.states() == {"S1": "running", "S2": "pending"}
    for said in (
        await second.refused("plan_epic", epic_file="epic.yaml"),
        await second.refused("start_wave", epic="notes"),
        await second.refused("cancel_epic", epic="notes"),
    ):
        assert said.startswith("engine_elsewhere: ")
        assert "epicwave serve, process " in said
    assert await second.states() == {"S1": "running", "S2": "pending"}
    assert len(scene.processes()) == 3
    scene.open("go")
    await pair[0].until_rest()


async def test_the_second_sees_progress_within_a_second(pair: tuple[Lead, Lead], scene: Scene) -> None:
    seen_s: dict[str, float] = {}

    async def follow(name: str, lead: Lead) -> None:
        await lead.watch(lambda states: states["S1"] == "merged")
        seen_s[name] = anyio.current_time()

    async with anyio.create_task_group() as group:
        group.start_soon(follow, "first", pair[0])
        group.start_soon(follow, "second", pair[1])
        scene.open("go")
    assert seen_s["second"] - seen_s["first"] < 1


async def test_the_second_takes_over_when_the_first_is_idle(pair: tuple[Lead, Lead], scene: Scene) -> None:
    first, second = pair
    scene.open("go")
    assert await first.until_rest() == {"S1": "merged", "S2": "ready"}
    await until(lambda: _free(scene.repo))
    await second.ask("start_wave", epic="notes", agent="scripted")
    assert await second.until_rest() == {"S1": "merged", "S2": "merged"}
    assert await first.states() == {"S1": "merged", "S2": "merged"}
    await until(lambda: _free(scene.repo))
    await first.ask("plan_epic", epic_file="epic.yaml")


def _free(repo: Path) -> bool:
    return not (repo / ".git" / "epicwave" / "engine.json").exists()


async def test_a_watch_goes_on_while_the_engine_changes_hands(pair: tuple[Lead, Lead], scene: Scene) -> None:
    """The first server ends; its agents are stopped, and whoever watched from the second is told."""
    async with leading(build(scene.repo)) as third:
        cursor = (await third.ask("story_status", epic="notes"))["cursor"]
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    await third.ask("story_status", epic="notes", since=cursor, wait_s=45)

                group.start_soon(watch)
                await pair[0].ask("cancel_epic", epic="notes")
        assert (await third.states())["S1"] == "cancelled"


async def test_a_server_that_ends_gives_the_engine_back(scene: Scene) -> None:
    """Its agents are gone, their work is saved, and the next one can go on."""
    scene.play("S1", write("S1.md"), scene.gate("never"), attempt=1)
    scene.play("S1", write("S1.md"), commit(), attempt=2)
    scene.epic(story("S1"))
    async with leading(build(scene.repo)) as first:
        await first.ask("plan_epic", epic_file="epic.yaml")
        await first.ask("start_wave", epic="notes")
        await first.watch(all_are("running"))
        await until(lambda: len(scene.children()) == 1)
    assert scene.leftovers() == []
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    async with leading(build(scene.repo)) as second:
        assert await second.states() == {"S1": "ready"}
        await second.ask("start_wave", epic="notes")
        assert await second.until_rest() == {"S1": "merged"}
