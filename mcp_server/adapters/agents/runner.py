"""The real `Runner`: agents by their profiles, checks by their argv, each with its log."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from mcp_server.adapters.agents import process as supervised
from mcp_server.adapters.agents import profiles
from mcp_server.adapters.agents.adopted import Adopted
from mcp_server.adapters.agents.berth import ADOPT_S, Berth
from mcp_server.adapters.agents.listen import Listener
from mcp_server.adapters.agents.output import Output
from mcp_server.adapters.agents.tree import end_group
from mcp_server.core.model import NO_PORTS, CheckRun
from mcp_server.errors import Fault, FaultCause, Refused
from mcp_server.ports import Ended, Left, ProcessEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mcp_server.core.model import Process, Usage
    from mcp_server.core.spec import AttemptId
    from mcp_server.ports import AgentCall

NOT_FOUND = 127
UNSET = frozenset(
    {
        # A git hook or an alias that started us named its own repository; below us that would be the wrong one.
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_QUARANTINE_PATH",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
        # Of the attempt that runs us, if one does.
        "EPICWAVE_PORT_BASE",
        # Claude Code takes itself for nested, or for part of the session that started us. Its other CLAUDE_CODE_
        # variables are the user's settings (provider, login, limits) and stay.
        "CLAUDECODE",
        "CLAUDE_CODE_ENTRYPOINT",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_SSE_PORT",
        "CLAUDE_ENV_FILE",
        "CLAUDE_PLUGIN_DATA",
        "CLAUDE_PLUGIN_ROOT",
        "CLAUDE_PROJECT_DIR",
        # What is said to an engine process is not said to what it starts.
        "EPICWAVE_IDLE_S",
    }
)
"""What agents and checks do not inherit from us."""


UPKEEP = {"maintenance.auto": "false", "gc.auto": "0"}


class ProcessRunner:
    """Starts agents and checks. Stores where their logs go, the common git folder and the user's own profiles."""

    def __init__(
        self,
        logs: Path,
        git_dir: Path,
        custom: Mapping[str, profiles.Profile] | None = None,
        *,
        top: Path | None = None,
        identity: Mapping[str, str] | None = None,
        grace_s: float = supervised.GRACE_S,
        leashed: bool = supervised.POSIX,
        adopt_s: float = ADOPT_S,
    ) -> None:
        self._logs = logs
        self._git_dir = git_dir
        self._custom: Mapping[str, profiles.Profile] = custom if custom is not None else {}
        """The caller's own mapping, so that a configuration that is read again counts for the next agent."""
        self._top = top
        """The user's checkout, which set-up commands are told of."""
        self._identity = dict(identity or {})
        """Who commits, as git's variables; empty when the repository or the user says so already."""
        self._grace_s = grace_s
        self._leashed = leashed
        self._adopt_s = adopt_s
        """How long an agent that outlives us works on before somebody has to adopt it."""
        self._berths: dict[AttemptId, Berth] = {}
        """Of the agents that wait to be adopted."""

    def log_path(self, attempt: AttemptId) -> Path:
        """The log of the attempt's agent."""
        return self._logs / attempt.epic / attempt.story / f"attempt-{attempt.number}.log"

    def checks_log_path(self, attempt: AttemptId) -> Path:
        """The log of all checks of the attempt's result."""
        return self.log_path(attempt).with_suffix(".checks.log")

    def setup_log_path(self, attempt: AttemptId) -> Path:
        """The log of what set the attempt's worktree up."""
        return self.log_path(attempt).with_suffix(".setup.log")

    def brief_path(self, attempt: AttemptId) -> Path:
        """The brief that the attempt's agent got."""
        return self.log_path(attempt).with_suffix(".brief.md")

    def berth(self, attempt: AttemptId) -> Berth:
        """Where the attempt's agent is reached that outlives its engine."""
        return Berth(self.log_path(attempt).with_suffix(".run"))

    async def run_agent(
        self, call: AgentCall, claimed: Callable[[Process], None], used: Callable[[Usage], None]
    ) -> ProcessEnd:
        """See `Runner`. Raises `Fault(spawn)`, and `Fault(disk)` when log or brief cannot be written."""
        profile = _profile(call.profile, self._custom)
        brief, log = self.brief_path(call.attempt), self.log_path(call.attempt)
        argv = profile.argv(brief=brief, worktree=call.worktree, git_dir=self._git_dir, story=call.attempt.story)
        listener = Listener(profile.signs, used, time.monotonic)
        berth = self.berth(call.attempt) if call.outlives and self._leashed else None
        with Output(log, hear=listener.hear, by_leash=berth is not None) as output:
            _write(brief, call.brief)
            output.note(f"{call.attempt}: {' '.join(argv)}")
            environment = _environment(
                {**self._identity, **profile.environment},
                EPICWAVE_BRIEF=str(brief),
                **_of(call.attempt),
                **_port_base(call.ports),
            )
            command = supervised.Command(argv, call.worktree, environment, stdin=brief)
            afloat = None
            if berth is not None:
                self._sweep(call.attempt)
                berth.begin(output.size)
                afloat = supervised.Afloat(berth, log, output.room, self._adopt_s)
            try:
                ending = await supervised.run(
                    command, self._limits(call), output, claimed, leashed=self._leashed, afloat=afloat
                )
            finally:
                if berth is not None:
                    berth.leave()
            if berth is not None and (ended := berth.exit(None)) is not None and ended.errno:
                output.breaks(OSError(ended.errno, os.strerror(ended.errno)))
            return _told(ending, output, listener)

    def _sweep(self, attempt: AttemptId) -> None:
        """Remove what the earlier attempts of the story have left on record."""
        for old in self.log_path(attempt).parent.glob("*.run"):
            shutil.rmtree(old, ignore_errors=True)

    def _limits(self, call: AgentCall) -> supervised.Limits:
        return supervised.Limits(call.timeout_s, call.stall_s, self._grace_s)

    async def look_for(self, attempt: AttemptId, process: Process) -> Left:
        """See `Runner`."""
        if not self._leashed or not self.log_path(attempt).exists():
            return Left.GONE
        berth = self._berths.setdefault(attempt, self.berth(attempt))
        if await anyio.to_thread.run_sync(berth.take_over, process):
            return Left.RUNS
        ended = await anyio.to_thread.run_sync(berth.wait_for_exit, process)
        return Left.ENDED if ended is not None else Left.GONE

    async def adopt(self, call: AgentCall, process: Process, used: Callable[[Usage], None]) -> ProcessEnd:
        """See `Runner`. Raises `Fault(disk)` when its log cannot be read."""
        berth, log = self._berths.pop(call.attempt, None) or self.berth(call.attempt), self.log_path(call.attempt)
        try:
            listener = Listener(_profile(call.profile, self._custom).signs, used, time.monotonic)
            with Output(log, hear=listener.hear, by_leash=True) as output:
                adopted = Adopted(process, berth, log, output, self._limits(call), ran_s=call.ran_s)
                return _told(await adopted.follow(), output, listener)
        except Fault:
            berth.leave()
            await self.end_leftover(call.attempt, process)
            raise

    async def run_check(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`. Raises `Fault(disk)` when the folder is not there or the log cannot be written."""
        # A .pyc is trusted by size and second of its source: one left by the last check could hide the new code.
        environment = _environment({"PYTHONDONTWRITEBYTECODE": "1"}, **_port_base(ports))
        with Output(self.checks_log_path(attempt)) as output:
            return await self._run_logged(attempt, command, cwd, timeout_s, environment, output)

    async def run_setup(
        self, attempt: AttemptId, command: Sequence[str], cwd: Path, timeout_s: float, ports: range = NO_PORTS
    ) -> CheckRun:
        """See `Runner`. Raises `Fault(disk)` as `run_check` does. The variable of the checkout is Cursor's."""
        own = {**_of(attempt), **_port_base(ports)}
        environment = _environment({"ROOT_WORKTREE_PATH": str(self._top)} if self._top is not None else {}, **own)
        with Output(self.setup_log_path(attempt)) as output:
            return await self._run_logged(attempt, command, cwd, timeout_s, environment, output)

    async def _run_logged(
        self,
        attempt: AttemptId,
        command: Sequence[str],
        cwd: Path,
        timeout_s: float,
        environment: Mapping[str, str],
        output: Output,
    ) -> CheckRun:
        _require_folder(cwd, command[0])
        output.note(f"{attempt}: {' '.join(command)}")
        argv = supervised.Command(tuple(command), cwd, environment)
        limits = supervised.Limits(timeout_s, grace_s=self._grace_s)
        try:
            ending = await supervised.run(argv, limits, output, lambda _: None, leashed=self._leashed)
        except Fault as fault:
            if fault.cause is not FaultCause.SPAWN:
                raise
            output.end(fault.detail)
            return CheckRun(tuple(command), NOT_FOUND, 0.0, fault.detail)
        output.end(_words(ending))
        return CheckRun(tuple(command), ending.exit_code, ending.seconds, output.tail())

    async def end_leftover(self, attempt: AttemptId, process: Process | None) -> None:
        """See `Runner`. Never touches a process that only has the same pid."""
        if process is None:
            await anyio.to_thread.run_sync(self.berth(attempt).end)
            return
        await end_group(process.pid, process.started_s, self._grace_s)
        berth = self._berths.pop(attempt, None)
        if berth is not None:
            berth.leave()


def _told(ending: supervised.Ending, output: Output, listener: Listener) -> ProcessEnd:
    output.end(_words(ending))
    verdict = listener.verdict(ending.exit_code, time.time())
    seconds, tail = ending.seconds, output.tail()
    return ProcessEnd(
        ending.how, ending.exit_code, seconds, tail, verdict.trouble, verdict.resumes_at_s, listener.usage
    )


def _profile(name: str, custom: Mapping[str, profiles.Profile]) -> profiles.Profile:
    try:
        return profiles.resolve(name, custom)
    except Refused as refused:  # it was checked when the wave began; the configuration has changed since
        raise Fault(FaultCause.SPAWN, f"{refused.why} {refused.remedy}") from refused


def _require_folder(cwd: Path, program: str) -> None:
    if not cwd.is_dir():
        raise Fault(FaultCause.DISK, f"There is no folder {cwd} to run {program!r} in.")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise Fault(FaultCause.DISK, f"The brief {path} cannot be written: {error}") from error


def _of(attempt: AttemptId) -> dict[str, str]:
    epic, story, number = attempt
    return {"EPICWAVE_EPIC": epic, "EPICWAVE_STORY": story, "EPICWAVE_ATTEMPT": str(number)}


def _port_base(ports: range) -> dict[str, str]:
    return {"EPICWAVE_PORT_BASE": str(ports.start)} if ports else {}


def _environment(more: Mapping[str, str], **own: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return without_upkeep({**kept, **more, **own})


def without_upkeep(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with git's own housekeeping off, behind whatever settings it carries already.

    `git commit` starts `git maintenance` in the background now and then. It belongs to the agent's processes and is
    ended with them, and then its lock stays in the user's repository and stops all later housekeeping there.
    """
    given = environment.get("GIT_CONFIG_COUNT", "0")
    count = int(given) if given.isdecimal() else 0
    more = {"GIT_CONFIG_COUNT": str(count + len(UPKEEP))}
    for number, key in enumerate(UPKEEP, count):
        more |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": UPKEEP[key]}
    return {**environment, **more}


def _words(ending: supervised.Ending) -> str:
    how = f"exit code {ending.exit_code}" if ending.how is Ended.EXITED else f"ended by us: {ending.how}"
    return f"{how} after {ending.seconds:.1f} s"
