"""Removal in two steps: what is removed is gone at once, by a rename; its files are deleted later, by a thread."""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path

from mcp_server.adapters.git.repository import listed
from mcp_server.adapters.git.trees import delete
from mcp_server.errors import Fault

AT_EXIT_S = 5.0
"""How long the end of a process waits for what it has still to delete. The next start deletes the rest."""


class Trash:
    """Stores what waits to be deleted, in one folder on the file system of what is thrown into it.

    Whatever lies there is deleted by whoever looks next, also when the one who threw it was killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def throw(self, path: Path) -> None:
        """Have a file or folder out of the way at once. Where it cannot be renamed, it is deleted here and now.

        Raises `Fault(disk)` when neither can be done.
        """
        away = self.folder / secrets.token_hex(8)
        while os.path.lexists(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                path.rename(away)
            except FileNotFoundError:  # the thread has just removed the empty folder, or somebody the path
                continue
            except OSError:  # another file system, or a file of it is open and this is Windows
                delete(path)
            with suppress(OSError):  # it is no worktree any more: git may not take it for one
                (away / ".git").unlink()
            return

    def empty(self) -> None:
        """Delete what is there now, and the folder. What the disk does not let go stays for the next time."""
        for path in listed(self.folder):
            with suppress(Fault):
                delete(path)
        with suppress(OSError):
            self.folder.rmdir()

    def empty_later(self) -> None:
        """The same in a thread, one at a time; soon. An empty folder, left by a killed engine, goes here and now."""
        with self._lock:
            if self._thread is not None:
                return
            if not self._left():
                with suppress(OSError):
                    self.folder.rmdir()
                return
            self._thread = threading.Thread(target=self._work, name="epicwave-trash", daemon=True)
            self._thread.start()
            atexit.register(self.settle, AT_EXIT_S)

    def settle(self, limit_s: float) -> bool:
        """Wait until the thread is through; False when that takes longer."""
        until_s = time.monotonic() + limit_s
        while (thread := self._thread) is not None and time.monotonic() < until_s:
            thread.join(max(0.0, until_s - time.monotonic()))
        return self._thread is None

    def _work(self) -> None:
        before: list[Path] = []
        while True:
            with suppress(OSError):
                self.empty()
            with self._lock:
                left = self._left()
                if left in ([], before):  # nothing, or nothing that can be deleted
                    self._thread = None
                    atexit.unregister(self.settle)
                    return
            before = left

    def _left(self) -> list[Path]:
        try:
            return listed(self.folder)
        except OSError:
            return []
