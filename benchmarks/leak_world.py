"""One repository of `leaks.py`, the processes that work on it, and a count of what they left behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

import mcp_server
from mcp_server.adapters.formats.detect import read_epic
from mcp_server.core.checks import brought
from mcp_server.core.model import StoryState
from mcp_server.core.planning import plan
from mcp_server.server.allowed import Allowed
from mcp_server.server.host import holding
from mcp_server.server.mirror import Mirror

MARK = "EPICWAVE_LEAK_MARK"
"""Variable that a run's processes carry, all of them: ours, the agents', their children."""
AGENT = Path(__file__).with_name("leak_agent.py")
ROOT = Path(mcp_server.__file__).parents[1]
"""The code that this process would import, wherever another copy of it is installed."""
PATIENCE_S = 90.0
"""Longer than anything here may take."""


class Place:
    """A scratch repository with an epic of 3 to 5 stories. Everything of it is below `folder`, temporary files too."""

    def __init__(self, dice: random.Random) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="epicwave-leaks-"))
        self.mark = uuid.uuid4().hex
        self.repo, self.committed, self.temporary = (self.folder / n for n in ("repo", "committed", "tmp"))
        for path in (self.repo / ".epicwave", self.committed, self.temporary, self.folder / "home"):
            path.mkdir(parents=True)
        (self.folder / "home" / "gitconfig").touch()
        self.seed = str(dice.random())
        self.more: dict[str, str] = {}
        """Variables that only `epicwave` and what it starts get."""
        self.prelude = ""
        """Python that `epicwave` runs first."""
        self.way = "main"
        """Module of its command line: `main` does all in one process, `entry` has an engine process do it."""
        self._write_files(dice)
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Begin")
        self._allow()
        self.before = self._checkout()

    def _allow(self) -> None:
        """The user of the repository has allowed the commands that its epic brings."""
        spec = plan(read_epic(self.repo / "epic.yaml").draft).spec
        Allowed(self.repo / ".git" / "epicwave").allow(brought(spec, frozenset()))

    def _write_files(self, dice: random.Random) -> None:
        names = [f"S{n}" for n in range(1, dice.randint(3, 5) + 1)]
        stories = [
            {
                "id": name,
                "title": f"Story {name}",
                "depends_on": [n for n in names[:place] if dice.random() < 0.25],
                "critical": dice.random() < 0.1,
            }
            for place, name in enumerate(names)
        ]
        check = [sys.executable, "-I", "-S", "-c", "import sys; sys.exit(0)"]
        epic = {"id": "leak", "title": "Leaks", "checks": [check], "stories": stories}
        (self.repo / "epic.yaml").write_text(yaml.safe_dump(epic), "utf-8")
        agent = [sys.executable, "-I", str(AGENT), self.seed, str(self.committed)]
        limits = {"attempt_timeout_s": 3, "parallel_strategy": "asyncio", "agent": "leak"}
        config = {
            "epic": {**limits, "worktrees_dir": str(self.folder / "worktrees")},
            "agents": {"leak": {"command": agent}},
        }
        (self.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What every process of this place gets."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "EPICWAVE_"))}
        home = self.folder / "home"
        who = {f"GIT_{role}_{key}": "leak@localhost" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        git = {"GIT_CONFIG_GLOBAL": str(home / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
        return {**kept, **who, **git, "HOME": str(home), "TMPDIR": str(self.temporary), MARK: self.mark}

    def git(self, *words: str) -> list[str]:
        """Run git; its lines."""
        command = ["git", "-C", str(self.repo), *words]
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `epicwave` with these words."""
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mcp_server.cli.{self.way} import main; main()"
        return subprocess.Popen(
            [sys.executable, "-I", "-c", f"{self.prelude}\n{code}", *words],
            cwd=self.repo,
            env=self.environment | self.more,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("ab"),
            text=True,
            start_new_session=True,
        )

    @property
    def began(self) -> bool:
        """True once the engine has written its first fact."""
        return (self.repo / ".git" / "epicwave" / "journal.db").exists()

    def _checkout(self) -> list[str]:
        return [*self.git("status", "--porcelain=v2", "--branch", "--ignored"), *self.git("ls-files", "--stage")]

    def processes(self) -> list[psutil.Process]:
        """Living processes that carry our mark."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def waiting(self) -> list[str]:
        """Work branches of stories in the merge queue: finished work, which goes on at the next start."""
        if not self.began:
            return []
        epic = Mirror(self.repo / ".git" / "epicwave" / "journal.db").ledger().epics.get("leak")
        merging = [s for s in epic.stories.values() if s.state is StoryState.MERGING] if epic else []
        return [f"refs/heads/epicwave-work/leak/{s.spec.id}/{s.attempt}" for s in merging]

    def leaks(self, waiting: Sequence[str] = ()) -> dict[str, list[str]]:
        """What is there and should not be, by kind; and what should be there and is not. `waiting` may be there."""
        git_dir = self.repo / ".git"
        trees = self.git("worktree", "list", "--porcelain", "-z")[0].split("\0\0")[1:]
        found = {
            "processes": [f"{p.pid} {_words(p)}" for p in self.processes()],
            "worktrees": [t for t in trees if t.strip("\0")]
            + [str(p) for root in (self.folder / "worktrees", git_dir / "worktrees") for p in _inside(root)],
            "branches": [b for b in self.refs("refs/heads/epicwave-work/") if b not in waiting],
            "base refs": self.refs("refs/epicwave/base/"),
            "locks": [str(p) for p in git_dir.rglob("*.lock")] + self._held(),
            "temporary": [str(p) for p in self.temporary.iterdir()],
            "lost work": self._lost(waiting),
            "checkout": [] if self._checkout() == self.before else ["the checkout was changed"],
        }
        return {kind: entries for kind, entries in found.items() if entries}

    def _held(self) -> list[str]:
        """The engine's own lock, if anybody has it."""
        state_dir = self.repo / ".git" / "epicwave"
        if not state_dir.exists():
            return []
        named = [str(p) for p in state_dir.glob("engine.json")]
        with holding(state_dir, "leaks"):  # refuses when it is held
            return named

    def refs(self, *prefixes: str) -> list[str]:
        """Full names of refs."""
        return self.git("for-each-ref", "--format=%(refname)", *prefixes)

    def _lost(self, waiting: Sequence[str]) -> list[str]:
        """Files that an agent has committed and that neither the branch nor a rescue ref has."""
        kept: set[str] = set()
        for ref in [*self.refs("refs/heads/epicwave/", "refs/epicwave/rescue/"), *waiting]:
            kept.update(self.git("ls-tree", "-r", "--name-only", ref, "work/"))
        return sorted({f"work/{p.name}" for p in self.committed.iterdir()} - kept)

    def remove(self) -> None:
        """Take it all away, and whatever it has left running."""
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _inside(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_dir()] if root.is_dir() else []


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[-120:]
    except psutil.Error:
        return "(gone)"


class Served:
    """`epicwave serve` as a process, spoken to line by line, so that it can be killed in the middle of anything."""

    def __init__(self, place: Place) -> None:
        self.process = place.start("serve")
        self._number = 0
        self.call("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "l", "version": "0"})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A request and its result."""
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer["result"]
        raise ConnectionError(f"the server ended during {method}")

    def tool(self, name: str, **arguments: Any) -> str:
        """Call a tool; what it said, refusals too."""
        return self.call("tools/call", name=name, arguments=arguments)["content"][0]["text"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The client goes: the server ends by itself."""
        end(self.process)


def end(process: subprocess.Popen[str], number: signal.Signals | None = None) -> int:
    """Send the signal, or close its input; its exit code, once it is gone."""
    if number is not None:
        process.send_signal(number)
    elif process.stdin is not None:
        process.stdin.close()
        process.stdin = None
    process.communicate(timeout=PATIENCE_S)
    return process.returncode
