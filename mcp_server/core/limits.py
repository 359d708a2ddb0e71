"""What a wave's work may cost, and what each of its attempts gets to work in: parts of its policy."""

from __future__ import annotations

from dataclasses import dataclass


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
