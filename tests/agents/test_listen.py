"""What an agent has used is heard while it prints, in whatever pieces, and nothing grows with what it prints."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_server.adapters.agents.events import READERS
from mcp_server.adapters.agents.listen import LINE_BYTES, PARTS, Listener
from mcp_server.adapters.agents.signs import Format, Signs
from mcp_server.core.model import Cause, Usage

HOUSE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
LIMIT = Signs(Format.CLAUDE, ("limit",))


class Ear:
    """A listener with a clock that is set by hand. Stores what it told."""

    def __init__(self, signs: Signs) -> None:
        self.told: list[Usage] = []
        self.now_s = 0.0
        self.listener = Listener(signs, self.told.append, lambda: self.now_s)

    def events(self, *events: dict[str, Any]) -> Usage:
        for each in events:
            self.listener.hear(json.dumps(each).encode() + b"\n")
        return self.listener.usage


def said(name: str, tokens: int, cached: int = 0) -> dict[str, Any]:
    usage = {"input_tokens": 1, "cache_creation_input_tokens": tokens - 2, "output_tokens": 1}
    return {"type": "assistant", "message": {"id": name, "usage": {**usage, "cache_read_input_tokens": cached}}}


RESULT = {
    "type": "result",
    "is_error": False,
    "total_cost_usd": 0.00274,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 4000,
        "output_tokens": 20,
    },
}
"""What Claude Code 2.1.330 said after one message."""
MODELS = {
    "large": {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 4000, "cacheCreationInputTokens": 300},
    "small": {"inputTokens": 5, "outputTokens": 1},
}


CURSOR = {"inputTokens": 11, "outputTokens": 7, "cacheReadTokens": 5, "cacheWriteTokens": 9}


@pytest.mark.parametrize(
    ("format_", "events", "usage"),
    [
        (Format.CLAUDE, [RESULT], Usage(0.00274, 330)),
        (Format.CLAUDE, [{**RESULT, "modelUsage": MODELS}], Usage(0.00274, 336)),  # a sub-agent's model too
        (Format.CLAUDE, [said("m1", 100, 9000), said("m1", 100), said("m2", 50)], Usage(0, 150)),
        (Format.CLAUDE, [said("m1", 100), RESULT, said("m2", 400)], Usage(0.00274, 500)),
        (
            Format.CODEX,
            [
                {
                    "type": "turn.completed",
                    "usage": {"input_tokens": 26549, "cached_input_tokens": 22272, "output_tokens": 1590},
                }
            ],
            Usage(0, 5867),
        ),
        (
            Format.GEMINI,
            [{"type": "result", "status": "success", "stats": {"total_tokens": 100, "input_tokens": 50, "cached": 30}}],
            Usage(0, 70),
        ),
        (
            Format.OPENCODE,
            [
                {
                    "type": "step_finish",
                    "part": {
                        "id": "p1",
                        "cost": 0.5,
                        "tokens": {"input": 3, "output": 7, "reasoning": 15, "cache": {"read": 5380, "write": 8076}},
                    },
                },
                {"type": "step_finish", "part": {"id": "p2", "cost": 0.25, "tokens": {"input": 1}}},
            ],
            Usage(0.75, 8102),
        ),
        (
            Format.CURSOR,
            [{"type": "result", "is_error": False, "usage": CURSOR}],
            Usage(0, 27),
        ),
        (Format.PLAIN, [RESULT], Usage()),
    ],
)
def test_usage_is_read_from_each_agents_events(format_: Format, events: list[dict[str, Any]], usage: Usage) -> None:
    assert Ear(Signs(format_)).events(*events) == usage


def test_usage_is_told_when_it_has_grown_and_at_most_once_a_second() -> None:
    ear = Ear(LIMIT)
    for now_s, name in [(0.0, "a"), (0.5, "b"), (0.9, "c"), (1.0, "d"), (5.0, "d"), (5.1, "e")]:
        ear.now_s = now_s
        ear.events(said(name, 10))
    assert [usage.tokens for usage in ear.told] == [10, 40, 50]


def test_what_could_not_be_told_at_once_is_told_with_the_next_output() -> None:
    ear = Ear(LIMIT)
    ear.events(said("a", 10), said("b", 10))
    ear.now_s = 1.5
    ear.listener.hear(b".")
    assert [usage.tokens for usage in ear.told] == [10, 20]


def test_an_agent_that_tells_of_no_usage_is_never_told_of() -> None:
    ear = Ear(LIMIT)
    ear.listener.hear(b"work\n" * 100)
    assert ear.told == []


def test_usage_of_many_messages_is_counted_and_not_kept() -> None:
    ear = Ear(LIMIT)
    assert ear.events(*(said(f"m{n}", 10) for n in range(3 * PARTS))).tokens == 30 * PARTS
    assert len(ear.listener._parts) == PARTS  # pyright: ignore[reportPrivateUsage] - what is kept


STREAM = b"".join(
    [
        b"loose \xff\xfe\r\n",
        json.dumps(said("a", 30)).encode() + b"\r\n",
        b'{"type":"user","text":"caf\xc3\xa9 \xff"}\n',
        b"{broken\n\n",
        json.dumps({"type": "result", "is_error": True, "total_cost_usd": 1.5, "result": "limit"}).encode(),
    ]
)


@HOUSE
@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=30))
def test_it_makes_no_difference_in_what_pieces_output_comes(cuts: list[int]) -> None:
    """Carriage returns, bytes that are no UTF-8, lines that only look like events, and no newline at the end."""
    ear, edges = Ear(LIMIT), [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        ear.listener.hear(STREAM[start:end])
    verdict = ear.listener.verdict(1, 0.0)
    assert (verdict.trouble, ear.listener.usage) == (Cause.RATE_LIMIT, Usage(1.5, 30))


def test_a_line_of_10_megabytes_is_passed_over_and_not_kept() -> None:
    ear = Ear(LIMIT)
    ear.listener.hear(b"limit\n{")
    for _ in range(160):
        ear.listener.hear(b"x" * 65_536)
        assert sys.getsizeof(ear.listener._line) < 2 * LINE_BYTES  # pyright: ignore[reportPrivateUsage]
    assert ear.events(said("a", 10)).tokens == 0, "it is the end of the long line"
    assert ear.listener.verdict(1, 0.0).trouble is None, "a long event is one that a tool's output is in"
    assert ear.events(said("b", 10)).tokens == 10


def test_a_long_line_that_is_no_event_counts_by_its_beginning() -> None:
    ear = Ear(Signs(rate_limit=("^limit",)))
    ear.listener.hear(b"limit" + b"x" * 3 * LINE_BYTES + b"\n")
    assert ear.listener.verdict(1, 0.0).trouble is Cause.RATE_LIMIT


_NAMES = st.sampled_from(
    [
        *("type", "subtype", "status", "is_error", "error", "errors", "result", "message", "usage", "id", "part"),
        *("input_tokens", "output_tokens", "total_cost_usd", "modelUsage", "tokens", "cache", "cost", "write", "item"),
        *("rate_limit_info", "resetsAt", "api_error_status", "data", "statusCode", "stats"),
    ]
)
_TYPES = st.sampled_from(
    ["result", "assistant", "user", "error", "turn.failed", "turn.completed", "step_finish", "rate_limit_event"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=12,
)


@HOUSE
@given(st.dictionaries(_NAMES, _VALUES, max_size=10), _TYPES, st.sampled_from(list(READERS)))
def test_no_event_however_odd_raises(event: dict[str, Any], kind: str, format_: Format) -> None:
    ear = Ear(Signs(format_, ("limit",)))
    usage = ear.events({**event, "type": kind})
    assert usage.usd >= 0
    assert usage.tokens >= 0
    ear.listener.verdict(1, 1e9)


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), 10**400, True, "12", None, [1]])
def test_what_is_no_amount_counts_as_nothing(number: object) -> None:
    odd = {"type": "result", "total_cost_usd": number, "usage": {"input_tokens": number, "output_tokens": 7}}
    assert Ear(LIMIT).events(odd) == Usage(0, 7)


def test_an_event_nested_too_deeply_is_loose_text() -> None:
    ear = Ear(Signs(Format.CLAUDE, (r"^\{",)))
    ear.listener.hear(b'{"a":' * 100_000 + b"\n")
    assert ear.listener.verdict(1, 0.0).trouble is Cause.RATE_LIMIT
