"""agent-teams: sub-agents claim stories, work in worktrees of the host's or ours, and report; git is the judge."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcp_server.server.app import build
from tests.server.lead import Lead, leading, until
from tests.server.scene import Scene, python_check, story
from tests.server.sub_agent import SubAgent, commands_in

pytestmark = pytest.mark.anyio


async def _start(lead: Lead, scene: Scene, *stories: dict[str, object], **epic: Any) -> dict[str, object]:
    scene.epic(*stories, **epic)
    await lead.ask("plan_epic", epic_file="epic.yaml")
    return await lead.ask("start_wave", epic="notes", through="all", strategy="agent-teams")


async def test_a_lead_is_told_how_many_to_spawn_and_in_which_words(lead: Lead, scene: Scene) -> None:
    reply = await _start(lead, scene, story("S1"), story("S2"), story("S3", "S1"))
    assert reply["spawn"] == 2
    words = str(reply["instruction"])
    assert "ONE message" in words
    assert "story-worker" in words
    assert "claim_story(epic='notes'" in words
    await SubAgent(lead, scene, "a1").claim()
    assert (await lead.ask("story_status", epic="notes"))["spawn"] == 1


async def test_two_waves_of_sub_agents_end_merged_and_the_second_starts_from_the_first(
    lead: Lead, scene: Scene
) -> None:
    before = scene.checkout()
    await _start(lead, scene, story("S1"), story("S2"), story("S3", "S1", "S2"), checks=[python_check("pass")])
    one, two = SubAgent(lead, scene, "a1"), SubAgent(lead, scene, "a2")
    assert {(await one.claim())["story"], (await two.claim())["story"]} == {"S1", "S2"}
    for agent in (one, two):
        agent.work(f"{agent.claimed['story']}.md")
        assert (await agent.done())["answer"] == "merged"
        agent.run("git switch -q -")
    three = SubAgent(lead, scene, "a3")
    assert (await three.claim())["story"] == "S3"
    assert (three.place / "S1.md").exists()
    assert (three.place / "S2.md").exists()
    three.work("S3.md")
    assert (await three.done())["answer"] == "merged"
    three.run("git switch -q -")
    assert await lead.until_rest() == {"S1": "merged", "S2": "merged", "S3": "merged"}
    assert {"S1.md", "S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    (scene.repo / "epic.yaml").unlink()
    after = scene.checkout()
    assert {k: v for k, v in after.items() if k != "mine"} == {k: v for k, v in before.items() if k != "mine"}


async def test_without_a_worktree_of_its_own_a_sub_agent_gets_one_of_ours(lead: Lead, scene: Scene) -> None:
    before = scene.checkout()
    await _start(lead, scene, story("S1"))
    agent = SubAgent(lead, scene, "a1", isolated=False)
    await agent.claim()
    assert agent.place.is_relative_to(scene.outside / "worktrees")
    agent.work("S1.md")
    assert (await agent.done())["answer"] == "merged"
    await until(lambda: not scene.leftovers())
    (scene.repo / "epic.yaml").unlink()
    assert scene.checkout() == before


async def test_a_claim_that_comes_twice_answers_the_same_lease(lead: Lead, scene: Scene) -> None:
    """An answer can be lost on the way; the agent asks again and must not be given a second story."""
    await _start(lead, scene, story("S1"), story("S2"))
    agent = SubAgent(lead, scene, "a1")
    first = await agent.claim()
    again = await lead.ask("claim_story", epic="notes", cwd=str(agent.place), agent="a1")
    assert again["lease"] == first["lease"]
    nobody_known = await lead.ask("claim_story", epic="notes", lease=first["lease"], whole=True)
    assert nobody_known["lease"] == first["lease"]
    said = await lead.refused("claim_story", epic="notes", story="S2", cwd=str(agent.place), agent="a1")
    assert said.startswith("lease_held: ")
    lost = first["lease"][:-6] + "abcdef"
    assert (await lead.refused("claim_story", epic="notes", lease=lost)).startswith("lease_lost: ")


async def test_ten_claims_at_once_get_no_story_twice(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, *[story(f"S{n}") for n in range(3)])
    got: list[str] = []

    async def claim(name: str) -> None:
        reply = await modern.ask("claim_story", epic="notes", agent=name)
        got.append(reply.get("story", "") if reply["claimed"] else "none")

    async with anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(claim, f"a{n}")
    assert sorted(got) == ["S0", "S1", "S2"] + ["none"] * 7


async def test_a_sub_agent_that_asks_twice_at_once_gets_one_story(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, story("S1"), story("S2"))
    got: list[str] = []

    async def claim() -> None:
        got.append((await modern.ask("claim_story", epic="notes", agent="a1"))["lease"])

    async with anyio.create_task_group() as group:
        group.start_soon(claim)
        group.start_soon(claim)
    assert len(set(got)) == 1
    assert sorted((await modern.states()).values()) == ["offered", "running"]
    assert len(scene.refs("refs/heads/epicwave-work/")) == 1, "what was made for the other claims is gone"


async def test_done_with_uncommitted_files_is_refused_with_the_commands_that_mend_it(lead: Lead, scene: Scene) -> None:
    await _start(lead, scene, story("S1"))
    agent = SubAgent(lead, scene, "a1")
    await agent.claim()
    assert "no commit" in await agent.refused("done")
    agent.write("S1.md")
    said = await agent.refused("done")
    assert said.startswith("not_done: ")
    assert "S1.md" in said
    for command in commands_in(said):
        agent.run(command)
    assert (await agent.done())["answer"] == "merged"


@pytest.mark.parametrize("lost", ["never switched", "switched elsewhere"])
async def test_work_on_the_wrong_base_is_refused_with_the_commands_that_bring_it_over(
    modern: Lead, scene: Scene, lost: str
) -> None:
    """The base is wave 1's merge; the agent worked from main."""
    await _start(modern, scene, story("S1"), story("S2", "S1"))
    first = SubAgent(modern, scene, "a1")
    await first.claim()
    first.work("S1.md")
    await first.done()
    agent = SubAgent(modern, scene, "a2")
    reply = await modern.ask("claim_story", epic="notes", cwd=str(agent.place), agent="a2")
    agent.claimed = reply
    if lost == "switched elsewhere":
        agent.run(f"git switch -q -c {reply['branch']}")
    agent.work("S2.md")
    said = await agent.refused("done")
    for command in commands_in(said):
        agent.run(command)
    assert (await agent.done())["answer"] == "merged"
    assert {"S1.md", "S2.md"} <= scene.tree("epicwave/notes").keys()


