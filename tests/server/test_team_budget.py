"""What sub-agents and their lead are told costs at most 400 tokens a reply; `Lead` counts each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.server.lead import Lead
from tests.server.scene import Scene, python_check, story
from tests.server.sub_agent import SubAgent
from tests.server.test_budget import EPIC, both, large_epic

pytestmark = pytest.mark.anyio


@both
@pytest.mark.parametrize("isolated", [True, False], ids=["host's worktree", "our worktree"])
async def test_a_claim_in_a_large_epic_is_short_and_has_the_rest_of_its_brief_on_request(
    modern: Lead, scene: Scene, name: Callable[[int], str], *, isolated: bool
) -> None:
    large_epic(scene, name)
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic=EPIC, strategy="agent-teams")
    await modern.ask("story_status", epic=EPIC)
    agent = SubAgent(modern, scene, "a1", isolated=isolated)
    short = await agent.claim(epic=EPIC)
    whole = await agent.lead.ask("claim_story", epic=EPIC, lease=short["lease"], whole=True)
    assert short["lease"] == whole["lease"]
    assert "brief_left" not in whole
    shown = short.get("brief", "").removesuffix("...")
    assert whole["brief"].startswith(shown)
    assert len(shown) + short["brief_left"] == len(whole["brief"])
    agent.work("x.md")
    assert (await agent.done())["answer"] == "merged"


async def test_a_long_conflict_and_a_long_log_are_cut_to_what_a_sub_agent_needs(modern: Lead, scene: Scene) -> None:
    long = "".join(f"line {n} of a file that two stories rewrite from the first line to the last\n" for n in range(400))
    check = python_check(
        f"import sys; print({long[:3000]!r}, flush=True); sys.exit('red' in open('app.py').read() and 'it is red')"
    )
    scene.epic(story("S1"), story("S2"), checks=[check])
    await modern.ask("plan_epic", epic_file="epic.yaml")
    await modern.ask("start_wave", epic="notes", strategy="agent-teams")
    one, two = SubAgent(modern, scene, "a1"), SubAgent(modern, scene, "a2")
    await one.claim("S1")
    await two.claim("S2")
    one.work("app.py", long.replace("line", "green"))
    two.work("app.py", long.replace("line", "red"))
    assert (await one.done())["answer"] == "merged"
    conflict = await two.done()
    assert (conflict["answer"], "<<<<<<<" in conflict["detail"]) == ("repair", True)
    two.run("git reset -q --hard " + conflict["commands"][2].split()[-1])
    two.work("app.py", "red\n")
    red = await two.done()
    assert (red["answer"], "it is red" in red["detail"]) == ("repair", True)
    for n in range(100):
        two.write(f"{n:03d}-{'long-name-' * 10}.md")
    assert "app.py" not in await two.refused("done")
