"""Requests, in the imperative: what a lead may ask for. `decide` turns each into one fact or refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mcp_server.core.model import EpicId, Policy, Sha, StoryId
from mcp_server.core.planning import Plan

Through = Literal["ready", "all"] | int
"""How far a wave goes: the stories that are ready now, all, or every story up to a level of the plan."""


@dataclass(frozen=True, slots=True)
class PlanEpic:
    """Take an epic into the ledger, or take its edited file again."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class StartWave:
    """Release stories. `base` is the commit that the integration branch starts from if there is none yet."""

    epic: EpicId
    through: Through
    policy: Policy
    base: Sha
    named: bool = True
    """The lead named strategy, slots or agent; else a living wave's own settings hold."""
    retry: bool = False
    """Give failed and cancelled stories new attempts."""


@dataclass(frozen=True, slots=True)
class CancelEpic:
    """Stop everything of an epic that is not merged."""

    epic: EpicId
    reason: str


@dataclass(frozen=True, slots=True)
class CancelStory:
    """Stop one story; its dependents stay blocked."""

    epic: EpicId
    story: StoryId
    reason: str


Command = PlanEpic | StartWave | CancelEpic | CancelStory
