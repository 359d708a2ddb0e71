"""Several editors on one repository, each with a front of its own: one truth, at once, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters

from tests.journeys.fronts import Engines
from tests.server.lead import ERAS, Era, Lead, all_are, crowd, leading
from tests.server.scene import Scene, commit, environment, story, write

HAMMER = Path(__file__).parents[2] / "benchmarks" / "hammer.py"
AT_ONCE_S = 0.2

pytestmark = [
    pytest.mark.journey,
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="Windows has no front yet"),
]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _front(scene: Scene) -> StdioServerParameters:
    command = ["-c", "from mcp_server.cli.entry import main; main()", "serve"]
    return StdioServerParameters(command=sys.executable, args=command, cwd=scene.repo, env=environment())


@pytest.mark.parametrize("era", ERAS)
async def test_what_one_front_does_the_other_sees_at_once(scene: Scene, engines: Engines, era: Era) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"), story("S2", "S1"))
    async with leading(_front(scene), era) as one, leading(_front(scene)) as other:
        await one.ask("plan_epic", epic_file="epic.yaml")
        assert await _seen_in_s(other, {"S1": "ready", "S2": "pending"}) < AT_ONCE_S * crowd()
        await other.ask("start_wave", epic="notes")
        await other.watch(lambda states: states["S1"] == "running")
        assert await _seen_in_s(one, {"S1": "running", "S2": "pending"}) < AT_ONCE_S * crowd()
        heard_s: list[float] = []

        async def wait(lead: Lead, cursor: int) -> None:
            status = await lead.ask("story_status", epic="notes", since=cursor, wait_s=45)
            heard_s.append(anyio.current_time())
            assert status["changed"]

        cursor = (await one.ask("story_status", epic="notes"))["cursor"]
        async with anyio.create_task_group() as group:
            for lead in (one, other):
                group.start_soon(wait, lead, cursor)
            await anyio.sleep(0.2)
            scene.open("go")
        assert max(heard_s) - min(heard_s) < AT_ONCE_S * crowd()
        assert await one.until_rest() == await other.until_rest() == {"S1": "merged", "S2": "ready"}
    assert len(engines.living()) == 1


async def _seen_in_s(lead: Lead, states: dict[str, str]) -> float:
    """How long a look takes, which has to show this."""
    began_s = anyio.current_time()
    assert await lead.states() == states
    return anyio.current_time() - began_s


async def test_the_work_goes_on_when_every_editor_has_closed(scene: Scene, engines: Engines) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"), story("S2", "S1", agent="scripted"))
    async with leading(_front(scene)) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.ask("start_wave", epic="notes", through="all")
        await lead.watch(lambda states: states["S1"] == "running")
    scene.open("go")
    async with leading(_front(scene), "legacy") as lead:
        await lead.watch(all_are("merged"))
    assert scene.starts("S1") == 1


@pytest.mark.timeout(300)
def test_eight_clients_lose_nothing() -> None:
    """The short form of `benchmarks/hammer.py`."""
    command = [sys.executable, HAMMER, "--seconds", "4", "--clients", "8", "--stories", "40"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    print(ran.stdout)  # noqa: T201 - shown when it fails
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "losses: 0" in ran.stdout
    assert "claims: 0" not in ran.stdout
