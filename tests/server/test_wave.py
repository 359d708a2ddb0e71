"""start_wave and story_status: work is started at once, outlives the call, and is told about when it moves."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from tests.server.lead import Lead, all_are, until
from tests.server.scene import Scene, commit, exit_with, python_check, story, write

pytestmark = pytest.mark.anyio


async def _planned(lead: Lead, scene: Scene, *stories: dict[str, object], **more: Any) -> None:
    scene.epic(*stories, **more)
    await lead.ask("plan_epic", epic_file="epic.yaml")


async def test_an_epic_runs_to_merged_and_its_checks_are_run_on_the_merged_tree(lead: Lead, scene: Scene) -> None:
    both = "import sys; from os.path import exists; sys.exit(exists('S3.md') > (exists('S1.md') and exists('S2.md')))"
    before = scene.checkout()
    await _planned(lead, scene, story("S1"), story("S2"), story("S3", "S1", "S2"), checks=[python_check(both)])
    wave = await lead.ask("start_wave", epic="notes", through="all", strategy="asyncio", slots=2, agent="scripted")
    assert (wave["wave"], wave["strategy"], wave["slots"], wave["agent"]) == (1, "asyncio", 2, "scripted")
    assert (wave["started"], wave["waiting"]) == (["S1", "S2"], ["S3"])
    assert await lead.until_rest() == {"S1": "merged", "S2": "merged", "S3": "merged"}
    assert {"S1.md", "S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    status = await lead.ask("story_status", epic="notes")
    assert (status["epics"][0]["state"], status["epics"][0]["counts"]) == ("done", {"merged": 3})
    assert "land_epic(epic='notes')" in status["next"]
    (scene.repo / "epic.yaml").unlink()
    assert scene.checkout() == before
    await until(lambda: not scene.leftovers())


async def test_start_wave_answers_at_once_and_the_work_outlives_the_call(lead: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    await _planned(lead, scene, story("S1"))
    with anyio.fail_after(2):
        wave = await lead.ask("start_wave", epic="notes")
    assert wave["started"] == ["S1"]
    await lead.watch(all_are("running"))
    scene.open("go")
    assert await lead.until_rest() == {"S1": "merged"}


async def test_a_watch_returns_at_a_change_and_not_before(lead: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    await _planned(lead, scene, story("S1"))
    await lead.ask("start_wave", epic="notes")
    await lead.watch(all_are("running"))
    cursor = (await lead.ask("story_status", epic="notes"))["cursor"]

    began = anyio.current_time()
    nothing = await lead.ask("story_status", epic="notes", since=cursor, wait_s=0.4)
    assert anyio.current_time() - began >= 0.4
    assert (nothing["changed"], nothing["cursor"]) == (False, cursor)
    assert "stories" not in nothing

    told: list[object] = []

    async def watch() -> None:
        told.append(await lead.ask("story_status", epic="notes", since=cursor, wait_s=45))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await lead.ask("story_status", epic="notes")  # other calls are answered meanwhile
            assert not told
            scene.open("go")
    [change] = told
    assert isinstance(change, dict)
    assert change["changed"] is True
    assert change["cursor"] > cursor
    await lead.until_rest()


async def test_a_watch_returns_at_once_when_nothing_moves(lead: Lead, scene: Scene) -> None:
    await _planned(lead, scene, story("S1"))
    with anyio.fail_after(2):
        status = await lead.ask("story_status", epic="notes", wait_s=45)
        await lead.ask("story_status", wait_s=45)
    assert status["stories"][0]["state"] == "ready"
    assert "start_wave" in status["stories"][0]["why"]


async def test_a_watch_in_a_repository_without_an_epic_returns_at_once(lead: Lead) -> None:
    with anyio.fail_after(2):
        status = await lead.ask("story_status", wait_s=45)
    assert "plan_epic" in status["next"]


async def test_the_default_is_one_story_at_a_time_and_only_what_is_ready(modern: Lead, scene: Scene) -> None:
    for name in ("S1", "S2"):
        scene.play(name, scene.gate("go"), write(f"{name}.md"), commit())
    await _planned(modern, scene, story("S1"), story("S2"), story("S3", "S1"))
    wave = await modern.ask("start_wave", epic="notes")
    assert (wave["strategy"], wave["slots"]) == ("sequential", 1)
    assert (wave["started"], wave["waiting"]) == (["S1"], ["S2"])
    await modern.watch(lambda states: states["S1"] == "running")
    lines = await modern.stories()
    assert "why" not in lines["S1"]
    assert "slot" in lines["S2"]["why"]
    assert "S1" in lines["S3"]["why"]
    scene.open("go")
    assert await modern.until_rest() == {"S1": "merged", "S2": "merged", "S3": "ready"}
    assert (await modern.ask("start_wave", epic="notes"))["wave"] == 2
    assert await modern.until_rest() == {"S1": "merged", "S2": "merged", "S3": "merged"}


async def test_a_story_tells_its_log_and_how_it_failed_and_a_retry_goes_on_from_there(
    modern: Lead, scene: Scene
) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", {"print": "the cause of it"}, write("S1.md"), exit_with(7), attempt=1)
    scene.play("S1", write("S1.md"), commit(), attempt=2)
    await _planned(modern, scene, story("S1"), story("S2", "S1"))
    await modern.ask("start_wave", epic="notes", through="all")
    assert await modern.until_rest() == {"S1": "failed", "S2": "blocked"}
    status = await modern.ask("story_status", epic="notes", story="S1")
    detail = status["detail"]
    assert "code 7" in status["stories"][0]["why"]
    assert "the cause of it" in "\n".join(detail["log_tail"])
    assert detail["saved_ref"] == "refs/epicwave/rescue/notes/S1/1"
    assert "S1.md" in scene.tree(detail["saved_ref"])
    assert (await modern.refused("start_wave", epic="notes")).startswith("nothing_ready: ")
    wave = await modern.ask("start_wave", epic="notes", through="all", retry=True)
    assert wave["retried"] == ["S1"]
    assert await modern.until_rest() == {"S1": "merged", "S2": "merged"}


async def test_done_needs_commits_and_nothing_uncommitted_and_green_checks(modern: Lead, scene: Scene) -> None:
    """Three different outcomes, each with its own words."""
    scene.configure({"attempts": 1, "fail_fast": False})
    scene.play("NONE")
    scene.play("LOOSE", write("LOOSE.md"))
    scene.play("RED", write("RED.md"), commit())
    red = python_check("import sys; print('red it is'); sys.exit(1)")
    await _planned(modern, scene, story("NONE"), story("LOOSE"), story("RED", guards=[red]))
    await modern.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    await modern.until_rest()
    whys = {name: line["why"] for name, line in (await modern.stories()).items()}
    assert "no_commits" in whys["NONE"]
    assert "uncommitted_changes" in whys["LOOSE"]
    assert "LOOSE.md" in whys["LOOSE"]
    assert "checks" in whys["RED"]
    pages = [page["detail"] for page in await modern.pages("story_status", epic="notes", story="RED")]
    assert pages[0]["last_failure_tail"] == ["red it is"]
    [guard] = [line for page in pages for line in page.get("guards", [])]
    assert guard.startswith(f"its own: {red[0]}")
    [ran] = [line for page in pages for line in page.get("checks", [])]
    base = scene.git("rev-parse", "main")[:10]
    assert re.fullmatch(rf"on {base} \+ \w{{10}}: `.*` exit 1 in [\d.]+ s", ran), ran
    assert scene.tree("epicwave/notes").keys() == scene.tree("main").keys()


async def test_overlapping_stories_are_never_together(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), write("src/S1.md"), commit())
    scene.play("S2", write("src/S2.md"), commit())
    await _planned(modern, scene, story("S1", files=["src/"]), story("S2", files=["src/*.md"]))
    wave = await modern.ask("start_wave", epic="notes", strategy="asyncio", slots=3)
    assert (wave["started"], wave["waiting"]) == (["S1"], ["S2"])
    await modern.watch(lambda states: states["S1"] == "running")
    waiting = (await modern.ask("story_status", epic="notes", story="S2"))["stories"][0]["why"]
    assert "S1" in waiting
    assert "src/" in waiting
    assert scene.starts("S2") == 0
    scene.open("go")
    await modern.until_rest()


async def test_more_stories_are_added_to_a_living_wave(modern: Lead, scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    await _planned(modern, scene, story("S1"), story("S2", "S1"))
    first = await modern.ask("start_wave", epic="notes")
    wider = await modern.ask("start_wave", epic="notes", through="all")
    assert wider["wave"] == first["wave"]
    assert wider["waiting"] == ["S2"]
    scene.open("go")
    assert await modern.until_rest() == {"S1": "merged", "S2": "merged"}
