"""A front between an editor and an engine process, both played by the test: one on its pipes, one at its socket."""

from __future__ import annotations

import io
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from mcp_server import __version__
from mcp_server.front.place import DOOR_FILE, SOCKET_FILE, STATE_FOLDER
from tests.server.lead import crowd
from tests.server.scene import environment

PATIENCE_S = 60.0
"""Nothing here takes that long, on a machine with time for us."""
QUIET_S = 0.3
"""What has not come by then is not on its way."""
TOKEN = "a token of the test's"  # noqa: S105
LAUNCHED = "launched"
_FRONT = """
import sys, time
from mcp_server.front import start
def launch(folder):
    with open(name, "a") as file: file.write("x")
    time.sleep(0.05)
name = sys.argv.pop(1)
start.launch = launch
from mcp_server.cli.entry import main
main()
"""
"""`epicwave serve` that starts no engine process but notes that it would have."""

Message = dict[str, Any]


class Editor:
    """A front's process, and the editor's ends of its pipes."""

    def __init__(self, repo: Path, code: str = _FRONT, stdin: int = subprocess.PIPE) -> None:
        self.launched = repo / ".git" / LAUNCHED
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(self.launched), "serve", "--repo", str(repo)],
            cwd=repo,
            env=environment(),
            stdin=stdin,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.to = self.process.stdin or io.FileIO(os.devnull, "w")
        self.out, self.err = self.process.stdout, self.process.stderr
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.to, self.out, self.err):
            pipe.close()

    def write(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[os.write(self.to.fileno(), left) :]

    def say(self, message: Message) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def ask(self, number: int | str, method: str, **params: Any) -> None:
        self.say(request(number, method, **params))

    def line(self) -> bytes:
        """The next whole line; empty at the end."""
        until_s = time.monotonic() + PATIENCE_S
        while b"\n" not in self._rest:
            assert select.select([self.out], [], [], until_s - time.monotonic())[0], "the editor was told nothing"
            chunk = os.read(self.out.fileno(), 1 << 20)
            if not chunk:
                return b""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def hears(self) -> Message:
        return json.loads(self.line())

    def hears_nothing(self) -> bool:
        """Nor any part of a line."""
        return not self._rest and not select.select([self.out], [], [], QUIET_S)[0]

    def ends(self, within_s: float = 1.0) -> int:
        """Its exit code; it has to be there in time."""
        return self.process.wait(within_s * crowd() + 0.3)

    def memory(self) -> int:
        """What it holds, in bytes."""
        return psutil.Process(self.process.pid).memory_info().rss


class Wire:
    """One connection as the engine process has it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE_S)
        self._rest = b""
        self.hello = self.hears()

    def line(self) -> bytes:
        while b"\n" not in self._rest:
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                return b""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def hears(self) -> Message:
        return json.loads(self.line())

    def hears_nothing(self) -> bool:
        return not self._rest and not select.select([self.socket], [], [], QUIET_S)[0]

    def say(self, message: Message) -> None:
        self.socket.sendall(line_of(message))

    def answer(self, asked: Message, **result: Any) -> None:
        self.say({"jsonrpc": "2.0", "id": asked["id"], "result": result})


class Engine:
    """A listener with a door.json, as an engine process leaves it."""

    def __init__(self, repo: Path, version: str = __version__, patience_s: float = PATIENCE_S) -> None:
        self.state = repo / ".git" / STATE_FOLDER
        self.state.mkdir(mode=0o700, exist_ok=True)
        path = self.state / SOCKET_FILE
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen()
        self._listener.settimeout(patience_s)
        self._wires: list[Wire] = []
        said = {"pid": 1, "started_s": 0.0, "version": version, "address": str(path), "token": TOKEN, "later": [1]}
        new = self.state / "new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(said), "utf-8")
        new.replace(self.state / DOOR_FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dies()

    def meets(self) -> Wire:
        """The next connection, that has said its hello."""
        wire = Wire(self._listener.accept()[0])
        self._wires.append(wire)
        return wire

    def dies(self) -> None:
        """As by kill -9: nothing is cleaned."""
        self._listener.close()
        for wire in self._wires:
            wire.socket.close()


def request(number: int | str, method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def line_of(message: Message) -> bytes:
    """As the engine writes it: no spaces, the id before the result."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def tool(name: str, **meta: Any) -> Message:
    """Parameters of a tool's call."""
    return {"name": name, "arguments": {}, **({"_meta": meta} if meta else {})}


def until(condition: Callable[[], bool]) -> None:
    """Look at files and processes until they are so."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it never came to be so"
        time.sleep(0.01)
