"""What one event of an agent's stream says: what was used, that it failed, that it goes on. Pure.

Sources. claude: the output of 2.1.330 itself. codex: `turn.completed`, `turn.failed` and `error` of `codex exec
--json` (codex-rs/exec, its usage counts the whole thread). gemini: its own tests of `StreamJsonFormatter`; `stats`
counts the whole run, thoughts only in the total. opencode: recorded `run --format json` streams; `step_finish` counts
one step, cost in dollars. cursor: documented but for `usage`, which recorded streams of newer versions have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mcp_server.adapters.agents.signs import Failure, Format
from mcp_server.core.model import NOTHING_USED, Usage

ABSURD = 1e15
"""No agent uses so much of anything."""
Event = Mapping[str, Any]
_EMPTY: Event = {}


@dataclass(frozen=True, slots=True)
class Told:
    """What one event says."""

    part: str = ""
    """Name of the message or step that `usage` is of; empty when it is of the whole run so far."""
    usage: Usage = NOTHING_USED
    failure: Failure | None = None
    goes_on: bool = False
    """The agent works: whatever went wrong before, it got over."""
    resets_at_s: float | None = None
    """When a limit that is in force now ends."""


NOTHING = Told()
GOES_ON = Told(goes_on=True)
_CLAUDE_WORKS = ("user", None)
"""A tool's answer, and the steps of our own scripted agent, which have no type. The rest are notices."""


def _claude(event: Event) -> Told:
    kind = event.get("type")
    if kind == "rate_limit_event":
        limit = _under(event, "rate_limit_info")
        rejected = limit.get("status") == "rejected"
        return Told(resets_at_s=_number(limit.get("resetsAt")) or None) if rejected else NOTHING
    if kind == "assistant" and not event.get("error"):  # else it is words that the result repeats
        message = _under(event, "message")
        tokens = _claude_tokens(_under(message, "usage"))
        return Told(part=str(message.get("id", "")), usage=Usage(tokens=tokens), goes_on=True)
    if kind != "result":
        return GOES_ON if kind in _CLAUDE_WORKS else NOTHING
    models = [_under(_under(event, "modelUsage"), name) for name in _under(event, "modelUsage")]
    tokens = sum(_sum(m, "inputTokens", "cacheCreationInputTokens", "outputTokens") for m in models)
    usage = Usage(_number(event.get("total_cost_usd")), max(tokens, _claude_tokens(_under(event, "usage"))))
    failed = event.get("is_error") is True
    words = f"{event.get('result') or ''}\n{event.get('errors') or ''}"
    failure = Failure(words, _status(event.get("api_error_status"))) if failed else None
    return Told(usage=usage, failure=failure, goes_on=not failed)


def _claude_tokens(usage: Event) -> int:
    return _sum(usage, "input_tokens", "cache_creation_input_tokens", "output_tokens")


def _cursor(event: Event) -> Told:
    if event.get("type") != "result":
        return GOES_ON
    usage = Usage(tokens=_sum(_under(event, "usage"), "inputTokens", "cacheWriteTokens", "outputTokens"))
    if event.get("is_error") is True:
        return Told(usage=usage, failure=Failure(str(event.get("result") or "")))
    return Told(usage=usage, goes_on=True)


def _codex(event: Event) -> Told:
    match event.get("type"):
        case "turn.completed":
            usage = _under(event, "usage")
            fresh = _sum(usage, "input_tokens", "output_tokens") - _sum(usage, "cached_input_tokens")
            return Told(usage=Usage(tokens=max(fresh, 0)), goes_on=True)
        case "turn.failed":
            return Told(failure=Failure(str(_under(event, "error").get("message") or "")))
        case "error":  # also "Reconnecting... 1/5", which it gets over
            return Told(failure=Failure(str(event.get("message") or "")))
        case _:
            return NOTHING if _under(event, "item").get("type") == "error" else GOES_ON


def _gemini(event: Event) -> Told:
    if event.get("type") == "error":
        return NOTHING  # a warning
    if event.get("type") != "result":
        return GOES_ON
    stats = _under(event, "stats")
    usage = Usage(tokens=max(_sum(stats, "total_tokens") - _sum(stats, "cached"), 0))
    if event.get("status") == "error":
        error = _under(event, "error")
        return Told(usage=usage, failure=Failure(f"{error.get('type') or ''}: {error.get('message') or ''}"))
    return Told(usage=usage, goes_on=True)


def _opencode(event: Event) -> Told:
    if event.get("type") == "error":
        error = _under(event, "error")
        about = _under(error, "data")
        words = "\n".join(str(about.get(key) or "") for key in ("message", "responseHeaders", "responseBody"))
        return Told(failure=Failure(f"{error.get('name') or ''}: {words}", _status(about.get("statusCode"))))
    if event.get("type") != "step_finish":
        return GOES_ON
    part = _under(event, "part")
    tokens = _under(part, "tokens")
    spent = _sum(tokens, "input", "output", "reasoning") + _sum(_under(tokens, "cache"), "write")
    name = str(part.get("id") or event.get("timestamp") or "step")
    return Told(name, Usage(_number(part.get("cost")), spent), goes_on=True)


READERS: Mapping[Format, Callable[[Event], Told]] = {
    Format.CLAUDE: _claude,
    Format.CODEX: _codex,
    Format.CURSOR: _cursor,
    Format.GEMINI: _gemini,
    Format.OPENCODE: _opencode,
}
"""By format; a plain agent has no events."""


def _under(event: Event, key: str) -> Event:
    value = event.get(key)
    return cast("Event", value) if isinstance(value, dict) else _EMPTY


def _number(value: object) -> float:
    """0 for what is no amount."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < ABSURD else 0.0


def _sum(event: Event, *keys: str) -> int:
    return sum(int(_number(event.get(key))) for key in keys)


def _status(value: object) -> int | None:
    return int(_number(value)) or None
