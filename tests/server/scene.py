"""A scratch repository, epics in it, an agent that does what the test says, and a look at it all from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from mcp_server.adapters.agents.profiles import BUILT_IN
from mcp_server.adapters.formats.detect import read_epic
from mcp_server.core.checks import brought
from mcp_server.core.planning import plan
from mcp_server.errors import Refused
from mcp_server.front.place import common_dir, state_dir
from mcp_server.server.allowed import Allowed
from mcp_server.testing import scripted_agent

MARK = "SCENE_MARK"
"""Variable that the scene's agents and all below them carry."""
PYTHON = (sys.executable, "-I", "-S")
"""A Python that is up in 20 ms."""
_WAIT = "import sys, time\nfrom os.path import exists\nwhile not exists(sys.argv[1]): time.sleep(0.02)"
_DEAF = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(float(sys.argv[1]))"

Step = dict[str, Any]


def sleep(seconds: float) -> Step:
    """The agent itself waits."""
    return {"sleep_s": seconds}


def child(seconds: float, *, deaf: bool = True) -> Step:
    """A child of the agent that waits, and by default ignores TERM."""
    return {"run": [*PYTHON, "-c", _DEAF if deaf else "import sys, time; time.sleep(float(sys.argv[1]))", str(seconds)]}


def write(path: str, text: str = "done\n") -> Step:
    """Make a file."""
    return {"write": {"path": path, "text": text}}


def commit(message: str = "Work") -> Step:
    """Commit everything."""
    return {"commit": message}


def exit_with(code: int) -> Step:
    """The agent ends."""
    return {"exit": code}


