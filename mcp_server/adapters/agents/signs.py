"""By what an agent's end is told to be none of its own doing: a rate limit, an error of its provider, a crash.

Pure. Only the end counts: what an agent got over, or a tool printed on the way, never comes here (see `listen.py`).
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum

from mcp_server.adapters.agents.resets import believed, reset_at_s
from mcp_server.core.model import Cause

TOO_MANY_REQUESTS = 429
_OUR_OWN_FAULT = frozenset({400, 413, 422})
"""A request that the provider takes for wrong, mostly a conversation that has grown too long."""
_FIRST_NTSTATUS = 0xC000_0000
_DEADLY = frozenset(
    {"SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGSEGV", "SIGTERM"}
)
CRASHES = frozenset(128 + s for s in signal.Signals if s.name in _DEADLY)
"""Exit codes of a process that a signal ended. A broken pipe or an alarm may well be a script's own doing."""


class Format(StrEnum):
    """How an agent's event stream is to be read."""

    PLAIN = "plain"
    CLAUDE = "claude"
    CODEX = "codex"
    CURSOR = "cursor"
    GEMINI = "gemini"
    OPENCODE = "opencode"


@dataclass(frozen=True, slots=True)
class Signs:
    """What to look for at the end of an agent's output. The patterns are searched without regard to case."""

    format: Format = Format.PLAIN
    rate_limit: tuple[str, ...] = ()
    api_error: tuple[str, ...] = ()


NO_SIGNS = Signs()


@dataclass(frozen=True, slots=True)
class Failure:
    """What the last event of a stream says, when it says that the agent failed."""

    words: str
    status: int | None = None
    """The provider's HTTP status, when the event has it."""


@dataclass(frozen=True, slots=True)
class Ends:
    """All that is known of an agent's end."""

    exit_code: int | None
    """None when we ended it."""
    failure: Failure | None
    loose: str
    """The last lines that are no events: all there is of a plain agent's output, the stderr of the others."""
    resets_at_s: float | None = None
    """What an event named as the end of the limit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose doing it was."""

    trouble: Cause | None = None
    """RATE_LIMIT, API_ERROR, CRASH, or None when it was the agent's own."""
    resumes_at_s: float | None = None


OWN_DOING = Verdict()


def judge(signs: Signs, ends: Ends, now_s: float) -> Verdict:
    """Whose doing the end was: a rate limit before an API error before a crash.

    An agent that we ended, and one that exits with 0 and reports no failure, is in no trouble whatever it printed.
    """
    code, failure = ends.exit_code, ends.failure
    if code is None or (code == 0 and failure is None):
        return OWN_DOING
    status = failure.status if failure else None
    text = "\n".join(filter(None, (failure.words if failure else "", ends.loose if code != 0 else "")))
    if status == TOO_MANY_REQUESTS or _found(signs.rate_limit, text):
        named = None if ends.resets_at_s is None else believed(ends.resets_at_s, now_s)
        return Verdict(Cause.RATE_LIMIT, reset_at_s(text, now_s) if named is None else named)
    if (status is not None and status not in _OUR_OWN_FAULT) or _found(signs.api_error, text):
        return Verdict(Cause.API_ERROR)
    return Verdict(Cause.CRASH) if crashed(code) else OWN_DOING


def crashed(exit_code: int) -> bool:
    """True for the exit code of a process that was ended by a signal, or by Windows."""
    return exit_code < 0 or exit_code in CRASHES or exit_code >= _FIRST_NTSTATUS


def _found(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE | re.MULTILINE) for pattern in patterns)
