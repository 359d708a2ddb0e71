"""Claim 5: makespan of barrier waves against ours. One core does both: told to run all, or level after level.

Virtual time, no git: stories take their minutes, merging takes none. Both have the same slots, file locks and ranks;
the barrier starts a level of the plan when the level before is merged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from statistics import median

from claim.rows import Config, NotYet, Row, at, chance

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.core.commands import PlanEpic, StartWave, Through
from mcp_server.core.decide import decide
from mcp_server.core.draft import DraftStory, EpicDraft, Mention
from mcp_server.core.events import AttemptClaimed, AttemptSucceeded, BranchMerged
from mcp_server.core.evolve import evolve
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import Ledger, Process, StoryState
from mcp_server.core.planning import Plan, plan
from mcp_server.core.spec import AttemptId, StoryId
from mcp_server.errors import Refused

SLOTS = (2, 3, 4, 8)
SHA = "0" * 40
SAME = 0.001
"""Ratios within this of 1 are called equal."""
Minutes = Mapping[StoryId, float]


def makespan_minutes(planned: Plan, minutes: Minutes, slots: int, *, barrier: bool) -> float:
    """Minutes until everything is merged."""
    epic = planned.spec.id
    policy = Policy(strategy=Strategy.ASYNCIO, slots=slots)
    ledger, now_s = Ledger(), 0.0
    ledger = evolve(ledger, decide(ledger, PlanEpic(planned), now_s))
    steps: Sequence[Through] = range(1, len(planned.waves) + 1) if barrier else ["all"]
    for through in steps:
        ledger = evolve(ledger, decide(ledger, StartWave(epic, through, policy, SHA), now_s))
        at_work: list[tuple[float, AttemptId]] = []
        while True:
            for story in ledger.epics[epic].stories.values():
                if story.state is StoryState.OFFERED:
                    attempt = AttemptId(epic, story.spec.id, story.attempt)
                    ledger = evolve(ledger, AttemptClaimed(attempt, Process(1, now_s), SHA, now_s))
                    heappush(at_work, (now_s + 60 * minutes[story.spec.id], attempt))
            if not at_work:
                break
            now_s, attempt = heappop(at_work)
            ledger = evolve(ledger, AttemptSucceeded(attempt, SHA, SHA, (), now_s))
            ledger = evolve(ledger, BranchMerged(attempt, SHA, (), now_s))
    left = [s.spec.id for s in ledger.epics[epic].stories.values() if s.state is not StoryState.MERGED]
    assert not left, f"never merged: {left}"
    return now_s / 60


def both(planned: Plan, minutes: Minutes, slots: int) -> tuple[float, float]:
    """Our makespan and that of the barrier."""
    ours = makespan_minutes(planned, minutes, slots, barrier=False)
    return ours, makespan_minutes(planned, minutes, slots, barrier=True)


def durations(planned: Plan, dice: Random) -> dict[StoryId, float]:
    """Minutes as the author named them, 30 a point; else chance, lognormal around half an hour."""
    found: dict[StoryId, float] = {}
    for story in planned.spec.stories:
        unknown = dice.lognormvariate(3.4, 0.8)
        found[story.id] = story.minutes or (story.points or 0) * 30.0 or unknown
    return found


def random_plan(dice: Random) -> Plan:
    """6 to 40 stories, each on up to three of the ten before it, with two files. Half of the plans name minutes."""
    count, reach, hot = dice.randint(6, 40), dice.choice([0.5, 1.0, 2.0]), dice.choice([0.0, 0.1, 0.3])
    estimated = dice.random() < 0.5
    stories: list[DraftStory] = []
    for number in range(count):
        before = [f"S{n}" for n in range(max(0, number - 10), number)]
        needs = dice.sample(before, min(len(before), dice.choice([0, 1, round(reach), round(1.5 * reach)])))
        files = ["shared.py" if dice.random() < hot else f"part{dice.randrange(count)}.py" for _ in range(2)]
        stories.append(
            DraftStory(
                f"S{number}",
                f"Story {number}",
                depends_on=tuple(map(Mention, needs)),
                files=tuple(map(Mention, dict.fromkeys(files))),
                minutes=dice.lognormvariate(3.4, 0.8) if estimated else None,
            )
        )
    return plan(EpicDraft(tuple(stories), id="random", title="Random"))


def corpus() -> Path:
    """Where real epics are. Raises `NotYet` when nobody says so."""
    root = os.environ.get("EPICWAVE_CORPUS")
    if not root:
        raise NotYet("EPICWAVE_CORPUS names no folder of real epics, so only random graphs are measured.")
    return Path(root)


def real_epics(root: Path) -> list[Plan]:
    """Every epic in the folder that can be planned and has a barrier: two levels, three stories."""
    found: list[Plan] = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in {".md", ".yaml", ".yml"}):
        try:
            planned = plan(read_epic(path).draft, redo=True)
        except Refused:
            continue  # no epic, or one that its author has to mend
        if len(planned.waves) > 1 and len(planned.spec.stories) > 2:
            found.append(planned)
    return found


def histories(root: Path) -> list[Plan]:
    """Windows of consecutive real commits, read as stories: their files, and whose lines they replace."""
    found: list[Plan] = []
    for path in sorted((root / "git-histories").glob("*.json")):
        for window in json.loads(path.read_text("utf-8")):
            stories = tuple(
                DraftStory(
                    f"C{number}",
                    commit["sha"][:10],
                    depends_on=tuple(Mention(f"C{n}") for n in commit["deps"]),
                    files=tuple(map(Mention, commit["files"])),
                    minutes=2 + 0.5 * (commit["add"] + commit["dele"]) ** 0.5,
                )
                for number, commit in enumerate(window)
            )
            found.append(plan(EpicDraft(stories, id="history", title=path.stem)))
    return found


def rows(config: Config) -> Iterator[Row]:
    """By kind of graph and by slots."""
    dice = chance(config.seed, "barriers")
    kinds = {"random graphs": [random_plan(dice) for _ in range(config.of(400, 40))]}
    try:
        root = corpus()
        real = {"real epics": real_epics(root), "windows of 50 real commits": histories(root)[:: config.of(1, 8)]}
        kinds = {name: plans for name, plans in real.items() if plans} | kinds
    except NotYet as reason:
        yield Row(5, "real epics", "skipped", "skipped", None, 0, str(reason))
    for name, plans in kinds.items():
        timed = [(planned, durations(planned, dice)) for planned in plans]
        for slots in SLOTS:
            yield _row(name, slots, [both(planned, minutes, slots) for planned, minutes in timed])


def _row(name: str, slots: int, found: list[tuple[float, float]]) -> Row:
    ratios = [ours / barrier for ours, barrier in found]
    worse = sum(value > 1 + SAME for value in ratios)
    same = sum(abs(value - 1) <= SAME for value in ratios)
    return Row(
        5,
        f"makespan of {name}, {slots} slots",
        f"{median(ours for ours, _ in found):.0f} min",
        f"{median(barrier for _, barrier in found):.0f} min",
        median(ratios),
        len(ratios),
        f"Medians; p95 of the ratio {at(ratios, 0.95):.2f}. The barrier was better in {worse} (at worst for us "
        f"{max(1.0, *ratios):.2f}) and as good in {same}.",
    )
