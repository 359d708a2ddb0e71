"""Claim 2: checks made, and how late the end of a job is noticed. Arithmetic; what waits is a real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import mean

import anyio
from claim.rows import Config, Row, chance, ratio_of, seconds

from mcp_server.core.model import SETTLED
from mcp_server.core.policy import poll_after_s
from mcp_server.server.tools_status import ADVISED_S, WAIT_MAX_S
from mcp_server.testing.clock import run_seeded
from mcp_server.testing.world import a_world, story

FIXED_S = 5.0
JOBS = {"3 s": 3.0, "30 s": 30.0, "5 min": 300.0, "20 min": 1200.0, "1 h": 3600.0}
"""About so long; each job is within a fifth of it, so that no interval happens to fit."""
Interval = Callable[[float], float]
"""Seconds until the next check, by the seconds that nothing has changed for."""


def adaptive_s(quiet_s: float) -> float:
    """What a status reply advises whoever cannot wait. The one place that knows how the policy is called."""
    return poll_after_s(quiet_s)


def fixed_s(_quiet_s: float) -> float:
    """The other."""
    return FIXED_S


def watched(job_s: float, interval: Interval) -> tuple[int, float]:
    """Checks until one finds the job ended, and how many seconds after its end."""
    checks, at_s = 0, 0.0
    while at_s < job_s:
        at_s += interval(at_s)
        checks += 1
    return checks, at_s - job_s


def waited(job_s: float, wait_s: float, seed: int) -> tuple[int, float]:
    """The same for a lead that waits on an engine as `story_status(wait_s=...)` does, in virtual time."""

    async def main() -> tuple[int, float]:
        async with a_world() as world:
            world.runner.check_s = 0.0
            world.does(S1=world.good(seconds=job_s))
            world.plan(story("S1"))
            began_s = anyio.current_time()
            world.start(attempt_timeout_s=2 * job_s)
            calls, ended = 0, False
            while not ended:
                calls += 1
                ended = await world.engine.wait_for(lambda _: world.of("S1").state in SETTLED, wait_s)
            return calls, anyio.current_time() - began_s - job_s

    return run_seeded(main, seed)


def rows(config: Config) -> Iterator[Row]:
    """Checks, then delay, by length of job; then those who wait."""
    dice = chance(config.seed, "polling")
    n = config.of(2000, 200)
    for name, about_s in JOBS.items():
        jobs = [dice.uniform(0.8, 1.2) * about_s for _ in range(n)]
        here, there = ([watched(job_s, interval) for job_s in jobs] for interval in (adaptive_s, fixed_s))
        (our_checks, our_s), (their_checks, their_s) = _means(here), _means(there)
        fewer, later = our_checks < their_checks, our_s > their_s
        yield Row(
            2,
            f"job of {name}: checks until its end is seen",
            f"{our_checks:.1f}",
            f"{their_checks:.1f}",
            ratio_of(our_checks, their_checks),
            n,
            "Adaptive interval against a fixed 5 s." if fewer else "No fewer checks: a short job gets more of them.",
        )
        yield Row(
            2,
            f"job of {name}: seen so long after its end",
            seconds(our_s),
            seconds(their_s),
            ratio_of(our_s, their_s),
            n,
            "The price of the row above: found later." if later else "Found sooner.",
        )
    hour_s = JOBS["1 h"]
    fixed = watched(hour_s, fixed_s)[0]
    for wait_s, why in ((float(ADVISED_S), "as a reply advises"), (WAIT_MAX_S, "the most there is")):
        waits = [waited(job_s, wait_s, config.seed) for job_s in JOBS.values()]
        late_s = max(late for _, late in waits)
        yield Row(
            2,
            f"job of 1 h: calls of a lead that waits, wait_s={wait_s:g}",
            f"{waits[-1][0]}",
            f"{fixed}",
            ratio_of(waits[-1][0], fixed),
            len(waits),
            f"Pushed: {why}; the end of each of the {len(waits)} jobs was told {late_s:.2f} s late in virtual time.",
        )


def _means(found: list[tuple[int, float]]) -> tuple[float, float]:
    return mean(checks for checks, _ in found), mean(late_s for _, late_s in found)
