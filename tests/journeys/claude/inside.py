"""What runs inside the box: `python -m tests.journeys.claude.inside SCRIPT LOG CWD COMMAND...`. Linux only."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.journeys.claude import scripts
from tests.journeys.claude.fake_api import serve

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def raise_loopback() -> None:
    """A new network namespace has a loopback, but it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def main(script: str, log: str, cwd: str, *command: str) -> int:
    """Serve the script, run the command, and answer its exit code."""
    raise_loopback()
    server = serve(scripts.BY_NAME[script], Path(log))
    url = f"http://127.0.0.1:{server.server_address[1]}"
    ended = subprocess.run(command, cwd=cwd, env=os.environ | {"ANTHROPIC_BASE_URL": url}, check=False)
    server.shutdown()
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
