"""Many lives in several processes: each by its seed, so that how they are shared out changes nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice

from mcp_server.core.limits import Strategy
from mcp_server.testing.fate import Config
from mcp_server.testing.lives import Lived, live
from mcp_server.testing.tally import Tally, digest

AT_ONCE = 20
"""Lives that a process gets at a time."""


@dataclass(slots=True)
class Simulated:
    """What many lives were: stops with the first, by seed, in which a promise was broken."""

    tally: Tally = field(default_factory=Tally)
    broken: Lived | None = None
    digests: list[str] = field(default_factory=list[str])

    @property
    def digest(self) -> str:
        """A fingerprint of all lives, in the order of their seeds."""
        return digest(self.digests)


def simulate(seed: int, lives: int, only: Strategy | None, jobs: int, told: Callable[[Tally], None]) -> Simulated:
    """Live the lives of so many seeds, from `seed` on. `told` hears of the tally now and then."""
    simulated = Simulated()
    for batch in _batches(seed, lives, only, jobs):
        for lived in batch:
            simulated.tally.add(lived.tally)
            simulated.digests.append(lived.digest)
            if lived.breaches:
                simulated.broken = lived
                return simulated
        told(simulated.tally)
    return simulated


def _batches(seed: int, lives: int, only: Strategy | None, jobs: int) -> Iterator[list[Lived]]:
    """The lives in the order of their seeds, a batch at a time."""
    firsts = range(seed, seed + lives, AT_ONCE)
    one = partial(_live_some, end=seed + lives, only=only)
    if jobs == 1:
        yield from map(one, firsts)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(one, first) for first in islice(firsts, 2 * jobs)]
        try:
            for number in count():
                if number == len(waiting):
                    return
                batch = waiting[number].result()
                if len(waiting) < len(firsts):
                    waiting.append(pool.submit(one, firsts[len(waiting)]))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _live_some(first: int, end: int, only: Strategy | None) -> list[Lived]:
    """Up to `AT_ONCE` lives; none after one in which a promise was broken."""
    lived: list[Lived] = []
    for seed in range(first, min(first + AT_ONCE, end)):
        lived.append(live(Config.of(seed, only)))
        if lived[-1].breaches:
            break
    return lived
