"""What the agents of a life do, by chance: good work, bad work, no work, and what is none of their own doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import anyio

from mcp_server.core.model import NOTHING_USED, Cause, Usage
from mcp_server.ports import AgentCall
from mcp_server.testing.fake_runner import Play
from mcp_server.testing.fate import Config
from mcp_server.testing.truth import Truth


class Cast:
    """Stores which profiles are out, and until when."""

    def __init__(self, config: Config, chance: Random, truth: Truth) -> None:
        self.is_calm = False
        """From here on agents do their work."""
        self._config = config
        self._chance = chance
        self._truth = truth
        self._out: dict[str, tuple[float, Play]] = {}

    def outage(self, profile: str, seconds: float) -> None:
        """From now on every agent of a profile fails, all in the same way."""
        play = self._chance.choice(
            [
                Play(trouble=Cause.API_ERROR, exit_code=1),
                Play(trouble=Cause.API_ERROR, exit_code=1),
                Play(trouble=Cause.CRASH, exit_code=137),
                Play(fault="not found"),
                Play(hang=True),
            ]
        )
        self._out[profile] = anyio.current_time() + seconds, play

    def play_of(self, call: AgentCall) -> Play:
        """What an attempt's agent does."""
        chance, attempt = self._chance, call.attempt
        if self.is_calm:
            return Play(seconds=60.0, act=self._truth.work)
        until_s, out = self._out.get(call.profile, (0.0, None))
        if out is not None and anyio.current_time() < until_s:
            return replace(out, seconds=chance.uniform(1, 20), usage=self._usage())
        if chance.random() < self._config.agents.rotten:
            self._truth.rotten.add(attempt)
        seconds = chance.choice([1.0, 60.0, chance.uniform(1, 600)])
        play = self._one(seconds)
        dies_in_s = chance.uniform(0, self._config.troubles.slow_death_s)
        return replace(play, dies_in_s=dies_in_s, usage=self._usage(), tells=chance.choice([0, 0, 1, 3]))

    def _one(self, seconds: float) -> Play:
        chance, truth, agents = self._chance, self._truth, self._config.agents
        act = truth.work_on("shared.txt") if chance.random() < agents.undeclared else truth.work
        if chance.random() < agents.provider:
            return self._trouble(seconds, chance.choice([None, truth.scribble, act]))
        if chance.random() >= agents.misbehaves:
            return Play(seconds, act=act)
        return chance.choice(
            [
                Play(seconds, act=act, exit_code=1),
                Play(seconds, act=truth.scribble),
                Play(seconds, act=_both(act, truth.scribble)),
                Play(seconds),
                Play(seconds, act=truth.work_elsewhere),
                Play(seconds, act=act, hang=True),
                Play(5000.0, act=act),
                Play(seconds, fault="not installed"),
                Play(seconds, act=act, breaks="no space for its log"),
                Play(seconds, act=act, trouble=Cause.CRASH, exit_code=139),
            ]
        )

    def _trouble(self, seconds: float, act: Callable[[AgentCall], None] | None) -> Play:
        """Its provider ends it, in the middle of its work or before it; whatever there is of it is kept."""
        chance = self._chance
        trouble = chance.choice([Cause.RATE_LIMIT, Cause.RATE_LIMIT, Cause.API_ERROR])
        resumes_in_s = chance.choice([None, -5.0, chance.uniform(10, 2000)]) if trouble is Cause.RATE_LIMIT else None
        return Play(seconds, exit_code=1, act=act, trouble=trouble, resumes_in_s=resumes_in_s)

    def _usage(self) -> Usage:
        if not self._config.agents.costs:
            return NOTHING_USED
        return Usage(self._chance.uniform(0.0, 2.0), self._chance.randint(0, 1000))


def _both(one: Callable[[AgentCall], None], other: Callable[[AgentCall], None]) -> Callable[[AgentCall], None]:
    def act(call: AgentCall) -> None:
        one(call)
        other(call)

    return act
