"""What the fake runner adds for simulations: scripts by story and attempt, work on the worktree, and who ran when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import AgentCall, Ended
from mcp_server.testing.fake_runner import FakeRunner, Play

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def call(story: str, number: int = 1) -> AgentCall:
    return AgentCall(AttemptId("E", story, number), "agent", Path("/w") / story, "brief", 1800, 600)


async def run(runner: FakeRunner, story: str, number: int = 1, after_s: float = 0.0) -> tuple[Ended, int | None]:
    await anyio.sleep(after_s)
    end = await runner.run_agent(call(story, number), lambda _: None, lambda _: None)
    return end.how, end.exit_code


async def test_the_script_goes_by_story_and_attempt_then_by_story_then_by_default() -> None:
    runner = FakeRunner({("S1", 2): Play(exit_code=2), "S1": Play(exit_code=1)}, Play(exit_code=9))
    assert [await run(runner, *who) for who in (("S1", 1), ("S1", 2), ("S2", 1))] == [
        (Ended.EXITED, 1),
        (Ended.EXITED, 2),
        (Ended.EXITED, 9),
    ]


async def test_the_work_is_done_at_the_end_of_its_time_and_not_when_it_is_cut_short() -> None:
    done: list[tuple[Path, float]] = []
    began_s = anyio.current_time()
    play = Play(30.0, act=lambda call: done.append((call.worktree, anyio.current_time() - began_s)))
    runner = FakeRunner({"S1": play})
    await run(runner, "S1")
    with anyio.move_on_after(29.0):
        await run(runner, "S1")
    assert done == [(Path("/w/S1"), pytest.approx(30.0))]


async def test_who_was_alive_with_whom_is_kept() -> None:
    runner = FakeRunner({"S1": Play(10), "S2": Play(10), "S3": Play(10, fault="no"), "S4": Play(10)})
    async with anyio.create_task_group() as group:
        group.start_soon(run, runner, "S1")
        group.start_soon(run, runner, "S2", 1, 5.0)
        group.start_soon(run, runner, "S4", 1, 10.0)
        await anyio.sleep(7.0)
        assert runner.alive() == [AttemptId("E", "S1", 1), AttemptId("E", "S2", 1)]
        with pytest.raises(Fault):
            await run(runner, "S3")
    assert runner.alive() == []
    assert runner.peak() == 2
    assert runner.overlapped("S1", "S2")
    assert runner.overlapped("S4", "S2")
    assert not runner.overlapped("S1", "S4"), "one began when the other ended"


async def test_an_agent_that_dies_slowly_is_alive_until_then() -> None:
    runner = FakeRunner(default=Play(100.0, dies_in_s=4.0))
    began_s = anyio.current_time()
    with anyio.move_on_after(10.0):
        await run(runner, "S1")
    [span] = runner.spans
    assert span.until_s == pytest.approx(began_s + 14.0)
    assert span.how is None


async def test_checks_are_judged_by_attempt_command_and_folder() -> None:
    runner = FakeRunner(judge=lambda attempt, command, cwd: len(command) + attempt.number + len(cwd.parts))
    check = await runner.run_check(AttemptId("E", "S1", 4), ["a", "b"], Path("/w"), 60)
    assert check.exit_code == 2 + 4 + 2
    assert [(a.number, c) for a, c in runner.checks] == [(4, check)]