async def test_a_red_check_comes_back_to_the_same_sub_agent(lead: Lead, scene: Scene) -> None:
    check = python_check("import sys; sys.exit('TODO' in open('S1.md').read() and 'it says TODO')")
    await _start(lead, scene, story("S1"), checks=[check])
    agent = SubAgent(lead, scene, "a1")
    await agent.claim()
    agent.work("S1.md", "TODO\n")
    reply = await agent.done()
    assert (reply["answer"], "it says TODO" in reply["detail"]) == ("repair", True)
    agent.work("S1.md", "done\n")
    assert (await agent.done())["answer"] == "merged"
    assert (await lead.ask("story_status", epic="notes", story="S1"))["stories"][0]["attempt"] == 1


async def test_a_conflict_comes_back_with_both_sides_and_is_mended_by_its_commands(lead: Lead, scene: Scene) -> None:
    name = "a name, with blanks.py"
    await _start(lead, scene, story("S1"), story("S2"))
    one, two = SubAgent(lead, scene, "a1"), SubAgent(lead, scene, "a2")
    await one.claim("S1")
    await two.claim("S2")
    one.work(name, "print('one')\n")
    two.work(name, "print('two')\n")
    assert (await one.done())["answer"] == "merged"
    reply = await two.done()
    assert reply["answer"] == "repair"
    assert name in reply["detail"]
    assert "\nS1 " in reply["detail"], "whom it conflicted with"
    *looks, rebase, go_on = reply["commands"]
    assert "+print('one')" in two.run(looks[0])
    assert "+print('two')" in two.run(looks[1])
    with pytest.raises(AssertionError, match=r"[Cc]ould not apply"):
        two.run(rebase)
    assert commands_in(await two.refused("done"))[-1] == go_on, "a rebase that is not finished is not done"
    two.write(name, "print('one')\nprint('two')\n")
    two.run("git add -A")
    two.run(go_on)
    assert (await two.done())["answer"] == "merged"
    assert scene.git("show", "epicwave/notes:" + name) == "print('one')\nprint('two')"


