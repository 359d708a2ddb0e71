"""`.cursor/worktrees.json`: the commands by which a repository has Cursor set up its worktrees, as commands of ours.

Taken when `.epicwave/config.yaml` has no `setup`, so that nobody has to write them down twice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

from mcp_server.errors import Code, Refused

CURSOR_FILE = Path(".cursor", "worktrees.json")
KEYS = ("setup-worktree-unix", "setup-worktree")
"""The first that is there counts. On Windows it would be another one, for another shell: that is not taken."""
_ALLOWED = "allowed: a list of shell commands, or the path of a script beside the file"


def cursor_setup(top: Path) -> tuple[tuple[str, ...], ...]:
    """The set-up commands of the checkout at `top`; none without the file. Raises `Refused(bad_config)`.

    Its commands are lines for a shell, so they get one: the only ones of ours that do. A script is run by its own
    first line when it may be executed, else by `sh`.
    """
    path = top / CURSOR_FILE
    key, value = _named(path)
    if value is None:
        return ()
    if isinstance(value, str) and value.strip():
        script = path.parent / value
        if not script.is_file():
            raise _refused(path, f"{key} names {value!r}, which is no file")
        return ((str(script),) if os.access(script, os.X_OK) else ("sh", str(script)),)
    lines = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(line, str) and line.strip() for line in lines):
        raise _refused(path, f"{key} is {value!r}")
    return tuple(("sh", "-c", str(line)) for line in lines)


def _named(path: Path) -> tuple[str, object]:
    """The key that counts, and what it says; None when nothing is said."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return "", None
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, f"it cannot be read: {error}") from error
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise _refused(path, "it holds no keys with values")
    found = cast("dict[str, object]", document)
    key = next((key for key in KEYS if found.get(key) is not None), "")
    return key, found.get(key)


def _refused(path: Path, what: str) -> Refused:
    remedy = "Correct it, or say `setup: []` under `epic:` in .epicwave/config.yaml to have worktrees without set-up."
    return Refused(Code.BAD_CONFIG, f"{path} cannot be used: {what}; {_ALLOWED}.", remedy)
