"""What a sub-agent without a worktree of its own is told while ours is set up for it, and when that fails."""

from __future__ import annotations

import pytest

from mcp_server.engine import rooms
from tests.server.lead import Lead
from tests.server.scene import PYTHON, Scene, story
from tests.server.sub_agent import SubAgent

pytestmark = pytest.mark.anyio


async def offered(lead: Lead, scene: Scene, *command: str) -> SubAgent:
    """A story is offered, and worktrees are set up by this command."""
    scene.configure({"setup": [list(command)], "port_base": 31_000})
    scene.epic(story("S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", strategy="agent-teams")
    return SubAgent(lead, scene, "a1", isolated=False)


async def test_a_set_up_longer_than_a_call_is_told_and_the_next_claim_gets_the_worktree(
    lead: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = scene.gate("installed")["run"]
    monkeypatch.setattr(rooms, "WAIT_S", 0.5)
    agent = await offered(lead, scene, *gate)
    reply = await agent.claim()
    assert (reply["claimed"], reply["next"]) == (
        False,
        "The worktree of story 'S1' is being set up. Call claim_story again.",
    )
    scene.open("installed")
    monkeypatch.setattr(rooms, "WAIT_S", 30.0)
    reply = await agent.claim()
    assert reply["worktree"] == str(scene.outside / "worktrees" / "notes" / "S1-1")
    assert "Serve only on ports 31000 to 31009" in reply["brief"]
    agent.work("S1.md")
    assert (await agent.done())["answer"] == "merged"


async def test_a_set_up_that_fails_is_told_to_whoever_claims_and_to_the_lead(lead: Lead, scene: Scene) -> None:
    agent = await offered(lead, scene, *PYTHON, "-c", "print('no network'); raise SystemExit(3)")
    reply = await agent.claim()
    assert reply["claimed"] is False
    assert "exited with code 3: no network" in reply["next"]
    assert "end your turn" in reply["next"]
    status = await lead.ask("story_status", epic="notes")
    assert "ended as setup" in str(status)
    await lead.ask("cancel_epic", epic="notes", reason="no network")
    assert scene.leftovers() == []
