"""Who has the engine, as its holder's file tells it: for whoever only looks and must not take the lock to find out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_server.adapters.agents.tree import root_of
from mcp_server.core.model import Process

HOLDER_FILE = "engine.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the engine, or was killed while it had it."""

    what: str
    pid: int
    alive: bool
    """False for a stranger that has got its pid, too: pid and start are who it is."""

    def __str__(self) -> str:
        return f"{self.what}, process {self.pid}"


def write_holder(state_dir: Path, what: str, who: Process) -> None:
    """Say who has the engine now. Raises `OSError`."""
    said = {"pid": who.pid, "started_s": who.started_s, "what": what}
    (state_dir / HOLDER_FILE).write_text(json.dumps(said), "utf-8")


def holder_of(state_dir: Path) -> Holder | None:
    """The holder; None when the last one has given the engine back, or has only just taken it."""
    try:
        said: dict[str, Any] = json.loads((state_dir / HOLDER_FILE).read_text("utf-8"))
        who = Process(int(said["pid"]), float(said["started_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Holder(str(said.get("what", "epicwave")), who.pid, root_of(who) is not None)
