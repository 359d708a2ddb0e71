"""The agent of `faults.py`: makes two commits, sometimes badly, and writes down outside what it has really done.

`python -I fault_agent.py SEED TRUTH_FOLDER`, in a worktree. In the folder is `plan.json`; each start adds a file of its
own with one JSON line for each thing that is done, after it is done: start, wrote, committed, done.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

BRANCH = "refs/heads/epicwave/fault"
CHILD = """
import os, signal, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "own-session" in sys.argv: os.setsid()
time.sleep(3600)
"""
LAST_BAD_ATTEMPT = 2
"""From the next one on an agent does all as it should, so that every run can come to its end."""


class Work:
    """One attempt. Stores who it is, its dice, and where the truth is written."""

    def __init__(self, seed: str, truth: Path) -> None:
        self.story, self.attempt = os.environ["EPICWAVE_STORY"], os.environ["EPICWAVE_ATTEMPT"]
        self.name = f"{self.story}-{self.attempt}-{os.getpid()}"
        self.plan: dict[str, Any] = json.loads((truth / "plan.json").read_text("utf-8"))[self.story]
        self.dice = random.Random(f"{seed} {self.story} {self.attempt}")  # noqa: S311 - to be repeated by its seed
        self.bad = self.dice.random() if int(self.attempt) <= LAST_BAD_ATTEMPT else 1.0
        self.log = (truth / f"{self.name}.jsonl").open("a", encoding="utf-8")

    def tell(self, what: str, **more: object) -> None:
        """One line of the truth, out of this process at once."""
        self.log.write(json.dumps({"what": what, **more}) + "\n")
        self.log.flush()

    def start(self) -> None:
        """What is there already when this agent is started: its story must not be, what it depends on must."""
        here = {line.split(" ")[0] for line in git("log", "--format=%s", "HEAD")}
        merged = {line.split(" ")[0] for line in git("log", "--format=%s", BRANCH)}
        missing = [name for name in self.plan["depends_on"] if name not in here]
        self.tell("start", again=self.story in merged, missing=missing)
        if self.dice.random() < 0.3:
            manners = [word for word in ("deaf", "own-session") if self.dice.random() < 0.5]
            subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD, *manners], stdin=subprocess.DEVNULL)

    def write(self, path: str, text: str) -> None:
        """A new file of this attempt alone, with content that no other has: git lists each content under one name."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(f"{text} {path}\n", encoding="utf-8")
        self.tell("wrote", path=path)

    def pause(self) -> None:
        """Be busy, with a word now and then."""
        for _ in range(2):
            print("working", flush=True)
            threading.Event().wait(self.dice.uniform(0.05, 0.25))

    def half(self, part: str) -> None:
        """One half of the change."""
        self.write(f"work/{self.name}-{part}.txt", "half")
        for path in self.plan["touches"]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{self.name}-{part}\n")
        self.pause()

    def commit(self, part: str) -> None:
        """Everything, with a subject that says whose it is."""
        git("add", "-A")
        git("commit", "-q", "-m", f"{self.story} {self.attempt} {os.getpid()} {part}")
        self.tell("committed", part=part)


def git(*words: str) -> list[str]:
    """Run git here; its lines. Raises when it fails, which ends the agent with code 1."""
    done = subprocess.run(["git", *words], stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    return done.stdout.splitlines()


def main() -> None:
    """Live for 0.5 to 1 second."""
    sys.stdin.buffer.read()
    work = Work(sys.argv[1], Path(sys.argv[2]))
    work.start()
    work.half("a")
    work.commit("a")
    work.half("b")
    if work.bad < 0.08:
        sys.exit(0)  # with half of it not committed
    if work.bad < 0.2:
        work.write(f"rot/{work.name}", "red")
    work.commit("b")
    if 0.2 < work.bad < 0.26:
        sys.exit(1)
    work.tell("done")


if __name__ == "__main__":
    main()
