"""`epicwave serve`: bytes between an editor's pipes and the engine process. It loads nothing of MCP, to be there first.

Two threads, one for each direction, each blocking on the slower of its ends: that is all the back-pressure there is.
What it remembers is what an engine that dies would take with it: the handshake, and the requests without an answer.
When the connection breaks it has another engine started, says the handshake again, and asks again what may be asked
twice; the rest is answered with `engine_restarted`. The editor never sees a dead server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from mcp_server.front import start
from mcp_server.front.place import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

END_S = 0.9
"""After the end of its input, the answers that are still on their way have so long, in seconds."""
PATIENCE_S = 0.5
"""An engine process that has left in order may have made way for `epicwave run`, which is there in less."""
REPEATABLE = frozenset({"story_status", "plan_epic", "agent_event"})
"""Tools whose call may be made twice. Every other method than `tools/call` may be, too."""
OURS = '"epicwave-'
"""How the ids of our own requests begin, as JSON."""
_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":("(?:[^"\\]|\\.)*"|-?\d+),"(?:result|error)"')
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"

Message = dict[str, Any]


class Pump:
    """Stores the connection, the handshake, what the editor follows, and its requests that have no answer yet."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        """Whole lines only, from whichever thread."""
        self._wire: socket.socket | None = None
        self._is_over = False
        self._greeting: list[bytes] = []
        """`initialize` and `notifications/initialized`, from a client of the older protocols."""
        self._followed: dict[str, bytes] = {}
        """`resources/subscribe` by its URI."""
        self._waiting: dict[str, bytes] = {}
        """Requests without an answer by their id, in order."""

    def run(self) -> int:
        """Until the editor closes its end. Raises `Refusal` when no engine can be had."""
        threading.Thread(target=self._up, daemon=True).start()
        while True:
            wire, answers = self._join()
            try:
                for line in answers:
                    if self._is_for_the_editor(line):
                        write(line)
            except OSError:
                pass  # it died: the next one takes over
            with self._changed:
                self._wire = None
                if self._is_over:
                    return 0
            wire.close()

    # --- from the editor to the engine ----------------------------------------------------------------------------

    def _up(self) -> None:
        try:
            for line in read_lines():
                wire = self._noted(line)
                try:
                    with self._sending:
                        wire.sendall(line)
                except OSError:
                    continue  # it died; the other thread sees that, and asks again
        finally:
            self._over()

    def _noted(self, line: bytes) -> socket.socket:
        """Remember what must outlive the engine, once there is one."""
        with self._changed:
            while self._wire is None:
                self._changed.wait()
            self._remember(line)
            return self._wire

    def _remember(self, line: bytes) -> None:
        message = parsed(line)
        method, params = message.get("method"), message.get("params")
        if method is None:
            return  # an answer of the editor's, to a question that dies with the engine
        if "id" in message:
            self._waiting[key_of(message)] = line
        uri = str(params.get("uri")) if isinstance(params, dict) else ""  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        if method == "initialize":
            self._greeting = [line]
        elif method == "notifications/initialized":
            self._greeting.append(line)
        elif method == "resources/subscribe":
            self._followed[uri] = line
        elif method == "resources/unsubscribe":
            self._followed.pop(uri, None)

    def _over(self) -> None:
        """The editor has closed its end: the engine hears of it, and has a moment to answer what it was asked."""
        with self._changed:
            self._is_over = True
            wire = self._wire
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
        time.sleep(END_S)
        os._exit(0)

    # --- from the engine to the editor ----------------------------------------------------------------------------

    def _join(self) -> tuple[socket.socket, Iterator[bytes]]:
        """The next connection, with everything said again that the engine before had been told."""
        while True:
            wire = self._connect()
            answers = start.lines(wire)
            with self._changed:
                try:
                    self._greet(wire, answers)
                except OSError:
                    wire.close()
                    continue
                again = b"".join(self._unanswered())
                self._sending.acquire()
                self._wire = wire
                self._changed.notify_all()
            threading.Thread(target=self._ask_again, args=(wire, again), daemon=True).start()
            return wire, answers

    def _greet(self, wire: socket.socket, answers: Iterator[bytes]) -> None:
        if not self._greeting or key_of(parsed(self._greeting[0])) in self._waiting:
            return  # nobody has greeted, or nobody has answered yet: then it is asked again like anything else
        first, *rest = self._greeting
        wire.sendall(first)
        if not next(answers, b""):  # the editor has had this answer
            raise ConnectionAbortedError
        again = [renamed(line, number) for number, line in enumerate(self._followed.values())]
        wire.sendall(b"".join((*rest, *again)))

    def _unanswered(self) -> Iterator[bytes]:
        """What may be asked again; the rest is answered here."""
        for key, line in list(self._waiting.items()):
            message = parsed(line)
            if is_repeatable(message):
                yield line
            else:
                del self._waiting[key]
                write(restarted(message))

    def _ask_again(self, wire: socket.socket, lines: bytes) -> None:
        """In a thread of its own: the engine may want its answers read before it takes the next question."""
        try:
            wire.sendall(lines)
        except OSError:
            pass  # it died; the reading thread sees that
        finally:
            self._sending.release()

    def _is_for_the_editor(self, line: bytes) -> bool:
        """Note what has its answer. False for one that only we have asked for."""
        found = _ANSWER.match(line)
        if found is not None:
            key = json.dumps(json.loads(found[1]))
        else:
            message = parsed(line)
            key = key_of(message) if "method" not in message else ""
        with self._changed:
            self._waiting.pop(key, None)
        return not key.startswith(OURS)


def key_of(message: Message) -> str:
    """A request's id as it is remembered."""
    return json.dumps(message.get("id"))


