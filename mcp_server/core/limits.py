"""The policy of a wave: the settings that it runs under, in its first fact, so that replay needs no configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from mcp_server.core.merge_rules import MergeRule
from mcp_server.core.spec import Limits, Sharing


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of money and tokens; None for no limit. Tokens are counted as in `Usage`."""

    story_usd: float | None = None
    story_tokens: int | None = None
    epic_usd: float | None = None
    epic_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """How a worktree that we make is set up, and how much of the machine its attempt may use."""

    setup: tuple[tuple[str, ...], ...] = ()
    """Commands (argv) that are run once in each of them, in order, before anybody works there."""
    setup_timeout_s: float = 600.0
    """For each command."""
    port_base: int = 20_000
    port_block: int = 10
    """Ports that an attempt has for itself, from `port_base` on; 0 for none."""
    quota_mb: int | None = None
    """How large a worktree may grow, without `.git`; None for no limit."""
    min_free_mb: int = 500
    """With less free on the disk of the worktrees nothing new starts."""


class Strategy(StrEnum):
    """Who does the work, as the configuration names it."""

    SEQUENTIAL = "sequential"
    ASYNCIO = "asyncio"
    AGENT_TEAMS = "agent-teams"


class Terms(NamedTuple):
    """What a story was admitted under, which later waves do not change."""

    overlap: Sharing = Sharing.EXCLUSIVE
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings a wave runs under, written into its first event so that replay needs no configuration."""

    strategy: Strategy = Strategy.SEQUENTIAL
    slots: int = 1
    """Attempts that may be alive in the whole repository when this wave admits one."""
    fail_fast: bool = True
    overlap: Sharing = Sharing.EXCLUSIVE
    """Of stories that say nothing else themselves."""
    attempts: int = 2
    attempt_timeout_s: float = 1800.0
    stall_timeout_s: float = 600.0
    check_timeout_s: float = 600.0
    """For each check that has no limit of its own."""
    lease_s: float = 900.0
    """How long a sub-agent may be silent, and its worktree unchanged, before its story goes to the next one."""
    repairs: int = 2
    """Times the same sub-agent may mend a conflict or a red check, within one attempt; and times that a conflict, of
    whomever, costs a story no attempt. After that a conflict waits for a human."""
    batch: int = 4
    """Stories with disjoint files that may be checked and land together."""
    agent: str = "claude"
    checks: tuple[tuple[str, ...], ...] = ()
    fallback: str = ""
    """Profile that takes stories whose own is paused or parked; empty for none."""
    breaker_faults: int = 3
    """Faults in a row, by order of completion, that open a breaker; 0 switches breakers off."""
    cooldown_s: float = 30.0
    """How long a breaker stays open before one probe is let through; doubles up to `cooldown_cap_s`."""
    cooldown_cap_s: float = 120.0
    probe_s: float = 120.0
    """A probe that has worked for so long without a fault closes its breaker: it need not come to its end."""
    fault_tries: int = 10
    """Faults of the world that cost a story no attempt."""
    epic_timeout_s: float | None = None
    """How long a wave may take in all; what is alive then is stopped."""
    budget: Budget = field(default_factory=Budget)
    environment: Environment = field(default_factory=Environment)
    adaptive_slots: bool = False
    """Faults and rate limits lower the wave's slots, calm raises them again."""
    merge_rules: tuple[MergeRule, ...] = ()
    """How files are settled that the tip and a branch have both changed; the first that matches a path counts."""
    exempt: tuple[str, ...] = ()
    """Footprint entries that keep nobody apart: files that everything touches."""
    seed: int = 0  # of the jitter in all waits
    check_limits: Limits = ()
    """Of `checks`."""
