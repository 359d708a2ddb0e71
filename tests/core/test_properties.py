"""Random epics through random histories: what holds in each moment, and that the journal tells all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.adapters.journal import codec
from mcp_server.core.commands import ClaimStory, Command, HandIn, PlanEpic, StartWave
from mcp_server.core.decide import accept, decide
from mcp_server.core.events import Event
from mcp_server.core.evolve import evolve
from mcp_server.core.limits import Budget, Policy, Strategy
from mcp_server.core.model import SATISFIES, Ledger, StoryState, is_alive
from mcp_server.core.spec import Sharing, StorySpec
from mcp_server.core.views import is_at_rest
from mcp_server.core.wanted import Collect, next_wake_s, wanted
from mcp_server.core.why import why
from mcp_server.errors import Code, Refused
from tests.core.build import Life, plan_of, replayed, story
from tests.core.lives import ANY, alarm, claims, commands, crash, holds, late, reports, too_late

PATHS = ("x", "y", "dir/", "dir/z", "*.py")


@st.composite
def epics(draw: st.DrawFn, *, most: int = 6) -> tuple[StorySpec, ...]:
    """Stories whose dependencies come before them."""
    specs: list[StorySpec] = []
    for i in range(draw(st.integers(1, most))):
        depends_on = draw(st.sets(st.sampled_from([s.id for s in specs]), max_size=2)) if specs else set[str]()
        files = draw(st.sets(st.sampled_from(PATHS), max_size=2))
        minutes = draw(st.sampled_from((None, 1.0, 5.0)))
        flags: dict[str, Any] = {"critical": draw(st.booleans()), "done": draw(st.integers(0, 5)) == 0}
        flags["overlap"] = draw(st.sampled_from((None, None, *Sharing)))
        specs.append(story(f"s{i}", *sorted(depends_on), files=" ".join(sorted(files)), minutes=minutes, **flags))
    return tuple(specs)


policies = st.builds(
    Policy,
    strategy=st.sampled_from((*Strategy, Strategy.AGENT_TEAMS)),
    slots=st.integers(1, 3),
    fail_fast=st.booleans(),
    overlap=st.sampled_from((Sharing.EXCLUSIVE, *Sharing)),
    attempts=st.integers(1, 3),
    attempt_timeout_s=st.sampled_from((5.0, 90.0)),
    lease_s=st.sampled_from((3.0, 60.0)),
    repairs=st.integers(0, 2),
    fallback=st.sampled_from(("", "second")),
    breaker_faults=st.sampled_from((0, 1, 2)),
    cooldown_s=st.sampled_from((1.0, 50.0)),
    probe_s=st.sampled_from((1.0, 50.0)),
    fault_tries=st.integers(0, 3),
    epic_timeout_s=st.sampled_from((None, None, 200.0)),
    budget=st.builds(Budget, story_usd=st.sampled_from((None, None, 2.0)), epic_usd=st.sampled_from((None, None, 6.0))),
    adaptive_slots=st.booleans(),
    seed=st.integers(0, 9),
)


HOUSE = settings(deadline=None, derandomize=True, database=None)
"""The same examples each time: a red run is red for everybody."""


class Chance:
    """A life in which anything may happen next, drawn step by step."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.life = Life()
        for name in ("e", "f"):
            self.life.plan(*data.draw(epics(), label=name), epic=name)

    def step(self) -> None:
        kind = self.data.draw(
            st.sampled_from(("fact",) * 9 + ("holder",) * 5 + ("wait",) * 3 + ("lead",) * 3 + ("late", "plan", "crash"))
        )
        match kind:
            case "holder":
                self._holder()
            case "lead":
                self._lead()
            case "late":
                self._late()
            case "wait":
                ticks = [*alarm(self.life.ledger)]
                seconds = ticks[0].at_s - self.life.now_s if ticks else 1.0
                self.life.tick(seconds + self.data.draw(st.sampled_from((-1.0, 0.0, 100.0))))
            case "crash":
                for event in crash(self.life.ledger):
                    self.life.submit(event)
            case "plan":
                self._refusable(PlanEpic(plan_of(*self.data.draw(epics()), epic=self.data.draw(st.sampled_from("ef")))))
            case _:
                facts = list(reports(self.life.ledger, ANY, usd=0.5))
                if facts:
                    self.life.report(self.data.draw(st.sampled_from(facts)))
                else:
                    self._holder()

    def _holder(self) -> None:
        """A sub-agent claims, or one that holds a story reports."""
        every = [*claims(self.life.ledger), *holds(self.life.ledger)]
        if every:
            self.life.command(self.data.draw(st.sampled_from(every)))

    def _late(self) -> None:
        """What comes too late is fenced off."""
        facts, quoted = list(reports(self.life.ledger)), list(too_late(self.life.ledger))
        if facts:
            assert accept(self.life.ledger, late(self.data.draw(st.sampled_from(facts)))) is None
        refused = self._refusable(self.data.draw(st.sampled_from(quoted)))
        assert refused is not None
        assert refused.code is Code.LEASE_LOST

    def _lead(self) -> None:
        policy = self.data.draw(policies)
        every = list(commands(self.life.ledger, policy, throughs=("ready", "all", 2)))
        command = self.data.draw(st.sampled_from(every))
        if isinstance(command, StartWave) and not command.notes and self.data.draw(st.booleans()):
            command = replace(command, notes=((self.data.draw(st.sampled_from(("s0", "s1"))), "Mind the gap."),))
        self._refusable(command)

    def _refusable(self, command: Command) -> Refused | None:
        try:
            event = decide(self.life.ledger, command, self.life.now_s)
        except Refused as refused:
            assert refused.why  # noqa: PT017 - a refusal is one of two good answers
            assert refused.remedy  # noqa: PT017
            return refused
        self.life.submit(event)
        return None


