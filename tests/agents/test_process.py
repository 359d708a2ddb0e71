"""Real processes: whatever an agent does and however it ends, nothing of it is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from mcp_server.adapters.agents.output import Output
from mcp_server.adapters.agents.process import Command, Limits, run
from mcp_server.adapters.agents.tree import end_group, identity, root_of
from mcp_server.core.model import Process
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Ended
from tests.agents.puppet import (
    BOUND_S,
    FAMILY,
    STUBBORN,
    alive,
    close,
    family,
    gone,
    pids_in,
    python,
    run_python,
    says,
    spawn,
    spawn_leash,
)

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals and sessions")]
linux = pytest.mark.skipif(sys.platform != "linux", reason="daemons are only caught by a subreaper")


async def test_a_program_that_ends_by_itself_leaves_its_exit_code_and_last_words(tmp_path: Path) -> None:
    ending, tail = await run_python(tmp_path, "import sys; print('done'); sys.exit(7)")
    assert (ending.how, ending.exit_code, tail) == (Ended.EXITED, 7, "done")


async def test_a_program_killed_by_a_signal_has_the_code_a_shell_would_give(tmp_path: Path) -> None:
    ending, _ = await run_python(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert ending.exit_code == 128 + signal.SIGKILL


async def test_a_program_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    code = STUBBORN + "print('up', flush=True); time.sleep(300)"
    ending, tail = await run_python(tmp_path, code, limits=Limits(BOUND_S, stall_s=2.0, grace_s=0.3))
    assert (ending.how, ending.exit_code, tail) == (Ended.STALL, None, "up")
    assert 2.3 <= ending.seconds < 12


async def test_what_a_program_says_on_its_way_out_is_kept(tmp_path: Path) -> None:
    code = """\
import signal, sys, time
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is sent to the group and to each process
    sys.exit(print('saved') or 3)
