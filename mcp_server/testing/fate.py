"""What a life is made of, by its seed: the epic, the settings of its waves, and everybody's chances to go wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from mcp_server.core.limits import Budget, Policy, Strategy
from mcp_server.core.spec import Sharing
from mcp_server.testing.crew import Manners

AGENTS = ("scripted", "second", "third")
"""Profiles: the epic's, its fallback, and what single stories ask for."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """How the world fails; chances are between 0 and 1."""

    fault: float
    """Of a call of git or the disk."""
    delay_s: float
    check_s: float
    stubborn: float
    slow_death_s: float
    crashes: int
    outages: int
    """Stretches of time in which every agent of a profile fails."""
    full_disks: int
    """Stretches of time in which the journal takes nothing."""


@dataclass(frozen=True, slots=True)
class Agents:
    """How agents behave; chances are between 0 and 1."""

    misbehaves: float
    provider: float
    """Is limited, or meets an error of its provider."""
    undeclared: float
    rotten: float
    costs: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of one life."""

    seed: int
    stories: int
    second_epic: bool
    edges: float
    footprints: float
    critical: float
    own_agents: float
    meddles: int
    changes_mind: float
    policy: Policy
    troubles: Troubles
    agents: Agents
    manners: Manners
    goes_on: float
    """Chance of an engine that its work goes on when it is gone, by agents that are adopted."""

    @classmethod
    def of(cls, seed: int, only: Strategy | None = None) -> Config:
        """The configuration of a seed. Every second life is one of a team, unless there is `only` one strategy."""
        chance = Random(f"config {seed}")
        strategy = chance.choice([Strategy.ASYNCIO, Strategy.ASYNCIO, Strategy.SEQUENTIAL])
        strategy = only or (Strategy.AGENT_TEAMS if seed % 2 else strategy)
        size = chance.choices([1, 2, 4], [70, 24, 6])[0]
        """Most lives are small: the same steps in another order are worth more than more of the same."""
        stories = chance.randint(2, 3 * size)
        return cls(
            seed=seed,
            stories=stories,
            second_epic=chance.random() < 0.2,
            edges=chance.choice([0.0, 0.2, 0.5]),
            footprints=chance.choice([0.0, 0.5, 1.0]),
            critical=chance.choice([0.0, 0.2]),
            own_agents=chance.choice([0.0, 0.0, 0.4]),
            meddles=size * chance.choice([0, 2, 4]),
            changes_mind=chance.choice([0.0, 0.0, 0.3]) if strategy is Strategy.AGENT_TEAMS else 0.0,
            policy=_policy(chance, seed, strategy, stories),
            troubles=_troubles(chance, size),
            agents=_agents(chance),
            manners=Manners.of(chance),
            goes_on=chance.choice([0.0, 0.9, 1.0]),
        )

    @property
    def calm(self) -> Policy:
        """The settings of waves when the troubles are over: nothing limits them."""
        return replace(self.policy, budget=Budget(), epic_timeout_s=None)


def _policy(chance: Random, seed: int, strategy: Strategy, stories: int) -> Policy:
    budget = Budget(
        story_usd=chance.choice([None, None, chance.uniform(0.5, 4.0)]),
        story_tokens=chance.choice([None, None, chance.randint(200, 2000)]),
        epic_usd=chance.choice([None, None, stories * chance.uniform(0.5, 3.0)]),
        epic_tokens=chance.choice([None, None, stories * chance.randint(200, 2000)]),
    )
    cooldown_s = chance.uniform(10.0, 120.0)
    return Policy(
        strategy=strategy,
        slots=1 if strategy is Strategy.SEQUENTIAL else chance.randint(1, 5),
        fail_fast=chance.random() < 0.7,
        overlap=chance.choices(tuple(Sharing), [8, 1, 1])[0],
        attempts=chance.randint(1, 3),
        attempt_timeout_s=900.0,
        stall_timeout_s=200.0,
        check_timeout_s=100.0,
        lease_s=chance.choice([60.0, 300.0, 900.0]),
        repairs=chance.randint(0, 2),
        agent=AGENTS[0],
        fallback=chance.choice(["", "", AGENTS[1]]),
        breaker_faults=chance.choice([0, 1, 2, 3, 3]),
        cooldown_s=cooldown_s,
        cooldown_cap_s=cooldown_s * chance.choice([1.0, 4.0, 10.0]),
        probe_s=chance.uniform(40.0, 200.0),
        fault_tries=chance.choice([2, 10, 10]),
        epic_timeout_s=chance.choice([None, None, None, chance.uniform(300.0, 4000.0)]),
        budget=budget if chance.random() < 0.4 else Budget(),
        adaptive_slots=chance.random() < 0.3,
        batch=chance.choice([1, 2, 4, 4]),
        seed=seed,
    )


def _troubles(chance: Random, size: int) -> Troubles:
    return Troubles(
        fault=chance.choice([0.0, 0.0, 0.03, 0.15]),
        delay_s=chance.choice([0.0, 1.0, 20.0]),
        check_s=chance.choice([0.0, 1.0, 60.0]),
        stubborn=chance.choice([0.0, 0.5, 1.0]),
        slow_death_s=chance.choice([0.0, 0.0, 15.0]),
        crashes=size * chance.choice([0, 1, 2, 3]),
        outages=chance.choice([0, 0, 1, 2]),
        full_disks=chance.choice([0, 0, 0, 1]),
    )


def _agents(chance: Random) -> Agents:
    return Agents(
        misbehaves=chance.choice([0.0, 0.2, 0.5]),
        provider=chance.choice([0.0, 0.0, 0.2, 0.5]),
        undeclared=chance.choice([0.0, 0.3]),
        rotten=chance.choice([0.0, 0.1, 0.3]),
        costs=chance.random() < 0.6,
    )