def parsed(line: bytes) -> Message:
    """A message; empty for what is none."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def is_repeatable(message: Message) -> bool:
    """True when asking twice does no harm."""
    return message.get("method") != "tools/call" or _params(message).get("name") in REPEATABLE


def _params(message: Message) -> Message:
    params = message.get("params")
    return params if isinstance(params, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def restarted(message: Message) -> bytes:
    """The answer to a call that nobody can tell any more whether it was done."""
    name = _params(message).get("name")
    text = (
        f"engine_restarted: The engine of this repository ended while it did {name}, and another one has taken over. "
        "Whether the call took effect is not known. See what has become of it with story_status, then call again."
    )
    result: Message = {"content": [{"type": "text", "text": text}], "isError": True}
    if _VERSION_KEY in (_params(message).get("_meta") or {}):
        result["resultType"] = "complete"
    return json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode() + b"\n"


def renamed(line: bytes, number: int) -> bytes:
    """The request under an id that no editor uses: nobody waits for its answer a second time."""
    return json.dumps({**parsed(line), "id": f"{OURS[1:]}{number}"}).encode() + b"\n"


def read_lines() -> Iterator[bytes]:
    """Lines of standard input, the last one closed if it was not."""
    parts: list[bytes] = []
    while chunk := os.read(0, start.CHUNK):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield b"".join((*parts, piece, b"\n"))
            parts.clear()
        parts.append(rest)
    if last := b"".join(parts):
        yield last + b"\n"


def write(line: bytes) -> None:
    """All of it to standard output. An editor that is gone ends us."""
    left = memoryview(line)
    try:
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:
        os._exit(0)


def serve(state: str, folder: str) -> NoReturn:
    """Pump until the editor closes its end, or SIGINT or SIGTERM comes: the engine goes on without us."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    told: list[str] = []

    def connect() -> socket.socket:
        wire, note = start.connect(state, folder, PATIENCE_S if told else 0.0)
        if note and note not in told:
            say(note)
        told.append(note)
        return wire

    try:
        code = Pump(connect).run()
    except Refusal as refusal:
        say(str(refusal))
        code = 2
    os._exit(code)


def _end(_number: int, _frame: object) -> None:
    os._exit(0)


def say(text: str) -> None:
    """Something for the user, where hosts show it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
