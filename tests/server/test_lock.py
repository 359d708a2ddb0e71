"""Two engines on one repository: real processes, started at the same moment, killed, and where there are no locks."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_server.errors import Fault, Refused
from mcp_server.server.host import holding
from tests.server import lock_holder

PROCESSES, ROUNDS = 4, 25
posix = pytest.mark.skipif(sys.platform == "win32", reason="kill -9, flock")

Process = subprocess.Popen[str]


@contextmanager
def contenders(folder: Path, count: int, rounds: int) -> Generator[list[Process]]:
    """Processes that are ready to try, as soon as there is a file `go-0`."""
    argv = [sys.executable, "-m", lock_holder.__name__, str(folder)]
    started = [
        subprocess.Popen([*argv, f"number {n}", str(rounds)], stdout=subprocess.PIPE, text=True) for n in range(count)
    ]
    try:
        assert [line(process) for process in started] == ["ready"] * count
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=30)


def line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_processes_that_try_at_the_same_moment_exactly_one_gets_the_lock(tmp_path: Path) -> None:
    with contenders(tmp_path, PROCESSES, ROUNDS) as racers:
        for number in range(ROUNDS):
            (tmp_path / f"go-{number}").touch()
            said = [line(process) for process in racers]
            assert sorted(said) == ["engine_elsewhere"] * (PROCESSES - 1) + ["held"]
            (tmp_path / f"over-{number}").touch()
            assert [line(process) for process in racers] == ["out"] * PROCESSES


def test_processes_that_come_and_go_never_meet(tmp_path: Path) -> None:
    """Nobody waits for anybody: a lock is given back while others try to get it."""
    for number in range(ROUNDS):
        (tmp_path / f"over-{number}").touch()
    with contenders(tmp_path, PROCESSES, ROUNDS) as racers:
        for number in range(ROUNDS):
            (tmp_path / f"go-{number}").touch()
        outs = [process.communicate(timeout=60)[0].split() for process in racers]
        assert [process.returncode for process in racers] == [0] * PROCESSES
    assert all(said.count("out") == ROUNDS for said in outs)
    assert sum(said.count("held") for said in outs) > 1


@posix
def test_the_lock_of_a_killed_process_is_free_at_once_and_its_name_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "go-0").touch()
    with contenders(tmp_path, 1, 1) as (holder,):
        assert line(holder) == "held"
        with pytest.raises(Refused, match=f"number 0, process {holder.pid}"), holding(tmp_path / "state", "another"):
            pass
    assert (tmp_path / "state" / "engine.json").exists(), "it was killed: nobody was there to remove it"
    with (
        holding(tmp_path / "state", "the second"),
        pytest.raises(Refused, match="the second, process"),
        holding(tmp_path / "state", "the third"),
    ):
        pass


@posix
@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_fault_and_not_an_engine_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl  # noqa: PLC0415 - there is none on Windows

    def none(*_: object) -> None:
        raise OSError(number, "no locks here")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", none)
        with pytest.raises(Fault, match=str(tmp_path)), holding(tmp_path, "nobody"):
            pass
    with holding(tmp_path, "somebody"):
        pass
