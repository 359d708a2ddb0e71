"""Errors by whose move is next: `Refused` (the caller's), `Fault` (the world's), `JournalError` (the operator's)."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a request was refused; a caller may branch on it, so members are never renamed."""

    BAD_ARGUMENT = "bad_argument"
    BAD_CONFIG = "bad_config"
    BAD_EPIC = "bad_epic"
    UNREADABLE_EPIC = "unreadable_epic"
    NOT_A_REPOSITORY = "not_a_repository"
    BARE_REPOSITORY = "bare_repository"
    NO_COMMITS = "no_commits"
    GIT_MISSING = "git_missing"
    GIT_TOO_OLD = "git_too_old"
    BRANCH_TAKEN = "branch_taken"
    BRANCH_CHECKED_OUT = "branch_checked_out"
    BRANCH_GONE = "branch_gone"
    UNKNOWN_EPIC = "unknown_epic"
    UNKNOWN_STORY = "unknown_story"
    EPIC_BUSY = "epic_busy"
    EPIC_EXISTS = "epic_exists"
    CHECKS_NOT_ALLOWED = "checks_not_allowed"
    NOTHING_READY = "nothing_ready"
    BUDGET_SPENT = "budget_spent"
    TOO_LATE = "too_late"
    NOTHING_TO_LAND = "nothing_to_land"
    DIRTY_CHECKOUT = "dirty_checkout"
    DETACHED_HEAD = "detached_head"
    NOT_FAST_FORWARD = "not_fast_forward"
    BRANCH_MOVED = "branch_moved"
    CONFLICT = "conflict"
    CHECKS_RED = "checks_red"
    CANNOT_SIGN = "cannot_sign"
    NO_PULL_REQUEST = "no_pull_request"
    BUILT_ON = "built_on"
    STORY_NOT_OFFERED = "story_not_offered"
    LEASE_LOST = "lease_lost"
    LEASE_HELD = "lease_held"
    NOT_DONE = "not_done"
    UNKNOWN_AGENT = "unknown_agent"
    STRATEGY_UNAVAILABLE = "strategy_unavailable"
    ENGINE_ELSEWHERE = "engine_elsewhere"
    ENGINE_RESTARTED = "engine_restarted"
    ENGINE_SILENT = "engine_silent"
    UNSAFE_STATE = "unsafe_state"
    JOURNAL_UNREADABLE = "journal_unreadable"
    JOURNAL_NEWER = "journal_newer"


class Refused(Exception):  # noqa: N818 - it is a refusal, an answer, not an accident
    """A request that may not happen now; the caller can mend it.

    `why` says what stands in the way, `remedy` the next move, both in words a model can act on.
    """

    def __init__(self, code: Code, why: str, remedy: str) -> None:
        super().__init__(f"{code}: {why} {remedy}")
        self.code = code
        self.why = why
        self.remedy = remedy


class FaultCause(StrEnum):
    """What in the world went wrong; retried, and never held against the story's own work."""

    GIT = "git"
    DISK = "disk"
    SPAWN = "spawn"
    BRANCH_CHECKED_OUT = "branch_checked_out"
    SETUP = "setup"


class Fault(Exception):  # noqa: N818 - a fault is the glossary's word for it
    """The world failed us: git, the disk, a process that could not be started. `tail`: last lines that show it."""

    def __init__(self, cause: FaultCause, detail: str, tail: str = "") -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.tail = tail


class JournalError(Exception):
    """The journal cannot be written; the engine stops before anything that is not stored takes effect."""
