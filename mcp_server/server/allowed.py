"""Commands of epic files that the user has allowed once, by hash, in the repository's state folder.

Not in the checkout: what a clone brings must not allow its own commands. Whoever can write the file may do all that its
user may do, so one that others could have written is refused.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from filelock import FileLock

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.core.checks import brought, digest, spoken
from mcp_server.core.spec import Argv, EpicSpec
from mcp_server.errors import Code, Refused
from mcp_server.front.place import NO_FOLLOWING, Refusal, must_be_private, unsafe
from mcp_server.server.private import make_private
from mcp_server.server.settings import Settings

ALLOWED_FILE = "allowed.json"
LOCK_FILE = "allowed.guard"
LOCK_S = 10.0
"""Two processes write at the same moment at most for an instant."""
SHOWN = 20
"""Commands that a refusal names; `epicwave allow` names them all."""


class Allowed:
    """What is allowed in one repository: a file of hashes, each with its command for whoever reads it."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path = state / ALLOWED_FILE

    def read(self) -> dict[str, Argv]:
        """Hash to command; nothing when there is no file, or none that we wrote.

        Raises `Refused(unsafe_state)` when others could have written it.
        """
        try:
            found = _parsed(self._bytes())
        except Refusal as refusal:
            raise Refused(Code.UNSAFE_STATE, refusal.why, refusal.remedy) from refusal
        return {name: command for name, command in found.items() if digest(command) == name}

    def missing(self, commands: Iterable[Argv]) -> tuple[Argv, ...]:
        """Those that nobody has allowed yet, in their order."""
        known = self.read() if (asked := tuple(commands)) else {}
        return tuple(command for command in asked if digest(command) not in known)

    def allow(self, commands: Iterable[Argv]) -> None:
        """Allow them for good. Raises `Refused(unsafe_state)`, `Fault(disk)`."""
        self._change(add={digest(command): command for command in commands})

    def forget(self, commands: Iterable[Argv] | None = None) -> int:
        """Allow them no more, or nothing at all; how many it were."""
        return self._change(remove=None if commands is None else {digest(command) for command in commands})

    def _change(self, add: Mapping[str, Argv] | None = None, remove: Iterable[str] | None = ()) -> int:
        with disk_faults(f"{self._path} cannot be written"):
            make_private(self._state)
            with FileLock(self._state / LOCK_FILE, timeout=LOCK_S):
                before = self.read()
                gone = set(before) if remove is None else set(before) & set(remove)
                after = {name: command for name, command in before.items() if name not in gone} | dict(add or {})
                if after != before:
                    self._write(after)
        return len(gone)

    def _write(self, allowed: Mapping[str, Argv]) -> None:
        """Whole or not at all, and never for others to read or write, not for a moment."""
        descriptor, new = tempfile.mkstemp(prefix=f"{ALLOWED_FILE}.", dir=self._state)  # 0600, and new
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": 1, "allowed": {name: list(words) for name, words in allowed.items()}}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(new).replace(self._path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise

    def _bytes(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | NO_FOLLOWING)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise unsafe(str(self._path), f"cannot be opened as a file of its own ({error.strerror})") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise unsafe(str(self._path), "is not a file")
        with os.fdopen(descriptor, "rb") as file:
            must_be_private(str(self._path), os.fstat(descriptor), stat.S_ISREG, "file")
            must_be_private(str(self._state), self._state.lstat(), stat.S_ISDIR, "folder")
            return file.read()


def _parsed(content: bytes) -> dict[str, Argv]:
    """Nothing for what is no such file: then everything is asked again."""
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    listed = cast("dict[str, object]", document).get("allowed") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        return {}
    commands = cast("dict[str, object]", listed).items()
    return {name: tuple(map(str, cast("list[object]", words))) for name, words in commands if isinstance(words, list)}


def not_allowed(state: Path, settings: Settings, spec: EpicSpec) -> tuple[Argv, ...]:
    """Commands that the epic's file has brought and nobody has allowed; the configuration's own need no yes."""
    configured = {check.command for check in settings.epic.checks}
    found = brought(spec, settings.agent_names)
    return Allowed(state).missing(command for command in found if command not in configured)


def require_allowed(state: Path, settings: Settings, spec: EpicSpec) -> None:
    """Raises `Refused(checks_not_allowed)` with the commands that would run."""
    if missing := not_allowed(state, settings, spec):
        raise refusal(spec, missing)


def refusal(spec: EpicSpec, missing: tuple[Argv, ...]) -> Refused:
    """What is not allowed, and who can allow it."""
    shown = " ".join(f"({n}) `{spoken(command)}`" for n, command in enumerate(missing[:SHOWN], 1))
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return Refused(
        Code.CHECKS_NOT_ALLOWED,
        f"{spoken((spec.source,))} brings commands that the user has not allowed here yet: {shown}{more}.",
        f"The user looks at them and says yes in a terminal: `epicwave allow {spec.id}`. Then call again.",
    )
