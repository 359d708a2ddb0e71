"""The engine of one epic of `torture.py`, in a forked process, and the person who has it go on until all is merged."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import git.cmd  # 90 ms that no engine has to spend again
from torture_world import EPIC, FILES, TorturePlace

from mcp_server.adapters.clock import SystemClock
from mcp_server.adapters.formats.detect import read_epic
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.commands import CancelStory, ResumeEpic
from mcp_server.core.events import Event
from mcp_server.core.model import LIVE, SATISFIES, is_alive
from mcp_server.core.planning import plan
from mcp_server.core.views import is_at_rest
from mcp_server.core.wanted import next_wake_s
from mcp_server.engine.engine import Engine
from mcp_server.engine.landed import adopt
from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.host import Host
from mcp_server.server.launch import Launch, launch
from mcp_server.server.world import World

assert git.cmd, "loaded before the fork"
WAVES = 25
"""Times that a person has what waits or failed tried again, by one engine."""
DONE, NOT_DONE, NOT_OPENED, BROKEN = 0, 3, 4, 70


class HastyClock(SystemClock):
    """The wall clock, but nobody waits for it when nothing else moves."""

    def jump(self, seconds: float) -> None:
        """It is so much later."""
        self._offset_s += seconds


def forked(place: TorturePlace, *, goes_on: bool) -> int:
    """Start an engine; its pid. It ends with one of the codes above, or is killed."""
    pid = os.fork()
    if pid:
        return pid
    code = BROKEN
    try:
        os.setsid()
        log = os.open(place.folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = place.environment
        os.environ.clear()
        os.environ.update(environment, PATH=f"{place.folder}/bin:{environment['PATH']}")
        tempfile.tempdir = None
        (place.orders / "engine.pid").write_text(str(os.getpid()), "utf-8")
        _strike(place)
        code = anyio.run(_live, place, goes_on)
    finally:  # the end of a process: told in its log, and by its code
        if code == BROKEN:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _strike(place: TorturePlace) -> None:
    """Carry out the orders for facts and files in this process."""
    plain = SqliteJournal.append

    def append(journal: SqliteJournal, events: Sequence[Event]) -> None:
        how = [_due(place, f"fact {type(event).__name__}") for event in events]
        if "before" in how:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(journal, events)
        if "after" in how:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(SqliteJournal, "append", append)  # noqa: B010 - a type checker does not like it otherwise
    homes: dict[str, Any] = {"rmtree": shutil, "rename": os, "rmdir": os}
    for name in FILES:
        setattr(homes[name], name, _deadly(place, name, getattr(homes[name], name)))


def _deadly(place: TorturePlace, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def called(path: Any, *more: Any, **named: Any) -> Any:
        ours = str(path).startswith(str(place.folder / "worktrees"))
        how = _due(place, f"file {name}") if ours else ""
        if how == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = plain(path, *more, **named)
        if how == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called


def _due(place: TorturePlace, call: str) -> str:
    """When to strike at this call; empty for not at all."""
    folder = place.orders / call
    if not folder.is_dir():
        return ""
    with (folder / "count").open("a") as file:
        file.write("x")
    order = folder / str((folder / "count").stat().st_size)
    with suppress(FileNotFoundError):
        how = order.read_text("utf-8").split()[0]
        order.rename(f"{order}.fired")
        return how
    return ""


async def _live(place: TorturePlace, goes_on: bool) -> int:
    """The engine's life. One that git was killed under when it was opened, or asked to plan, has changed nothing."""
    try:
        return await _engine(place, goes_on)
    except* Fault as faults:
        if (place.orders / "opened").exists():
            raise
        print("not opened:", faults.exceptions)
    return NOT_OPENED


async def _engine(place: TorturePlace, goes_on: bool) -> int:
    (place.orders / "opened").unlink(missing_ok=True)
    clock = HastyClock()
    world = replace(await World.open(place.repo), clock=clock)
    code = NOT_DONE
    async with anyio.create_task_group() as group:
        host = Host(world, group, "torture", goes_on=goes_on, tell=print)
        async with host.engine() as engine:
            clock.jump(max(0.0, engine.ledger.as_of_s - clock.now_s()))
            group.start_soon(_hurry, engine, clock)
            group.start_soon(_meddle, engine, place)
            await adopt(engine, plan(read_epic(Path(place.repo, "epic.yaml")).draft))
            (place.orders / "opened").touch()
            code = await _persist(world, engine)
        group.cancel_scope.cancel()
    return code


async def _hurry(engine: Engine, clock: HastyClock) -> None:
    """When everybody waits for a moment to come, it comes."""
    while True:
        await anyio.sleep(0.02)
        wake_s = next_wake_s(engine.ledger)
        if engine.alive == 0 and wake_s is not None and wake_s > engine.now_s():
            clock.jump(wake_s - engine.now_s())
            engine.nudge()


async def _meddle(engine: Engine, place: TorturePlace) -> None:
    """The person changes their mind about some stories that are under way; they are tried again later."""
    for _ in range(place.meddles):
        await anyio.sleep(place.dice.uniform(0.0, 2.0))
        epic = engine.ledger.epics.get(EPIC)
        alive = [s.spec.id for s in epic.stories.in_state(*LIVE)] if epic is not None else []
        if alive:
            with suppress(Refused):
                engine.handle(CancelStory(EPIC, place.dice.choice(alive), "changed my mind"))


async def _persist(world: World, engine: Engine) -> int:
    """Wait until the epic is at rest; have tried again what is not merged, some times."""
    for _ in range(WAVES):
        await engine.wait_for(lambda ledger: is_at_rest(ledger, ledger.epics[EPIC]))
        epic = engine.ledger.epics[EPIC]
        if all(story.state in SATISFIES for story in epic.stories.values()):
            return DONE
        if epic.paused:
            engine.handle(ResumeEpic(EPIC))
        if not is_alive(epic.wave):
            try:
                await launch(world, engine, Launch(EPIC, "all", retry=True, has_agents=False))
            except Refused as refused:
                if refused.code is not Code.NOTHING_READY:
                    raise
                return NOT_DONE
            except Fault as fault:  # git was killed under it: the person is told so, and asks again
                print("not started:", fault)
    return NOT_DONE


def ended(pid: int, limit_s: float) -> int | None:
    """How an engine ended (negative for a signal); None when it had to be killed for want of time."""
    until_s = time.monotonic() + limit_s
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.01)
