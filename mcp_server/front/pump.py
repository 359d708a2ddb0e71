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
import select
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

END_S = 0.8
"""After the end of its input, the answers that are still on their way have so long, in seconds."""
REFUSING_S = 0.3
"""Before it gives up, what the editor has asked meanwhile is read and answered, for so long."""
PATIENCE_S = 0.5
"""An engine process that has left in order may have made way for `epicwave run`, which is there in less."""
BRIEF_S, BRIEF = 0.5, 20
"""So many connections in a row that broke so soon: there is no use in another one."""
REPEATABLE = frozenset({"story_status", "plan_epic", "agent_event"})
"""Tools whose call may be made twice. Every other method than `tools/call` may be, too."""
AGAIN = 3
"""A request during which so many engine processes have died may be what kills them."""
STREAM = "subscriptions/listen"
"""Has no answer as long as all is well."""
OURS = '"epicwave-'
"""How the ids of our own requests begin, as JSON."""
_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":("(?:[^"\\]|\\.)*"|-?\d+),"(?:result|error)"')
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"

Message = dict[str, Any]


class Pump:
    """Stores the connection, the handshake, what the editor follows, and its requests that have no answer yet."""

    def __init__(self, connect: Callable[[], socket.socket], silent: Callable[[], Refusal]) -> None:
        """`silent` is what to say when engine processes die as soon as they are met."""
        self._connect = connect
        self._silent = silent
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        """Whole lines only, from whichever thread."""
        self._wire: socket.socket | None = None
        self._is_over = False
        self._refusal: Refusal | None = None
        """Why no engine can be had."""
        self._greeting: list[bytes] = []
        """`initialize` and `notifications/initialized`, from a client of the older protocols."""
        self._followed: dict[str, bytes] = {}
        """`resources/subscribe` by its URI."""
        self._waiting: dict[str, bytes] = {}
        """Requests without an answer by their id, in order."""
        self._asked_again: dict[str, int] = {}
        """How often, by id."""
        self._questions: set[str] = set()
        """The engine's own requests that the editor has not answered, by id."""
        self._withdrawn: set[str] = set()
        """Those of an engine that is dead: their answers are for nobody."""

    def run(self) -> int:
        """Until the editor closes its end. Raises `Refusal` when no engine can be had."""
        threading.Thread(target=self._up, daemon=True).start()
        threading.Thread(target=end_with_the_editor, daemon=True).start()
        brief = 0
        while True:
            try:
                wire, answers = self._join(brief)
            except Refusal as refusal:
                self._refuse(refusal)
                raise
            began_s = time.monotonic()
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
            brief = brief + 1 if time.monotonic() < began_s + BRIEF_S else 0
            cut(wire)

    # --- from the editor to the engine ----------------------------------------------------------------------------

    def _up(self) -> None:
        try:
            for line in read_lines():
                wire = self._noted(line)
                try:
                    with self._sending:
                        if wire is not None:
                            wire.sendall(line)
                except OSError:
                    continue  # it died; the other thread sees that, and asks again
        finally:
            self._over()

    def _noted(self, line: bytes) -> socket.socket | None:
        """Remember what must outlive the engine, once there is one. None when nobody is to be told."""
        with self._changed:
            while self._wire is None and self._refusal is None:
                self._changed.wait()
            message = parsed(line)
            if self._refusal is not None:
                self._answer(message, self._refusal)
                return None
            return self._wire if self._remember(message, line) else None

    def _remember(self, message: Message, line: bytes) -> bool:
        """False for what is of no use to anybody."""
        method, params = message.get("method"), _params(message)
        if method is None:  # an answer of the editor's
            key = key_of(message)
            self._questions.discard(key)
            is_late = key in self._withdrawn
            self._withdrawn.discard(key)
            return not is_late
        if "id" in message:
            self._waiting[key_of(message)] = line
        uri = str(params.get("uri"))
        if method == "initialize":
            self._greeting = [line]
        elif method == "notifications/initialized":
            self._greeting.append(line)
        elif method == "notifications/cancelled":
            self._forget(json.dumps(params.get("requestId")))
        elif method == "resources/subscribe":
            self._followed[uri] = line
        elif method == "resources/unsubscribe":
            self._followed.pop(uri, None)
        return True

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

    def _refuse(self, refusal: Refusal) -> None:
        """Nobody waits for an answer that will not come, neither those who asked nor those who are about to."""
        with self._changed:
            self._refusal = refusal
            for line in self._waiting.values():
                self._answer(parsed(line), refusal)
            self._changed.notify_all()
        time.sleep(REFUSING_S)

    def _answer(self, message: Message, refusal: Refusal) -> None:
        if "method" in message and "id" in message:
            write(sorry(message, f"{refusal.code}: {refusal.why} {refusal.remedy}"))

    # --- from the engine to the editor ----------------------------------------------------------------------------

    def _join(self, brief: int) -> tuple[socket.socket, Iterator[bytes]]:
        """The next connection, with everything said again that the engine before had been told."""
        while True:
            if brief >= BRIEF:
                raise self._silent()
            time.sleep(brief * start.LOOK_S)
            wire = self._connect()
            answers = start.lines(wire)
            with self._changed:
                try:
                    self._greet(wire, answers)
                except OSError:
                    brief += 1
                    cut(wire)
                    continue
                self._withdraw()
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
        followed = [line for line in self._followed.values() if key_of(parsed(line)) not in self._waiting]
        again = [renamed(line, number) for number, line in enumerate(followed)]
        wire.sendall(b"".join((*rest, *again)))

    def _withdraw(self) -> None:
        """The editor need not answer any more what a dead engine has asked it."""
        for key in self._questions:
            gone = {"requestId": json.loads(key), "reason": "The engine that asked has ended."}
            write(json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": gone}).encode() + b"\n")
        self._withdrawn |= self._questions
        self._questions.clear()

    def _unanswered(self) -> Iterator[bytes]:
        """What may be asked again; the rest is answered here."""
        for key, line in list(self._waiting.items()):
            message = parsed(line)
            times = self._asked_again.get(key, 0)
            if message.get("method") == STREAM or (is_repeatable(message) and times < AGAIN):
                self._asked_again[key] = times + 1
                yield line
            else:
                self._forget(key)
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
        """Note what has its answer, and what wants one. False for an answer that only we have asked for."""
        found = _ANSWER.match(line)
        if found is not None:
            key = json.dumps(json.loads(found[1]))
        else:
            message = parsed(line)
            key = key_of(message)
            if "method" in message:
                if "id" in message:
                    with self._changed:
                        self._questions.add(key)
                        self._withdrawn.discard(key)
                return True
        with self._changed:
            self._forget(key)
        return not key.startswith(OURS)

    def _forget(self, key: str) -> None:
        self._waiting.pop(key, None)
        self._asked_again.pop(key, None)


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
    """The answer to a request that nobody can tell any more whether it was done."""
    what = _params(message).get("name") or message.get("method")
    return sorry(
        message,
        f"engine_restarted: The engine of this repository ended while it did {what}, and another one has taken over. "
        "Whether the call took effect is not known. See what has become of it with story_status, then call again.",
    )


def sorry(message: Message, text: str) -> bytes:
    """Words instead of a result, where a model reads them if it was a tool's call."""
    if message.get("method") == "tools/call":
        result: Message = {"content": [{"type": "text", "text": text}], "isError": True}
        if _VERSION_KEY in (_params(message).get("_meta") or {}):
            result["resultType"] = "complete"
        answer: Message = {"result": result}
    else:
        answer = {"error": {"code": -32603, "message": text}}
    return json.dumps({"jsonrpc": "2.0", "id": message.get("id"), **answer}).encode() + b"\n"


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
    except OSError:
        os._exit(0)


def end_with_the_editor() -> None:
    """End soon after the other end of standard input is closed, also while nobody reads what is in there."""
    look = select.poll()
    look.register(0, getattr(select, "POLLRDHUP", 0))
    look.poll()
    time.sleep(END_S)
    os._exit(0)


def cut(wire: socket.socket) -> None:
    """End a connection, and the wait of whoever is still sending over it."""
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)
    wire.close()


def serve(state: str, folder: str) -> NoReturn:
    """Pump until the editor closes its end, or SIGINT or SIGTERM comes: the engine goes on without us."""
    for descriptor in (0, 1):
        os.set_blocking(descriptor, True)
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
        code = Pump(connect, lambda: start.silent(state, "ends as soon as it is met")).run()
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
