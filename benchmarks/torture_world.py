"""One repository of `torture.py`: a random epic, its agents' plan, and the orders to kill that are hidden in it."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from leak_world import Place

from mcp_server.server.settings import EpicSettings

AGENT = Path(__file__).with_name("torture_agent.py")
EPIC = "torture"
BRANCH = f"epicwave/{EPIC}"
STALL_S = 4.0
BASE_LINES = 12
CHECK = """#!/bin/sh
# Red when there is a file in rot/, both halves of a pair, or what a conflict leaves. An order may strike.
if [ -z "$TORTURE_JUDGE" ] && [ -d "{orders}/check" ]; then
  printf x >> "{orders}/check/count"; order="{orders}/check/$(($(wc -c < "{orders}/check/count")))"
  if [ -e "$order" ] && mv "$order" "$order.fired" 2>/dev/null; then
    read -r how who rest < "$order.fired"
    case $who in engine) kill -9 "$(cat "{orders}/engine.pid")" ;; check) kill -9 $$ ;; *) echo flaky; exit 1 ;; esac
  fi
fi
[ -n "$TORTURE_JUDGE" ] || {{ echo "a check may leave what it likes" > left-by-the-check.txt; sleep {check_s}; }}
for path in rot/*; do [ -e "$path" ] && echo "red: $path" && exit 1; done
for left in pair/*.left; do [ -e "${{left%.left}}.right" ] && [ -e "$left" ] && echo "red: $left" && exit 1; done
grep -rqs '^<<<<<<<' shared work && exit 1
exit 0
"""
GIT = """#!/bin/sh
# The first git on the PATH of an epic. A folder is named by words of a command of the engine's own, and the files in it
# by numbers of calls. What such a file orders is done: kill git or the engine before, during or after it.
case "$*" in *no-hooks*)
for folder in "{orders}"/*/; do
  call=${{folder%/}}; call=${{call##*/}}
  case " $* " in *" $call "*)
    printf x >> "$folder/count"; order="$folder$(($(wc -c < "$folder/count")))"
    [ -e "$order" ] && mv "$order" "$order.fired" 2>/dev/null || continue
    read -r how who delay_s < "$order.fired"
    case $how in
      during) {git} "$@" <&0 & sleep "$delay_s"; [ "$who" = engine ] || kill -9 $! ;;
      after) {git} "$@" ;;
      locked) case "$*" in *"epicwave: merged"*) : > "{branch_lock}" ;; esac ;;
    esac
    [ "$who" = engine ] && kill -9 $PPID && wait
    kill -9 $$
  esac
