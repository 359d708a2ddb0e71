"""The agent of claim 1. `python -I -S sleeper.py FOLDER SECONDS MANNERS`, its story in EPICWAVE_STORY. Stdlib only.

`S0` waits until there is a file `go` in the folder and fails. Every other story has a child, and both sleep for so many
seconds, which stand for the work that is left to do; with the manners `deaf` both ignore TERM. Each process leaves
a file of its pid's name in the folder once it is ready.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main() -> None:
    """Critical agent, sibling, or a sibling's child."""
    folder, seconds, manners = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    story = os.environ["EPICWAVE_STORY"]
    wait = threading.Event().wait
    if manners == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    is_child = len(sys.argv) > 4
    child = None if is_child or story == "S0" else subprocess.Popen([sys.executable, "-I", "-S", *sys.argv, "child"])
    (folder / f"{os.getpid()}.{'critical' if story == 'S0' else 'sibling'}").touch()
    if story == "S0":
        while not (folder / "go").exists():
            wait(0.002)
        sys.exit(1)
    wait(seconds)
    if child is not None:
        child.wait()


if __name__ == "__main__":
    main()
