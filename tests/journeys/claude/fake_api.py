"""A scripted stand-in for the Messages API: what a model would say, said by a function of the request.

It keeps no state, but for who has come to a meeting: what was said and answered before is in the request, so retries
and several clients at once are answered rightly. Every request for a message is kept in a log, one JSON line each.
"""

from __future__ import annotations

import json
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.journeys.claude.request import Json, Request

LOOK_S = 0.05
MEET_S = 60.0
LOST = "lost.txt"
"""Beside the log: where a script did not know what to do, because what it was told did not say it."""
ALONE = re.compile(r"(\d+) of (\d+) came to a meeting")
"""In such a line, where agents who should have been at work side by side were not: how many were, and should be."""
LEFT = "left.txt"
"""Beside the log: one line for each process that still lived long after its command had ended."""


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Say:
    """Words of the model; a turn of words only ends the conversation, or waits for the next message in it."""

    text: str

    def block(self, _name: str) -> Json:
        return {"type": "text", "text": self.text}

    def events(self) -> tuple[Json, Json]:
        return {"type": "text", "text": ""}, {"type": "text_delta", "text": self.text}


@dataclass(frozen=True)
class Use:
    """A call of a tool."""

    tool: str
    arguments: Json

    def block(self, name: str) -> Json:
        return {"type": "tool_use", "id": name, "name": self.tool, "input": self.arguments}

    def events(self) -> tuple[Json, Json]:
        return {**self.block(""), "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(self.arguments)}


@dataclass(frozen=True)
class Fail:
    """The API refuses this request with an error. The client gives up at once on 400, and tries 5xx again."""

    status: int = 400
    kind: str = "invalid_request_error"
    headers: Headers = ()


@dataclass(frozen=True)
class Think:
    """First in a turn: the model takes so long to answer, in seconds, or until its client hangs up."""

    seconds: float


@dataclass(frozen=True)
class Meet:
    """First in a turn: it is not answered before so many agents have come to this point, each in its own folder."""

    number: int


Turn = Sequence[Say | Use | Fail | Think | Meet]
Script = Callable[[Request], Turn]


class _Shared:
    """What all requests share: the log, and who has come to the meeting."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._came: set[str] = set()
        self._turn = threading.Condition()

    def keep(self, body: Json) -> None:
        with self._turn, self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(body) + "\n")

    def lose(self, request: Request, why: str) -> None:
        who = "lead" if request.is_lead else "sub-agent"
        with self._turn, self._log.with_name(LOST).open("a", encoding="utf-8") as lost:
            lost.write(f"{who}, turn {request.turn}: {why}\n")

    def met(self, number: int, folder: str) -> int:
        """How many have come in time, who asks included."""
        with self._turn:
            self._came.add(folder)
            self._turn.notify_all()
            self._turn.wait_for(lambda: len(self._came) >= number, MEET_S)
            return len(self._came)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, script: Script, shared: _Shared, *server: Any) -> None:
        self._script, self._shared = script, shared
        super().__init__(*server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Be silent; the log has what matters."""

    def do_HEAD(self) -> None:
        self._reply(200, "application/json", b"")

    def do_GET(self) -> None:
        self._error(404, "not_found_error", f"no {self.path} here")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            return self._json(200, {"input_tokens": len(raw) // 4})
        if path != "/v1/messages":
            return self.do_GET()
        body: Json = json.loads(raw)
        self._shared.keep(body)
        request = Request(body)
        turn = self._turn(request)
        if self._hung_up_within(sum(said.seconds for said in turn if isinstance(said, Think))):
            self.close_connection = True
            return None
        for said in turn:
            if isinstance(said, Meet):
                came = self._shared.met(said.number, request.working_directory)
                if came < said.number:
                    self._shared.lose(request, f"{came} of {said.number} came to a meeting")
            if isinstance(said, Fail):
                return self._error(said.status, said.kind, "the script wants it so", said.headers)
        return self._message(body, request, [said for said in turn if isinstance(said, Say | Use)])

    def _turn(self, request: Request) -> Turn:
        """A request without tools is the client's own (a title, a summary), not the conversation."""
        try:
            return self._script(request) if request.tools else [Say("ok")]
        except (AssertionError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
            self._shared.lose(request, repr(error))
            return [Fail()]

    def _message(self, body: Json, request: Request, turn: Sequence[Say | Use]) -> None:
        message = _message(body.get("model", "fake"), turn, request)
        if not body.get("stream"):
            return self._json(200, message)
        events = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in _events(message, turn))
        return self._reply(200, "text/event-stream", events.encode())

    def _hung_up_within(self, seconds: float) -> bool:
        """Take that long; true as soon as the client has gone. A client says nothing more before it has its answer."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([self.connection], [], [], LOOK_S)[0]:
                return True
        return False

    def _error(self, status: int, kind: str, message: str, headers: Headers = ()) -> None:
        self._json(status, {"type": "error", "error": {"type": kind, "message": message}}, headers)

    def _json(self, status: int, answer: Json, headers: Headers = ()) -> None:
        self._reply(status, "application/json", json.dumps(answer).encode(), headers)

    def _reply(self, status: int, kind: str, content: bytes, headers: Headers = ()) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _message(model: str, turn: Sequence[Say | Use], request: Request) -> Json:
    blocks = [said.block(f"toolu_{request.turn:04d}_{place:02d}") for place, said in enumerate(turn)]
    stop = "tool_use" if any(isinstance(said, Use) for said in turn) else "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {"id": f"msg_{request.turn:04d}", "type": "message", "role": "assistant", "model": model}
    return {**message, "content": blocks, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _events(message: Json, turn: Sequence[Say | Use]) -> Iterator[Json]:
    """The same message as a stream sends it, each block in one piece."""
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    for index, (said, block) in enumerate(zip(turn, message["content"], strict=True)):
        opened, delta = said.events()
        if isinstance(said, Use):
            opened["id"] = block["id"]
        yield {"type": "content_block_start", "index": index, "content_block": opened}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stopped = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": stopped, "usage": {"output_tokens": 10}}
    yield {"type": "message_stop"}


def serve(script: Script, log: Path) -> ThreadingHTTPServer:
    """Answer on a free port of the loopback until `shutdown`; the port is in `server_address`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, script, _Shared(log)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
