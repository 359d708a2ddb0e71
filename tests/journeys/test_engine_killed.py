"""An engine whose work goes on, on real git with real processes: killed at any moment, and the epic ends merged."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server.scene import Scene, commit, environment, sleep, story, write

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform == "win32", reason="leashes are POSIX")]
PATIENCE_S = 120.0
ENGINE = """\
import sys
from pathlib import Path
import anyio
from mcp_server.adapters.formats.detect import read_epic
from mcp_server.core.model import is_alive
from mcp_server.core.planning import plan
from mcp_server.engine.landed import adopt
from mcp_server.server.host import Host
from mcp_server.server.launch import Launch, launch
from mcp_server.server.world import World

async def main():
    world = await World.open(Path(sys.argv[1]))
    async with anyio.create_task_group() as group:
        host = Host(world, group, "an engine", goes_on=True, tell=lambda words: print(words, flush=True))
        async with host.engine() as engine:
            if "notes" not in engine.ledger.epics:
                await adopt(engine, plan(read_epic(Path(sys.argv[1]) / "epic.yaml").draft))
            if engine.ledger.epics["notes"].wave is None:
                await launch(world, engine, Launch("notes", "all", "asyncio", 3, "actor", has_agents=False))
            print("up", flush=True)
            await engine.wait_for(lambda ledger: not is_alive(ledger.epics["notes"].wave))
        group.cancel_scope.cancel()

anyio.run(main)
"""


def engine(scene: Scene) -> subprocess.Popen[str]:
    """One more engine of the repository."""
    return subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(scene.repo)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed_after(process: subprocess.Popen[str], seconds: float) -> tuple[int | None, str]:
    """Its exit code, None when it had to be killed; and what it said."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return None, out
    assert process.returncode == 0, err
    return 0, out


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_is_killed_while_three_agents_work_and_the_epic_ends_merged(tmp_path: Path, seed: int) -> None:
    scene, dice = Scene(tmp_path), random.Random(seed)  # noqa: S311 - dice of a test
    names = ["S1", "S2", "S3", "S4"]
    for name in names:
        scene.play(name, write(f"{name}.early"), sleep(dice.uniform(1.0, 4.0)), write(f"{name}.md"), commit())
    scene.epic(story("S1"), story("S2"), story("S3"), story("S4", "S1"))
    before = scene.checkout()
    said: list[str] = []
    until_s = time.monotonic() + PATIENCE_S
    number, code = 0, None
    while code is None:
        number += 1
        assert time.monotonic() < until_s, f"not all is merged after {number} engines: {said}"
        code, out = killed_after(engine(scene), dice.uniform(1.0, 4.0) if number <= 5 else PATIENCE_S)
        said += out.splitlines()
        time.sleep(dice.choice([0.0, 0.5, 3.0]))
    tree = scene.tree("epicwave/notes")
    assert {f"{name}.{kind}" for name in names for kind in ("early", "md")} <= tree.keys()
    assert scene.leftovers() == []
    assert scene.checkout() == before
    adopted = [line for line in said if "adopted" in line]
    starts = {name: scene.starts(name) for name in names}
    print(f"{number} engines, starts {starts}, {len(adopted)} adoptions")  # noqa: T201
    assert sum(starts.values()) <= len(names) + 3, f"agents that ran were started again: {starts}, {said}"
