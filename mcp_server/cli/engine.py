"""`epicwave engine`: the one engine of a repository, in a process that outlives every editor and terminal."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path

import anyio

from mcp_server import __version__
from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.server.door import Visitors, guarding, open_door
from mcp_server.server.host import Host
from mcp_server.server.session import Hosting
from mcp_server.server.signals import ended_by_signal
from mcp_server.server.world import World

LOG_FILE = "engine.log"
LOG_BYTES, LOG_FILES = 1_000_000, 3
ANSWER_S = 0.1
LOOK_S = 5.0
"""How often it looks whether it is still needed, in seconds, and for an engine that has ended by itself."""

log = logging.getLogger("epicwave")


async def run_engine(repo: Path, idle_s: float) -> int:
    """Host the engine until it is not needed any more, or SIGTERM or SIGINT comes. The result is the exit code.

    Ends at once, and well, when another process is this repository's engine process. Raises `Refused`, `Fault`.
    """
    world = await World.open(repo)
    try:
        with guarding(world.state_dir):
            _log_to(world.state_dir / LOG_FILE)
            log.info("engine process %d of epicwave %s begins", os.getpid(), __version__)
            await _run(repo, world, idle_s)
            log.info("engine process %d ends", os.getpid())
    except Refused as refused:
        if refused.code is not Code.ENGINE_ELSEWHERE:
            raise
        ready()
    return 0


async def _run(repo: Path, world: World, idle_s: float) -> None:
    leaving = anyio.Event()
    async with ended_by_signal(lambda: log.info("told to end")), anyio.create_task_group() as group:
        hosting = Hosting(group, "epicwave engine", _broken, tell=log.info)
        host = await hosting.host(repo)

        def leave() -> str:
            if not host.is_idle:
                return f"The engine process {os.getpid()} (epicwave {__version__}) stays: stories are under way in it."
            group.start_soon(_answered, leaving)
            return ""

        group.start_soon(_stay_open, host)
        async with open_door(world.state_dir, hosting, leave) as visitors:
            ready()
            with anyio.CancelScope() as waiting:
                async with anyio.create_task_group() as both:
                    both.start_soon(_until_idle, host, visitors, idle_s, waiting)
                    await leaving.wait()
                    waiting.cancel()
        group.cancel_scope.cancel()


async def _answered(leaving: anyio.Event) -> None:
    """Leave once who asked has had the answer."""
    await anyio.sleep(ANSWER_S)
    leaving.set()


def ready() -> None:
    """Tell who started us, see `entry.detach`, and let go of its pipe: from here on things are said in the log."""
    if os.environ.pop("EPICWAVE_DETACHED", ""):
        os.write(2, b"ready\n")
        for handler in logging.getLogger().handlers:
            if isinstance(handler, RotatingFileHandler) and handler.stream is not None:  # pyright: ignore[reportUnnecessaryComparison]
                os.dup2(handler.stream.fileno(), 2)


def _log_to(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)


def _broken(error: JournalError) -> None:
    log.error("the journal cannot be written, the engine has ended: %s", error)


async def _stay_open(host: Host) -> None:
    """Have the engine open all the time, so that everybody is told of every change and nobody has to look for it."""
    said = ""
    while True:
        try:
            async with host.engine():
                said = ""
                while host.is_open:  # noqa: ASYNC110 - one that ends by itself tells nobody
                    await anyio.sleep(LOOK_S)
        except (Refused, Fault) as error:  # each call says so too, and a later one may succeed
            if str(error) != said:
                said = str(error)
                log.warning("%s", said)
        await anyio.sleep(LOOK_S)


async def _until_idle(host: Host, visitors: Visitors, idle_s: float, waiting: anyio.CancelScope) -> None:
    """Until nobody has been connected and nothing alive for so long."""
    busy_s = anyio.current_time()
    while True:
        now_s = anyio.current_time()
        if visitors.count or not host.is_idle:
            busy_s = now_s
        quiet_s = now_s - max(busy_s, visitors.since_s)
        if quiet_s >= idle_s:
            log.info("idle for %.0f s", quiet_s)
            waiting.cancel()
        await anyio.sleep(min(LOOK_S, max(0.1, idle_s - quiet_s)))
