"""The real runner: what an agent is given, what is kept of it, and what a check sees."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from mcp_server.adapters.agents.profiles import Profile
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import AgentCall, ProcessEnd

pytestmark = pytest.mark.anyio
ATTEMPT = AttemptId("E1", "S1", 2)
TELL = """\
import json, os, sys
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv[1:]}))"""
DIGEST = "import hashlib, os, sys; print(hashlib.sha256({}.read()).hexdigest())"


class World:
    """A runner with one agent, a worktree with a blank in its name, and a place for the logs."""

    def __init__(self, top: Path) -> None:
        self.worktree = top / "my worktree"
        self.worktree.mkdir()
        self.logs = top / "the logs"
        self.git_dir = top / "repo" / ".git"

    async def run(self, code: str, *arguments: str, brief: str = "", **environment: str) -> ProcessEnd:
        profile = Profile("tester", (sys.executable, "-c", code, *arguments), environment)
        runner = ProcessRunner(self.logs, self.git_dir, {"tester": profile}, grace_s=0.3)
        return await runner.run_agent(
            AgentCall(ATTEMPT, "tester", self.worktree, brief, 20, 20), lambda _: None, lambda _: None
        )

    @property
    def log(self) -> str:
        return (self.logs / "E1" / "S1" / "attempt-2.log").read_text("utf-8")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_brief_comes_on_stdin_and_lies_beside_the_log(world: World) -> None:
    brief = "# Stôry ✓ 日本語\r\nline\n" + "x" * 1_000_000
    by_stdin = await world.run(DIGEST.format("sys.stdin.buffer"), brief=brief)
    by_path = await world.run(DIGEST.format("open(os.environ['EPICWAVE_BRIEF'], 'rb')"), brief=brief)
    assert by_stdin.tail == by_path.tail == hashlib.sha256(brief.encode()).hexdigest()


async def test_an_agent_that_never_reads_a_large_brief_is_no_trouble(world: World) -> None:
    assert (await world.run("print('no thanks')", brief="x" * 1_000_000)).tail == "no thanks"


async def test_an_agent_knows_who_it_is_and_where(world: World) -> None:
    end = await world.run(TELL, "{story}", "{worktree}", "{git_dir}", "{brief}", "{other}", FROM_PROFILE="yes")
    told = json.loads(world.log.splitlines()[1])
    brief = str(world.logs / "E1" / "S1" / "attempt-2.brief.md")
    assert end.exit_code == 0
    assert Path(told["cwd"]) == world.worktree
    assert told["argv"] == ["S1", str(world.worktree), str(world.git_dir), brief, "{other}"]
    own = {name: value for name, value in told["env"].items() if name.startswith("EPICWAVE_")}
    own = {name: value for name, value in own.items() if name not in {"EPICWAVE_LEASH", "EPICWAVE_CORPUS"}}
    assert own == {"EPICWAVE_EPIC": "E1", "EPICWAVE_STORY": "S1", "EPICWAVE_ATTEMPT": "2", "EPICWAVE_BRIEF": brief}
    assert told["env"]["FROM_PROFILE"] == "yes"


async def test_what_would_lead_an_agent_to_another_repository_or_session_is_not_inherited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "CLAUDECODE", "CLAUDE_CODE_SESSION_ID"):
        monkeypatch.setenv(name, "wrong")
    for name in ("CLAUDE_CODE_USE_BEDROCK", "MY_SETTING"):
        monkeypatch.setenv(name, "kept")
    await world.run(TELL)
    environment = json.loads(world.log.splitlines()[1])["env"]
    assert "wrong" not in environment.values()
    assert environment["CLAUDE_CODE_USE_BEDROCK"] == environment["MY_SETTING"] == "kept"


async def test_an_agents_git_starts_no_upkeep_that_would_be_killed_with_it(world: World) -> None:
    """And the settings that were handed to us that way stay in force."""
    ask = "import subprocess; print([subprocess.getoutput(f'git config --get {k}') for k in %r])"
    keys = ("maintenance.auto", "gc.auto", "user.name")
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Eve"}
    assert (await world.run(ask % (keys,), **given)).tail == "['false', '0', 'Eve']"
    assert (await world.run(ask % (keys[:2],), GIT_CONFIG_COUNT="junk")).tail == "['false', '0']"


async def test_the_log_has_both_streams_the_command_and_the_end(world: World) -> None:
    await world.run("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(4)")
    first, *middle, last = world.log.splitlines()
    assert first.startswith(f"[epicwave] E1/S1/2: {sys.executable} -c ")
    assert middle == ["out", "err"]
    assert last.startswith("[epicwave] exit code 4 after ")


async def test_a_second_run_is_added_to_the_log(world: World) -> None:
    await world.run("print('one')")
    await world.run("print('two')")
    assert [line for line in world.log.splitlines() if not line.startswith("[")] == ["one", "two"]


async def test_an_unknown_agent_is_a_fault_when_it_comes_this_far(world: World) -> None:
    runner = ProcessRunner(world.logs, world.git_dir)
    with pytest.raises(Fault, match=r"claud.*Did you mean 'claude'"):
        await runner.run_agent(AgentCall(ATTEMPT, "claud", world.worktree, "", 9, 9), lambda _: None, lambda _: None)


async def test_a_log_that_cannot_be_opened_is_a_fault(world: World) -> None:
    world.logs.write_text("a file")
    with pytest.raises(Fault, match="cannot be written"):
        await world.run("print()")


async def test_checks_share_one_log_and_have_no_stdin(world: World) -> None:
    runner = ProcessRunner(world.logs, world.git_dir)
    for code in ("import sys; print(len(sys.stdin.read()))", "raise SystemExit('\\x1b[31mred\\x1b[0m')"):
        check = await runner.run_check(ATTEMPT, [sys.executable, "-c", code], world.worktree, 20)
    assert (check.exit_code, check.tail) == (1, "red")
    log = runner.checks_log_path(ATTEMPT).read_text("utf-8").splitlines()
    assert log[1] == "0"
    assert log[4] == "\x1b[31mred\x1b[0m"


async def test_a_check_leaves_no_bytecode_that_could_hide_the_next_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `.pyc` is trusted by second and size: the merged tree of the next story may have both the same."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (world.worktree / "answer.py").write_text("VALUE = 1\n")
    os.utime(world.worktree / "answer.py", (1_000_000_000, 1_000_000_000))
    runner = ProcessRunner(world.logs, world.git_dir)
    command = [sys.executable, "-c", "import answer; print(answer.VALUE)"]
    first = await runner.run_check(ATTEMPT, command, world.worktree, 20)
    (world.worktree / "answer.py").write_text("VALUE = 2\n")
    os.utime(world.worktree / "answer.py", (1_000_000_000, 1_000_000_000))
    second = await runner.run_check(ATTEMPT, command, world.worktree, 20)
    assert (first.tail, second.tail) == ("1", "2")


async def test_a_check_that_is_no_program_says_so(world: World) -> None:
    check = await ProcessRunner(world.logs, world.git_dir).run_check(ATTEMPT, ["pytesst"], world.worktree, 20)
    assert check.exit_code == 127
    assert "'pytesst' could not be started" in check.tail
    assert "No such file" in check.tail


async def test_a_check_in_a_folder_that_is_gone_is_a_fault(world: World) -> None:
    with pytest.raises(Fault, match="no folder"):
        await ProcessRunner(world.logs, world.git_dir).run_check(ATTEMPT, ["true"], world.worktree / "x", 20)


SHOW = "import json, os; print(json.dumps({n: os.environ.get(n) for n in os.environ if n[:4] in ('EPIC', 'ROOT')}))"


def told(line: str) -> dict[str, str]:
    return {
        name: value for name, value in json.loads(line).items() if name not in {"EPICWAVE_LEASH", "EPICWAVE_CORPUS"}
    }


async def test_a_set_up_command_knows_its_story_its_ports_and_the_users_checkout_and_has_a_log_of_its_own(
    world: World,
) -> None:
    runner = ProcessRunner(world.logs, world.git_dir, top=world.worktree.parent)
    run = await runner.run_setup(ATTEMPT, [sys.executable, "-c", SHOW], world.worktree, 20, range(4000, 4010))
    assert told(run.tail) == {
        "EPICWAVE_EPIC": "E1",
        "EPICWAVE_STORY": "S1",
        "EPICWAVE_ATTEMPT": "2",
        "EPICWAVE_PORT_BASE": "4000",
        "ROOT_WORKTREE_PATH": str(world.worktree.parent),
    }
    assert "EPICWAVE_PORT_BASE" in runner.setup_log_path(ATTEMPT).read_text("utf-8")
    assert not runner.checks_log_path(ATTEMPT).exists()


async def test_agents_and_checks_know_the_first_of_their_ports_and_never_somebody_elses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPICWAVE_PORT_BASE", "1")
    runner = ProcessRunner(world.logs, world.git_dir, {"tester": Profile("tester", (sys.executable, "-c", SHOW))})
    for ports, expected in ((range(4000, 4010), "4000"), (range(0), None)):
        check = await runner.run_check(ATTEMPT, [sys.executable, "-c", SHOW], world.worktree, 20, ports)
        call = AgentCall(ATTEMPT, "tester", world.worktree, "", 20, 20, ports)
        end = await runner.run_agent(call, lambda _: None, lambda _: None)
        assert [told(tail).get("EPICWAVE_PORT_BASE") for tail in (check.tail, end.tail)] == [expected] * 2
