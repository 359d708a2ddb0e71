"""The agent of `leaks.py`: lives for a moment, has children that do not want to end, commits, and sometimes fails.

`python -I leak_agent.py SEED COMMITTED_FOLDER`, in a worktree. What it has committed it notes in the folder, by a file
of the same name: the truth about its work, outside of everything that is tested.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

CHILD = """
import os, signal, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "own-session" in sys.argv: os.setsid()
time.sleep(3600)
"""


def main() -> None:
    """Live for 0.1 to 0.5 seconds."""
    sys.stdin.buffer.read()
    story, attempt = os.environ["EPICWAVE_STORY"], os.environ["EPICWAVE_ATTEMPT"]
    dice = random.Random(f"{sys.argv[1]} {story} {attempt}")  # noqa: S311 - a benchmark's, to be repeated by its seed
    if dice.random() < 0.3:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(dice.randint(0, 2)):
        manners = [word for word in ("deaf", "own-session") if dice.random() < 0.4]
        subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD, *manners], stdin=subprocess.DEVNULL)
    pause_s = dice.uniform(0.05, 0.25)
    live = threading.Event().wait
    live(None if dice.random() < 0.05 else pause_s)
    name = f"{story}-{attempt}-{os.getpid()}.txt"
    Path("work").mkdir(exist_ok=True)
    Path("work", name).write_text(f"{story} {attempt}\n", encoding="utf-8")
    git = ("git", "-c", "user.name=Leak", "-c", "user.email=leak@localhost")
    for command in (["add", "-A"], ["commit", "-q", "-m", f"{story} {attempt}"]):
        subprocess.run([*git, *command], check=True)
    Path(sys.argv[2], name).touch()
    if dice.random() < 0.2:
        Path("work", f"loose-{name}").touch()
    live(pause_s)
    sys.exit(dice.random() < 0.1)


if __name__ == "__main__":
    main()
