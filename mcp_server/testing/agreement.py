"""What is true of every change in tests: all invariants hold, and replay makes what is in memory."""

from __future__ import annotations

from dataclasses import replace

from mcp_server.core.invariants import check, check_change, check_settled
from mcp_server.core.model import Ledger
from mcp_server.testing.breach import Breach, Broken, Promise


def check_thoroughly(before: Ledger, after: Ledger) -> None:
    """A change as production looks at it, and all that is after it. Raises AssertionError."""
    check_change(before, after)
    check_settled(after)
    check(after)


def assert_same(replayed: Ledger, memory: Ledger) -> None:
    """Replay makes what is in memory; only how late it is may differ, for a tick that changes nothing is not stored."""
    for name, epic in memory.epics.items():
        for story_id, there in epic.stories.items():
            again = replayed.epics[name].stories[story_id]
            if again != there:
                raise Broken([Breach(Promise.REPLAY, f"replay has {again}, memory has {there}")])
    if replayed != replace(memory, as_of_s=replayed.as_of_s):
        raise Broken([Breach(Promise.REPLAY, "the journal tells something else than memory")])
