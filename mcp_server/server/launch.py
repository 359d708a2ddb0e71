"""Starting a wave from outside: everything is looked at first, so that a refusal changes nothing."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import anyio.lowlevel

from mcp_server.core.commands import StartWave, Through
from mcp_server.core.decide import decide
from mcp_server.core.events import WaveStarted, WaveWidened
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Epic, is_alive, is_team
from mcp_server.core.spec import EpicId, Sha
from mcp_server.core.steer import epic_of
from mcp_server.engine.engine import Engine
from mcp_server.errors import Code, Refused
from mcp_server.server.allowed import require_allowed
from mcp_server.server.world import World


@dataclass(frozen=True, slots=True)
class Launch:
    """How a wave is asked for; None stands for the configuration's word."""

    epic: EpicId
    through: Through = "ready"
    strategy: str | None = None
    slots: int | None = None
    agent: str | None = None
    retry: bool = False
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Answers and advice for single stories."""
    has_agents: bool = True
    """Whoever asks has sub-agents of its own that can claim stories: an editor has, a terminal has not."""


async def launch(world: World, engine: Engine, asked: Launch) -> WaveStarted | WaveWidened:
    """Start the wave. Raises `Refused` before anything is changed."""
    epic = epic_of(engine.ledger, asked.epic)
    settings = world.settings()
    require_allowed(world.state_dir, settings, epic.spec)
    agent = asked.agent or epic.spec.agent
    policy = settings.policy(
        strategy=asked.strategy or _again(epic, asked),
        slots=asked.slots,
        agent=agent,
        fallback=epic.spec.fallback_agent,
        overlap=epic.spec.overlap,
    )
    policy = replace(policy, seed=secrets.randbelow(2**31))
    if policy.strategy is not Strategy.AGENT_TEAMS:
        fallback = [policy.fallback] if policy.fallback else []
        world.check_agents([policy.agent, *fallback, *(s.spec.agent for s in epic.stories.values() if s.spec.agent)])
    elif not asked.has_agents:
        raise no_editor()
    named = any(word is not None for word in (asked.strategy, asked.slots, asked.agent))
    base = await world.repository.head_sha()
    notes = tuple(asked.notes.items())
    command = StartWave(asked.epic, asked.through, policy, base, named=named, retry=asked.retry, notes=notes)
    decide(engine.ledger, command, engine.now_s())
    await _prepare_branch(world, epic, base)
    await anyio.lowlevel.checkpoint()  # cancelled while git ran in its thread: the engine is gone by now
    if (now := engine.ledger.epics[asked.epic].spec) is not epic.spec:  # planned again while git ran
        require_allowed(world.state_dir, settings, now)
    event = engine.handle(command)
    assert isinstance(event, WaveStarted | WaveWidened), "StartWave becomes one of these"  # noqa: S101
    return event


def no_editor() -> Refused:
    """The refusal for a terminal that is to do what only an editor can."""
    return Refused(
        Code.STRATEGY_UNAVAILABLE,
        "Under the strategy agent-teams an editor's own sub-agents do the stories, and there is no editor here.",
        "Name another strategy (`--strategy asyncio`), or start the wave from the editor with start_wave.",
    )


def _again(epic: Epic, asked: Launch) -> Strategy | None:
    """An epic that the editor's sub-agents work on stays theirs until somebody says otherwise."""
    return Strategy.AGENT_TEAMS if asked.has_agents and is_team(epic) else None


async def _prepare_branch(world: World, epic: Epic, base: Sha) -> None:
    """The integration branch exists afterwards, and no checkout has it."""
    branch = f"epicwave/{epic.spec.id}"
    checkout = await world.repository.where_checked_out(branch)
    if checkout is not None:
        raise Refused(
            Code.BRANCH_CHECKED_OUT,
            f"The integration branch {branch} is checked out in {checkout}; a merge would change files under you.",
            f"Leave it with `git -C {checkout} switch -` (or `--detach`), then start again.",
        )
    if epic.base is None:
        await world.repository.create_branch(branch, base)
    elif not is_alive(epic.wave) and not await world.repository.branch_exists(branch):
        merged = [s for s in epic.stories.values() if s.merged_as is not None]
        last = max(merged, key=lambda s: s.merge_rank).merged_as if merged else epic.base
        raise Refused(
            Code.BRANCH_GONE,
            f"The integration branch {branch} is gone, though {len(merged)} stories were merged onto it.",
            f"Bring it back with `git branch {branch} {last}`, or give the epic another id.",
        )
