"""The agent of `torture.py`: does its story, or lies, crashes or hangs, and writes down outside what it really did.

`python -I -S torture_agent.py SEED TRUTH_FOLDER`, in a worktree. In the folder is `plan.json`; each start adds a file
of its own with one JSON line for each thing that is done, after it is done. Seed, story and attempt say what it does.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

TOKEN = re.compile(r"T-[A-Za-z0-9]+-[0-9]+-[0-9]+-[0-9]+\b")
"""A line that nobody else writes: story, attempt, process, number."""
LAST_BAD_ATTEMPT = 2
"""From the next one on an agent does all as it should, so that every epic can come to its end."""
MANNERS = {
    "good": 48,
    "deletes": 5,
    "renames": 4,
    "detached": 3,
    "own branch": 3,
    "rebases itself": 3,
    "merges itself": 3,
    "breaks the check": 6,
    "nothing": 3,
    "uncommitted": 5,
    "nothing committed": 3,
    "exit 1": 4,
    "crash": 4,
    "hang": 2,
    "wrong base": 4,
    "leaves a lock": 2,
    "unfinished merge": 2,
}
"""What agents do, out of 104."""


class Work:
    """One start of an agent. Stores who it is, its dice, and where the truth is written."""

    def __init__(self, seed: str, truth: Path) -> None:
        self.story, self.attempt = os.environ["EPICWAVE_STORY"], os.environ["EPICWAVE_ATTEMPT"]
        self.name = f"{self.story}-{self.attempt}-{os.getpid()}"
        plan: dict[str, Any] = json.loads((truth / "plan.json").read_text("utf-8"))
        self.mine: dict[str, Any] = plan["stories"][self.story]
        self.git_path, self.branch = plan["git"], plan["branch"]
        self.dice = random.Random(f"{seed} {self.story} {self.attempt}")  # noqa: S311 - to be repeated by its seed
        self.manner = "good"
        if int(self.attempt) <= LAST_BAD_ATTEMPT:
            self.manner = self.dice.choices(list(MANNERS), list(MANNERS.values()))[0]
        self.log = (truth / f"{self.name}.jsonl").open("a", encoding="utf-8")
        self.base = ""
        self.tokens: list[str] = []
        self.loose: list[str] = []

    def tell(self, what: str, **more: object) -> None:
        """One line of the truth, out of this process at once."""
        self.log.write(json.dumps({"what": what, **more}) + "\n")
        self.log.flush()

    def git(self, *words: str, check: bool = True) -> str:
        """Run git here. A failure ends the agent with code 1, unless it may fail."""
        done = subprocess.run([self.git_path, *words], stdout=subprocess.PIPE, text=True, check=False)
        if check and done.returncode:
            sys.exit(1)
        return done.stdout.strip()

    def token(self) -> str:
        """The next one."""
        self.tokens.append(f"T-{self.name}-{len(self.tokens) + 1}")
        return self.tokens[-1]

    def wrote(self, token: str) -> None:
        """It is in a file now, and not committed."""
        self.loose.append(token)
        self.tell("wrote", token=token)

    def own_file(self) -> None:
        """A file that no other has."""
        token = self.token()
        path = Path("work", f"{token}.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{token}\n", encoding="utf-8")
        self.wrote(token)

    def shared_edit(self, name: str) -> None:
        """One line of a file that others edit too: one of the first ones is replaced, or there is one more."""
        path, token = Path("shared", name), self.token()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        free = [number for number, line in enumerate(lines) if not TOKEN.search(line)]
        if free and self.dice.random() < 0.6:
            lines[self.dice.choice(free)] = token
        else:
            lines.insert(self.dice.randint(0, len(lines)), token)
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.wrote(token)

    def part(self) -> None:
        """Some of the change."""
        self.own_file()
        for name in self.mine["shared"]:
            self.shared_edit(name)
        threading.Event().wait(self.dice.choice([0.0, 0.0, 0.02, 0.08]))

    def commit(self) -> None:
        """Everything."""
        self.git("add", "-A")
        self.git("commit", "-q", "--no-verify", "-m", f"{self.name}, {len(self.tokens)}")
        self.tell("committed", tokens=self.loose)
        self.loose = []

    def done(self) -> None:
        """All is committed, on the right base: whoever takes this does right."""
        self.tell("done")

    def remove(self) -> None:
        """A file of somebody else's goes, with all that is in it."""
        found = sorted([*Path("work").glob("*.txt"), *Path("shared").glob("*.txt")])
        others = [path for path in found if not set(TOKEN.findall(path.read_text("utf-8"))) & set(self.tokens)]
        if others:
            path = self.dice.choice(others)
            tokens = TOKEN.findall(path.read_text("utf-8"))
            path.unlink()
            self.tell("removed", tokens=tokens)

    def rename(self) -> None:
        """A shared file gets another name, which no file has: else what is in that one would go unsaid."""
        found = sorted(Path("shared").glob("*.txt"))
        if found:
            path = self.dice.choice(found)
            path.rename(path.with_name(f"{path.stem}-{self.name}.txt"))


