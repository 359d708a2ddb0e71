"""A scripted stand-in for the Messages API: what a model would say, said by a function of the request.

It keeps no state: the turn is the number of assistant messages in the request, so retries and several clients at once
are answered rightly. Every request for a message is kept in a log, one JSON line each, for the test to look at.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Say:
    """Words of the model; a turn of words only ends the conversation."""

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


Turn = Sequence[Say | Use]


class Request:
    """What a script sees of a request."""

    def __init__(self, body: Json) -> None:
        messages: list[Json] = body.get("messages", [])
        users = [_flat(m["content"]) for m in messages if m["role"] == "user"]
        self.turn = sum(m["role"] == "assistant" for m in messages)
        self.tools: list[str] = [t.get("name", "") for t in body.get("tools", [])]
        self.asked = users[0] if users else ""
        """The prompt, with what the client puts around it."""
        self.told = users[-1] if users else ""
        """The last message to the model: results of its tools."""
        self.all = "\n".join([_flat(body.get("system", "")), *(_flat(m["content"]) for m in messages)])

    @property
    def working_directory(self) -> str:
        """Where the client works, as it tells the model."""
        return found(r"working directory: (\S+)", self.all)


def found(pattern: str, text: str) -> str:
    """First group of the pattern's first match; empty when there is none."""
    match = re.search(pattern, text)
    return match[1] if match else ""


Script = Callable[[Request], Turn]


def _flat(content: str | list[Json]) -> str:
    """All text of a message, results of tools included."""
    if isinstance(content, str):
        return content
    return "\n".join(
        _flat(b.get("content") or "") if b["type"] == "tool_result" else b.get("text", "") for b in content
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, script: Script, log: Path, lock: threading.Lock, *server: Any) -> None:
        self._script, self._log, self._lock = script, log, lock
        super().__init__(*server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Be silent; the log has what matters."""

    def do_HEAD(self) -> None:
        self._reply(200, "application/json", b"")

    def do_GET(self) -> None:
        self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": f"no {self.path} here"}})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            return self._json(200, {"input_tokens": len(raw) // 4})
        if path != "/v1/messages":
            return self.do_GET()
        body: Json = json.loads(raw)
        with self._lock, self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(body) + "\n")
        request = Request(body)
        # a request without tools is the client's own (a title, a summary), not the conversation
        turn = self._script(request) if request.tools else [Say("ok")]
        message = _message(body.get("model", "fake"), turn, request)
        if not body.get("stream"):
            return self._json(200, message)
        events = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in _events(message, turn))
        return self._reply(200, "text/event-stream", events.encode())

    def _json(self, status: int, answer: Json) -> None:
        self._reply(status, "application/json", json.dumps(answer).encode())

    def _reply(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _message(model: str, turn: Turn, request: Request) -> Json:
    blocks = [said.block(f"toolu_{request.turn:04d}_{place:02d}") for place, said in enumerate(turn)]
    stop = "tool_use" if any(isinstance(said, Use) for said in turn) else "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {"id": f"msg_{request.turn:04d}", "type": "message", "role": "assistant", "model": model}
    return {**message, "content": blocks, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _events(message: Json, turn: Turn) -> Iterator[Json]:
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
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, script, log, threading.Lock()))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
