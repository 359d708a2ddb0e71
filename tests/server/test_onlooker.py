"""Looking on: the journal's state, at once, whoever has the engine; and nothing is started for it."""

from __future__ import annotations

import signal

import anyio
import anyio.to_thread
import psutil
import pytest

from mcp_server.core.model import Ledger
from mcp_server.server.caller import calling
from mcp_server.server.onlooker import Onlooker, looking_on
from mcp_server.server.world import World
from tests.server.engines import end_engine, ended_engines, engine_process, start_engine
from tests.server.lead import crowd, leading
from tests.server.scene import Scene, epic_text, story

pytestmark = pytest.mark.anyio

LATE_S = 0.2
"""What an idle machine is promised."""
ROUNDS = 10


async def _until_told(eye: Onlooker) -> None:
    with anyio.fail_after(30):
        while not eye.is_told:  # noqa: ASYNC110 - it has nobody to tell that it has found somebody
            await anyio.sleep(0.02)


async def test_nothing_is_made_and_nothing_is_started_for_who_looks(scene: Scene) -> None:
    before = scene.everything()
    async with looking_on(await World.open(scene.repo), scene.repo) as eye:
        assert eye.ledger() == Ledger()
        await eye.wait(0, 0.5)
    assert engine_process(scene.repo) is None
    assert scene.everything() == before


async def test_without_an_engine_process_the_journal_of_a_server_is_looked_at(scene: Scene) -> None:
    """A server that an editor has all to itself tells nobody."""
    from mcp_server.server.app import build  # noqa: PLC0415

    scene.epic(story("S1"))
    async with leading(build(scene.repo)) as lead, looking_on(await World.open(scene.repo), scene.repo) as eye:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        with anyio.fail_after(10):
            await eye.wait(0, 60)
        assert list(eye.ledger().epics) == ["notes"]
        assert not eye.is_told


async def test_a_change_of_another_front_is_told_within_the_fifth_of_a_second(scene: Scene) -> None:
    """From the moment when that front has its own reply; in bursts, which nothing may hold back."""
    scene.epic(story("S1"), story("S2", "S1"))
    scene.play("S1", scene.gate("go"))
    late_s: list[float] = []
    with ended_engines(scene.repo):
        world = await World.open(scene.repo)
        async with calling(world.state_dir, scene.repo) as other, looking_on(world, scene.repo) as eye:
            await other.ask("plan_epic", epic_file=str(scene.repo / "epic.yaml"))
            await other.ask("start_wave", epic="notes", through="all")
            await _until_told(eye)
            async with anyio.create_task_group() as group:
                told_s = Told()
                group.start_soon(told_s.listen, eye)
                for number in range(ROUNDS):
                    reply = await other.ask("steer_epic", epic="notes", action="pause", note=f"number {number}")
                    asked_s = anyio.current_time()
                    late_s.append(await told_s.of(reply["cursor"]) - asked_s)
                    await other.ask("steer_epic", epic="notes", action="resume")
                group.cancel_scope.cancel()
            await other.ask("cancel_epic", epic="notes")
    print(f"late by {sorted(round(1000 * s) for s in late_s)} ms, {crowd():.1f} a processor")  # noqa: T201 - pytest -s
    assert sorted(late_s)[ROUNDS // 2] < LATE_S * crowd()


class Told:
    """Stores when an onlooker was told of which fact: it looks at nothing before it is told."""

    def __init__(self) -> None:
        self._at_s: dict[int, float] = {}
        self._more = anyio.Event()

    async def listen(self, eye: Onlooker) -> None:
        """For good."""
        seq = eye.ledger().seq
        while True:
            await eye.wait(seq, 60)
            now = eye.ledger().seq
            self._at_s |= dict.fromkeys(range(seq + 1, now + 1), anyio.current_time())
            seq = now
            self._more.set()
            self._more = anyio.Event()

    async def of(self, seq: int) -> float:
        """When it was told of this fact."""
        with anyio.fail_after(20):
            while seq not in self._at_s:
                await self._more.wait()
        return self._at_s[seq]


async def test_the_end_of_one_engine_process_and_the_next_one_are_followed(scene: Scene) -> None:
    with ended_engines(scene.repo):
        world = await World.open(scene.repo)
        async with looking_on(world, scene.repo) as eye:
            for name in ("first", "second"):
                await anyio.to_thread.run_sync(start_engine, scene.repo)
                await _until_told(eye)
                async with calling(world.state_dir, scene.repo) as caller:
                    await caller.ask("plan_epic", epic_text=epic_text(story("S1"), id=name))
                with anyio.fail_after(10):
                    while name not in eye.ledger().epics:
                        await eye.wait(eye.ledger().seq, 10)
                await anyio.to_thread.run_sync(end_engine, scene.repo, signal.SIGKILL)
                with anyio.fail_after(10):
                    while eye.is_told:  # noqa: ASYNC110 - as above
                        await anyio.sleep(0.02)


async def test_who_works_through_an_engine_process_has_another_one_started_when_it_dies(scene: Scene) -> None:
    with ended_engines(scene.repo):
        world = await World.open(scene.repo)
        async with looking_on(world, scene.repo, starts=True) as eye:
            await _until_told(eye)
            first = engine_process(scene.repo)
            await anyio.to_thread.run_sync(end_engine, scene.repo, signal.SIGKILL)
            with anyio.fail_after(30):
                while engine_process(scene.repo) in (None, first):  # noqa: ASYNC110 - a process of its own
                    await anyio.sleep(0.05)
        assert isinstance(engine_process(scene.repo), psutil.Process)