def well(work: Work) -> None:
    """What may be merged, done in more or less odd ways."""
    match work.manner:
        case "deletes":
            work.remove()
        case "renames":
            work.rename()
        case "detached":
            work.git("checkout", "-q", "--detach")
        case "own branch":
            work.git("switch", "-q", "-c", f"own-{work.name}")
        case "breaks the check":
            Path("rot").mkdir(exist_ok=True)
            Path("rot", work.name).write_text("red\n", encoding="utf-8")
        case _:
            pass
    pair = work.mine["pair"]
    if pair and work.dice.random() < (1.0, 0.3, 0.0)[min(int(work.attempt), 3) - 1]:
        Path("pair").mkdir(exist_ok=True)
        Path("pair", pair).write_text(f"{work.name}\n", encoding="utf-8")
    work.part()
    work.commit()
    if work.manner in ("rebases itself", "merges itself"):
        verb = work.manner.split("s ")[0]
        work.git(verb, *(["--no-edit"] if verb == "merge" else []), "-q", work.branch, check=False)
        work.git(verb, "--abort", check=False)
    work.done()


def badly(work: Work) -> None:
    """What may not be merged; nothing of it may be lost."""
    work.part()
    match work.manner:
        case "uncommitted":
            work.commit()
            work.own_file()
        case "nothing committed":
            pass
        case "exit 1":
            work.commit()
            sys.exit(1)
        case "crash":
            if work.dice.random() < 0.5:
                work.commit()
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            work.commit()
            work.own_file()
            threading.Event().wait()
        case "leaves a lock":
            Path(work.git("rev-parse", "--git-dir"), "index.lock").touch()
        case "wrong base":
            work.commit()
            first = work.git("rev-list", "--max-parents=0", "HEAD").split()[0]
            if first == work.base:
                work.git("checkout", "-q", "--orphan", f"nowhere-{work.name}")
            else:
                work.git("reset", "-q", "--soft", first)
            work.own_file()
            work.commit()
        case _:  # unfinished merge
            work.commit()
            work.git("merge", "--no-commit", "--no-ff", "-q", work.branch, check=False)
            work.own_file()


def main() -> None:
    """Live for a moment."""
    sys.stdin.buffer.read()
    work = Work(sys.argv[1], Path(sys.argv[2]))
    work.base = work.git("rev-parse", "HEAD")
    work.tell("start", base=work.base, manner=work.manner)
    print(work.manner, flush=True)
    if work.manner == "nothing":
        return
    names = list(MANNERS)
    if names.index(work.manner) > names.index("nothing"):
        badly(work)
        return
    if work.dice.random() < 0.4:
        work.part()
        work.commit()
    well(work)


if __name__ == "__main__":
    main()
