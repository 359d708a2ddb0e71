"""Commands as the configuration writes them: a string, a list of words, or a check with a time limit of its own."""

from __future__ import annotations

from typing import cast

from mcp_server.core import argv
from mcp_server.core.checks import MAX_CHECK_S, Timed

TIMED_KEYS = {"run", "timeout_s"}


def command(value: object) -> object:
    """A command as one string or as a list of words. Raises `ValueError`, which pydantic collects."""
    if isinstance(value, str):
        words = argv.split(value)
    else:
        words = tuple(map(str, cast("list[object]", value))) if isinstance(value, list | tuple) else ()
    if not words:
        raise ValueError("a command is a string or a list of words")
    if words[0].startswith("-"):
        raise ValueError(
            f"no program is called {words[0]!r}; write one command as one string, or as a list in the list"
        )
    return words


def check(value: object) -> object:
    """A command, or `{run: COMMAND, timeout_s: SECONDS}`, as `Timed`. Raises `ValueError`."""
    if isinstance(value, Timed):
        return value
    if not isinstance(value, dict):
        return Timed(cast("tuple[str, ...]", command(value)))
    entry = cast("dict[object, object]", value)
    if not set(entry) <= TIMED_KEYS:
        raise ValueError("a check has the keys run and timeout_s")
    limit_s = entry.get("timeout_s")
    is_number = isinstance(limit_s, int | float) and not isinstance(limit_s, bool)
    if limit_s is not None and not (is_number and 0 < cast("float", limit_s) <= MAX_CHECK_S):
        raise ValueError(f"timeout_s is more than 0 and at most {MAX_CHECK_S} seconds")
    own_s = None if limit_s is None else float(cast("float", limit_s))
    return Timed(cast("tuple[str, ...]", command(entry.get("run"))), own_s)
