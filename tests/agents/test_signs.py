"""Whose doing an agent's end was: judged by its last words and its exit, never by what it got over."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from mcp_server.adapters.agents.listen import Listener
from mcp_server.adapters.agents.profiles import BUILT_IN, resolve, signs_of
from mcp_server.adapters.agents.signs import NO_SIGNS, OWN_DOING, Format, Signs, Verdict, crashed
from mcp_server.core.model import Cause

NOW_S = 1_795_356_000.0
"""2 pm in UTC on 22 November 2026."""
LIMIT, ERROR, CRASH = Cause.RATE_LIMIT, Cause.API_ERROR, Cause.CRASH


def event(**fields: Any) -> str:
    return json.dumps(fields)


def verdict(agent: str | Signs, *lines: str, exit_code: int | None = 1) -> Verdict:
    signs = agent if isinstance(agent, Signs) else BUILT_IN[agent].signs
    listener = Listener(signs, lambda _: None, lambda: 0.0)
    listener.hear("\n".join(lines).encode())
    return listener.verdict(exit_code, NOW_S)


WORKS = {
    "claude": event(type="user", message={"content": "429 Too Many Requests; You've hit your limit · resets 3pm"}),
    "cursor": event(type="tool_call", subtype="completed", tool_call={"stdout": "Error: You've hit your usage limit"}),
    "codex": event(type="item.completed", item={"type": "command_execution", "output": "usage limit, 429"}),
    "gemini": event(type="tool_result", status="error", output="RESOURCE_EXHAUSTED 429"),
    "opencode": event(type="tool_use", part={"state": {"output": "429 rate limit"}}),
}
"""A tool's output that reads like trouble, as each agent's stream has it."""


def claude_end(result: str, **more: Any) -> str:
    """The last event of Claude Code 2.1.330 after an error of the API, without the fields that nobody reads."""
    fields = {"type": "result", "subtype": "success", "is_error": True, "terminal_reason": "api_error"}
    return event(**fields, total_cost_usd=0, result=result, **more)


REJECTED = "API Error: Request rejected (429) · This request would exceed your account's rate limit."
OVERLOADED = "API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment."
REFUSED = "API Error: Connection refused — a firewall or proxy may be blocking it (ECONNREFUSED)"
REVOKED = "Failed to authenticate: OAuth token revoked. Please log in again or contact your administrator."
RESOURCE = '[API Error: {"error":{"code":429,"message":"Resource has been exhausted","status":"RESOURCE_EXHAUSTED"}}]'
CAPACITY = "You have exhausted your capacity on this model. Your quota will reset after 1h34m27s."
RETRY_LIMIT = "exceeded retry limit, last status: {}"
FREE = "You've hit your free requests limit. [Upgrade to Pro] for more usage"

LAST_WORDS: list[tuple[str, str, Cause, float | None]] = [
    # claude: 2.1.330 against a scripted API that answers 429, 529, 500, 401, 403, 400, or nothing
    ("claude", claude_end(REJECTED, api_error_status=429), LIMIT, None),
    ("claude", claude_end("You've hit your limit · resets 3:40pm (UTC)", api_error_status=429), LIMIT, 6000),
    ("claude", claude_end(OVERLOADED, api_error_status=529), ERROR, None),
    ("claude", claude_end("API Error: 500 Internal server error.", api_error_status=500), ERROR, None),
    ("claude", claude_end("Invalid API key · Fix external API key", api_error_status=401), ERROR, None),
    ("claude", claude_end(REVOKED, api_error_status=403), ERROR, None),
    ("claude", claude_end("Credit balance is too low", api_error_status=400), ERROR, None),
    ("claude", claude_end(REFUSED, api_error_status=None, api_error="connection_failed"), ERROR, None),
    # older versions, by words alone
    ("claude", claude_end(f"Claude AI usage limit reached|{NOW_S + 900:.0f}"), LIMIT, 900),
    ("claude", claude_end("You've hit your session limit · resets 4:20pm (Europe/London)"), LIMIT, 8400),
    ("claude", claude_end('API Error: 529 {"type":"error","error":{"type":"overloaded_error"}}'), ERROR, None),
    ("claude", "Invalid API key · Please run /login", ERROR, None),
    # codex: `codex exec --json`, the sentences of its error.rs
    (
        "codex",
        event(type="turn.failed", error={"message": "You've hit your usage limit. Try again later."}),
        LIMIT,
        None,
    ),
    (
        "codex",
        event(
            type="turn.failed",
            error={
                "message": "You've hit your usage limit. Upgrade to Pro (https://x),"
                " visit https://x to purchase more credits or try again in 1 day 2 hours."
            },
        ),
        LIMIT,
        93_600,
    ),
    ("codex", event(type="turn.failed", error={"message": RETRY_LIMIT.format("429 Too Many Requests")}), LIMIT, None),
    (
        "codex",
        event(type="turn.failed", error={"message": RETRY_LIMIT.format("500 Internal Server Error")}),
        ERROR,
        None,
    ),
    ("codex", event(type="turn.failed", error={"message": "unexpected status 401 Unauthorized: expired"}), ERROR, None),
    ("codex", event(type="error", message="stream disconnected before completion: error sending request"), ERROR, None),
    ("codex", "ERROR: You've hit your usage limit. Try again in 5 minutes 30 seconds.", LIMIT, 330),
    # gemini: its issues 1848 and 1088, and TerminalQuotaError as others have recorded it
    ("gemini", event(type="result", status="error", error={"type": "Error", "message": RESOURCE}), LIMIT, None),
    (
        "gemini",
        event(type="result", status="error", error={"type": "TerminalQuotaError", "message": CAPACITY}),
        LIMIT,
        5667,
    ),
    ("gemini", f"TerminalQuotaError: {CAPACITY}\n    at classifyGoogleError (file:///x.js:1:2)", LIMIT, 5667),
    ("gemini", "Please retry in 39.2s. RESOURCE_EXHAUSTED", LIMIT, 39.2),
    ("gemini", event(type="result", status="error", error={"message": "[API Error: got status: 503]"}), ERROR, None),
    ("gemini", "Please set an Auth method in your settings.json", ERROR, None),
    # cursor: its issue 3703; the stream ends early and the words are on stderr
    ("cursor", "Error: You've hit your usage limit\n  Get Cursor Pro for more Agent usage", LIMIT, None),
    ("cursor", f"ConnectError: [resource_exhausted] Error\n chatMessage: *{FREE}*", LIMIT, None),
    ("cursor", "Error: Authentication required. Please run 'agent login' first", ERROR, None),
    # opencode: recorded streams
    (
        "opencode",
        event(
            type="error",
            error={
                "name": "APIError",
                "data": {
                    "message": "Free usage limit exceeded",
                    "statusCode": 429,
                    "responseHeaders": {"retry-after": "30"},
                },
            },
        ),
        LIMIT,
        30,
    ),
    (
        "opencode",
        event(type="error", error={"name": "APIError", "data": {"message": "busy", "statusCode": 503}}),
        ERROR,
        None,
    ),
    ("opencode", event(type="error", error={"name": "ProviderAuthError", "data": {"message": "no key"}}), ERROR, None),
]


@pytest.mark.parametrize(("agent", "line", "cause", "in_s"), LAST_WORDS)
def test_the_last_words_of_an_agent_tell_trouble(agent: str, line: str, cause: Cause, in_s: float | None) -> None:
    """Also when tools have printed things before, and whatever line ends there are."""
    found = verdict(agent, WORKS[agent], *line.split("\n"), "")
    assert found.trouble is cause
    assert (found.resumes_at_s and found.resumes_at_s - NOW_S) == (in_s and pytest.approx(in_s, abs=0.01))


@pytest.mark.parametrize(("agent", "line", "cause", "in_s"), LAST_WORDS)
def test_what_an_agent_got_over_is_no_trouble(agent: str, line: str, cause: Cause, in_s: float | None) -> None:
    """It goes on, and then fails honestly or is done."""
    for exit_code in (0, 1):
        assert verdict(agent, *line.split("\n"), WORKS[agent], exit_code=exit_code) == OWN_DOING


@pytest.mark.parametrize("agent", WORKS)
@pytest.mark.parametrize("exit_code", [0, 1, 2])
def test_what_a_tool_printed_is_no_trouble(agent: str, exit_code: int) -> None:
    assert verdict(agent, WORKS[agent], exit_code=exit_code) == OWN_DOING


@pytest.mark.parametrize(
    ("agent", "line"),
    [
        (
            "claude",
            event(type="result", subtype="error_max_turns", is_error=True, errors=["Reached the limit of 3 turns"]),
        ),
        ("claude", event(type="result", subtype="error_max_budget_usd", is_error=True, api_error_status=None)),
        ("claude", claude_end("Prompt is too long", api_error_status=400)),
        ("gemini", event(type="result", status="error", error={"type": "MaxSessionTurnsError", "message": "Maximum"})),
        ("codex", event(type="turn.failed", error={"message": "context window exceeded"})),
        ("opencode", event(type="error", error={"name": "MessageOutputLengthError", "data": {}})),
        ("claude", "Error: Input must be provided"),
        ("scripted", "I give up: the rate limiter of this story has a bug, HTTP 429, try again in 5 minutes"),
    ],
)
def test_an_honest_failure_is_no_trouble(agent: str, line: str) -> None:
    assert verdict(agent, line) == OWN_DOING


def test_an_event_that_names_the_end_of_the_limit_is_believed_before_the_words() -> None:
    """As Claude Code 2.1.330 tells it to those who are logged in: to the second, before the words."""
    told = event(type="rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": NOW_S + 6042})
    words = claude_end("You've hit your limit · resets 3:40pm (UTC)", api_error_status=429)
    same = event(type="assistant", error="rate_limit", message={"content": "You've hit your limit"})
    assert verdict("claude", told, same, words) == Verdict(LIMIT, NOW_S + 6042)
    allowed = event(type="rate_limit_event", rate_limit_info={"status": "allowed", "resetsAt": NOW_S + 6042})
    assert verdict("claude", allowed, words) == Verdict(LIMIT, NOW_S + 6000)


def test_an_end_of_the_limit_that_cannot_be_is_not_believed() -> None:
    told = event(type="rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": NOW_S - 5})
    assert verdict("claude", told, claude_end("later", api_error_status=429)) == Verdict(LIMIT, None)


def test_an_error_that_exits_with_0_is_trouble_only_by_its_event() -> None:
    assert verdict("claude", claude_end(REJECTED, api_error_status=429), exit_code=0).trouble is LIMIT
    assert verdict("cursor", "Error: You've hit your usage limit", exit_code=0) == OWN_DOING
    honest = event(type="result", subtype="error_max_turns", is_error=True)
    assert verdict("claude", "Warning: rate limit", honest, exit_code=0) == OWN_DOING


def test_the_words_of_an_agent_that_is_done_are_no_trouble() -> None:
    """Its story may be about limits; whatever made it exit with 1 after that, it was not what it says."""
    done = event(type="result", subtype="success", is_error=False, result="429 is now retried until the usage limit.")
    assert verdict("claude", done, exit_code=0) == verdict("claude", done, exit_code=1) == OWN_DOING


@pytest.mark.parametrize(
    ("agent", "last", "notice"),
    [
        ("claude", claude_end(REJECTED, api_error_status=429), {"type": "system", "subtype": "hook_response"}),
        ("claude", claude_end(REJECTED, api_error_status=429), {"type": "session_notice"}),
        ("codex", event(type="error", message=FREE), {"type": "item.completed", "item": {"type": "error"}}),
        ("gemini", event(type="result", status="error", error={"message": CAPACITY}), {"type": "error"}),
    ],
)
def test_a_notice_after_the_last_words_does_not_take_them_back(agent: str, last: str, notice: dict[str, Any]) -> None:
    assert verdict(agent, last, event(**notice)).trouble is LIMIT


def test_an_agent_that_we_ended_is_in_no_trouble() -> None:
    assert verdict("claude", claude_end(REJECTED, api_error_status=429), exit_code=None) == OWN_DOING


def test_a_retry_that_claude_announces_is_not_its_last_word() -> None:
    again = event(type="system", subtype="api_retry", attempt=1, error_status=429, error="rate_limit")
    done = event(type="result", subtype="success", is_error=False, result="done")
    assert verdict("claude", again, done, exit_code=0) == OWN_DOING
    assert verdict("claude", again, done, exit_code=1) == OWN_DOING


@pytest.mark.parametrize("exit_code", [134, 136, 137, 139, 143, -signal.SIGKILL, 0xC0000005])
def test_a_signal_from_elsewhere_is_a_crash(exit_code: int) -> None:
    assert crashed(exit_code)
    assert verdict(NO_SIGNS, "whatever", exit_code=exit_code) == Verdict(CRASH)


@pytest.mark.parametrize("exit_code", [1, 2, 41, 53, 126, 127, 128, 141, 255])
def test_an_exit_code_of_its_own_is_no_crash(exit_code: int) -> None:
    assert not crashed(exit_code)
    assert verdict(NO_SIGNS, "whatever", exit_code=exit_code) == OWN_DOING


def test_a_rate_limit_comes_before_an_api_error_and_that_before_a_crash() -> None:
    limit, error = "scripted: rate limit", "scripted: API error"
    assert verdict("scripted", error, limit, exit_code=137).trouble is LIMIT
    assert verdict("scripted", error, exit_code=137).trouble is ERROR


def test_a_plain_agents_last_20_lines_are_looked_at() -> None:
    signs = Signs(rate_limit=("^no more today$",))
    assert verdict(signs, "No more today", *["."] * 19).trouble is LIMIT
    assert verdict(signs, "No more today", *["."] * 20) == OWN_DOING
    assert verdict(signs, '{"type":"x"}', "\x1b[31mno more today\x1b[0m\r").trouble is LIMIT


def test_a_program_has_its_signs_wherever_it_lies_and_whoever_names_it() -> None:
    assert resolve("/opt/x/claude -p --model opus", {}).signs == BUILT_IN["claude"].signs
    assert signs_of(("codex.cmd", "exec")).format is Format.CODEX
    assert signs_of(("my-agent",)) == NO_SIGNS


def test_a_users_patterns_are_added_to_those_of_the_program() -> None:
    signs = signs_of(("claude",), ("quota is gone",), ("backend down",))
    assert verdict(signs, claude_end("The quota is gone, retry-after: 60")) == Verdict(LIMIT, NOW_S + 60)
    assert verdict(signs, claude_end("backend down")).trouble is ERROR
    assert verdict(signs, claude_end(REJECTED, api_error_status=429)).trouble is LIMIT
