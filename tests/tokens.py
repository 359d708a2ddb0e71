"""What a text costs a model, counted: o200k, with its ranks in the package. Replies are cut by an estimate of ours."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any, Protocol, cast

BUDGET = 400
"""Tokens of a reply, unless more is asked for."""
TOOLS, EACH_TOOL, ALL_TOOLS = 10, 250, 1_500
"""How many tools, and tokens of their definitions."""


class _Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...


@cache
def _o200k() -> _Encoding:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it opens its ranks the old way
        import bpe_openai  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs] - it has none

        return cast("_Encoding", bpe_openai.get_encoding("o200k_base"))


def count(text: str) -> int:
    """Tokens of a text."""
    return len(_o200k().encode_ordinary(text))


def count_json(value: Any) -> int:
    """Tokens of a value as a model reads it: JSON on one line."""
    return count(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def count_definition(tool: dict[str, Any]) -> int:
    """Tokens of a tool's definition; what it answers is not told to the model."""
    return count_json({key: tool[key] for key in ("name", "description", "inputSchema")})
