"""What every `Runner` does: the real one with a leash and without, and the fake one in virtual time."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import psutil
import pytest
from trio.testing import MockClock

from mcp_server.adapters.agents.profiles import Profile
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.adapters.agents.signs import Format, Signs
from mcp_server.core.model import Cause, Process, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall, Ended, Runner
from mcp_server.testing.clock import VirtualClock
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

    def setup(self, exit_code: int | None) -> tuple[str, ...]: ...

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

    def setup(self, exit_code: int | None) -> tuple[str, ...]:
        self.runner.furnish = lambda _attempt, _command, _cwd: exit_code
        return ("setup",)

    def alive(self, process: Process) -> bool:
        return any(span.process == process and span.until_s is None for span in self.runner.spans)


@dataclass
class RealStage:
    folder: Path
    leashed: bool

    def __post_init__(self) -> None:
        self.agents: dict[str, Profile] = {}
        self.runner: Runner = ProcessRunner(
            self.folder / "logs", self.folder / ".git", self.agents, grace_s=0.3, leashed=self.leashed
        )

    def agent(self, play: Play) -> AgentCall:
        end = "time.sleep(300)" if play.hang else f"sys.exit({play.exit_code})"
        if play.trouble is Cause.CRASH:
            end = "os.kill(os.getpid(), signal.SIGKILL)"
        work = f"end = time.monotonic() + {play.seconds}\nwhile time.monotonic() < end: say('.\\n'); time.sleep(0.05)"
        say = "def say(text): sys.stdout.write(text); sys.stdout.flush()"
        tells = "".join(f"{work}\nsay({_result(play, part)!r})\n" for part in range(1, play.tells + 1))
        words = _WORDS.get(play.trouble or Cause.FAULT, "")
        words += f", retry-after: {play.resumes_in_s}" if play.resumes_in_s is not None else ""
        code = f"import os, signal, sys, time\n{say}\n{tells}{work}\nsay({play.tail!r})\nsay({words!r})\n{end}"
        signs = Signs(Format.CLAUDE, (_WORDS[Cause.RATE_LIMIT],), (_WORDS[Cause.API_ERROR],))
        self.agents["agent"] = Profile("agent", (sys.executable, "-c", code), signs=signs)
        name = str(self.folder / "nothing here x") if play.fault else "agent"
        return AgentCall(ATTEMPT, name, self.folder, "brief", LONG_S, LONG_S)

    def check(self, exit_code: int | None) -> tuple[str, ...]:
        code = "import time; time.sleep(300)" if exit_code is None else f"raise SystemExit({exit_code})"
        return (str(self.folder / "nothing"),) if exit_code == 127 else (sys.executable, "-c", code)

    def setup(self, exit_code: int | None) -> tuple[str, ...]:
        return self.check(exit_code)

    def alive(self, process: Process) -> bool:
        return psutil.pid_exists(process.pid)


_WORDS = {Cause.RATE_LIMIT: "come back later", Cause.API_ERROR: "nobody is there"}


def _result(play: Play, part: int) -> str:
    """What an agent like Claude Code prints when it has used that part of all."""
    usd, tokens = play.usage.usd * part / play.tells, play.usage.tokens * part // play.tells
    return json.dumps({"type": "result", "total_cost_usd": usd, "usage": {"input_tokens": tokens}}) + "\n"


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


def deaf(_: Usage) -> None:
    """Takes what was used and forgets it."""


async def test_an_agent_ends_with_its_exit_code_and_its_last_words(stage: Stage) -> None:
    end = await stage.runner.run_agent(stage.agent(Play(0.2, exit_code=3, tail="\nI give up")), nobody, deaf)
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
    end = await stage.runner.run_agent(call, claims.append, deaf)
    assert (end.how, end.exit_code) == (Ended.STALL, None)
    assert 1.0 <= end.seconds < LONG_S
    assert not stage.alive(claims[0])


async def test_an_agent_that_prints_on_and_on_is_ended_at_its_timeout(stage: Stage) -> None:
    call = replace(stage.agent(Play(100.0)), timeout_s=2.5, stall_s=2.0)
    claims: list[Process] = []
    end = await stage.runner.run_agent(call, claims.append, deaf)
    assert (end.how, end.exit_code) == (Ended.TIMEOUT, None)
    assert not stage.alive(claims[0])


async def test_a_cancelled_agent_is_gone_when_the_call_returns(stage: Stage) -> None:
    claims: list[Process] = []
    async with anyio.create_task_group() as group:

        def claimed(process: Process) -> None:
            claims.append(process)
            group.cancel_scope.cancel()

        group.start_soon(stage.runner.run_agent, stage.agent(Play(100.0)), claimed, deaf)
    assert not stage.alive(claims[0])


async def test_an_agent_that_cannot_be_started_is_a_fault_and_never_claimed(stage: Stage) -> None:
    with pytest.raises(Fault) as caught:
        await stage.runner.run_agent(stage.agent(Play(fault="yes")), _never, deaf)
    assert caught.value.cause is FaultCause.SPAWN


@pytest.mark.parametrize("trouble", [Cause.RATE_LIMIT, Cause.API_ERROR, Cause.CRASH])
async def test_an_end_that_is_none_of_the_agents_own_doing_is_told(stage: Stage, trouble: Cause) -> None:
    play = Play(0.2, exit_code=1, trouble=trouble, usage=Usage(0.5, 100), tells=1)
    end = await stage.runner.run_agent(stage.agent(play), nobody, deaf)
    assert (end.how, end.trouble, end.resumes_at_s) == (Ended.EXITED, trouble, None)
    assert end.usage == Usage(0.5, 100)


async def test_the_end_of_a_rate_limit_is_told_when_it_was_named(stage: Stage) -> None:
    play = Play(0.2, exit_code=1, trouble=Cause.RATE_LIMIT, resumes_in_s=3600.0)
    end = await stage.runner.run_agent(stage.agent(play), nobody, deaf)
    now_s = VirtualClock().now_s() if isinstance(stage, FakeStage) else time.time()
    assert end.resumes_at_s == pytest.approx(now_s + 3600, abs=LONG_S)


@pytest.mark.parametrize("exit_code", [0, 1])
async def test_an_agent_that_fails_or_not_by_itself_is_in_no_trouble(stage: Stage, exit_code: int) -> None:
    play = Play(0.2, exit_code=exit_code, tail="the story is about rate limits, HTTP 429\n")
    end = await stage.runner.run_agent(stage.agent(play), nobody, deaf)
    assert (end.exit_code, end.trouble, end.usage) == (exit_code, None, Usage())


@pytest.mark.parametrize(("timeout_s", "how"), [(1.5, Ended.TIMEOUT), (LONG_S, Ended.STALL)])
async def test_an_agent_that_we_end_is_in_no_trouble(stage: Stage, timeout_s: float, how: Ended) -> None:
    play = Play(1.0, hang=True, trouble=Cause.RATE_LIMIT)
    call = replace(stage.agent(play), timeout_s=timeout_s, stall_s=1.0)
    end = await stage.runner.run_agent(call, nobody, deaf)
    assert (end.how, end.trouble) == (how, None)


async def test_what_was_used_so_far_is_told_on_the_way_and_all_of_it_at_the_end(stage: Stage) -> None:
    """Each time all of this run until then: never less than before, never more than in the end."""
    told: list[Usage] = []
    play = Play(1.2, usage=Usage(0.75, 300), tells=2)
    end = await stage.runner.run_agent(stage.agent(play), nobody, told.append)
    assert end.usage == Usage(0.75, 300)
    assert told == [Usage(0.375, 150), Usage(0.75, 300)]


async def test_an_agent_that_tells_nothing_of_its_cost_has_none(stage: Stage) -> None:
    end = await stage.runner.run_agent(stage.agent(Play(0.2)), nobody, lambda _: pytest.fail("it told something"))
    assert end.usage == Usage()


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


@pytest.mark.parametrize("exit_code", [0, 1, 127])
async def test_a_set_up_command_ends_as_a_check_does(stage: Stage, exit_code: int) -> None:
    command = stage.setup(exit_code)
    run = await stage.runner.run_setup(ATTEMPT, command, stage.agent(Play()).worktree, LONG_S, range(4000, 4010))
    assert (run.command, run.exit_code) == (command, exit_code)


async def test_a_set_up_command_at_its_time_limit_has_no_exit_code(stage: Stage) -> None:
    run = await stage.runner.run_setup(ATTEMPT, stage.setup(None), stage.agent(Play()).worktree, 1.0)
    assert run.exit_code is None
    assert 1.0 <= run.seconds < LONG_S


async def test_a_set_up_command_that_is_cancelled_is_over_when_the_call_returns(stage: Stage) -> None:
    began_s = anyio.current_time()
    with anyio.move_on_after(1.0) as scope:
        await stage.runner.run_setup(ATTEMPT, stage.setup(None), stage.agent(Play()).worktree, LONG_S)
    assert scope.cancelled_caught
    assert anyio.current_time() - began_s < LONG_S


async def test_ending_a_leftover_that_is_gone_does_nothing(stage: Stage) -> None:
    await stage.runner.end_leftover(ATTEMPT, Process(2**22 + 1, 0.0))


_never: Callable[[Process], None] = lambda _: pytest.fail("it was claimed")  # noqa: E731
