"""What runs inside the box: `python -m tests.journeys.claude.inside SCRIPT LOG CWD COMMAND...`. Linux only."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from tests.journeys.claude import scripts
from tests.journeys.claude.fake_api import LEFT, serve

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
GRACE_S = 20.0
"""How long what the command has started may take to end after it."""


def raise_loopback() -> None:
    """A new network namespace has a loopback, but it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def others() -> dict[int, str]:
    """Processes of the box besides this one, with their command lines."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry.name)] = words
    return found


def left_after(seconds: float) -> dict[int, str]:
    """Who has not ended by itself by then. What has ended is buried, as the first process of a system must."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return {}
        time.sleep(0.05)
    return others()


def main(script: str, log: str, cwd: str, *command: str) -> int:
    """Serve the script, run the command, and answer its exit code."""
    raise_loopback()
    server = serve(scripts.BY_NAME[script], Path(log))
    url = f"http://127.0.0.1:{server.server_address[1]}"
    ended = subprocess.run(command, cwd=cwd, env=os.environ | {"ANTHROPIC_BASE_URL": url}, check=False)
    left = left_after(GRACE_S)
    Path(log).with_name(LEFT).write_text("".join(f"{pid} {words}\n" for pid, words in left.items()), "utf-8")
    server.shutdown()
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
