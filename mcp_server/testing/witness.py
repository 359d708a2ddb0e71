"""Who looks on: what the lead has said and how agents have ended, and whether anything may start now.

It reads the facts as they are stored and keeps books of its own; the engine's state it asks only for what was admitted
in the moment when something was said, and whether a probe was told to stop.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mcp_server.core.events import (
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    EpicCancelled,
    EpicPaused,
    EpicResumed,
    Event,
    LeaseEnded,
    MergeProven,
    MergeRefused,
    StoryCancelled,
    StoryRetried,
    StorySkipped,
    UsageReported,
    WaveInterrupted,
    WaveStarted,
    WaveWidened,
)
from mcp_server.core.limits import Policy, Strategy
from mcp_server.core.model import NOTHING_USED, Cause, Ledger, StoryState, Usage, is_alive, is_team
from mcp_server.core.policy import MERGE_TRIES
from mcp_server.core.spec import AttemptId, EpicId, StoryId
from mcp_server.ports import ProcessEnd
from mcp_server.testing.breach import Breach, Promise

TEAM = str(Strategy.AGENT_TEAMS)
FAULTS = frozenset({Cause.SPAWN, Cause.API_ERROR, Cause.CRASH, Cause.STALL, Cause.LEASE_LOST})
WORLDS = frozenset({Cause.SPAWN, Cause.API_ERROR, Cause.FAULT, Cause.SETUP, Cause.RATE_LIMIT})
"""Ends that cost a story nothing."""
SHORTEST_PARK_S = 30.0
CENT = 1e-9
Key = tuple[EpicId, StoryId]


@dataclass(slots=True)
class Outage:
    """A profile as it is seen from outside; `until_s` is None while it works."""

    faults: int = 0
    opened: int = 0
    until_s: float | None = None
    admitted: frozenset[AttemptId] = frozenset()
    """Attempts that were on their way already when it opened."""
    probe: AttemptId | None = None
    probing_since_s: float | None = None
    parked_until_s: float = 0.0
    on_their_way: frozenset[AttemptId] = frozenset()
    """Attempts that were so already when it was parked."""

    def close(self) -> None:
        """It works again."""
        self.faults, self.opened, self.until_s, self.probe, self.probing_since_s = 0, 0, None, None, None


class Witness:
    """Stores what was said, what was used, how agents ended, and the breaches that were seen."""

    def __init__(self) -> None:
        self.breaches: list[Breach] = []
        self.policies: dict[EpicId, Policy] = {}
        """Of each epic's last wave."""
        self.profiles: dict[AttemptId, str] = {}
        """Attempts that have started, with what worked on them."""
        self.over: set[AttemptId] = set()
        """Attempts that ended without a merge, as it is on record."""
        self.proven: set[AttemptId] = set()
        """Attempts whose proof is on record."""
        self.skipped: set[Key] = set()
        self._outages: dict[str, Outage] = defaultdict(Outage)
        self._ends: dict[AttemptId, ProcessEnd] = {}
        self._paused: dict[EpicId, frozenset[AttemptId]] = {}
        self._given_up: dict[Key, frozenset[AttemptId]] = {}
        self._deadlines_s: dict[EpicId, float] = {}
        self._used: dict[AttemptId, Usage] = {}
        self._forgiven: dict[Key, set[AttemptId]] = defaultdict(set)
        self._costly: Counter[Key] = Counter()
        """Ends since a story was last released that may cost it an attempt."""
        self._free: Counter[Key] = Counter()
        self._merge_faults: Counter[Key] = Counter()

    # --- agents

    def starts(self, attempt: AttemptId, profile: str, now_s: float, ledger: Ledger) -> None:
        """Somebody begins to work on an attempt, or is about to be started for it."""
        if attempt in self.profiles:
            if profile != TEAM:
                self._saw(Promise.DUPLICATED, f"{attempt} was started twice")
            return
        self._may_start(attempt, now_s)
        self._profile_may_start(attempt, profile, now_s, ledger)
        self.profiles[attempt] = profile

    def works(self, attempt: AttemptId, now_s: float) -> None:
        """Its agent is alive: from here on a probe counts."""
        outage = self._outages[self.profiles[attempt]]
        if outage.probe == attempt:
            outage.probing_since_s = now_s

    def forgets(self) -> None:
        """The journal has lost records: what has not landed may be begun anew, by the same numbers."""
        self.profiles = {attempt: name for attempt, name in self.profiles.items() if attempt in self.proven}
        self.over &= self.proven

    def ends(self, attempt: AttemptId, end: ProcessEnd) -> None:
        """Its agent has ended by itself, or at a limit of its time."""
        self._ends[attempt] = end

    def adopts(self, attempt: AttemptId, *, there: bool) -> None:
        """An engine follows what another one has started."""
        if attempt in self.over or attempt not in self.profiles:
            self._saw(Promise.RESURRECTED, f"{attempt} was adopted although it was over, or never begun")
        if not there:
            self._saw(Promise.TOLD, f"{attempt} was adopted although nothing was left of it")

    def overran(self, attempt: AttemptId, seconds: float) -> None:
        """It was let work for so long beyond its time."""
        self._saw(Promise.LIMIT, f"{attempt} worked for {seconds:.0f} s more than it may")

    def had_ended(self, attempts: Iterable[AttemptId]) -> None:
        """How these ended is on record, and yet they are put back as if they had not."""
        self.breaches += [
            Breach(Promise.TOLD, f"the end of {attempt} was on record and is lost") for attempt in attempts
        ]

    def was_alone(self, ledger: Ledger) -> None:
        """Nobody looked after the waves for so long that the lead has to say that they go on."""
        for name, epic in ledger.epics.items():
            if is_alive(epic.wave) and not is_team(epic):
                self._paused.setdefault(name, frozenset())

    def lands(self, attempt: AttemptId) -> None:
        """Its work comes onto the integration branch."""
        if attempt not in self.proven:
            self._saw(Promise.PROOF, f"{attempt} landed before its proof was on record")
        later = [a for a in self.profiles if a[:2] == attempt[:2] and a.number > attempt.number]
        if later:
            self._saw(Promise.RESURRECTED, f"{attempt} landed although {later[0]} had taken its place")
        if attempt in self.over:
            self._saw(Promise.RESURRECTED, f"{attempt} landed although it was over")

    def _may_start(self, attempt: AttemptId, now_s: float) -> None:
        epic, key = attempt.epic, (attempt.epic, attempt.story)
        if attempt not in self._paused.get(epic, {attempt}):
            self._saw(Promise.HELD, f"{attempt} started while its epic was paused")
        if now_s > self._deadlines_s.get(epic, now_s):
            self._saw(Promise.HELD, f"{attempt} started after the time of its wave")
        if attempt not in self._given_up.get(key, {attempt}):
            self._saw(Promise.RESURRECTED, f"{attempt} started although its story was cancelled or skipped")
        if any(a[:2] == key and a.number >= attempt.number for a in self.profiles):
            self._saw(Promise.RESURRECTED, f"{attempt} started after a later one")
        budget = self.policies[epic].budget
        of_epic = self._spent([a for a in self._used if a.epic == epic])
        if _beyond(of_epic, budget.epic_usd, budget.epic_tokens):
            self._saw(Promise.BUDGET, f"{attempt} started although its epic had used {of_epic}")
        of_story = self._spent([a for a in self._used if a[:2] == key and a not in self._forgiven[key]])
        if _beyond(of_story, budget.story_usd, budget.story_tokens):
            self._saw(Promise.BUDGET, f"{attempt} started although its story had used {of_story}")

    def _profile_may_start(self, attempt: AttemptId, profile: str, now_s: float, ledger: Ledger) -> None:
        outage = self._outages[profile]
        self._look_at_probe(outage, now_s, ledger)
        if now_s < outage.parked_until_s and attempt not in outage.on_their_way:
            self._saw(Promise.HELD, f"{attempt} started while {profile} was parked")
        if outage.until_s is None or attempt in outage.admitted:
            return
        if now_s < outage.until_s:
            self._saw(Promise.BREAKER, f"{attempt} started while the breaker of {profile} was open")
        elif outage.probe is not None:
            self._saw(Promise.BREAKER, f"{attempt} is a second probe of {profile} besides {outage.probe}")
        else:
            outage.probe, outage.probing_since_s = attempt, None

    def _look_at_probe(self, outage: Outage, now_s: float, ledger: Ledger) -> None:
        probe = outage.probe
        if probe is None:
            return
        story = ledger.epics[probe.epic].stories[probe.story]
        stops = self._deadlines_s.get(probe.epic, now_s + 1.0) <= now_s  # its wave's time ran out with nobody there
        if stops or story.attempt != probe.number or story.state not in (StoryState.OFFERED, StoryState.RUNNING):
            outage.probe = outage.probing_since_s = None  # it was told to stop, or went the way of its engine
        elif outage.probing_since_s is not None and now_s >= outage.probing_since_s + self.policies[probe.epic].probe_s:
            outage.close()

    # --- facts, as they are stored

    def hears(self, event: Event, ledger: Ledger) -> None:
        """A fact is stored; `ledger` is as it was before."""
        gone = event if isinstance(event, WaveInterrupted) else None
        for outage in self._outages.values():
            if outage.probe is not None and (gone is None or outage.probe.epic != gone.epic):
                self._look_at_probe(outage, event.at_s, ledger)
        match event:
            case LeaseEnded():
                for outage in self._outages.values():
                    if outage.probe == event.attempt:
                        outage.probing_since_s = None  # nobody works on it any more
            case AttemptLeased():
                self.starts(event.attempt, TEAM, event.at_s, ledger)
                self.works(event.attempt, event.at_s)
            case AttemptFailed() | AttemptSucceeded() | AttemptStopped() | MergeRefused() | UsageReported():
                self._ended(event, ledger)
            case MergeProven():
                self.proven.add(event.attempt)
            case WaveInterrupted():
                self._interrupted(event, ledger)
            case _:
                self._hears_lead(event, ledger)

    def _hears_lead(self, event: Event, ledger: Ledger) -> None:
        match event:
            case WaveStarted() | WaveWidened():
                self._released(event)
            case StoryRetried():
                self._may_again((event.epic, event.story))
            case EpicPaused():
                self._paused[event.epic] = _admitted(ledger)
            case EpicResumed():
                self._resumed(event)
            case EpicCancelled():
                for story in ledger.epics[event.epic].stories:
                    self._given_up.setdefault((event.epic, story), _admitted(ledger))
            case StorySkipped():
                self._given_up[event.epic, event.story] = _admitted(ledger)
                self.skipped.add((event.epic, event.story))
            case StoryCancelled():
                self._given_up[event.epic, event.story] = _admitted(ledger)
            case _:
                pass

    def _released(self, event: WaveStarted | WaveWidened) -> None:
        self._paused.pop(event.epic, None)
        if isinstance(event, WaveStarted):
            self.policies[event.epic] = event.policy
            limit_s = event.policy.epic_timeout_s
            self._deadlines_s[event.epic] = event.at_s + limit_s if limit_s is not None else float("inf")
        for story in event.members:
            key = event.epic, story
            before = self._forgiven[key].copy()
            self._may_again(key)
            if story not in event.retried:
                self._forgiven[key] = before

    def _may_again(self, key: Key) -> None:
        """The lead had the story released, or tried again: it begins with a clean sheet."""
        self._given_up.pop(key, None)
        self.skipped.discard(key)
        self._forgiven[key] = {a for a in self._used if a[:2] == key}
        for counts in (self._costly, self._free, self._merge_faults):
            counts.pop(key, None)

    def _resumed(self, event: EpicResumed) -> None:
        self._paused.pop(event.epic, None)
        for outage in self._outages.values():
            outage.parked_until_s = min(outage.parked_until_s, event.at_s)
            outage.until_s = min(outage.until_s, event.at_s) if outage.until_s is not None else None

    def _interrupted(self, event: WaveInterrupted, ledger: Ledger) -> None:
        alive = {a for a in _admitted(ledger) if a.epic == event.epic}
        gone = {a for a in alive if a.story not in event.adopted}
        self.over |= gone
        if event.goes_on:
            self._free.update(a[:2] for a in gone)
        for outage in self._outages.values():
            if outage.probe in gone:
                outage.probe = outage.probing_since_s = None

    def _ended(
        self,
        event: AttemptFailed | AttemptSucceeded | AttemptStopped | MergeRefused | UsageReported,
        ledger: Ledger,
    ) -> None:
        attempt = event.attempt
        key = attempt[:2]
        if isinstance(event, AttemptSucceeded | AttemptFailed | UsageReported):
            before = self._used.get(attempt, NOTHING_USED)
            self._used[attempt] = Usage(max(before.usd, event.usage.usd), max(before.tokens, event.usage.tokens))
        if isinstance(event, MergeRefused):
            counts = self._merge_faults if event.cause is Cause.FAULT else self._costly
            counts[key] += 1
        elif isinstance(event, AttemptFailed):
            self.over.add(attempt)
            (self._free if event.cause in WORLDS else self._costly)[key] += 1
            self._blamed_rightly(event)
        elif isinstance(event, AttemptStopped):
            self.over.add(attempt)
        if not isinstance(event, MergeRefused | UsageReported) and attempt in self.profiles:
            self._judge(event, self._outages[self.profiles[attempt]], ledger)

    def _blamed_rightly(self, event: AttemptFailed) -> None:
        """What an agent has shown at its end is what is on record, unless git failed after it."""
        end = self._ends.get(event.attempt)
        if end is not None and end.trouble is not None and event.cause not in (end.trouble, Cause.FAULT):
            self._saw(Promise.TOLD, f"{event.attempt} ended by {end.trouble} and is told as {event.cause}")

    def _judge(self, event: AttemptFailed | AttemptSucceeded | AttemptStopped, outage: Outage, ledger: Ledger) -> None:
        """What the end of an attempt says of its profile."""
        policy, at_s = self.policies[event.attempt.epic], event.at_s
        cause = event.cause if isinstance(event, AttemptFailed) else None
        if isinstance(event, AttemptFailed) and cause is Cause.RATE_LIMIT:
            self._park(event, outage, ledger)
        is_probe = outage.probe == event.attempt
        if is_probe and (cause in (Cause.RATE_LIMIT, Cause.FAULT, Cause.SETUP) or isinstance(event, AttemptStopped)):
            outage.probe = outage.probing_since_s = None
        elif cause in FAULTS and policy.breaker_faults and (outage.until_s is None or is_probe):
            outage.faults += 1
            if is_probe or outage.faults >= policy.breaker_faults:
                outage.opened += 1
                wait_s = min(policy.cooldown_cap_s, policy.cooldown_s * 2.0 ** (outage.opened - 1))
                outage.until_s, outage.admitted = at_s + wait_s, _admitted(ledger)
                outage.probe = outage.probing_since_s = None
        elif self._fared_well(event) and (outage.until_s is None or is_probe):
            outage.close()

    def _fared_well(self, event: AttemptFailed | AttemptSucceeded | AttemptStopped) -> bool:
        """Its agent came to an end of its own, good or bad."""
        if isinstance(event, AttemptFailed):
            return event.cause not in FAULTS | WORLDS
        return isinstance(event, AttemptSucceeded)

    def _park(self, event: AttemptFailed, outage: Outage, ledger: Ledger) -> None:
        end = self._ends.get(event.attempt)
        until_s = end.resumes_at_s if end is not None else None
        if until_s is None or until_s <= event.at_s:
            until_s = event.at_s + SHORTEST_PARK_S
        outage.parked_until_s = max(outage.parked_until_s, until_s)
        outage.on_their_way = _admitted(ledger)

    # --- the verdict

    def unjust(self, ledger: Ledger) -> list[Breach]:
        """Stories that have failed by the world's doing alone, or before their attempts were used up."""
        found: list[Breach] = []
        for epic_id, epic in ledger.epics.items():
            for name, story in epic.stories.items():
                if story.state is not StoryState.FAILED or epic_id not in self.policies:
                    continue
                key, policy = (epic_id, name), self.policies[epic_id]
                budget = policy.budget
                spent = self._spent([a for a in self._used if a[:2] == key and a not in self._forgiven[key]])
                is_spent = (budget.story_usd and spent.usd >= budget.story_usd - CENT) or (
                    budget.story_tokens and spent.tokens >= budget.story_tokens
                )
                ends = self._costly[key] + max(0, self._free[key] - policy.fault_tries)
                if ends < policy.attempts and self._merge_faults[key] < MERGE_TRIES and not is_spent:
                    words = f"{ends} of {policy.attempts} attempts used, and {self._free[key]} that cost nothing"
                    found.append(Breach(Promise.BREAKER, f"{epic_id}/{name} has failed with {words}"))
        return found

    def _spent(self, attempts: list[AttemptId]) -> Usage:
        total = NOTHING_USED
        for attempt in attempts:
            total = total.plus(self._used[attempt])
        return total

    def _saw(self, promise: Promise, words: str) -> None:
        self.breaches.append(Breach(promise, words))


def _beyond(used: Usage, usd: float | None, tokens: int | None) -> bool:
    return bool((usd and used.usd > usd + CENT) or (tokens and used.tokens > tokens))


def _admitted(ledger: Ledger) -> frozenset[AttemptId]:
    """Attempts that are on their way or at work in this moment; an offer to sub-agents is neither."""
    return frozenset(
        AttemptId(name, story.spec.id, story.attempt)
        for name, epic in ledger.epics.items()
        for story in epic.stories.values()
        if story.state is StoryState.RUNNING or (story.state is StoryState.OFFERED and not is_team(epic))
    )
