"""land_epic and the rollback of steer_epic: what a lead is told, and what the user's checkout is then."""

from __future__ import annotations

import sys

import pytest

from mcp_server.server import errands
from tests.server.lead import Lead, text_of
from tests.server.scene import Scene, commit, story, write

pytestmark = pytest.mark.anyio


def checked(scene: Scene) -> list[str]:
    """A check that counts its runs, and waits at a gate where there is one."""
    runs, gate = scene.outside / "checked", scene.outside / "check.gate"
    code = (
        f"import os, time; open({str(runs)!r}, 'a').write('x')\nwhile os.path.exists({str(gate)!r}): time.sleep(0.02)"
    )
    return [sys.executable, "-I", "-S", "-c", code]


async def ran(lead: Lead, scene: Scene, *stories: tuple[str, ...]) -> None:
    for name, *_ in stories:
        scene.play(name, write(f"{name}.md"), commit())
    scene.configure({"checks": [checked(scene)]})
    scene.git("commit", "-qam", "Configured")
    scene.epic(*(story(*each) for each in stories))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", through="all", strategy="asyncio")
    await lead.until_rest()


async def test_an_epic_lands_as_it_was_proven_and_the_status_says_so(lead: Lead, scene: Scene) -> None:
    await ran(lead, scene, ("S1",), ("S2", "S1"))
    assert "land_epic(epic='notes')" in (await lead.ask("story_status", epic="notes"))["next"]
    runs, before = (scene.outside / "checked").read_text("utf-8"), scene.git("rev-parse", "main")
    reply = await lead.ask("land_epic", epic="notes")
    assert (reply["landed"], reply["into"], reply["how"]) == (True, "main", "ff")
    assert scene.git("rev-parse", "main") == scene.git("rev-parse", "epicwave/notes")
    assert (scene.repo / "S2.md").exists()
    assert (scene.outside / "checked").read_text("utf-8") == runs, "what was proven is not checked again"
    assert scene.git("rev-parse", reply["saved_ref"]) == before
    status = await lead.ask("story_status", epic="notes")
    assert "Landed on main as" in status["epics"][0]["alerts"][0]
    assert "nothing is left" in status["next"]
    assert "has landed on main already" in await lead.refused("land_epic", epic="notes")
    assert scene.leftovers() == []


async def test_a_story_is_rolled_back_and_tried_again(modern: Lead, scene: Scene) -> None:
    await ran(modern, scene, ("S1",), ("S2",), ("S3", "S1"))
    refused = await modern.refused("steer_epic", epic="notes", action="rollback", story="S1")
    assert "built_on: " in refused
    assert "first: S3" in refused
    reply = await modern.ask(
        "steer_epic", epic="notes", action="rollback", story="S1", with_dependants=True, note="it broke the login"
    )
    assert "action='retry'" in reply["next"]
    assert sorted(path for path in scene.tree("epicwave/notes") if path.endswith(".md")) == ["S2.md"]
    line = (await modern.stories())["S1"]
    assert "rolled back: it broke the login" in line["why"]
    assert "refs/epicwave/rescue/notes/S1/1" in line["why"]
    await modern.ask("start_wave", epic="notes", through="all", retry=True)
    assert await modern.until_rest() == dict.fromkeys(("S1", "S2", "S3"), "merged")
    assert "S1.md" in scene.tree("epicwave/notes")


async def test_after_it_has_landed_a_rollback_says_that_the_users_branch_has_it_still(
    modern: Lead, scene: Scene
) -> None:
    await ran(modern, scene, ("S1",), ("S2",))
    await modern.ask("land_epic", epic="notes")
    reply = await modern.ask("steer_epic", epic="notes", action="rollback", story="S2")
    assert "main has it still" in reply["next"]
    assert (scene.repo / "S2.md").exists()
    again = await modern.ask("land_epic", epic="notes", partial=True)
    assert (again["landed"], (scene.repo / "S2.md").exists()) == (True, False)


async def test_a_call_that_is_too_short_for_the_checks_is_made_again(
    modern: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks run on although nobody waits, once; what came of them is told to the same call."""
    await ran(modern, scene, ("S1",), ("S2",))
    runs = len((scene.outside / "checked").read_text("utf-8"))
    monkeypatch.setattr(errands, "WAIT_S", 0.3)
    gate = scene.outside / "check.gate"
    gate.touch()
    rollback = {"epic": "notes", "action": "rollback", "story": "S1"}
    for _ in range(2):
        reply = await modern.ask("steer_epic", **rollback)
        assert (reply["under_way"], "same call again" in reply["next"]) == (True, True)
    gate.unlink()
    monkeypatch.setattr(errands, "WAIT_S", 30.0)
    assert not (await modern.ask("steer_epic", **rollback)).get("under_way")
    assert len((scene.outside / "checked").read_text("utf-8")) == runs + 1
    (scene.repo / "app.py").write_text("mine\n", "utf-8")
    scene.git("commit", "-qam", "mine")
    gate.touch()
    monkeypatch.setattr(errands, "WAIT_S", 0.3)
    assert not (await modern.ask("land_epic", epic="notes", partial=True)).get("landed")
    gate.unlink()
    monkeypatch.setattr(errands, "WAIT_S", 30.0)
    reply = await modern.ask("land_epic", epic="notes", partial=True)
    assert (reply["how"], len(reply["checks"])) == ("merge", 1)


async def test_a_dirty_checkout_is_refused_with_its_files_and_stays_as_it_is(modern: Lead, scene: Scene) -> None:
    await ran(modern, scene, ("S1",))
    (scene.repo / "app.py").write_text("mine\n", "utf-8")
    before = scene.checkout()
    refused = await modern.refused("land_epic", epic="notes")
    assert "dirty_checkout: " in refused
    assert "app.py" in refused
    assert scene.checkout() == before


async def test_an_epic_that_is_not_there_or_was_not_run_has_nothing_to_land(modern: Lead, scene: Scene) -> None:
    assert "unknown_epic" in await modern.refused("land_epic", epic="notes")
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    assert "nothing_to_land" in await modern.refused("land_epic", epic="notes", partial=True)
    assert "too_late" in await modern.refused("steer_epic", epic="notes", action="rollback", story="S1")
    result = await modern.client.call_tool("land_epic", {"epic": "notes", "how": "rebase"})
    assert "how" in text_of(result)
