"""What a worktree of ours is furnished with before anybody works there, and how large it may grow meanwhile."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio

from mcp_server.core.limits import Environment
from mcp_server.core.model import NOTHING_USED, CheckRun, Usage
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Ended, NoCommits, Ports, ProcessEnd, Uncommitted

FIRST_LOOK_S = 10.0
"""How often a worktree is weighed at most."""
LOOKING_SHARE = 0.01
"""Part of the time that weighing may take: the wait is so much longer than the last look took."""
PATHS_SHOWN = 5
LINE_SHOWN = 200

Used = Callable[[Usage], None]


async def require_room(ports: Ports, environment: Environment) -> None:
    """Raise `Fault(disk)` when a new worktree would take the last of the disk: everything there would fail."""
    free_mb = await ports.worktrees.free_mb() if environment.min_free_mb else float("inf")
    if free_mb < environment.min_free_mb:
        least = f"{environment.min_free_mb} MB (min_free_mb)"
        raise Fault(FaultCause.DISK, f"{free_mb:.0f} MB are free where worktrees are made; {least} are the least.")


async def set_up(
    ports: Ports, environment: Environment, attempt: AttemptId, worktree: Path, base: Sha, own: range
) -> None:
    """Run the set-up commands in a new worktree. Raises `Fault(setup)` when one fails, or git sees what they left.

    What git sees would be taken for unfinished work of the agent's, or be committed with it.
    """
    if not environment.setup:
        return
    await run_setup(ports, environment, attempt, worktree, own)
    outcome = await ports.worktrees.inspect_lent(attempt, base, worktree)
    if isinstance(outcome, NoCommits):
        return
    paths = outcome.paths if isinstance(outcome, Uncommitted) else ("commits",)
    more = f" and {len(paths) - PATHS_SHOWN} more" if len(paths) > PATHS_SHOWN else ""
    raise Fault(
        FaultCause.SETUP,
        f"The set-up leaves changes that git sees: {', '.join(paths[:PATHS_SHOWN])}{more}. "
        "Have git ignore them, or use commands that leave tracked files alone (`npm ci` and not `npm install`).",
    )


async def run_setup(ports: Ports, environment: Environment, attempt: AttemptId, worktree: Path, own: range) -> None:
    """Run the commands in order, up to the first that fails. Raises `Fault(setup)` then, with its last lines."""
    for command in environment.setup:
        run = await ports.runner.run_setup(attempt, command, worktree, environment.setup_timeout_s, own)
        if run.exit_code != 0:
            raise Fault(FaultCause.SETUP, _red(run, environment), run.tail)


async def set_up_integration(ports: Ports, environment: Environment, attempt: AttemptId, own: range) -> None:
    """The same for the epic's integration worktree, once for each that is made. Raises `Fault(setup)`.

    What its commands change of tracked files is put back before the next merge, as what checks leave is.
    """
    by = f"{zlib.crc32(repr(environment.setup).encode()):08x}" if environment.setup else ""
    if not by or await ports.merge.set_up_by(attempt.epic) == by:
        return
    await run_setup(ports, environment, attempt, await ports.merge.checkout(attempt.epic), own)
    await ports.merge.note_set_up(attempt.epic, by)


def _red(run: CheckRun, environment: Environment) -> str:
    ended = f"exited with code {run.exit_code}"
    if run.exit_code is None:
        ended = f"ran into its time limit of {environment.setup_timeout_s:g} s"
    said = run.tail.strip().rpartition("\n")[2][:LINE_SHOWN]
    return f"The set-up command `{shlex.join(run.command)}` {ended}: {said or 'it printed nothing'}"


async def within_quota(
    ports: Ports,
    environment: Environment,
    worktree: Path,
    run: Callable[[Used], Awaitable[ProcessEnd]],
    used: Used,
) -> ProcessEnd:
    """Run an agent, and end it when its worktree has outgrown the quota: `Ended.QUOTA`, with what it had used by then.

    The worktree is weighed every 10 s, and more seldom when that takes long: never more than 1 % of the time.
    """
    if environment.quota_mb is None:
        return await run(used)
    watch = _Watch(ports, environment.quota_mb, worktree, used)
    began_s = anyio.current_time()
    end, fault = None, None
    async with anyio.create_task_group() as group:
        group.start_soon(watch.look_on, group.cancel_scope)
        try:
            end = await run(watch.hears)
        except Fault as caught:  # told by itself, not as a group of one
            fault = caught
        group.cancel_scope.cancel()
    if fault is not None:
        raise fault
    if end is None:
        tail = f"{worktree} has {watch.weight_mb:.0f} MB."
        end = ProcessEnd(Ended.QUOTA, None, anyio.current_time() - began_s, tail, usage=watch.usage)
    return end


class _Watch:
    """Stores what the worktree weighed last, and what the agent has told of its cost."""

    def __init__(self, ports: Ports, quota_mb: int, worktree: Path, used: Used) -> None:
        self._ports = ports
        self._quota_mb = quota_mb
        self._worktree = worktree
        self._used = used
        self.weight_mb = 0.0
        self.usage = NOTHING_USED

    def hears(self, usage: Usage) -> None:
        self.usage = usage
        self._used(usage)

    async def look_on(self, agent: anyio.CancelScope) -> None:
        wait_s = FIRST_LOOK_S
        while True:
            await anyio.sleep(wait_s)
            began_s = anyio.current_time()
            with suppress(Fault):
                self.weight_mb = await self._ports.worktrees.weight_mb(self._worktree)
            if self.weight_mb > self._quota_mb:
                agent.cancel()
                return
            wait_s = max(FIRST_LOOK_S, (anyio.current_time() - began_s) / LOOKING_SHARE)
