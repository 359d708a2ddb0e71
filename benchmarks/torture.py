"""Random epics on real git, tortured; an outside judge counts what is lost. `python benchmarks/torture.py --epics 200`.

`[--seed N] [--jobs K] [--only N] [--stories MOST] [--at STEP] [--keep]`

Each epic has 5 to 40 stories with random dependencies, and scripted agents that edit the same files at the same time,
lie, crash, hang, break the check, delete or rename what others need. git, checks and the engine get kill -9 inside the
steps of an attempt and of the merge queue, before, during or after the real thing; then an engine is started again and
goes on, a person has tried again what waits or failed, until all is merged. Real git, real processes, the product's own
engine; only waits in which nothing moves are jumped over. At the end a judge that reads git, what the agents themselves
wrote down, and the journal's claims says of each epic: what was accepted is on the branch exactly once, what was not
is on a rescue ref, checks are green wherever the branch has been, nobody started before what he builds on, the user's
checkout, index, HEAD, configuration and hooks are byte for byte as they were, and nothing is left behind. Exit code 1
on any exception to that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import psutil
from leak_world import PATIENCE_S
from torture_engine import DONE, NOT_OPENED, ended, forked
from torture_judge import Court, verdict
from torture_world import BRANCH, EPIC, TorturePlace

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import MergeRefused
from mcp_server.core.model import Cause, Story, StoryState
from mcp_server.server.mirror import Mirror

MOST_ENGINES = 60
ENGINE_S = 240.0
"""An engine that has not come to its end by then is stuck."""

SHOWN_EVERY = 20
"""Epics between two lines that say how far it is."""


@dataclass(slots=True)
class Epic:
    """One epic: what it was, what struck it, and what the judge says."""

    number: int
    stories: int = 0
    merged: int = 0
    starts: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    manners: Counter[str] = field(default_factory=Counter[str])
    fired: list[str] = field(default_factory=list[str])
    engines: int = 0
    positions: int = 0
    red_between: int = 0
    exceptions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    seconds: float = 0.0


def one(seed: int, most: int, only: str | None, keep: bool, number: int) -> Epic:
    """One epic, to its end and before the judge."""
    dice = random.Random(f"{seed} {number}")  # noqa: S311 - to be repeated by its seed
    epic, began_s = Epic(number, dice.randint(5, max(5, most))), time.monotonic()
    place = TorturePlace(dice, epic.stories)
    try:
        place.arm(dice, only)
        _torture(epic, place, dice)
        _judge(epic, place)
    except (AssertionError, OSError, psutil.Error, KeyError, ValueError) as error:
        epic.exceptions.setdefault("broken", []).append(f"{type(error).__name__}: {error}")
    finally:
        if epic.exceptions:
            log = place.folder / "engine.log"
            epic.exceptions["engine"] = [log.read_text("utf-8", "replace")[-1500:]] if log.exists() else []
        if epic.exceptions and keep:
            epic.exceptions["kept"] = [str(place.folder)]
        else:
            place.remove()
    epic.seconds = time.monotonic() - began_s
    return epic


def _torture(epic: Epic, place: TorturePlace, dice: random.Random) -> None:
    """Engine after engine until one says that all is merged."""
    while True:
        epic.engines += 1
        assert epic.engines <= MOST_ENGINES, f"not all is merged after {MOST_ENGINES} engines"
        code = ended(forked(place, goes_on=dice.random() < 0.5), ENGINE_S)
        if code == DONE:
            return
        if code not in (-signal.SIGKILL, NOT_OPENED):
            waits = [s for s in _claims(place).values() if s.state is not StoryState.MERGED]
            states = [f"{s.spec.id} {s.state}: {s.failure and s.failure.detail[:300]}" for s in waits]
            how = f"is stuck for {ENGINE_S:g} s" if code is None else f"ended with {code}"
            raise AssertionError(f"an engine {how}, with {states}")


def _claims(place: TorturePlace) -> dict[str, Story]:
    epic = Mirror(place.journal).ledger().epics.get(EPIC)
    return dict(epic.stories.items()) if epic is not None else {}


def _judge(epic: Epic, place: TorturePlace) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while place.processes() and time.monotonic() < until_s:
        time.sleep(0.1)
    stories = _claims(place)
    claims = {name: (str(story.state), story.attempt) for name, story in stories.items()}
    court = Court(place.repo, BRANCH, place.folder / "check", place.environment, place.folder / "court")
    found = court.evidence(place.committed, place.depends, claims)
    epic.exceptions = verdict(found)
    left = place.leaks()
    left.pop("checkout", None)
    left["touched"] = place.touched()
    left["temporary"] = left.get("temporary", []) + place.scratch_left()
    epic.exceptions |= {kind: entries for kind, entries in left.items() if entries}
    epic.merged = sum(state == StoryState.MERGED for state, _ in claims.values())
    epic.starts, epic.manners = len(found.starts), Counter(start.manner for start in found.starts)
    epic.positions, epic.red_between, epic.fired = len(found.positions), len(found.red_between), place.fired()
    for fact in SqliteJournal(place.journal).replay():
        if isinstance(fact, MergeRefused):
            epic.refused[str(fact.cause)] += 1


def main() -> int:
    """Torture them, print the summary; 1 on any exception."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epics", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="epics at the same time")
    parser.add_argument("--stories", type=int, default=40, help="of an epic, at most; at least 5")
    parser.add_argument("--only", type=int, help="repeat this epic alone")
    parser.add_argument("--at", help="strike at this step only, as the summary names it: 'rebase', 'fact MergeProven'")
    parser.add_argument("--keep", action="store_true", help="leave what is left of an epic with an exception")
    asked = parser.parse_args()
    numbers: Sequence[int] = [asked.only] if asked.only is not None else range(asked.epics)
    print(
        f"seed {asked.seed}, {len(numbers)} epics of 5 to {asked.stories} stories, {asked.jobs} at a time", flush=True
    )
    began_s, epics = time.monotonic(), list[Epic]()
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for epic in pool.map(partial(one, asked.seed, asked.stories, asked.at, asked.keep), numbers):
            epics.append(epic)
            if len(epics) % SHOWN_EVERY == 0:
                print(f"{len(epics)} epics, {time.monotonic() - began_s:.0f} s", flush=True)
            if epic.exceptions:
                again = f"--seed {asked.seed} --stories {asked.stories} --only {epic.number}"
                again += f" --at '{asked.at}'" if asked.at else ""
                print(f"EXCEPTION: {again}: {epic.stories} stories, {epic.engines} engines, {epic.fired}")
                for kind, entries in epic.exceptions.items():
                    print(f"  {kind}:", *entries, sep="\n    ", flush=True)
    _summary(epics, time.monotonic() - began_s)
    return any(epic.exceptions for epic in epics)


