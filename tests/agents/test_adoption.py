"""Agents that outlive their engine: a host is killed with a kill -9, and another one adopts what it has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from mcp_server.adapters.agents import berth as berths
from mcp_server.adapters.agents.output import LOG_LIMIT_BYTES
from mcp_server.adapters.agents.profiles import Profile
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.adapters.agents.signs import Format, Signs
from mcp_server.adapters.agents.tree import identity
from mcp_server.core.model import Cause, Process, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import AgentCall, Ended, Left, ProcessEnd
from tests.agents.puppet import BOUND_S, FAMILY, STUBBORN, alive, family, gone

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="leashes are POSIX")]
linux = pytest.mark.skipif(sys.platform != "linux", reason="daemons are only caught by a subreaper")
ATTEMPT = AttemptId("E1", "S1", 1)
SIGNS = Signs(Format.CLAUDE, ("come back later",), ())
HOST = """\
import asyncio
import sys
from pathlib import Path
import anyio
from mcp_server.adapters.agents.profiles import Profile
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.core.model import AttemptId
from mcp_server.ports import AgentCall

top, adopt_s, claims, code = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]

def claimed(process):
    if claims == "no":
        Path(top / "new").write_text(str(process.pid))
        Path(top / "new").rename(top / "unclaimed")
        import time
        time.sleep(300)
    said = f"{process.pid} {process.started_s}"  # when the leash knows of the claim, too
    asyncio.get_running_loop().call_soon(lambda: print(said, flush=True))

async def main():
    profile = Profile("agent", (sys.executable, "-u", "-c", code))
    runner = ProcessRunner(top / "logs", top / ".git", {"agent": profile}, grace_s=0.3, adopt_s=adopt_s)
    call = AgentCall(AttemptId("E1", "S1", 1), "agent", top, "brief", 60, 60, outlives=True)
    await runner.run_agent(call, claimed, lambda _: None)

anyio.run(main)
"""


class Scene:
    """A host that runs an agent, and a runner of ours that comes after it. Stores who was left by hosts."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.log = top / "logs" / "E1" / "S1" / "attempt-1.log"
        self.runner = self.another()
        self.left: list[int] = []

    def another(self) -> ProcessRunner:
        """One more runner, as another engine would have."""
        profile = Profile("agent", ("true",), signs=SIGNS)
        return ProcessRunner(self.top / "logs", self.top / ".git", {"agent": profile}, grace_s=0.3)

    def host(self, code: str, *, adopt_s: float = 30.0, claims: bool = True) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HOST, str(self.top), str(adopt_s), "yes" if claims else "no", code]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def crash(self, code: str, *, adopt_s: float = 30.0, until: str = "up", after_s: float = 0.0) -> Process:
        """Have a host start the agent, and kill it with a kill -9 when the agent has printed that."""
        host = self.host(code, adopt_s=adopt_s)
        try:
            assert host.stdout is not None
            pid, started_s = host.stdout.readline().split()
            self.left.append(int(pid))
            self.wait_for(until)
            time.sleep(after_s)
        finally:
            host.kill()
            host.communicate()
        return Process(int(pid), float(started_s))

    def wait_for(self, text: str) -> None:
        until_s = time.monotonic() + BOUND_S
        while text not in (self.log.read_text("utf-8", "replace") if self.log.exists() else ""):
            assert time.monotonic() < until_s, f"the agent never said {text!r}"
            time.sleep(0.01)

    def call(self, **fields: Any) -> AgentCall:
        return replace(AgentCall(ATTEMPT, "agent", self.top, "", 60.0, 60.0, outlives=True), **fields)

    async def adopt(self, process: Process, told: list[Usage] | None = None, **fields: Any) -> ProcessEnd:
        return await self.runner.adopt(self.call(**fields), process, (told if told is not None else []).append)

    def says(self, word: str) -> None:
        """What the agents below wait for."""
        (self.top / word).touch()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    for pid in scene.left:
        with suppress(psutil.Error):
            psutil.Process(pid).kill()


def deaf(_: Usage) -> None:
    """Takes what was used and forgets it."""


WAITS = """\
import json, os, sys, time
def wait_for(word):
    while not os.path.exists(word):
        time.sleep(0.01)
def use(usd):
    print(json.dumps({"type": "result", "total_cost_usd": usd, "usage": {"input_tokens": 1}}))
"""