class Scene:
    """One repository with a commit on `main`. What the tests keep beside it is in `outside`, which no agent sees."""

    def __init__(self, folder: Path, name: str = "repo", *, epic: Mapping[str, Any] | None = None) -> None:
        self.repo = folder / name
        self.outside = folder / "outside"
        self.mark = uuid.uuid4().hex
        (self.outside / "started").mkdir(parents=True)
        self._script: dict[str, Any] = {}
        self.repo.mkdir(parents=True)
        (self.repo / "app.py").write_text("print('hello')\n", "utf-8")
        self.configure(epic or {})
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Begin")

    def configure(self, epic: Mapping[str, Any], agents: Mapping[str, Any] | None = None) -> None:
        """Write the configuration; the agent is the scripted one unless it is named here."""
        command = [sys.executable, "-I", str(Path(scripted_agent.__file__))]
        environment = {"EPICWAVE_SCRIPT": str(self.outside / "script.json"), MARK: self.mark}
        actor = {"command": command, "environment": environment}
        config = {
            "epic": {"agent": "actor", "worktrees_dir": str(self.outside / "worktrees"), **epic},
            "agents": {"actor": actor, **(agents or {})},
        }
        (self.repo / ".epicwave").mkdir(exist_ok=True)
        (self.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
        self._keep()

    def play(self, story: str, *steps: Step, attempt: int | None = None) -> None:
        """What the agent does for this story, in every attempt or in one; its start is counted first."""
        started: Step = {"append": {"path": str(self.outside / "started" / story), "text": "started\n"}}
        if attempt is None:
            self._script[story] = [started, *steps]
        else:
            self._script.setdefault(story, {})[str(attempt)] = [started, *steps]
        self._keep()

    def _keep(self) -> None:
        (self.outside / "script.json").write_text(json.dumps(self._script), "utf-8")

    def gate(self, name: str) -> Step:
        """The agent waits until the test opens the gate of this name."""
        return {"run": [*PYTHON, "-c", _WAIT, str(self.outside / f"{name}.open")]}

    def open(self, name: str) -> None:
        """Let everybody who waits at the gate go on."""
        (self.outside / f"{name}.open").touch()

    def starts(self, story: str) -> int:
        """How often an agent was started for the story."""
        path = self.outside / "started" / story
        return len(path.read_text("utf-8").splitlines()) if path.exists() else 0

    def epic(self, *stories: Mapping[str, Any], allowed: bool = True, **more: Any) -> Path:
        """Write `epic.yaml`, untracked; its id is `notes`, and each story has a file of its own unless it says else.

        The commands that it brings are allowed, as if its user had said so before.
        """
        path = self.repo / "epic.yaml"
        path.write_text(epic_text(*stories, **more), "utf-8")
        if allowed:
            with suppress(Refused):  # what is wrong with it is not ours to say
                allow(self.repo, *brought(plan(read_epic(path).draft).spec, frozenset({*BUILT_IN, "actor"})))
        return path

    def git(self, *words: str | Path, at: Path | None = None, ok: Iterable[int] = (0,)) -> str:
        """Run git in the checkout and answer what it said."""
        ran = subprocess.run(["git", *words], cwd=at or self.repo, capture_output=True, check=False)
        assert ran.returncode in ok, f"git {words}: {ran.stderr.decode('utf-8', 'replace')}"
        return ran.stdout.decode("utf-8", "replace").rstrip("\n")

    def refs(self, *prefixes: str) -> dict[str, str]:
        """Refs and their commits."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)", *prefixes).splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def tree(self, rev: str) -> dict[str, str]:
        """Paths and blobs of a commit."""
        lines = self.git("ls-tree", "-r", rev).splitlines()
        return {path: meta.split()[2] for meta, path in (line.split("\t", 1) for line in lines)}

    def checkout(self) -> dict[str, Any]:
        """Everything of the user's checkout that a run could change, byte for byte."""
        tops = [path for path in self.repo.iterdir() if path.name != ".git"]  # git may still be tidying up in there
        found = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
        files = {str(path.relative_to(self.repo)): path.read_bytes() for path in sorted(found)}
        return {
            "files": files,
            "head": (self.repo / ".git" / "HEAD").read_bytes(),
            "config": (self.repo / ".git" / "config").read_bytes(),
            "status": self.git("status", "--porcelain=v2", "--branch", "-z"),
            "staged": self.git("ls-files", "--stage"),
            "mine": {k: v for k, v in self.refs().items() if "epicwave" not in k},
        }

    def everything(self) -> dict[str, Any]:
        """The checkout, every ref, and whether we have put a folder of ours into `.git`."""
        worktrees = self.git("worktree", "list", "--porcelain")
        return {**self.checkout(), "refs": self.refs(), "trees": worktrees, "journal": self.planned()}

    def planned(self) -> bool:
        """True when there is a journal."""
        return (self.repo / ".git" / "epicwave" / "journal.db").exists()

    def processes(self) -> list[psutil.Process]:
        """Living processes of this scene's agents, wherever they are."""
        return marked(self.mark)

    def children(self) -> list[psutil.Process]:
        """Those of them that an agent waits for, a child or a gate: all steps before it are done."""
        return [p for p in self.processes() if any("time.sleep(" in word for word in argv(p))]

    def leftovers(self) -> list[str]:
        """What must not be there once nothing runs: processes, worktrees, work branches, base refs."""
        found = [f"process {p.pid} {' '.join(argv(p))}" for p in self.processes()]
        found += list(self.refs("refs/heads/epicwave-work/", "refs/epicwave/base/"))
        found += self.git("worktree", "list").splitlines()[1:]
        root = self.outside / "worktrees"
        found += [str(path) for path in (root.glob("*/*") if root.exists() else ())]
        return found


def allow(repo: Path, *commands: tuple[str, ...]) -> None:
    """The repository's user has allowed these commands of epic files."""
    common = common_dir(str(repo))
    if commands and common is not None:
        Allowed(Path(state_dir(common))).allow(commands)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that have the mark in their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def argv(process: psutil.Process) -> list[str]:
    """Its command; that of a process that has just ended is not there any more."""
    try:
        return process.cmdline()
    except psutil.Error:
        return ["(gone)"]


def story(story_id: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A story with a file of its own."""
    return {"id": story_id, "title": f"Note {story_id}", "depends_on": list(needs), "files": [f"{story_id}.md"], **more}


def epic_text(*stories: Mapping[str, Any], **more: Any) -> str:
    """An epic as YAML."""
    content = {"id": "notes", "title": "Notes", **more, "stories": list(stories)}
    return yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False)  # copied: what is shared would be an alias


def python_check(code: str) -> Sequence[str]:
    """A check in Python that any machine can run."""
    return [*PYTHON, "-c", code]


def environment(**more: str) -> dict[str, str]:
    """The tests' clean environment, for a process of ours."""
    return {**os.environ, **more}
