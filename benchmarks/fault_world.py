"""One repository of `faults.py`: its epic, the places where a fault can strike, and what is true of it afterwards."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from leak_world import Place

from mcp_server.core.model import Epic
from mcp_server.server.mirror import Mirror

AGENT = Path(__file__).with_name("fault_agent.py")
BRANCH = "refs/heads/epicwave/fault"
SAVED = "refs/epicwave/"
STALL_S = 3.0
DISK_BYTES = 16 * 1024 * 1024
"""Size of a disk that is to be filled: room for all that a run needs."""
CHECK = """
import pathlib, sys
pathlib.Path("left-by-the-check.txt").write_text("a check may leave what it likes")
sys.exit(any(pathlib.Path("rot").glob("*")))
"""


@dataclass(slots=True)
class Start:
    """One start of an agent, as it wrote it down itself."""

    story: str
    attempt: int
    name: str
    wrote: set[str] = field(default_factory=set[str])
    done: bool = False
    again: bool = False
    missing: list[str] = field(default_factory=list[str])


class FaultPlace(Place):
    """An epic of 6 to 10 stories in a repository with unfinished work of the user's. `disk` is what may be full."""

    def __init__(self, dice: random.Random, most_stories: int = 10, disk: str | None = None) -> None:
        self.mounted: Path | None = None
        self._disk, self._most_stories = disk, most_stories
        super().__init__(dice)
        if disk == "state":
            self._mount(self.repo / ".git" / "epicwave")
        (self.repo / "README.md").write_text("The user is writing this.\n", "utf-8")
        (self.repo / "staged.txt").write_text("The user has staged this.\n", "utf-8")
        self.git("add", "staged.txt")
        (self.repo / "loose.txt").write_text("The user has not added this.\n", "utf-8")
        self.before = self._checkout()

    def _write_files(self, dice: random.Random) -> None:
        if self._disk == "git":
            self._mount(self.repo / ".git")
        if self._disk == "worktrees":
            self._mount(self.folder / "worktrees")
        (self.repo / "README.md").write_text("Faults\n", "utf-8")
        names = [f"S{n}" for n in range(1, dice.randint(max(3, self._most_stories - 4), self._most_stories) + 1)]
        stories: list[dict[str, Any]] = []
        plan: dict[str, dict[str, list[str]]] = {}
        for place, name in enumerate(names):
            files = sorted({f"area/{dice.randint(1, 6)}.txt" for _ in range(dice.randint(1, 2))})
            depends_on = [n for n in names[:place] if dice.random() < 0.15]
            stories.append({"id": name, "title": f"Story {name}", "depends_on": depends_on, "files": files})
            undeclared = ["shared.txt"] if dice.random() < 0.2 else []  # where two of them meet is a conflict
            plan[name] = {"depends_on": depends_on, "touches": files + undeclared}
        (self.committed / "plan.json").write_text(json.dumps(plan), "utf-8")
        check = [sys.executable, "-I", "-S", "-c", CHECK]
        epic = {"id": "fault", "title": "Faults", "checks": [check], "stories": stories}
        (self.repo / "epic.yaml").write_text(yaml.safe_dump(epic), "utf-8")
        limits = {
            "attempt_timeout_s": 40,
            "stall_timeout_s": STALL_S,
            "attempts": 3,
            "agent": "fault",
            "min_free_mb": 0,
        }
        config = {
            "epic": {**limits, "worktrees_dir": str(self.folder / "worktrees")},
            "agents": {"fault": {"command": [sys.executable, "-I", str(AGENT), self.seed, str(self.committed)]}},
        }
        (self.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")

    def _mount(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "epicwave-faults", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        self.mounted = folder

    def run(self) -> subprocess.Popen[str]:
        """Start the epic, or go on with it."""
        return self.start("run", "epic.yaml", "--strategy", "asyncio", "--allow-checks")

    def agents(self, part: str = "") -> list[psutil.Process]:
        """Living agents, or (`leash.py`) their leashes."""
        found: list[psutil.Process] = []
        for process in self.processes():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            leash = any(word.endswith("leash.py") for word in words)
            if str(AGENT) in words and leash == bool(part):
                found.append(process)
        return found

    def epic(self) -> Epic | None:
        """The epic as the journal tells it; None before it is planned."""
        return Mirror(self.repo / ".git" / "epicwave" / "journal.db").ledger().epics.get("fault")

    def _checkout(self) -> list[str]:
        files = [p for p in self.repo.rglob("*") if p.is_file() and ".git" not in p.relative_to(self.repo).parts]
        files += [self.repo / ".git" / name for name in ("HEAD", "config", "description", "info/exclude")]
        return [*super()._checkout(), *(f"{p}: {p.read_bytes()!r}" for p in sorted(files) if p.exists())]

    def starts(self) -> list[Start]:
        """All starts of agents. A line that was cut short by a kill is left out: it was not told."""
        found: list[Start] = []
        for path in sorted(self.committed.glob("*.jsonl")):
            story, attempt, _ = path.stem.split("-")
            start = Start(story, int(attempt), path.stem)
            for line in path.read_text("utf-8").splitlines(keepends=True):
                if not line.endswith("\n"):
                    continue
                said = json.loads(line)
                match said["what"]:
                    case "start":
                        start.again, start.missing = said["again"], said["missing"]
                    case "wrote":
                        start.wrote.add(said["path"])
                    case "done":
                        start.done = True
                    case _:
                        pass
            found.append(start)
        return found

    def breaches(self) -> dict[str, list[str]]:
        """What is true and must not be, by kind. The epic is at its end: all its stories are merged."""
        starts, subjects = self.starts(), self.git("log", "--format=%s", BRANCH)
        landed = {tuple(subject.split(" ")[:3]) for subject in subjects if subject[0] == "S"}
        left = self.leaks()
        touched = left.pop("checkout", [])
        found = {
            "lost": left.pop("lost work", []) + self._lost_changes(landed),
            "doubled": self._doubled(subjects, starts, landed),
            "too early": [f"{s.name} began without {s.missing}" for s in starts if s.missing],
            "resurrected": self._resurrected(starts, landed),
            "red tip": self._red(),
            "leaks": [f"{kind}: {entry}" for kind, entries in left.items() for entry in entries] + self._temporary(),
            "touched": touched and self._touched(),
        }
        return {kind: entries for kind, entries in found.items() if entries}

    def _lost(self, waiting: object = ()) -> list[str]:
        """Files that an attempt wrote, committed or not, that neither the branch nor a ref of ours has."""
        del waiting
        kept: set[str] = set()
        for line in self.git("rev-list", "--objects", *self.refs("refs/heads/epicwave/", SAVED)):
            kept.add(line.partition(" ")[2])
        return sorted({path for start in self.starts() for path in start.wrote} - kept)

    def _lost_changes(self, landed: set[tuple[str, ...]]) -> list[str]:
        """Lines that a merged attempt added to a file, and that the tip does not have."""
        plan = json.loads((self.committed / "plan.json").read_text("utf-8"))
        lost: list[str] = []
        for who in sorted(landed):
            for path in plan[who[0]]["touches"]:
                lines = self.git("show", f"{BRANCH}:{path}")
                lost += [f"{path}: {line}" for part in "ab" if (line := f"{'-'.join(who)}-{part}") not in lines]
        return lost

    def _doubled(self, subjects: list[str], starts: list[Start], landed: set[tuple[str, ...]]) -> list[str]:
        stories = Counter(story for story, *_ in landed)
        lines = Counter(
            line
            for path in self.git("ls-tree", "-r", "--name-only", BRANCH, "area/", "shared.txt")
            for line in self._numbered(path)
        )
        return [
            *(f"{n} commits {subject!r}" for subject, n in Counter(subjects).items() if n > 1),
            *(f"{story} was merged from {n} attempts" for story, n in stories.items() if n > 1),
            *(f"{n} lines {line!r}" for line, n in lines.items() if n > 1),
            *(f"{s.name} was started although its story was merged" for s in starts if s.again),
        ]

    def _numbered(self, path: str) -> list[str]:
        return [f"{path} {text}" for text in self.git("show", f"{BRANCH}:{path}")]

    def _resurrected(self, starts: list[Start], landed: set[tuple[str, ...]]) -> list[str]:
        """Commits on the branch of an attempt that had not come to its end, or that is not the merged one."""
        epic = self.epic()
        assert epic is not None
        merged = {(name, story.attempt) for name, story in epic.stories.items() if story.merged_as}
        done = {(s.story, str(s.attempt), s.name.split("-")[2]) for s in starts if s.done}
        alien = [who for who in landed if (who[0], int(who[1])) not in merged]
        return [f"{who} is on the branch" for who in sorted({*(landed - done), *alien})]

    def _red(self) -> list[str]:
        """The check, on a copy of the tip."""
        tip = self.folder / "tip"
        tip.mkdir(exist_ok=True)
        archive = subprocess.run(
            ["git", "-C", str(self.repo), "archive", BRANCH], env=self.environment, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-m", "-C", str(tip)], input=archive, check=True)
        code = subprocess.run([sys.executable, "-I", "-S", "-c", CHECK], cwd=tip, check=False).returncode
        return [f"the check ends with {code}"] if code else []

    def _temporary(self) -> list[str]:
        ours = self.repo / ".git" / "epicwave" / "tmp"
        return [f"temporary: {p}" for p in ours.iterdir()] if ours.is_dir() else []

    def _touched(self) -> list[str]:
        now = self._checkout()
        return [
            f"{side} {line[:200]}"
            for side, a, b in (("-", self.before, now), ("+", now, self.before))
            for line in a
            if line not in b
        ]

    def half_objects(self) -> int:
        """Object files that a killed git did not finish: git's own to sweep (`git gc`), so no leak of ours."""
        return len(list((self.repo / ".git" / "objects").rglob("tmp_obj_*")))

    def remove(self) -> None:
        """Take it all away, the mounted disk too."""
        for process in self.processes():
            process.kill()
        if self.mounted is not None:
            subprocess.run(["umount", "--lazy", str(self.mounted)], check=False, capture_output=True)
        super().remove()
