"""What every `Runner` does: the real one with a leash and without, and the fake one in virtual time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import psutil
import pytest
from trio.testing import MockClock

from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.core.model import AttemptId, Process, Usage
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall, Ended, Runner
from mcp_server.testing.fake_runner import FakeRunner, Play

pytestmark = pytest.mark.anyio
ATTEMPT = AttemptId("E1", "S1", 1)
LONG_S = 20.0


class Stage(Protocol):
    """A runner and what it takes to have an agent behave in a certain way."""

    @property
    def runner(self) -> Runner: ...

    def agent(self, play: Play) -> AgentCall: ...

    def check(self, exit_code: int | None) -> tuple[str, ...]: ...

    def alive(self, process: Process) -> bool: ...


@dataclass
class FakeStage:
    folder: Path
    runner: FakeRunner = field(default_factory=FakeRunner)

    def agent(self, play: Play) -> AgentCall:
        self.runner.default = replace(play, fault="no such program" if play.fault else None)
        return AgentCall(ATTEMPT, "agent", self.folder, "brief", LONG_S, LONG_S)

    def check(self, exit_code: int | None) -> tuple[str, ...]:
        self.runner.judge = lambda _attempt, _command, _cwd: exit_code
        return ("check",)

    def alive(self, process: Process) -> bool:
        return any(span.process == process and span.until_s is None for span in self.runner.spans)


@dataclass
class RealStage:
    folder: Path
    leashed: bool

    def __post_init__(self) -> None:
        self.runner: Runner = ProcessRunner(
            self.folder / "logs", self.folder / ".git", grace_s=0.3, leashed=self.leashed
        )

    def agent(self, play: Play) -> AgentCall:
        end = "time.sleep(300)" if play.hang else f"sys.exit({play.exit_code})"
        work = f"end = time.monotonic() + {play.seconds}\nwhile time.monotonic() < end: say('.'); time.sleep(0.05)"
        say = "def say(text): sys.stdout.write(text); sys.stdout.flush()"
        code = f"import sys, time\n{say}\n{work}\nsay({play.tail!r})\n{end}"
        line = shlex.join([sys.executable, "-c", code])
        return AgentCall(
            ATTEMPT, str(self.folder / "nothing here x") if play.fault else line, self.folder, "brief", LONG_S, LONG_S
        )

    def check(self, exit_code: int | None) -> tuple[str, ...]:
        code = "import time; time.sleep(300)" if exit_code is None else f"raise SystemExit({exit_code})"
        return (str(self.folder / "nothing"),) if exit_code == 127 else (sys.executable, "-c", code)

    def alive(self, process: Process) -> bool:
        return psutil.pid_exists(process.pid)


@pytest.fixture(params=["fake", "leashed", "bare"])
def which(request: pytest.FixtureRequest) -> str:
    if request.param == "leashed" and os.name != "posix":
        pytest.skip("there is no leash here")
    return str(request.param)


@pytest.fixture
def anyio_backend(which: str) -> Any:
    """The fake's time is virtual; real processes need asyncio and real seconds."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)}) if which == "fake" else "asyncio"


@pytest.fixture
def stage(which: str, tmp_path: Path) -> Stage:
    return FakeStage(tmp_path) if which == "fake" else RealStage(tmp_path, leashed=which == "leashed")


def nobody(_: Process) -> None:
    """Takes the claim and forgets it."""


def ignored(_: Usage) -> None:
    """Takes what it costs and forgets it."""


async def test_an_agent_ends_with_its_exit_code_and_its_last_words(stage: Stage) -> None:
    end = await stage.runner.run_agent(stage.agent(Play(0.2, exit_code=3, tail="\nI give up")), nobody, lambda _: None)
    assert (end.how, end.exit_code) == (Ended.EXITED, 3)
    assert end.tail.endswith("I give up")
    assert 0.2 <= end.seconds < LONG_S


async def test_an_agent_is_claimed_once_while_it_is_alive(stage: Stage) -> None:
    seen: list[bool] = []
    await stage.runner.run_agent(
        stage.agent(Play(0.5)), lambda process: seen.append(stage.alive(process)), lambda _: None
    )
    assert seen == [True]


async def test_an_agent_that_falls_silent_is_ended_as_a_stall(stage: Stage) -> None:
    call = replace(stage.agent(Play(0.0, hang=True)), stall_s=1.0)
    claims: list[Process] = []
    end = await stage.runner.run_agent(call, claims.append, lambda _: None)
    assert (end.how, end.exit_code) == (Ended.STALL, None)
    assert 1.0 <= end.seconds < LONG_S
    assert not stage.alive(claims[0])


async def test_an_agent_that_prints_on_and_on_is_ended_at_its_timeout(stage: Stage) -> None:
    call = replace(stage.agent(Play(100.0)), timeout_s=2.5, stall_s=2.0)
    claims: list[Process] = []
    end = await stage.runner.run_agent(call, claims.append, lambda _: None)
    assert (end.how, end.exit_code) == (Ended.TIMEOUT, None)
    assert not stage.alive(claims[0])


async def test_a_cancelled_agent_is_gone_when_the_call_returns(stage: Stage) -> None:
    claims: list[Process] = []
    async with anyio.create_task_group() as group:

        def claimed(process: Process) -> None:
            claims.append(process)
            group.cancel_scope.cancel()

        group.start_soon(stage.runner.run_agent, stage.agent(Play(100.0)), claimed, ignored)
    assert not stage.alive(claims[0])


async def test_an_agent_that_cannot_be_started_is_a_fault_and_never_claimed(stage: Stage) -> None:
    with pytest.raises(Fault) as caught:
        await stage.runner.run_agent(stage.agent(Play(fault="yes")), _never, lambda _: None)
    assert caught.value.cause is FaultCause.SPAWN


@pytest.mark.parametrize("exit_code", [0, 1, 127])
async def test_a_check_ends_with_its_exit_code(stage: Stage, exit_code: int) -> None:
    command = stage.check(exit_code)
    check = await stage.runner.run_check(ATTEMPT, command, stage.agent(Play()).worktree, LONG_S)
    assert (check.command, check.exit_code) == (command, exit_code)
    assert bool(check.tail) == (exit_code == 127 or (isinstance(stage, FakeStage) and exit_code == 1))


async def test_a_check_at_its_time_limit_has_no_exit_code(stage: Stage) -> None:
    check = await stage.runner.run_check(ATTEMPT, stage.check(None), stage.agent(Play()).worktree, 1.0)
    assert check.exit_code is None
    assert 1.0 <= check.seconds < LONG_S


async def test_ending_a_leftover_that_is_gone_does_nothing(stage: Stage) -> None:
    await stage.runner.end_leftover(Process(2**22 + 1, 0.0))


_never: Callable[[Process], None] = lambda _: pytest.fail("it was claimed")  # noqa: E731