async def test_a_second_engine_hears_all_of_it_exactly_once_and_gets_its_exit_code(scene: Scene) -> None:
    code = WAITS + "use(0.25); print('up'); wait_for('go'); use(0.75); print('last words'); sys.exit(3)"
    process = scene.crash(code)
    told: list[Usage] = []
    ends: list[ProcessEnd] = []
    async with anyio.create_task_group() as group:

        async def adopt() -> None:
            assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
            ends.append(await scene.adopt(process, told, ran_s=5.0))

        group.start_soon(adopt)
        while not told:  # noqa: ASYNC110 - it is told from another process
            await anyio.sleep(0.01)
        assert told == [Usage(0.25, 1)]
        scene.says("go")
    (end,) = ends
    assert (end.how, end.exit_code, end.usage) == (Ended.EXITED, 3, Usage(0.75, 1))
    assert end.tail.splitlines()[1::2] == ["up", "last words"]
    assert 5.0 <= end.seconds < 5.0 + BOUND_S
    assert scene.log.read_text().count("up\n") == 1
    assert gone([process.pid], BOUND_S)


async def test_an_agent_that_nobody_adopts_is_gone_after_the_window_with_all_that_it_started(scene: Scene) -> None:
    code = FAMILY.replace("sys.argv[1]", "'pids'") + "print('up', flush=True); time.sleep(300)"
    before_s = time.monotonic()
    process = scene.crash(code, adopt_s=1.0)
    pids = await family(scene.top / "pids")
    assert alive(pids) == pids, "it works on"
    assert gone([*pids, process.pid], BOUND_S)
    assert time.monotonic() - before_s >= 1.0
    assert await scene.runner.look_for(ATTEMPT, process) is Left.GONE


async def test_an_agent_that_ended_meanwhile_is_told_as_if_it_had_been_followed(scene: Scene) -> None:
    code = WAITS + "use(0.5); print('up'); wait_for('go'); print('come back later'); sys.exit(4)"
    process = scene.crash(code)
    scene.says("go")
    assert gone([process.pid], BOUND_S)
    for _ in range(2):  # the engine that follows it may die before it has put that on record
        scene.runner = scene.another()
        assert await scene.runner.look_for(ATTEMPT, process) is Left.ENDED
        told: list[Usage] = []
        end = await scene.adopt(process, told, ran_s=1.0)
        assert (end.how, end.exit_code, end.trouble) == (Ended.EXITED, 4, Cause.RATE_LIMIT)
        assert end.tail.splitlines()[1:] == ["up", "come back later"]
        assert (end.usage, told) == (Usage(0.5, 1), [Usage(0.5, 1)])


@linux
async def test_a_stop_of_an_adopted_agent_ends_its_whole_tree(scene: Scene) -> None:
    code = FAMILY.replace("sys.argv[1]", "'pids'") + "print('up', flush=True); time.sleep(300)"
    process = scene.crash(code)
    pids = await family(scene.top / "pids")
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    with anyio.move_on_after(1.0) as bound:
        await scene.adopt(process)
    assert bound.cancelled_caught
    assert alive([*pids, process.pid]) == []
    assert await scene.another().look_for(ATTEMPT, process) is Left.GONE, "it did not end by itself"


async def test_a_leftover_that_is_not_adopted_is_ended(scene: Scene) -> None:
    process = scene.crash(WAITS + "print('up'); wait_for('go')")
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    await scene.runner.end_leftover(ATTEMPT, process)
    assert alive([process.pid]) == []
    assert await scene.another().look_for(ATTEMPT, process) is Left.GONE


async def test_a_pid_that_somebody_else_has_now_is_not_adopted(scene: Scene) -> None:
    process = scene.crash(WAITS + "print('up'); wait_for('go')", adopt_s=0.1)
    assert gone([process.pid], BOUND_S)
    stranger = identity(os.getpid())
    assert await scene.runner.look_for(ATTEMPT, Process(os.getpid(), stranger.started_s - 100.0)) is Left.GONE
    assert await scene.runner.look_for(ATTEMPT, process) is Left.GONE