async def test_after_the_repairs_a_new_attempt_is_told_what_was_wrong(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, story("S1"), checks=[python_check("import sys; sys.exit('never green')")])
    agent = SubAgent(modern, scene, "a1")
    await agent.claim()
    answers: list[str] = []
    for text in ("one", "two", "three"):
        agent.work("S1.md", text)
        answers.append((await agent.done())["answer"])
        if text == "one":  # asked again with nothing mended, it is told again, and no repair is spent
            answers.append((await agent.done())["answer"])
    assert answers == ["repair", "repair", "repair", "ended"]
    agent.run("git switch -q -")
    second = SubAgent(modern, scene, "a2")
    reply = await second.claim(whole=True)
    assert reply["attempt"] == 2
    assert "never green" in reply["brief"]
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")


async def test_who_gives_up_is_followed_by_the_next_with_its_last_words(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, story("S1"))
    agent = SubAgent(modern, scene, "a1")
    await agent.claim()
    agent.write("half.md")
    reply = await agent.report("failed", "the index is locked by another program")
    assert reply["answer"] == "ended"
    assert "half.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    brief = (await SubAgent(modern, scene, "a2").claim(whole=True))["brief"]
    assert "the index is locked by another program" in brief
    assert "refs/epicwave/rescue/notes/S1/1" in brief


async def test_a_question_waits_for_its_answer_and_the_answer_reaches_the_next_brief(
    modern: Lead, scene: Scene
) -> None:
    await _start(modern, scene, story("S1"), story("S2", "S1"))
    agent = SubAgent(modern, scene, "a1")
    await agent.claim()
    assert (await agent.report("blocked", "Postgres or SQLite?"))["answer"] == "ended"
    status = await modern.ask("story_status", epic="notes")
    assert {s["story"]: s["state"] for s in status["stories"]} == {"S1": "blocked", "S2": "blocked"}
    why = next(s["why"] for s in status["stories"] if s["story"] == "S1")
    assert "Postgres or SQLite?" in why
    assert "notes" in why
    assert (await modern.refused("start_wave", epic="notes")).startswith("nothing_ready: ")
    reply = await modern.ask("start_wave", epic="notes", through="all", notes={"S1": "SQLite, always."})
    assert (reply["strategy"], reply["spawn"]) == ("agent-teams", 1), "the epic stays the sub-agents'"
    brief = (await SubAgent(modern, scene, "a2").claim(whole=True))["brief"]
    assert "Postgres or SQLite?" in brief
    assert "SQLite, always." in brief


async def test_a_cancel_tells_the_lead_whom_to_stop_and_each_worker_at_its_next_call(lead: Lead, scene: Scene) -> None:
    await _start(lead, scene, story("S1"), story("S2"), story("S3", "S1"))
    one, two = SubAgent(lead, scene, "a1"), SubAgent(lead, scene, "a2", isolated=False)
    await one.claim("S1")
    await two.claim("S2")
    one.work("S1.md")
    one.write("more.md")
    two.write("S2.md")
    reply = await lead.ask("cancel_epic", epic="notes", reason="enough")
    assert sorted(reply["stop_agents"]) == ["a1", "a2"]
    assert {"S1.md", "more.md"} <= scene.tree("refs/epicwave/rescue/notes/S1/1").keys()
    assert "S2.md" in scene.tree("refs/epicwave/rescue/notes/S2/1")
    for agent in (one, two):
        answer = await agent.report("progress")
        assert (answer["answer"], "enough" in answer["detail"]) == ("stop", True)
    assert (one.place / "more.md").exists(), "the host's worktree is the host's"
    assert not two.place.exists()
    assert (await one.claim())["claimed"] is False


async def test_a_silent_sub_agent_loses_its_lease_and_its_late_commits_are_kept(modern: Lead, scene: Scene) -> None:
    scene.configure({"lease_s": 1.0})
    await _start(modern, scene, story("S1"))
    agent = SubAgent(modern, scene, "a1")
    await agent.claim()
    await modern.watch(lambda states: states == {"S1": "offered"}, limit_s=20)
    second = SubAgent(modern, scene, "a2")
    assert (await second.claim())["attempt"] == 2
    agent.work("late.md")
    said = await agent.refused("done")
    assert said.startswith("lease_lost: ")
    assert "late.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    second.work("S1.md")
    assert (await second.done())["answer"] == "merged"
    assert "late.md" not in scene.tree("epicwave/notes")


