"""cancel_epic: nothing runs any more when it answers, and nothing that was made is lost."""

from __future__ import annotations

import anyio
import pytest

from tests.server.lead import Lead, all_are, until
from tests.server.scene import Scene, child, commit, exit_with, story, write

pytestmark = pytest.mark.anyio

AN_HOUR = 3_600.0


async def test_a_cancel_while_agents_run_leaves_no_process_and_saves_their_work(lead: Lead, scene: Scene) -> None:
    """One has committed, one has not, one has nothing; each has a child of its own."""
    scene.play("S1", write("S1.md"), commit(), write("more.md"), child(AN_HOUR, deaf=False))
    scene.play("S2", write("S2.md"), child(AN_HOUR, deaf=False))
    scene.play("S3", child(AN_HOUR, deaf=False))
    before = scene.checkout()
    scene.epic(*[story(name) for name in ("S1", "S2", "S3")], story("S4", "S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    await until(lambda: len(scene.children()) == 3)
    reply = await lead.ask("cancel_epic", epic="notes", reason="enough")
    assert scene.processes() == []
    stopped = {s["story"]: s for s in reply["stopped"]}
    assert stopped.keys() == {"S1", "S2", "S3"}
    assert all(s["processes_gone"] and s["state"] == "cancelled" for s in stopped.values())
    assert (reply["state"], reply["never_started"]) == ("cancelled", ["S4"])
    assert "still_stopping" not in reply
    assert {"S1.md", "more.md"} <= scene.tree(stopped["S1"]["saved_ref"]).keys()
    assert "S2.md" in scene.tree(stopped["S2"]["saved_ref"])
    assert "saved_ref" not in stopped["S3"]
    why = (await lead.ask("story_status", epic="notes", story="S1"))["stories"][0]["why"]
    assert "enough" in why
    assert stopped["S1"]["saved_ref"] in why
    await until(lambda: not scene.leftovers())
    (scene.repo / "epic.yaml").unlink()
    assert scene.checkout() == before


async def test_a_child_that_ignores_term_is_gone_too(modern: Lead, scene: Scene) -> None:
    scene.play("S1", child(AN_HOUR))
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes")
    await until(lambda: len(scene.children()) == 1)
    with anyio.fail_after(20):
        reply = await modern.ask("cancel_epic", epic="notes")
    assert [s["processes_gone"] for s in reply["stopped"]] == [True]
    assert scene.processes() == []


async def test_an_epic_that_does_nothing_is_not_cancelled_twice(lead: Lead, scene: Scene) -> None:
    scene.epic(story("S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", agent="scripted")
    assert await lead.until_rest() == {"S1": "merged"}
    assert (await lead.refused("cancel_epic", epic="notes")).startswith("too_late: ")
    assert (await lead.refused("cancel_epic", epic="notes", story="S1")).startswith("too_late: ")


async def test_one_story_is_stopped_and_the_others_go_on(modern: Lead, scene: Scene) -> None:
    scene.play("S1", write("S1.md"), child(AN_HOUR, deaf=False))
    scene.play("S2", scene.gate("go"), write("S2.md"), commit())
    scene.epic(story("S1"), story("S2"), story("S3", "S1"), story("S4", "S2"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    await until(lambda: len(scene.children()) == 2)
    reply = await modern.ask("cancel_epic", epic="notes", story="S1")
    assert [s["story"] for s in reply["stopped"]] == ["S1"]
    assert len(scene.processes()) == 3
    scene.open("go")
    assert await modern.until_rest() == {"S1": "cancelled", "S2": "merged", "S3": "blocked", "S4": "merged"}


async def test_a_cancelled_epic_goes_on_with_retry_and_what_is_merged_stays(lead: Lead, scene: Scene) -> None:
    scene.play("S1", write("S1.md"), commit())
    scene.play("S2", scene.gate("never"), attempt=1)
    scene.play("S2", write("S2.md"), commit(), attempt=2)
    scene.epic(story("S1"), story("S2", "S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", through="all")
    await until(lambda: scene.starts("S2") == 1)
    reply = await lead.ask("cancel_epic", epic="notes")
    assert reply["merged"] == ["S1"]
    await lead.refused("start_wave", epic="notes", through="all")
    await lead.ask("start_wave", epic="notes", through="all", retry=True)
    assert await lead.until_rest() == {"S1": "merged", "S2": "merged"}
    assert (scene.starts("S1"), scene.starts("S2")) == (1, 2)


async def test_a_critical_story_that_fails_stops_its_siblings(modern: Lead, scene: Scene) -> None:
    """fail_fast is on by default, and nothing outlives the wave."""
    scene.configure({"attempts": 1})
    scene.play("S1", scene.gate("go"), exit_with(1))
    scene.play("S2", write("S2.md"), child(AN_HOUR, deaf=False))
    scene.epic(story("S1", critical=True), story("S2"), story("S3", "S2"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    await until(lambda: len(scene.children()) == 2)
    scene.open("go")
    states = await modern.until_rest()
    assert (states["S1"], states["S2"]) == ("failed", "cancelled")
    assert scene.processes() == []
    assert "S2.md" in scene.tree("refs/epicwave/rescue/notes/S2/1")


async def test_work_in_flight_is_not_planned_again_under_its_feet(modern: Lead, scene: Scene) -> None:
    scene.play("S1", child(AN_HOUR, deaf=False))
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes")
    await modern.watch(all_are("running"))
    scene.epic(story("S1"), story("S2"))
    assert (await modern.refused("plan_epic", epic_file="epic.yaml")).startswith("epic_busy: ")
    await modern.ask("cancel_epic", epic="notes")
    await modern.ask("plan_epic", epic_file="epic.yaml")
