"""Where a repository's engine process is met: found, judged and dialled with the standard library alone.

An engine process leaves `door.json` in the repository's state folder: who it is, where it listens, and the token that
it asks for. Whoever can read that file may do all that its user may do, so nothing is trusted that others could have
read or put there.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import NamedTuple

DOOR_FILE = "door.json"
SOCKET_FILE = "door.sock"
STATE_FOLDER = "epicwave"
"""Below the common git folder."""
POSIX = os.name == "posix"
OTHERS = stat.S_IRWXG | stat.S_IRWXO
NO_FOLLOWING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Neither a link nor a pipe that nobody writes to can lead or hold us."""
CONNECT_S = 5.0
"""A listener on this machine answers at once or is gone."""


class Refusal(Exception):  # noqa: N818 - it is the front's `Refused`, which costs too much to load here
    """What the user can mend: `code`, `why`, `remedy`."""

    def __init__(self, code: str, why: str, remedy: str) -> None:
        super().__init__(f"{code}: {why}\n{remedy}")
        self.code, self.why, self.remedy = code, why, remedy


class Door(NamedTuple):
    """An engine process, as its file tells of it."""

    pid: int
    started_s: float
    """When it started, as `adapters/agents/tree.py` reads it: pid and start are who it is."""
    version: str
    address: str
    """Path of a Unix socket, or `127.0.0.1:PORT`."""
    token: str


def common_dir(start: str) -> str | None:
    """The git folder that all worktrees of the repository around `start` share; None when there is no repository.

    What `git rev-parse --git-common-dir` says, without the 5 ms of a process; a bare repository, or the inside of a
    git folder, is none to us.
    """
    folder = os.path.realpath(start)
    while True:
        found = os.path.join(folder, ".git")  # noqa: PTH118 - pathlib takes 5 ms to import
        if os.path.isdir(found):  # noqa: PTH112
            return _shared(found)
        if os.path.isfile(found):  # noqa: PTH113
            named = _line(found).removeprefix("gitdir:").strip()
            return _shared(os.path.normpath(os.path.join(folder, named)))  # noqa: PTH118
        if os.path.isfile(os.path.join(folder, "HEAD")) and os.path.isdir(os.path.join(folder, "objects")):  # noqa: PTH112, PTH113, PTH118
            return None
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            return None
        folder = above


def _shared(git_dir: str) -> str | None:
    if not os.path.exists(os.path.join(git_dir, "HEAD")):  # noqa: PTH110, PTH118
        return None
    try:
        named = _line(os.path.join(git_dir, "commondir"))  # noqa: PTH118
    except OSError:
        return os.path.realpath(git_dir)
    return os.path.realpath(os.path.join(git_dir, named))  # noqa: PTH118


def _line(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        return file.readline().rstrip("\r\n")


def state_dir(common: str) -> str:
    """Our folder in the common git folder."""
    return os.path.join(common, STATE_FOLDER)  # noqa: PTH118


def read_door(state: str) -> Door | None:
    """The engine process that was last here, alive or not; None when there is none.

    Raises `Refusal(unsafe_state)` when others could have read the token, or have put the file there.
    """
    path = os.path.join(state, DOOR_FILE)  # noqa: PTH118
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOWING)
    except (FileNotFoundError, NotADirectoryError):
        return None  # whether the folder is fit to have one is for the engine process to judge
    except OSError as error:
        raise unsafe(path, f"cannot be opened as a file of its own ({error.strerror})") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123
        must_be_private(path, os.fstat(descriptor), stat.S_ISREG, "file")
        must_be_private(state, os.lstat(state), stat.S_ISDIR, "folder")
        text = file.read()
    return _door(text)


def _door(text: bytes) -> Door | None:
    """None for what no engine process has written; a newer one may say more than we know."""
    try:
        said = json.loads(text)
        words = {name: said[name] for name in Door._fields}
    except (ValueError, LookupError, TypeError):
        return None
    is_ours = all(isinstance(words[name], str) for name in ("version", "address", "token"))
    return Door(**words) if is_ours else None


def must_be_private(path: str, found: os.stat_result, is_kind: object, kind: str) -> None:
    """Raises `Refusal(unsafe_state)` unless it is of that kind, the user's own, and closed to everybody else."""
    assert callable(is_kind)  # noqa: S101
    if not is_kind(found.st_mode):
        raise unsafe(path, f"is not a {kind}")
    if POSIX and found.st_uid != os.geteuid():
        raise unsafe(path, "belongs to somebody else")
    if POSIX and not stat.S_ISSOCK(found.st_mode) and found.st_mode & OTHERS:
        mend = f"`chmod go-rwx {path}`, or `epicwave doctor --fix`"
        raise unsafe(path, "is open to other users of this machine", f"If it was you, close it: {mend}. Start again.")


def unsafe(path: str, what: str, remedy: str = "") -> Refusal:
    """The refusal for something that others could have read or put there."""
    return Refusal(
        "unsafe_state",
        f"{path} {what}, so whoever it is could steer your agents.",
        "See who did that. " + (remedy or f"If it was you, remove {path}, and start again."),
    )


def dial(door: Door) -> socket.socket:
    """A connection to the engine process. Raises `OSError` when it is gone, `Refusal(unsafe_state)`."""
    host, _, port = door.address.rpartition(":")
    if host == "127.0.0.1":
        return socket.create_connection((host, int(port)), CONNECT_S)
    must_be_private(door.address, os.lstat(door.address), stat.S_ISSOCK, "socket")
    folder = os.path.dirname(door.address)  # noqa: PTH120
    must_be_private(folder, os.lstat(folder), stat.S_ISDIR, "folder")
    wire = socket.socket(socket.AF_UNIX)
    try:
        wire.settimeout(CONNECT_S)
        wire.connect(door.address)
    except BaseException:
        wire.close()
        raise
    return wire


def hello(door: Door, version: str, start: str) -> bytes:
    """The one line that comes before MCP: the token, who asks, and from where."""
    plugin = os.environ.get("CLAUDE_PLUGIN_ROOT", "")
    line = {"token": door.token, "version": version, "start": start, "plugin": plugin}
    return json.dumps(line).encode() + b"\n"