def _holds_after_each_step(before: Ledger, after: Ledger) -> None:
    assert after.as_of_s >= before.as_of_s
    wake_s = next_wake_s(after)
    assert wake_s is None or wake_s > after.as_of_s
    for epic in after.epics.values():
        busy = is_alive(epic.wave) or any(job.attempt.epic == epic.spec.id for job in wanted(after))
        assert not (busy and is_at_rest(after, epic)) or epic.paused
        for s in epic.stories.values():
            silent = s.state is StoryState.RUNNING or (s.state is StoryState.MERGED and s.merged_as is not None)
            of_holder = s.state is StoryState.RUNNING and s.lease is not None
            assert bool(why(after, epic, s)) is not silent or of_holder
            assert s.changed <= after.seq


@settings(HOUSE, max_examples=150)
@given(st.data())
def test_in_any_history_the_invariants_hold_and_replay_tells_the_same(data: st.DataObject) -> None:
    """`Life.submit` checks the invariants after each step; every report of a wanted job is accepted."""
    chance = Chance(data)
    for _ in range(data.draw(st.integers(1, 60))):
        before = chance.life.ledger
        chance.step()
        _holds_after_each_step(before, chance.life.ledger)
    again = replayed([codec.decode(i, *codec.encode(e)[1:]) for i, e in enumerate(chance.life.log)])
    assert replace(again, as_of_s=chance.life.now_s) == chance.life.ledger, "but for ticks that changed nothing"


@settings(HOUSE, max_examples=60)
@given(st.data())
def test_when_the_trouble_ends_a_retried_epic_comes_to_its_end_merged(data: st.DataObject) -> None:
    """After any history, with agents that succeed and merges that land, everything is merged within a bound."""
    chance = Chance(data)
    for _ in range(data.draw(st.integers(0, 30))):
        chance.step()
    life = chance.life
    for _ in range(300):
        if all(s.state in SATISFIES for e in life.ledger.epics.values() for s in e.stories.values()):
            return
        _kind_step(life)
    pytest.fail(f"still not merged: {life.states()} {life.states('f')}")


def _kind_step(life: Life) -> None:
    """The first good thing that can happen; a sub-agent that gave up is followed by one that does not."""
    good = ("AttemptStopped", "BranchMerged", "MergeProven", "AttemptSucceeded", "AttemptClaimed")
    over = {j.attempt for j in wanted(life.ledger) if isinstance(j, Collect)}
    facts = sorted(
        (f for f in reports(life.ledger) if type(f).__name__ in good or f.attempt in over),
        key=lambda f: ("LeaseRenewed", *good, "LeaseEnded", "AttemptFailed").index(type(f).__name__),
    )
    if facts:
        life.report(facts[0])
        return
    held = [c for c in (*claims(life.ledger), *holds(life.ledger)) if isinstance(c, ClaimStory | HandIn)]
    if held:
        life.command(held[0])
        return
    ticks = [*alarm(life.ledger)]
    if ticks:
        life.submit(ticks[0])
        return
    for epic in life.ledger.epics.values():
        if any(s.state not in SATISFIES for s in epic.stories.values()):
            if epic.paused:
                life.resume(epic=epic.spec.id)
                return
            life.start(epic=epic.spec.id, retry=True, slots=2)
            return


# --- the codec -------------------------------------------------------------------------------------------------------


FINITE = st.floats(allow_nan=False, allow_infinity=False)
"""JSON has no infinity; the edges see to it that no number of an event is infinite."""
st.register_type_strategy(float, FINITE)
st.register_type_strategy(Mapping, lambda kind: st.dictionaries(*map(st.from_type, get_args(kind)), max_size=5))


@pytest.mark.parametrize("kind", codec.KINDS)
@settings(HOUSE, max_examples=25)
@given(st.data())
def test_an_event_of_every_kind_survives_the_journal_unchanged(kind: str, data: st.DataObject) -> None:
    event: Event = data.draw(st.from_type(cast("type[Event]", codec.KINDS[kind])))
    row = codec.encode(event)
    assert row[:3] == (event.at_s, kind, codec.VERSIONS.get(kind, codec.FIRST))
    assert codec.decode(1, *row[1:]) == event


def test_the_codec_knows_every_kind_of_event() -> None:
    assert sorted(codec.KINDS) == sorted(
        [
            "AttemptClaimed",
            "AttemptFailed",
            "AttemptLeased",
            "AttemptStopped",
            "AttemptSucceeded",
            "BranchMerged",
            "EpicCancelled",
            "EpicLanded",
            "EpicPaused",
            "EpicPlanned",
            "EpicResumed",
            "LeaseEnded",
            "LeaseRenewed",
            "MergeFound",
            "MergeProven",
            "MergeRefused",
            "RollbackGivenUp",
            "RollbackProven",
            "StoriesRolledBack",
            "StoryCancelled",
            "StoryRetried",
            "StorySkipped",
            "Ticked",
            "UsageReported",
            "WorkSeen",
            "WaveDrained",
            "WaveInterrupted",
            "WaveStarted",
            "WaveWidened",
        ]
    )


@settings(HOUSE, max_examples=60)
@given(st.data())
def test_evolve_is_a_function_of_its_arguments(data: st.DataObject) -> None:
    """The same fact on the same ledger gives the same ledger, and the one before is as it was."""
    chance = Chance(data)
    for _ in range(data.draw(st.integers(1, 15))):
        chance.step()
    log = chance.life.log
    before = replayed(log[:-1])
    assert evolve(before, log[-1]) == evolve(before, log[-1])
    assert before == replayed(log[:-1])
