"""The state folder: the user's own, and closed to everybody else."""

from __future__ import annotations

import stat
from pathlib import Path

from mcp_server.errors import Code, Refused
from mcp_server.front.place import DOOR_FILE, OTHERS, Refusal, must_be_private


def make_private(state: Path) -> None:
    """The state folder is there, the user's own, and closed to others.

    One from before there were engine processes is closed here; one that was opened since, with a token in it, is
    refused (`unsafe_state`).
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = state.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_mode & OTHERS and not (state / DOOR_FILE).exists():
        state.chmod(0o700)
        found = state.lstat()
    try:
        must_be_private(str(state), found, stat.S_ISDIR, "folder")
    except Refusal as refusal:
        raise Refused(Code.UNSAFE_STATE, refusal.why, refusal.remedy) from refusal