async def test_leases_survive_the_server(scene: Scene) -> None:
    """The host starts a server that died again, and its sub-agents are still at work."""
    async with leading(build(scene.repo)) as lead:
        await _start(lead, scene, story("S1"))
        agent = SubAgent(lead, scene, "a1")
        await agent.claim()
        agent.work("S1.md")
    async with leading(build(scene.repo)) as again:
        agent.lead = again
        assert await again.states() == {"S1": "running"}
        assert (await agent.done())["answer"] == "merged"


async def test_what_sub_agents_left_is_cleared_once_the_hosts_worktrees_are_gone(scene: Scene) -> None:
    async with leading(build(scene.repo)) as lead:
        await _start(lead, scene, story("S1"))
        agent = SubAgent(lead, scene, "a1")
        await agent.claim()
        agent.work("S1.md")
        await agent.done()
    assert scene.refs("refs/heads/epicwave-work/") != {}, "the host's worktree still has the branch"
    scene.git("worktree", "remove", "--force", agent.place)
    async with leading(build(scene.repo)) as again:
        await again.refused("start_wave", epic="notes")
        assert list(scene.refs("refs/heads/epicwave-work/", "refs/epicwave/")) == [
            "refs/epicwave/landed/notes/S1/1",
            "refs/epicwave/recovery/notes/000001",
        ]


async def test_hooks_end_a_lease_at_once_and_keep_nobody_twice(modern: Lead, scene: Scene) -> None:
    await _start(modern, scene, story("S1"), story("S2"))
    one, two = SubAgent(modern, scene, "a1"), SubAgent(modern, scene, "a2")
    await one.claim("S1")
    await two.claim("S2")
    blocked = await modern.event("stopped", "a1")
    assert blocked["decision"] == "block"
    assert one.lease in blocked["reason"]
    assert await modern.event("stopped", "a1") == {}
    assert await modern.event("failed", "a2") == {}
    await modern.watch(lambda states: states == {"S1": "offered", "S2": "offered"})
    assert (await one.refused("done")).startswith("lease_lost: ")
    assert await modern.event("stopped", "nobody of ours") == {}


async def test_claims_are_refused_where_no_sub_agents_are_wanted(modern: Lead, scene: Scene) -> None:
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    assert (await modern.refused("claim_story", epic="notes")).startswith("story_not_offered: ")
    assert (await modern.refused("claim_story", epic="other")).startswith("unknown_epic: ")
    assert (await modern.refused("report_story", lease="x", outcome="done")).startswith("bad_argument: ")
    assert (await modern.refused("report_story", lease="notes/S1/1/abc", outcome="done")).startswith("lease_lost: ")
    assert (await modern.refused("report_story", lease="a/b/1/c", outcome="failed")).startswith("bad_argument: ")


async def test_a_conflict_to_come_is_told_to_its_workers_and_to_the_lead_before_anything_is_merged(
    lead: Lead, scene: Scene
) -> None:
    await _start(lead, scene, story("S1", files=["own.py"]), story("S2"))
    one, two = SubAgent(lead, scene, "a1"), SubAgent(lead, scene, "a2")
    await one.claim("S1")
    await two.claim("S2")
    one.write("common.py", "print('one')\n")
    two.work("common.py", "print('two')\n")
    assert (await one.report("progress"))["answer"] == "go_on"
    reply = await two.report("progress")
    assert (reply["answer"], reply["detail"].split(".py.")[0]) == (
        "go_on",
        "Your work conflicts with that of story S1 (Note S1) in common",
    )
    assert "talk to nobody" in reply["detail"]
    status = await lead.ask("story_status", epic="notes")
    assert status["epics"][0]["alerts"] == [
        "S1: Its work conflicts with S2 (running) in common.py.",
        "S1: It changes files outside its footprint: common.py.",
        "S2: It changes files outside its footprint: common.py.",
    ]
    assert "S2 (running) in common.py" in next(line["why"] for line in status["stories"] if line["story"] == "S1")
    again = await two.lead.ask("claim_story", epic="notes", lease=two.lease)
    assert again["next"].count("Your work conflicts with that of story S1") == 1
    one.write("common.py", "print('two')\n")
    await one.report("progress")
    assert (await two.report("progress"))["detail"].startswith("It changes files outside its footprint: common.py.")