done
esac
exec {git} "$@"
"""
GIT_CALLS = (
    *("rebase", "checkout", "clean", "merge", "merge-tree", "commit-tree", "merge-base", "rev-list", "diff-tree"),
    *("diff", "rev-parse", "rev-parse HEAD", "for-each-ref", "status", "update-ref", "write-tree", "add", "reset"),
    *("worktree add", "worktree remove", "worktree list", "worktree unlock", "worktree move", "worktree lock"),
    *("epicwave: merged", "epicwave: merged", "epicwave: began", "epicwave: done", "epicwave: rescued"),
    *("epicwave: forgotten", "epicwave: landed"),
)
"""Words of commands in a merge and around it; the last ones are why refs are moved."""
FACTS = (
    "AttemptClaimed",
    "AttemptSucceeded",
    "MergeProven",
    "MergeProven",
    "BranchMerged",
    "BranchMerged",
    "MergeRefused",
)
TIMES = ("before", "during", "after")
FILES = ("rmtree", "rename", "rmdir")


class TorturePlace(Place):
    """An epic of 5 to 40 stories in a repository with unfinished work of the user's."""

    def __init__(self, dice: random.Random, stories: int) -> None:
        self._stories, self.dice = stories, dice
        self.names: list[str] = []
        self.depends: dict[str, tuple[str, ...]] = {}
        self.config: dict[str, Any] = {}
        self.check_s = dice.choice([0.0, 0.0, 0.2, 0.5])
        self.meddles = dice.choice([0, 0, 1, 3])
        """Stories that the person cancels while they are under way."""
        super().__init__(dice)
        hooks = self.repo / ".git" / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in ("pre-commit", "post-checkout", "pre-rebase", "reference-transaction"):
            (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {self.folder}/hooks-ran\n", "utf-8")
        (hooks / "pre-commit").chmod(0o755)  # the others are not for git to run
        (self.repo / "shared" / "0.txt").write_text("The user is writing this.\n", "utf-8")
        (self.repo / "staged.txt").write_text("The user has staged this.\n", "utf-8")
        self.git("add", "staged.txt")
        (self.repo / "loose.txt").write_text("The user has not added this.\n", "utf-8")
        self.before = self._checkout()

    @property
    def orders(self) -> Path:
        """Where orders are."""
        return self.folder / "orders"

    @property
    def journal(self) -> Path:
        """The engine's."""
        return self.repo / ".git" / "epicwave" / "journal.db"

    def _write_files(self, dice: random.Random) -> None:
        self._tools()
        shared = [f"{number}.txt" for number in range(max(2, self._stories // 6))]
        (self.repo / "shared").mkdir()
        for name in shared:
            lines = [f"line {number} of {name}" for number in range(BASE_LINES)]
            (self.repo / "shared" / name).write_text("\n".join(lines) + "\n", "utf-8")
        self.names = [f"S{number}" for number in range(1, self._stories + 1)]
        stories: list[dict[str, Any]] = []
        plan: dict[str, dict[str, Any]] = {}
        for place, name in enumerate(self.names):
            near = self.names[max(0, place - 8) : place]
            needs = dice.sample(near, min(len(near), dice.choice([0, 0, 1, 1, 2])))
            files = sorted(set(dice.choices(shared, k=dice.choice([0, 1, 2, 2, 3]))))
            declared = [f"shared/{file}" for file in files] if dice.random() < 0.6 else []
            critical = dice.random() < 0.05
            stories.append(
                {"id": name, "title": f"Story {name}", "depends_on": needs, "files": declared, "critical": critical}
            )
            plan[name] = {"shared": files, "pair": None}
            self.depends[name] = tuple(needs)
        for number in range(self._stories // 8):
            left, right = dice.sample(self.names, 2)
            plan[left]["pair"], plan[right]["pair"] = f"{number}.left", f"{number}.right"
        truth = {"stories": plan, "git": shutil.which("git"), "branch": BRANCH}
        (self.committed / "plan.json").write_text(json.dumps(truth), "utf-8")
        epic = {"id": EPIC, "title": "Torture", "checks": [[str(self.folder / "check")]], "stories": stories}
        (self.repo / "epic.yaml").write_text(yaml.safe_dump(epic), "utf-8")
        self._configure(dice)

    def _tools(self) -> None:
        (self.folder / "bin").mkdir()
        self.orders.mkdir()
        for path, text in ((self.folder / "check", CHECK), (self.folder / "bin" / "git", GIT)):
            told = text.format(
                orders=self.orders,
                git=shutil.which("git"),
                check_s=self.check_s,
                branch_lock=self.repo / ".git" / "refs" / "heads" / f"{BRANCH}.lock",
            )
            path.write_text(told, "utf-8")
            path.chmod(0o755)

    def _configure(self, dice: random.Random) -> None:
        known = EpicSettings.model_fields
        side_by_side = {"overlap": dice.choice(["exclusive", "optimistic", "auto"])} if "overlap" in known else {}
        limits = {
            "parallel_strategy": "asyncio",
            "max_parallel_stories": dice.randint(2, 6),
            "conflict_detection": dice.random() < 0.25,
            "fail_fast": dice.random() < 0.3,
            "attempts": 3,
            "attempt_timeout_s": 60,
            "stall_timeout_s": STALL_S,
            "agent": "tortured",
            "worktrees_dir": str(self.folder / "worktrees"),
        }
        agent = [sys.executable, "-I", "-S", str(AGENT), self.seed, str(self.committed)]
        self.config = {"epic": {**limits, **side_by_side}, "agents": {"tortured": {"command": agent}}}
        (self.repo / ".epicwave" / "config.yaml").write_text(yaml.safe_dump(self.config), "utf-8")

    def order(self, call: str, number: int, how: str, who: str, delay_s: float = 0.0) -> None:
        """Strike at the call of this number: `how` is before, during or after, `who` is git, check or engine."""
        (self.orders / call).mkdir(exist_ok=True)
        (self.orders / call / str(number)).write_text(f"{how} {who} {delay_s:.4f}\n", "utf-8")

    def fired(self) -> list[str]:
        """Orders that were carried out: step, when, who."""
        return sorted(
            f"{path.parent.name}: {' '.join(path.read_text('utf-8').split()[:2])}"
            for path in self.orders.glob("*/*.fired")
        )

    def arm(self, dice: random.Random, only: str | None = None) -> None:
        """Hide orders in it: some strike git, some the engine, some the checks. With `only`, all at that step."""
        weight = max(2, self._stories // 4)
        steps = [(call, 3 * weight) for call in dice.choices(GIT_CALLS, k=dice.randint(1, weight))]
        steps += [(f"fact {fact}", self._stories) for fact in dice.choices(FACTS, k=dice.randint(0, weight // 2))]
        steps += [(f"file {name}", 3 * weight) for name in dice.choices(FILES, k=dice.randint(0, weight // 4 + 1))]
        steps += [("check", self._stories)] * dice.randint(0, weight // 2)
        for call, last in [(only, self._stories)] * weight if only else steps:
            how = dice.choice(TIMES[::2] if call.startswith(("fact ", "file ")) else TIMES)
            others = {"check": ["check", "flaky"], "fact": [], "file": []}.get(call.partition(" ")[0], ["git"])
            who = dice.choice(["engine", "engine", *others])
            if call == "epicwave: merged" and who == "git":
                how = dice.choice(["locked", how])
            self.order(call, dice.randint(1, last), how, who, dice.uniform(0.0, 0.015))

    def _checkout(self) -> list[str]:
        """The checkout, byte for byte, with git's own files of it."""
        files = [p for p in self.repo.rglob("*") if p.is_file() and ".git" not in p.relative_to(self.repo).parts]
        git_dir = self.repo / ".git"
        files += [git_dir / name for name in ("HEAD", "config", "index", "description", "info/exclude")]
        files += sorted((git_dir / "hooks").glob("*"))
        told = [f"{p} {p.stat().st_mode:o}: {p.read_bytes()!r}" for p in sorted(files) if p.exists()]
        return [*told, *self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags/")]

    def touched(self) -> list[str]:
        """What of the user's is not as it was."""
        now = self._checkout()
        sides = (("-", self.before, now), ("+", now, self.before))
        found = [f"{side} {line[:200]}" for side, here, there in sides for line in here if line not in there]
        ran = self.folder / "hooks-ran"
        return found + ([f"hooks ran: {sorted(set(ran.read_text('utf-8').split()))}"] if ran.exists() else [])

    def scratch_left(self) -> list[str]:
        """What is left of work that was being saved."""
        ours = self.repo / ".git" / "epicwave" / "tmp"
        return [str(path) for path in ours.iterdir()] if ours.is_dir() else []

    def _lost(self, waiting: object = ()) -> list[str]:
        """The judge looks for that."""
        del waiting
        return []
