"""What a task group raises, as the one error that it is about."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast


@asynccontextmanager
async def plainly() -> AsyncGenerator[None]:
    """What is raised in the block comes out as itself, where task groups have wrapped it in groups of one."""
    try:
        yield
    except ExceptionGroup as group:
        found = _only(group)
        raise found from found.__cause__


def _only(error: Exception) -> Exception:
    if not isinstance(error, ExceptionGroup):
        return error
    group = cast("ExceptionGroup[Exception]", error)
    return _only(group.exceptions[0]) if len(group.exceptions) == 1 else group
