"""Fronts and engine processes as they are, of any version, and the end of each engine process that a test began."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from mcp_server.front.place import DOOR_FILE, STATE_FOLDER, Door, Refusal, read_door
from tests.front.stage import Editor, Message
from tests.journeys.programs import wait_until

_STARTER = """
import sys, types
import mcp_server
version = sys.argv.pop(1)
mcp_server.__version__ = version
from mcp_server.front import start
real = start.subprocess
def run(command, **more):
    return real.run([sys.executable, __file__, version, *command[command.index("engine"):]], **more)
start.subprocess = types.SimpleNamespace(run=run, DEVNULL=real.DEVNULL)
from mcp_server.cli.entry import main
main()
"""
"""The command line as a package of that version would be, with the engine processes that it starts."""
IDLE_S = "20"
"""No engine process of a test outlives it for longer, whatever happens."""
WHO: Message = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "0"},
}


class Engines:
    """The engine processes of one repository, one after the other."""

    def __init__(self, repo: Path, outside: Path) -> None:
        self.repo = repo
        self.state = repo / ".git" / STATE_FOLDER
        self._starter = outside / "starter.py"
        self._starter.write_text(_STARTER, "utf-8")

    @contextmanager
    def front(self, version: str = "1.0.0") -> Generator[Editor]:
        """An editor's front of that version, not greeted yet."""
        code = f"import runpy, sys; sys.argv[1] = {version!r}; runpy.run_path({str(self._starter)!r}, None, '__main__')"
        with Editor(self.repo, code) as editor:
            yield editor

    def door(self) -> Door | None:
        """What the present one says of itself; None when there is none."""
        with suppress(FileNotFoundError):
            return Door(**json.loads((self.state / DOOR_FILE).read_text("utf-8")))
        return None

    def met(self) -> Door:
        """The same of one that is there."""
        door = self.door()
        assert door is not None
        return door

    def living(self) -> list[int]:
        """Processes that are, or become, engine processes of this repository."""
        return [process.pid for process in psutil.process_iter() if _is_engine(process, str(self.repo))]

    def end(self) -> None:
        """Kill them all, and remove the socket that one has beside the repository."""
        with suppress(Refusal):
            door = read_door(str(self.state))
            if door is not None and (folder := Path(door.address).parent) != self.state:
                shutil.rmtree(folder, ignore_errors=True)
        for pid in self.living():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.living())


def _is_engine(process: psutil.Process, repo: str) -> bool:
    try:
        words = process.cmdline()
        return "engine" in words and repo in words and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def greet(editor: Editor) -> Message:
    """A handshake; what the server says of itself."""
    editor.ask(0, "initialize", **WHO)
    result = editor.hears()["result"]
    editor.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
    return result


def call(editor: Editor, tool: str, **arguments: Any) -> Message:
    """A tool's result."""
    editor.ask(f"call {tool}", "tools/call", name=tool, arguments=arguments)
    while (answer := editor.hears()).get("id") != f"call {tool}":
        assert "method" in answer, answer
    return answer["result"]
