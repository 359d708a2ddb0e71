"""A refused merge, in words and commands for the sub-agent that is to mend it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mcp_server.core.model import Cause, Failure, Story
from mcp_server.server.paging import clip, cost
from mcp_server.server.wire import SHA_SHOWN

RIVALS_SHOWN = 2
RIVAL_TOKENS = 60
"""Of the brief of a story that it conflicted with."""
WHY_TOKENS = 110
"""Of what went wrong in a sentence: a check's command can be a whole program."""
PATHS_SHOWN = 3
"""Files that the diffs are narrowed to; `git rebase` names them all."""


def repair_commands(story: Story, failure: Failure) -> list[str]:
    """What to run, one by one. Both diffs are commands, because they can be long: what was merged, and the story's."""
    base, onto = (story.base or "")[:SHA_SHOWN], (failure.onto or "")[:SHA_SHOWN]
    head = (story.lease.head or "HEAD")[:SHA_SHOWN] if story.lease is not None else "HEAD"
    paths = f" -- {shlex.join(failure.paths[:PATHS_SHOWN])}" if failure.paths else ""
    own = f"git diff {base} {head}{paths}"
    if base == onto:  # nothing was merged meanwhile: the story's own work is red
        return [own]
    commands = [f"git diff {base} {onto}{paths}", own, f"git rebase {onto}"]
    return [*commands, "git -c core.editor=true rebase --continue"] if failure.cause is Cause.CONFLICT else commands


def repair_words(failure: Failure, rivals: Sequence[Story], room: int) -> str:
    """What went wrong, and whom it conflicted with; the beginning of a conflict or the end of a check's output.

    All in at most `room` tokens.
    """
    why = clip(failure.detail, min(WHY_TOKENS, room))
    for rival in rivals[:RIVALS_SHOWN]:
        wanted = " ".join(rival.spec.description.split())
        line = f"\n{rival.spec.id} {rival.spec.title}{f': {wanted}' if wanted else ''}"
        why += clip(line, max(0, min(RIVAL_TOKENS, (room - cost(why)) // 2)))
    left = room - cost(why)
    if failure.cause is Cause.CONFLICT:
        return f"{why}\n{clip(failure.tail, left)}" if left > 0 else why
    tail = failure.tail
    while tail and cost(tail) > left:
        tail = tail[len(tail) // 8 + 1 :]
    return f"{why}\n{'...' if tail != failure.tail else ''}{tail}" if tail else why
