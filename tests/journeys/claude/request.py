"""What a script sees of a request for a message: the conversation so far, as a model would read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The result of a tool."""

    tool: str
    arguments: Json
    """As the client keeps them in the conversation."""
    text: str
    failed: bool


@dataclass(frozen=True)
class Told:
    """What came back to the model after one of its turns."""

    answers: tuple[Answer, ...]
    """In the order of the calls; empty after a turn of words."""
    text: str
    """The rest of the message: words of the user, of a hook, of the client."""


class Request:
    """What a script sees of a request."""

    def __init__(self, body: Json) -> None:
        messages: list[Json] = body.get("messages", [])
        users = [flat(m["content"]) for m in messages if m["role"] == "user"]
        self.turn = sum(m["role"] == "assistant" for m in messages)
        self.tools: list[str] = [t.get("name", "") for t in body.get("tools", [])]
        self.asked = users[0] if users else ""
        """The prompt, with what the client puts around it."""
        self.told = users[-1] if users else ""
        """The last message to the model: results of its tools."""
        self.all = "\n".join([flat(body.get("system", "")), *(flat(m["content"]) for m in messages)])
        self.history = list(_history(messages))
        """What was told after each turn of the model."""

    @property
    def is_lead(self) -> bool:
        """A sub-agent's definition lists its tools, and no tool of the session's own is among them."""
        return "ListAgents" in self.tools

    @property
    def working_directory(self) -> str:
        """Where the client works, as it tells the model."""
        return found(r"working directory: (\S+)", self.all)


def found(pattern: str, text: str) -> str:
    """First group of the pattern's first match; empty when there is none."""
    match = re.search(pattern, text)
    return match[1] if match else ""


def flat(content: str | list[Json]) -> str:
    """All text of a message, results of tools included."""
    if isinstance(content, str):
        return content
    return "\n".join(flat(b.get("content") or "") if b["type"] == "tool_result" else b.get("text", "") for b in content)


def _blocks(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _history(messages: list[Json]) -> Iterator[Told]:
    """One entry for each turn of the model that something came after."""
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    for place, end in pairwise([*turns, len(messages)]):
        after = [block for message in messages[place + 1 : end] for block in _blocks(message)]
        results = {b["tool_use_id"]: b for b in after if b["type"] == "tool_result"}
        uses = [b for b in _blocks(messages[place]) if b["type"] == "tool_use"]
        answers = [_answer(use, results[use["id"]]) for use in uses if use["id"] in results]
        yield Told(tuple(answers), "\n".join(b["text"] for b in after if b["type"] == "text"))


def _answer(use: Json, result: Json) -> Answer:
    return Answer(use["name"], use["input"], flat(result.get("content") or ""), bool(result.get("is_error")))