signal.signal(signal.SIGTERM, end)
print('up', flush=True)
time.sleep(300)"""
    ending, tail = await run_python(tmp_path, code, limits=Limits(BOUND_S, stall_s=2.0, grace_s=BOUND_S))
    assert (ending.how, ending.exit_code) == (Ended.STALL, None)
    assert tail == "up\nsaved"


async def test_a_stopped_program_is_woken_to_act_on_term(tmp_path: Path) -> None:
    code = """\
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved') or 3))
os.kill(os.getpid(), signal.SIGSTOP)"""
    ending, tail = await run_python(tmp_path, code, limits=Limits(BOUND_S, stall_s=2.0, grace_s=BOUND_S))
    assert (ending.how, tail) == (Ended.STALL, "saved")
    assert ending.seconds < BOUND_S


@linux
async def test_a_stopped_leash_is_woken_to_end_its_tree(tmp_path: Path) -> None:
    """Without that it is killed, but only 12 s after the grace."""
    code = "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(300)"
    ending, _ = await run_python(tmp_path, code, limits=Limits(BOUND_S, stall_s=1.0, grace_s=0.2))
    assert ending.how is Ended.STALL
    assert ending.seconds < 10


async def test_a_broken_pipe_ends_a_program_as_it_does_in_a_shell(tmp_path: Path) -> None:
    """Python ignores SIGPIPE, and what is ignored is inherited: `yes` would complain."""
    with Output(tmp_path / "log") as output:
        command = Command(("sh", "-c", "yes | head -n 1"), tmp_path, os.environ)
        await run(command, Limits(BOUND_S), output, lambda _: None)
        assert output.tail() == "y"


@pytest.mark.parametrize("leashed", [True, False])
async def test_the_timeout_counts_from_the_start_however_much_is_printed(tmp_path: Path, leashed: bool) -> None:
    code = "import time\nwhile True: print('.', end='', flush=True); time.sleep(0.01)"
    ending, tail = await run_python(tmp_path, code, limits=Limits(2.5, stall_s=2.0, grace_s=0.2), leashed=leashed)
    assert (ending.how, ending.exit_code) == (Ended.TIMEOUT, None)
    assert tail.startswith("....")


@linux
@pytest.mark.parametrize("last", ["", "time.sleep(300)"], ids=["exits", "stalls"])
async def test_children_that_ignore_term_and_daemons_are_gone_when_the_run_is_over(tmp_path: Path, last: str) -> None:
    pids = tmp_path / "pids"
    ending, _ = await run_python(tmp_path, FAMILY + last, str(pids), limits=Limits(BOUND_S, 4.0, 0.2))
    assert ending.how is (Ended.STALL if last else Ended.EXITED)
    assert len(pids_in(pids)) == 3
    assert alive(pids_in(pids)) == []


@linux
async def test_a_cancelled_run_returns_only_when_all_are_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    claims: list[Process] = []
    known: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: run_python(tmp_path, FAMILY + "time.sleep(300)", str(pids), claimed=claims.append))
        known += await family(pids)
        assert alive(known) == known
        group.cancel_scope.cancel()
    assert alive([*known, claims[0].pid]) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.01, 0.03])
async def test_a_run_cancelled_while_it_starts_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    before = set(psutil.Process().children(recursive=True))
    with anyio.move_on_after(delay_s):
        await run_python(tmp_path, "import time; time.sleep(300)")
    assert set(psutil.Process().children(recursive=True)) <= before


@linux
async def test_when_the_leash_is_killed_what_it_held_is_ended_from_here(tmp_path: Path) -> None:
    """The command dies with it by PR_SET_PDEATHSIG, the rest is found by the cookie in its environment."""
    pids = tmp_path / "pids"
    claims: list[Process] = []
    ended: list[tuple[Ended, int | None]] = []
    known: list[int] = []

    async def supervise() -> None:
        ending, _ = await run_python(tmp_path, FAMILY + "time.sleep(300)", str(pids), claimed=claims.append)
        ended.append((ending.how, ending.exit_code))

    async with anyio.create_task_group() as group:
        group.start_soon(supervise)
        known += await family(pids)
        os.kill(claims[0].pid, signal.SIGKILL)
    assert ended == [(Ended.EXITED, 128 + signal.SIGKILL)]
    assert alive(known) == []


ENGINE = """\
import sys
from pathlib import Path
import anyio
from mcp_server.adapters.agents.process import Limits
from tests.agents.puppet import FAMILY, run_python
anyio.run(lambda: run_python(Path(sys.argv[1]), FAMILY + "time.sleep(300)", sys.argv[1] + "/pids", limits=Limits(300)))
"""


@linux
async def test_when_the_engine_is_killed_nothing_of_the_tree_is_alive_two_seconds_later(tmp_path: Path) -> None:
    top = Path(__file__).parents[2]
    engine = spawn(python(ENGINE, str(tmp_path)), cwd=top, env={**os.environ, "PYTHONPATH": str(top)})
    known = await family(tmp_path / "pids")
    leash = psutil.Process(engine.pid).children()[0].pid
    close(engine)
    assert gone([*known, leash], within_s=2.0)


def test_a_killed_engine_shortens_the_grace_of_a_tree_that_was_told_to_end() -> None:
    leash = spawn_leash(300, *python(STUBBORN + "print('up', flush=True); time.sleep(300)"))
    assert leash.stdin is not None
    assert says(leash) == b"up\n"
    leash.stdin.write(b".")
    leash.stdin.close()
    assert leash.wait(BOUND_S) == 128 + signal.SIGKILL
    close(leash)


def test_a_leash_that_gets_term_ends_the_program_and_passes_its_code_on() -> None:
    leash = spawn_leash(BOUND_S, *python("import time; print('up', flush=True); time.sleep(300)"))
    assert says(leash) == b"up\n"
    leash.terminate()
    assert leash.wait(BOUND_S) == 128 + signal.SIGTERM
    close(leash)


async def test_a_program_that_closes_its_streams_is_still_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = """\
import os, sys, time
for n in (0, 1, 2): os.close(n)
time.sleep(0.5)
open(sys.argv[1], 'w').close()
os._exit(5)"""
    ending, _ = await run_python(tmp_path, code, str(mark))
    assert ending.exit_code == 5
    assert mark.exists()


@pytest.mark.parametrize("leashed", [True, False])
async def test_a_flood_of_output_keeps_head_and_tail_of_the_log(tmp_path: Path, leashed: bool) -> None:
    code = "import sys\nprint('first')\nfor _ in range(3200): sys.stdout.write('x' * 62499 + '\\n')\nprint('last')"
    ending, tail = await run_python(tmp_path, code, leashed=leashed)
    assert ending.exit_code == 0
    assert tail.endswith("x\nlast")
    log = tmp_path / "log"
    assert 50_000_000 <= log.stat().st_size < 50_100_000
    assert log.read_bytes().startswith(b"first\nxxx")
    assert log.read_bytes().endswith(b"xxx\nlast\n[epicwave] over\n")


@pytest.mark.parametrize("leashed", [True, False])
@pytest.mark.parametrize("how", ["no such file", "not executable", "no interpreter"])
async def test_a_program_that_cannot_be_started_is_a_fault_that_names_it(
    tmp_path: Path, how: str, leashed: bool
) -> None:
    program = tmp_path / "program"
    if how != "no such file":
        program.write_text("#!/nonexistent/interpreter\n")
        program.chmod(0o755 if how == "no interpreter" else 0o644)
    with pytest.raises(Fault, match=r"program.* could not be started") as caught:
        await _run(program, tmp_path, leashed=leashed)
    assert caught.value.cause is FaultCause.SPAWN


async def test_a_folder_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="nowhere"):
        await _run(Path(sys.executable), tmp_path / "nowhere", leashed=True)


async def _run(program: Path, folder: Path, *, leashed: bool) -> None:
    with Output(folder.parent / "log") as output:
        await run(Command((str(program),), folder, {}), Limits(BOUND_S), output, lambda _: None, leashed=leashed)


async def test_a_claim_that_is_refused_ends_the_process(tmp_path: Path) -> None:
    claims: list[Process] = []

    def refuse(process: Process) -> None:
        claims.append(process)
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        await run_python(tmp_path, "import time; time.sleep(300)", claimed=refuse)
    assert alive([claims[0].pid]) == []


async def test_a_leftover_is_ended_by_pid_and_start_time() -> None:
    child = spawn(python(STUBBORN + "print(flush=True); time.sleep(300)"))
    says(child)
    who = identity(child.pid)
    assert await end_group(who.pid, who.started_s, grace_s=0.2)
    assert child.wait(BOUND_S) == -signal.SIGKILL
    assert not await end_group(who.pid, who.started_s, grace_s=0.2)
    close(child)


async def test_a_stranger_with_the_same_pid_is_left_alone() -> None:
    child = spawn(python("import time; time.sleep(300)"))
    who = identity(child.pid)
    assert not await end_group(who.pid, who.started_s - 60.0)
    assert child.poll() is None
    close(child)


@linux
async def test_a_program_dies_with_its_leash_even_when_nobody_else_is_left(tmp_path: Path) -> None:
    leash = spawn_leash(5, *python("import os, time; print(os.getpid(), flush=True); time.sleep(300)"))
    pid = int(says(leash))
    close(leash)
    assert gone([pid], within_s=2.0)


@linux
async def test_what_a_killed_leash_left_is_found_by_its_record(tmp_path: Path) -> None:
    """Recovery: engine and leash are dead, a daemon of the agent is not."""
    leash = spawn_leash(5, *python(FAMILY + "time.sleep(300)", str(tmp_path / "pids")))
    who = identity(leash.pid)
    known = await family(tmp_path / "pids")
    close(leash)
    assert alive(known) != []
    assert await end_group(who.pid, who.started_s, grace_s=0.2)
    assert alive(known) == []


@linux
@pytest.mark.parametrize("hours", [-3, 3])
async def test_what_a_killed_leash_left_is_found_after_the_clock_was_set(
    hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel moves the time of its boot along, and with it every start time that psutil tells."""
    old = spawn_leash(5, *python(FAMILY + "time.sleep(300)", str(tmp_path / "old")))
    before = identity(old.pid)
    really = psutil.boot_time()
    for place in ("psutil.boot_time", "psutil._pslinux.boot_time"):
        monkeypatch.setattr(place, lambda: really + hours * 3600)
    new = spawn_leash(5, *python(FAMILY + "time.sleep(300)", str(tmp_path / "new")))
    after = identity(new.pid)
    known = [*await family(tmp_path / "old"), *await family(tmp_path / "new")]
    assert root_of(before) is not None
    close(old)
    close(new)
    assert alive(known) != []
    for who in (before, after):
        assert await end_group(who.pid, who.started_s, grace_s=0.2)
    assert alive(known) == []