def _summary(epics: Sequence[Epic], seconds: float) -> None:
    manners, refused, fired = Counter[str](), Counter[str](), Counter[str]()
    for epic in epics:
        manners += epic.manners
        refused += epic.refused
        fired.update(epic.fired)
    print(f"\nepics {len(epics)}, stories {sum(e.stories for e in epics)}, merged {sum(e.merged for e in epics)}")
    print(f"agents started {sum(e.starts for e in epics)}: {_told(manners)}")
    print(f"merges refused: {_told(refused)}")
    print(f"engines {sum(e.engines for e in epics)}; strikes {fired.total()} at {len(fired)} kinds of step:")
    for step, number in sorted(fired.items()):
        print(f"  {number:4} {step}")
    print(f"places of the branch, all checked again: {sum(e.positions for e in epics)}")
    print(f"red commits between two of them: {sum(e.red_between for e in epics)}")
    print(f"conflicts: {refused[Cause.CONFLICT]}, red merges: {refused[Cause.CHECKS]}, faults: {refused[Cause.FAULT]}")
    print(f"seconds: {seconds:.0f} in all, {sum(e.seconds for e in epics) / len(epics):.1f} an epic")
    print(f"epics with exceptions: {sum(bool(e.exceptions) for e in epics)} of {len(epics)}")


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main())
