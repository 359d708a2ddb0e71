"""What `epicwave doctor` says: one finding a subject, with a level, a reason and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much it matters."""

    OK = "ok"
    NOTE = "note"  # to be known; nothing stands in the way
    WARNING = "warning"  # an epic runs, and something of it may go wrong
    ERROR = "error"  # an epic cannot run, or what it needs is not there


class Subject(StrEnum):
    """What was looked at; a caller may branch on it, so members are never renamed."""

    GIT = "git"
    COMMITS = "commits"
    WORKTREES = "worktrees"
    BASE = "base"
    HOOKS_PATH = "hooks_path"
    HOOK_MODE = "hook_mode"
    HOOK_NEEDS = "hook_needs"
    HOOK_REFS = "hook_refs"
    SIGNING = "signing"
    SUBMODULES = "submodules"
    LFS = "lfs"
    LONG_PATHS = "long_paths"
    LOCKS = "locks"
    CONFIG = "config"
    AGENT = "agent"
    UNATTENDED = "unattended"
    PERMISSIONS = "permissions"
    ENGINE = "engine"
    JOURNAL = "journal"
    JOURNAL_BACKUP = "journal_backup"
    STATE_FOLDER = "state_folder"
    LEFTOVERS = "leftovers"
    NOT_OURS = "not_ours"
    RESCUED = "rescued"
    SPACE = "space"
    DISK = "disk"
    FILE_SYSTEM = "file_system"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    code: Subject
    level: Level
    what: str
    """What was found."""
    why: str = ""
    """Why that matters."""
    remedy: str = ""
    """The next move: a command where there is one."""
    mend: Callable[[], str] | None = None
    """What `--fix` does about it, where that is safe; says what was done, raises `OSError`."""

    @property
    def is_trouble(self) -> bool:
        """True above a note."""
        return self.level in {Level.WARNING, Level.ERROR}


def ok(code: Subject, what: str) -> Finding:
    """Nothing is wrong with it."""
    return Finding(code, Level.OK, what)
