"""What claim_story and report_story answer: short, because a sub-agent reads it with the story still in its head."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcp_server.server.paging import Reply


class ClaimReply(Reply):
    """A story for a sub-agent, or why there is none."""

    claimed: bool
    lease: str = Field(default="", description="Quote it in every report.")
    story: str = ""
    attempt: int = 0
    lease_s: int = Field(default=0, description="Report progress within so many seconds.")
    branch: str = ""
    base: str = ""
    worktree: str = Field(default="", description="Work only there, by absolute paths; empty: in your own worktree.")
    first_command: str = ""
    brief: str = ""
    brief_left: int = Field(default=0, description="Characters of the brief that are not shown.")
    next: str


Answer = Literal["go_on", "answered", "checking", "merged", "repair", "stop", "ended"]


class ReportReply(Reply):
    """What becomes of a report."""

    answer: Answer
    story: str
    detail: str = ""
    commands: list[str] = Field(default_factory=list[str])
    lease_s: int = 0
    next: str