async def test_a_process_of_another_boot_is_not_adopted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pids and start times begin anew with each."""
    process = scene.crash(WAITS + "print('up'); wait_for('go')")
    monkeypatch.setattr(berths, "_boot", lambda: "another")
    monkeypatch.setattr(berths, "ENDS_S", 0.2)
    assert await scene.runner.look_for(ATTEMPT, process) is Left.GONE


async def test_fifty_megabytes_that_nobody_listens_to_block_nobody_and_their_end_is_heard(scene: Scene) -> None:
    code = WAITS + "print('up'); wait_for('go')\nfor _ in range(6000): print('x' * 9999)\nprint('the end'); sys.exit(5)"
    process = scene.crash(code)
    scene.says("go")
    assert gone([process.pid], 3 * BOUND_S), "it was blocked"
    assert await scene.runner.look_for(ATTEMPT, process) is Left.ENDED
    end = await scene.adopt(process)
    assert (end.exit_code, end.tail.splitlines()[-1]) == (5, "the end")
    assert LOG_LIMIT_BYTES < scene.log.stat().st_size < LOG_LIMIT_BYTES + 100_000
    assert b"bytes left out" in scene.log.read_bytes()[LOG_LIMIT_BYTES - 100 :]


@pytest.mark.parametrize(("limits", "how"), [({"timeout_s": 4.0}, Ended.TIMEOUT), ({"stall_s": 2.0}, Ended.STALL)])
async def test_the_limits_of_an_adopted_agent_count_from_its_own_start(
    scene: Scene, limits: dict[str, Any], how: Ended
) -> None:
    """It had run for 3 s already, silent since then."""
    process = scene.crash("import time; print('up', flush=True); time.sleep(300)", after_s=1.0)
    began_s = time.monotonic()
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    end = await scene.adopt(process, ran_s=3.0, **limits)
    assert (end.how, end.exit_code, end.trouble) == (how, None, None)
    assert time.monotonic() - began_s < 3.0
    assert alive([process.pid]) == []


async def test_an_adopted_agent_whose_leash_is_killed_has_crashed(scene: Scene) -> None:
    process = scene.crash("import time; print('up', flush=True); time.sleep(300)")
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    os.kill(process.pid, signal.SIGKILL)
    end = await scene.adopt(process)
    assert (end.how, end.exit_code, end.trouble) == (Ended.EXITED, 137, Cause.CRASH)


async def test_an_agent_whose_claim_was_not_on_record_ends_with_its_engine(scene: Scene) -> None:
    """The next engine does not know of it: nobody could ever adopt it."""
    host = scene.host("import time; print('up', flush=True); time.sleep(300)", claims=False)
    scene.wait_for("up")
    while not (scene.top / "unclaimed").exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    pid = int((scene.top / "unclaimed").read_text())
    host.kill()
    host.communicate()
    assert gone([pid], BOUND_S)


async def test_an_agent_whose_claim_was_not_on_record_is_waited_for(scene: Scene) -> None:
    """Its engine died in that moment, and it ends in its own time: nothing may start beside it."""
    host = scene.host(STUBBORN + "print('up', flush=True); time.sleep(300)", claims=False)
    scene.wait_for("up")
    while not (scene.top / "unclaimed").exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    host.kill()
    host.communicate()
    await scene.runner.end_leftover(ATTEMPT, None)
    assert alive([int((scene.top / "unclaimed").read_text())]) == []
    await scene.runner.end_leftover(ATTEMPT._replace(story="S2"), None)


async def test_it_may_be_adopted_again_and_again(scene: Scene) -> None:
    process = scene.crash(WAITS + "print('up'); wait_for('go'); print('over')", adopt_s=5.0)
    for _ in range(3):
        engine = scene.another()
        assert await engine.look_for(ATTEMPT, process) is Left.RUNS
        for berth in engine._berths.values():  # pyright: ignore[reportPrivateUsage]
            berth.leave()  # as a kill -9 would
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    scene.says("go")
    assert (await scene.adopt(process)).tail.endswith("over")


async def test_a_log_that_is_gone_is_a_fault_and_leaves_nobody(scene: Scene) -> None:
    process = scene.crash(WAITS + "print('up'); wait_for('go')")
    assert await scene.runner.look_for(ATTEMPT, process) is Left.RUNS
    (scene.log.with_suffix(".run") / "began.json").unlink()
    with pytest.raises(Fault):
        await scene.adopt(process)
    assert alive([process.pid]) == []


async def test_without_a_crash_one_that_could_outlive_us_ends_and_is_told_as_any_other(scene: Scene) -> None:
    big = "x" * 50_000
    profile = Profile("agent", (sys.executable, "-c", f"import sys; print('{big}'); print('done'); sys.exit(2)"))
    runner = ProcessRunner(scene.top / "logs", scene.top / ".git", {"agent": profile}, grace_s=0.3)
    claims: list[Process] = []
    end = await runner.run_agent(scene.call(), claims.append, deaf)
    assert (end.how, end.exit_code, end.tail[-5:]) == (Ended.EXITED, 2, "\ndone")
    assert gone([claims[0].pid], BOUND_S)
    text = scene.log.read_text()
    assert text.count(big) == 1
    assert "exit code 2" in text.splitlines()[-1]
    record = json.loads((scene.log.with_suffix(".run") / "exit.json").read_text())
    assert record["exit_code"] == 2
    assert (scene.log.with_suffix(".run").stat().st_mode & 0o777) == 0o700


async def test_one_that_could_outlive_us_is_gone_when_it_is_cancelled(scene: Scene) -> None:
    profile = Profile("agent", (sys.executable, "-c", "import time; time.sleep(300)"))
    runner = ProcessRunner(scene.top / "logs", scene.top / ".git", {"agent": profile}, grace_s=0.3)
    claims: list[Process] = []
    async with anyio.create_task_group() as group:

        def claimed(process: Process) -> None:
            claims.append(process)
            group.cancel_scope.cancel()

        group.start_soon(runner.run_agent, scene.call(), claimed, deaf)
    assert alive([claims[0].pid]) == []
