"""The key `merge_rules`: a mapping of globs to how a file is settled that both sides have changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from mcp_server.core.merge_rules import DEFAULTS, MergeRule, Way

ALLOWED = "a mapping of globs to union, ours, agent or a command, or null"
_WORDS = (Way.UNION, Way.OURS, Way.AGENT)


def rules_by(command: Callable[[object], object]) -> Callable[[object], tuple[MergeRule, ...]]:
    """Reads the mapping; `command` reads one command. What it says comes before what holds without it.

    An empty mapping stands for no rules at all. Raises ValueError.
    """

    def read(value: object) -> tuple[MergeRule, ...]:
        if value is None or value is DEFAULTS:
            return DEFAULTS
        if not isinstance(value, dict):
            raise ValueError(f"allowed: {ALLOWED}")  # noqa: TRY004 - pydantic collects ValueErrors
        mapping = cast("dict[object, object]", value)
        own = tuple(_rule(glob, way, command) for glob, way in mapping.items())
        return (*own, *DEFAULTS) if own else ()

    return read


def _rule(glob: object, way: object, command: Callable[[object], object]) -> MergeRule:
    if not isinstance(glob, str) or not glob.strip("/") or glob.endswith("/"):
        raise ValueError(f"{glob!r} is no glob of files; all that is below a folder is `folder/**`")
    if way in _WORDS:
        return MergeRule(glob, Way(str(way)))
    try:
        words = cast("tuple[str, ...]", command(way))
    except ValueError as error:
        raise ValueError(f"{glob!r} has {way!r}: {error}") from error
    return MergeRule(glob, Way.REGENERATE, words)
