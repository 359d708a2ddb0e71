"""The key `merge_rules`: a mapping of globs to how a file is settled that both sides have changed."""

from __future__ import annotations

from typing import cast

from mcp_server.core.merge_rules import DEFAULTS, MergeRule, Way
from mcp_server.server.command_settings import command

ALLOWED = "a mapping of globs to union, ours, agent or a command, or null"
_WORDS = (Way.UNION, Way.OURS, Way.AGENT)


def rules(value: object) -> tuple[MergeRule, ...]:
    """What the mapping says comes before what holds without it; an empty one stands for no rules at all.

    Raises `ValueError`, which pydantic collects.
    """
    if value is None or value is DEFAULTS:
        return DEFAULTS
    if not isinstance(value, dict):
        raise ValueError(f"allowed: {ALLOWED}")  # noqa: TRY004
    own = tuple(_rule(glob, way) for glob, way in cast("dict[object, object]", value).items())
    return (*own, *DEFAULTS) if own else ()


def _rule(glob: object, way: object) -> MergeRule:
    if not isinstance(glob, str) or not glob.strip("/") or glob.endswith("/"):
        raise ValueError(f"{glob!r} is no glob of files; all that is below a folder is `folder/**`")
    if way in _WORDS:
        return MergeRule(glob, Way(str(way)))
    try:
        words = cast("tuple[str, ...]", command(way))
    except ValueError as error:
        raise ValueError(f"{glob!r} has {way!r}: {error}") from error
    return MergeRule(glob, Way.REGENERATE, words)
