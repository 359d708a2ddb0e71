"""What differs from host to host: where sub-agents work, how they are spawned, whether a human can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from mcp_server.core.model import Epic, Ledger
from mcp_server.core.spec import EpicSpec
from mcp_server.core.stories import Stories
from mcp_server.server.app import build
from mcp_server.server.team import Team, own_worktree, spawn_words
from mcp_server.server.world import World
from tests.server.lead import ERAS, Era, Lead
from tests.server.scene import Scene, story
from tests.server.sub_agent import SubAgent

pytestmark = pytest.mark.anyio


async def _start(lead: Lead, scene: Scene, *names: str) -> None:
    scene.epic(*[story(name) for name in names])
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes", strategy="agent-teams")


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_goes_to_the_human_and_the_same_sub_agent_goes_on_with_the_answer(
    scene: Scene, era: Era
) -> None:
    heard: list[str] = []

    async def human(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        heard.append(params.message)
        return ElicitResult(action="accept", content={"answer": "SQLite."})

    async with Client(build(scene.repo), mode=era, elicitation_callback=human) as client:
        lead = Lead(client)
        await _start(lead, scene, "S1")
        agent = SubAgent(lead, scene, "a1")
        await agent.claim()
        reply = await agent.report("blocked", "Postgres or SQLite?")
        assert (reply["answer"], reply["detail"]) == ("answered", "SQLite.")
        assert heard == ["Story S1 of notes asks: Postgres or SQLite?"]
        agent.work("S1.md")
        assert (await agent.done())["answer"] == "merged"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_that_the_human_does_not_answer_waits_in_the_status(
    scene: Scene, era: Era, action: str
) -> None:
    async def human(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult.model_validate({"action": action})

    async with Client(build(scene.repo), mode=era, elicitation_callback=human) as client:
        lead = Lead(client)
        await _start(lead, scene, "S1")
        agent = SubAgent(lead, scene, "a1")
        await agent.claim()
        assert (await agent.report("blocked", "Postgres or SQLite?"))["answer"] == "ended"
        assert await lead.states() == {"S1": "blocked"}


@pytest.mark.parametrize(
    ("client", "plugin", "words"),
    [
        ("claude-code", True, ["2 Agent calls", "'epicwave:story-worker'", "'worktree'"]),
        ("claude-code", False, ["2 Agent calls", "'story-worker'", "'worktree'"]),
        ("cursor-vscode", False, ["2 subagents story-worker", "worktree that it names"]),
    ],
)
def test_the_instruction_is_in_the_words_of_the_host(client: str, plugin: bool, words: list[str]) -> None:
    said = spawn_words("e", 2, client, plugin=plugin)
    assert said.startswith("In ONE message")
    assert all(word in said for word in [*words, ": again)", "claim_story(epic='e', whole=true)"]), said


async def test_sub_agents_that_are_on_their_way_are_not_spawned_again(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, "S1", "S2")
    assert (await modern.ask("story_status", epic="notes"))["spawn"] == 2
    await modern.event("started", "a1")
    assert (await modern.ask("story_status", epic="notes"))["spawn"] == 1
    await SubAgent(modern, scene, "a1").claim()
    assert (await modern.ask("story_status", epic="notes"))["spawn"] == 1
    await modern.event("started", "a2")
    assert "spawn" not in await modern.ask("story_status", epic="notes")


def test_one_that_never_claims_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_offers(*_: object) -> list[int]:
        return [1, 2]

    now_s = 0.0
    monkeypatch.setattr("mcp_server.server.team.time.monotonic", lambda: now_s)
    team = Team()
    monkeypatch.setattr(type(team.leasing), "open_offers", two_offers)
    team.began("a1")
    epic = Epic(EpicSpec("e", "E"), Stories())
    assert team.to_spawn(Ledger(), epic) == 1
    now_s = 61.0
    assert team.to_spawn(Ledger(), epic) == 2


async def test_a_lead_is_told_when_git_would_take_the_hosts_worktrees(modern: Lead, scene: Scene) -> None:
    scene.epic(story("S1"), story("S2"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    first = await modern.ask("start_wave", epic="notes", strategy="agent-teams")
    assert any(".claude/worktrees/ is not ignored" in notice for notice in first["notices"])
    await modern.ask("cancel_epic", epic="notes")
    (scene.repo / ".git" / "info" / "exclude").write_text(".claude/worktrees/\n", "utf-8")
    again = await modern.ask("start_wave", epic="notes", retry=True)
    assert again["strategy"] == "agent-teams"
    assert not any("not ignored" in notice for notice in again["notices"])


async def test_only_a_worktree_that_the_host_made_is_a_sub_agents_own(scene: Scene) -> None:
    """The user's checkout, a folder in it, a worktree of ours and a folder somewhere else are not."""
    host = scene.repo / ".claude" / "worktrees" / "agent-1"
    ours = scene.outside / "worktrees" / "notes" / "S1-1"
    for path in (host, ours):
        scene.git("worktree", "add", "-q", "--detach", path)
    (host / "deep").mkdir()
    world = await World.open(scene.repo)
    places: dict[str, Path | None] = {
        str(host): host,
        str(host / "deep"): host,
        str(scene.repo): None,
        str(scene.repo / ".epicwave"): None,
        str(ours): None,
        str(scene.outside): None,
        "/nowhere": None,
        "": None,
    }
    assert {cwd: await own_worktree(world, cwd) for cwd in places} == places
