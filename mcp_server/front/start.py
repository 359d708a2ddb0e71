"""Having an engine process: met when there is one, started when there is none, asked to go when it is older than us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from mcp_server import __version__
from mcp_server.front.place import Door, Refusal, dial, hello, read_door

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

START_S = 60.0
"""An engine process that is not there after so long will not come: imports take 1 s, on a very busy machine 10."""
LEAVE_S = 5.0
"""From the end of its connections to the end of its listener, on a very busy machine."""
LOOK_S = 0.02
"""Nobody tells us when a process is there or gone."""
CHUNK = 65_536
MODERN = "2026-07-28"


def connect(state: str, start: str, patience_s: float = 0.0) -> tuple[socket.socket, str]:
    """A connection that has said hello, and a note for the user. Starts an engine process when there is none.

    One that has ended in order is waited for that long: a foreground process takes its place. Raises `Refusal` with
    the engine's own words when it cannot be started.
    """
    began_s = time.monotonic()
    until_s = began_s + START_S
    note = ""
    while time.monotonic() < until_s:
        door = read_door(state)
        wire = _try(door)
        if door is None and time.monotonic() < began_s + patience_s:
            time.sleep(LOOK_S)
            continue
        if door is None or wire is None:
            launch(start)
            continue
        try:
            if is_newer(__version__, door.version):
                with wire:
                    note = ask_to_leave(wire, door, start)
                if not note:
                    wait_until_gone(door, until_s)
                    continue
                wire = dial(door)
            wire.sendall(hello(door, __version__, start))
        except OSError:  # it ended meanwhile
            wire.close()
            time.sleep(LOOK_S)
            continue
        wire.settimeout(None)
        return wire, note
    raise silent(state, f"did not answer within {START_S:.0f} s")


def silent(state: str, what: str) -> Refusal:
    """The refusal when an engine process is there and of no use."""
    log = os.path.join(state, "engine.log")  # noqa: PTH118
    return Refusal(
        "engine_silent",
        f"The engine process of this repository {what}.",
        f"Its log is {log}. See what is wrong with `epicwave doctor`, then call again.",
    )


def _try(door: Door | None) -> socket.socket | None:
    if door is None:
        return None
    try:
        return dial(door)
    except OSError:
        return None


def launch(start: str) -> None:
    """Start an engine process that is nobody's child, and wait until it listens.

    Somebody else's that came first is as good. Raises `Refusal` with what it said.
    """
    command = [sys.executable, "-P", "-m", "mcp_server.cli", "engine", "--detach", "--repo", start]
    # -P: a `mcp_server` in the user's repository is not ours
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True)
    if ran.returncode:
        raise _refusal(ran.stderr.decode("utf-8", "replace").strip() or f"It ended with code {ran.returncode}.")


def _refusal(said: str) -> Refusal:
    """What the command line said when it refused, else the last of what it said when it died."""
    first, _, remedy = said.partition("\n")
    code, _, why = first.partition(": ")
    if remedy and "\n" not in remedy and code.replace("_", "").isalpha():
        return Refusal(code, why, remedy)
    if remedy and "\n" not in remedy:
        return Refusal("engine_silent", first, remedy)
    return Refusal(
        "engine_silent",
        f"The engine process of this repository cannot be started: {said.rpartition(chr(10))[2]}",
        "See all that it says with `epicwave engine`, mend that, and start again.",
    )


def ask_to_leave(wire: socket.socket, door: Door, start: str) -> str:
    """Ask an engine process to end. Empty when it does; else why it stays."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "epicwave", "version": __version__},
    }
    call = {"name": "engine_leave", "arguments": {"version": __version__}, "_meta": meta}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    try:
        wire.sendall(hello(door, __version__, start) + json.dumps(ask).encode() + b"\n")
        for line in lines(wire):
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == 1:
                return str(answer["result"]["content"][0]["text"])
    except (OSError, ValueError, LookupError, TypeError):
        pass  # it ended meanwhile, or knows no such question
    if wait_until_gone(door, time.monotonic() + LEAVE_S):  # one that leaves may hang up before it has said so
        return ""
    return f"The engine process {door.pid} (epicwave {door.version}) stays: it does not answer."


def make_way(state: str, start: str) -> str:
    """Have an engine process that has nothing to do end. Empty when there is none any more; else why it stays."""
    door = read_door(state)
    wire = _try(door)
    if door is None or wire is None:
        return ""
    with wire:
        why = ask_to_leave(wire, door, start)
    if not why:
        wait_until_gone(door, time.monotonic() + START_S)
    return why


def wait_until_gone(door: Door, until_s: float) -> bool:
    """Until nobody listens there any more; False when the time is up before that."""
    while (wire := _try(door)) is not None:
        wire.close()
        if time.monotonic() > until_s:
            return False
        time.sleep(LOOK_S)
    return True


def is_newer(one: str, other: str) -> bool:
    """True when version `one` is above `other`; what is no number counts for nothing."""
    return _numbers(one) > _numbers(other)


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]


def lines(wire: socket.socket) -> Iterator[bytes]:
    """Whole lines with their ends; what is cut off by the end of the connection is left out."""
    parts: list[bytes] = []
    while chunk := wire.recv(CHUNK):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield b"".join((*parts, piece, b"\n"))
            parts.clear()
        parts.append(rest)
