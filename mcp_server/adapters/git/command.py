"""One git command: argv in, answer out, in a worker thread, at a known place and in a known environment."""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.errors import Fault, FaultCause

CALL_LIMIT_S = 900.0
"""Nothing we ask of git may take longer; the checkout of a huge repository on a busy disk takes minutes."""
LOCK_RETRIES = 3
"""How often a call is made again when git says that a lock is held."""
_LOCK_HELD = re.compile(
    r"\.lock': File exists|could not lock|Unable to create '[^']*\.lock'|Another git process"
    r"|Invalid path '[^']*worktrees"
    r"|could not create leading directories of '[^']*': No such file",  # the last worktree beside it has just gone
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system|not enough space")

MECHANICAL = (
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.ignoreStat=false",  # or git would not look again at what it has checked out
    "rerere.enabled=false",
    "rebase.autoSquash=false",
    "rebase.autoStash=false",
    "rebase.rebaseMerges=false",
    "rebase.updateRefs=false",  # or a rebase would move the attempt's own branch
    "merge.conflictStyle=merge",
    "merge.verifySignatures=false",
    "advice.addEmbeddedRepo=false",
    "advice.detachedHead=false",
)
"""Settings of the user's that may not steer our own mechanical operations."""
_FROM_A_HOOK = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_MERGE_AUTOEDIT": "no",
    "LC_ALL": "C",
}


def forget_hook_environment() -> None:
    """Drop what git sets for its hooks: it would send every call of ours, and every agent, to another repository.

    From the process for good, because GitPython always starts from `os.environ`.
    """
    for name in _FROM_A_HOOK:
        os.environ.pop(name, None)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a git command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Output for reading."""
        return self.out.decode("utf-8", "replace").rstrip("\n")

    @property
    def path(self) -> Path:
        """Output that is one path of the file system, exactly."""
        return Path(os.fsdecode(self.out.removesuffix(b"\n").removesuffix(b"\r")))

    @property
    def names(self) -> tuple[str, ...]:
        """Output that is names, each ended by NUL, sorted."""
        return tuple(sorted(name.decode("utf-8", "replace") for name in self.out.split(b"\0") if name))


@dataclass(slots=True)
class Git:
    """Runs git for one repository, one mutating call at a time.

    `at` is the worktree to run in, by default the repository itself; git never looks for a repository above it.
    With `content` the repository is used on that folder as if it were its worktree.
    A code that is not in `ok` raises `Fault`: git, or disk when that is full.
    """

    common_dir: Path | None = None
    config: tuple[str, ...] = MECHANICAL
    _door: anyio.Lock = field(default_factory=anyio.Lock)

    async def read(
        self,
        *argv: str,
        at: Path | None = None,
        content: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: bytes = b"",
        ok: tuple[int, ...] = (0,),
    ) -> Answer:
        """Ask git something."""
        answer = await self._run(argv, at, content, env, stdin)
        return _accepted(argv, answer, ok)

    async def steady(self, *argv: str) -> Answer:
        """Ask something that git gets wrong for a moment while a worktree comes or goes: asked again then."""
        for _ in range(LOCK_RETRIES):
            answer = await self._run(argv, None, None, None, b"")
            if answer.code == 0:
                return answer
            await anyio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - jitter, not a secret
        return await self.read(*argv)

    async def write(
        self,
        *argv: str,
        at: Path | None = None,
        content: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: bytes = b"",
        ok: tuple[int, ...] = (0,),
    ) -> Answer:
        """Let git change something; tried again when another git process holds a lock."""
        for _ in range(LOCK_RETRIES):
            answer = await self._alone(argv, at, content, env, stdin)
            if answer.code in ok or not _LOCK_HELD.search(answer.err):
                return _accepted(argv, answer, ok)
            await anyio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - jitter, not a secret
        return _accepted(argv, await self._alone(argv, at, content, env, stdin), ok)

    async def _alone(
        self, argv: tuple[str, ...], at: Path | None, content: Path | None, env: dict[str, str] | None, stdin: bytes
    ) -> Answer:
        async with self._door:
            return await self._run(argv, at, content, env, stdin)

    async def _run(
        self, argv: tuple[str, ...], at: Path | None, content: Path | None, env: dict[str, str] | None, stdin: bytes
    ) -> Answer:
        folder = at or content or self.common_dir
        assert folder is not None, "a git that knows no repository yet needs `at`"  # noqa: S101 - ours, a programming error
        quiet = _QUIET if self.common_dir is None else {**_QUIET, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        place = ("-C", str(folder)) if at else (f"--git-dir={self.common_dir}",)
        work_tree = (f"--work-tree={content}",) if content else ()
        settings = tuple(word for setting in self.config for word in ("-c", setting))
        left_s = min(CALL_LIMIT_S, anyio.current_effective_deadline() - anyio.current_time())
        return await anyio.to_thread.run_sync(
            _execute,
            ("git", *place, *work_tree, *settings, *argv),
            folder,
            {**quiet, **(env or {})},
            stdin,
            max(left_s, 1.0),
        )


def _execute(argv: tuple[str, ...], folder: Path, env: dict[str, str], stdin: bytes, limit_s: float) -> Answer:
    """In a worker thread. The place is in `argv` too: GitPython falls back to its own folder when `folder` is gone."""
    from git.cmd import Git as Executor  # noqa: PLC0415 - 90 ms, and an ImportError where git is missing
    from git.exc import GitCommandNotFound  # noqa: PLC0415

    try:
        with tempfile.TemporaryFile() as feed:
            feed.write(stdin)
            feed.seek(0)
            code, out, err = Executor(str(folder)).execute(
                argv,
                istream=feed,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                env=env,
                kill_after_timeout=None if sys.platform == "win32" else limit_s,
                start_new_session=True,  # Ctrl-C in our terminal may not interrupt git while it saves work
            )
    except (GitCommandNotFound, OSError) as gone:
        raise Fault(FaultCause.GIT, f"git could not be started in {folder}: {gone}") from gone
    return Answer(code, out, err.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _accepted(argv: tuple[str, ...], answer: Answer, ok: tuple[int, ...]) -> Answer:
    if answer.code in ok:
        return answer
    cause = FaultCause.DISK if _DISK_FULL.search(answer.err) else FaultCause.GIT
    said = answer.err.strip() or answer.text.strip() or "nothing"
    raise Fault(cause, f"`git {' '.join(argv[:3])}` ended with {answer.code} and said: {said[-2000:]}")
