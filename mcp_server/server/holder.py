"""Who has the engine, as its holder's file tells it: for whoever only looks and must not take the lock to find out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

WRITTEN_LATE_S = 2.0
"""The holder's file is written after its process has started; clocks of files and of processes differ by so much."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the engine, or was killed while it had it."""

    what: str
    pid: int
    alive: bool

    def __str__(self) -> str:
        return f"{self.what}, process {self.pid}"


def holder_of(state_dir: Path) -> Holder | None:
    """The holder; None when the last one has given the engine back, or has only just taken it."""
    path = state_dir / "engine.json"
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        written_s = path.stat().st_mtime
        pid = int(said["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Holder(str(said.get("what", "epicwave")), pid, _is_older(pid, written_s))


def _is_older(pid: int, written_s: float) -> bool:
    """True when the process lives, and was there when the file was written: else a stranger has got its pid."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written_s + WRITTEN_LATE_S
    except psutil.Error:
        return False
