"""May this happen, and which fact is it? `decide` asks it of commands, `accept` of what jobs report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mcp_server.core.commands import (
    ClaimStory,
    Command,
    EndLease,
    HandIn,
    PlanEpic,
    RenewLease,
    StartWave,
)
from mcp_server.core.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptLeased,
    AttemptStopped,
    AttemptSucceeded,
    BranchMerged,
    EpicPlanned,
    Event,
    Fact,
    LeaseEnded,
    LeaseRenewed,
    MergeProven,
    MergeRefused,
    UsageReported,
    WaveStarted,
    WaveWidened,
    WorkSeen,
)
from mcp_server.core.leases import decide_lease, is_over
from mcp_server.core.model import (
    LIVE,
    SATISFIES,
    SETTLED,
    Epic,
    Ledger,
    Story,
    StoryState,
    WaveState,
    is_alive,
    is_team,
)
from mcp_server.core.settle import dependencies_merged
from mcp_server.core.spec import StoryId
from mcp_server.core.spending import in_words, share
from mcp_server.core.steer import decide_steer, epic_of, story_of
from mcp_server.core.views import question
from mcp_server.errors import Code, Refused

_ACCEPTS: dict[type[Fact], frozenset[StoryState]] = {
    AttemptClaimed: frozenset({StoryState.OFFERED}),
    AttemptLeased: frozenset({StoryState.OFFERED}),
    LeaseRenewed: frozenset({StoryState.RUNNING}),
    LeaseEnded: frozenset({StoryState.RUNNING}),
    UsageReported: frozenset({StoryState.RUNNING}),
    WorkSeen: frozenset({StoryState.RUNNING, StoryState.MERGING}),
    AttemptSucceeded: frozenset({StoryState.RUNNING}),
    AttemptFailed: LIVE,
    AttemptStopped: frozenset({StoryState.STOPPING}),
    MergeProven: frozenset({StoryState.MERGING}),
    BranchMerged: frozenset({StoryState.MERGING, StoryState.STOPPING}),
    MergeRefused: frozenset({StoryState.MERGING}),
}
"""States in which a fact about the current attempt counts.

`STOPPING` takes how its own job ended: the failure of an attempt, or a merge that git made before the stop came.
"""


def accept(ledger: Ledger, fact: Fact) -> Fact | None:
    """The fact, or None when its attempt is not the current one in a state that takes it. The fence is here only."""
    epic = ledger.epics.get(fact.attempt.epic)
    story = epic.stories.get(fact.attempt.story) if epic is not None else None
    if story is None or story.attempt != fact.attempt.number or story.state not in _ACCEPTS[type(fact)]:
        return None
    if epic is None or not _fits(epic, story, fact, max(ledger.as_of_s, fact.at_s)):
        return None
    stopping_merge = story.state is StoryState.STOPPING and story.head is not None
    if story.state is StoryState.STOPPING and isinstance(fact, BranchMerged | AttemptFailed):
        return fact if isinstance(fact, BranchMerged) == stopping_merge else None
    return fact


def _fits(epic: Epic, story: Story, fact: Fact, now_s: float) -> bool:
    """Processes are claimed for and sub-agents hold leases.

    A job ends a lease only while nobody else has: its holder may have been heard of, or have given up, in the moment
    when the job looked. A sign of life that crosses with the end of its lease changes nothing.
    """
    lease = story.lease
    match fact:
        case AttemptClaimed():
            return not is_team(epic)
        case AttemptLeased():
            return is_team(epic)
        case AttemptSucceeded():
            return lease is None or lease.ended is None
        case LeaseRenewed():
            return lease is not None
        case LeaseEnded():
            return lease is not None and lease.ended is None and is_over(story, now_s)
        case _:
            return True


def decide(ledger: Ledger, command: Command, now_s: float) -> Event:
    """The fact that the command becomes. Raises `Refused` with the next move when it may not happen."""
    match command:
        case PlanEpic():
            return _plan_epic(ledger, command, now_s)
        case StartWave():
            return _start_wave(ledger, command, now_s)
        case ClaimStory() | RenewLease() | EndLease() | HandIn():
            return decide_lease(ledger, command, now_s)
        case _:
            return decide_steer(ledger, command, now_s)


def _busy(epic: Epic) -> list[StoryId]:
    return [s.spec.id for s in epic.stories.values() if s.state in LIVE or s.state is StoryState.MERGING]


def _plan_epic(ledger: Ledger, command: PlanEpic, now_s: float) -> EpicPlanned:
    plan = command.plan
    before = ledger.epics.get(plan.spec.id)
    if before is not None:
        if not any(s.id in before.stories for s in plan.spec.stories):
            raise Refused(
                Code.EPIC_EXISTS,
                f"Another epic {plan.spec.id!r} was planned here ({before.spec.title!r}, from {before.spec.source}), "
                "and this one has none of its stories.",
                "Give this epic another `id:`.",
            )
        if is_alive(before.wave) or _busy(before):
            raise Refused(
                Code.EPIC_BUSY,
                f"Epic {plan.spec.id!r} has work in flight ({', '.join(_busy(before)) or 'a living wave'}).",
                "Wait with story_status(wait_s=45), or call cancel_epic, then plan again.",
            )
    return EpicPlanned(plan.spec, dict(plan.levels), dict(plan.ranks), now_s)


def _start_wave(ledger: Ledger, command: StartWave, now_s: float) -> WaveStarted | WaveWidened:
    epic = epic_of(ledger, command.epic)
    if epic.wave is not None and epic.wave.state is WaveState.DRAINING:
        raise Refused(
            Code.EPIC_BUSY,
            f"Wave {epic.wave.number} is coming to its end ({epic.wave.ended_because}).",
            "Wait with story_status(wait_s=45) until it has finished, then start the next.",
        )
    told = dict(command.notes)
    for story_id in told:
        story_of(epic, story_id)
    _check_budget(epic, command)
    over = (StoryState.FAILED, StoryState.CANCELLED)
    retryable = [s for s in epic.stories.values() if s.state in over or question(s)]
    reborn = {s.spec.id for s in retryable if command.retry or (question(s) and s.spec.id in told)}
    waiting = {s.spec.id for s in retryable} - reborn
    pending = [
        s
        for s in epic.stories.values()
        if s.spec.id not in waiting and (s.state is StoryState.PENDING or s.spec.id in reborn)
    ]
    match command.through:
        case "all":
            chosen = pending
        case "ready":
            chosen = [s for s in pending if dependencies_merged(epic, s)]
        case level:
            chosen = [s for s in pending if s.level <= level]
    chosen = _startable(epic, chosen)
    if not chosen:
        raise _nothing_ready(epic, command, retryable)
    members = tuple(s.spec.id for s in chosen)
    retried = tuple(m for m in members if m in reborn)
    _check_notes(told, members)
    if is_alive(epic.wave) and epic.wave is not None:
        if command.named and epic.wave.policy != replace(command.policy, seed=epic.wave.policy.seed):
            raise Refused(
                Code.EPIC_BUSY,
                f"Wave {epic.wave.number} is running with other settings ({epic.wave.policy.strategy}, "
                f"{epic.wave.policy.slots} slots, agent {epic.wave.policy.agent!r}).",
                "Leave strategy, slots and agent out to add stories to it, wait until it has finished, or cancel_epic.",
            )
        return WaveWidened(command.epic, members, retried, now_s, command.notes)
    return WaveStarted(command.epic, members, retried, command.policy, command.base, now_s, command.notes)


def _check_budget(epic: Epic, command: StartWave) -> None:
    budget = command.policy.budget
    if share(epic.used, budget.epic_usd, budget.epic_tokens) >= 1.0:
        used = in_words(epic.used, budget.epic_usd, budget.epic_tokens)
        raise Refused(
            Code.BUDGET_SPENT,
            f"The budget of epic {epic.spec.id!r} is spent: {used} are used.",
            "Have the user raise epic.budget_usd or epic.budget_tokens in .epicwave/config.yaml, then start again.",
        )


def _check_notes(told: Mapping[StoryId, str], members: tuple[StoryId, ...]) -> None:
    unheard = [story_id for story_id in told if story_id not in members]
    if unheard:
        raise Refused(
            Code.BAD_ARGUMENT,
            f"The notes for {', '.join(unheard)} would reach nobody: this call starts {', '.join(members[:20])}.",
            "Write notes for stories that the call starts, or leave them out.",
        )


def _startable(epic: Epic, chosen: list[Story]) -> list[Story]:
    """Those that can come to run: what they build on is merged, on its way, or chosen and can come to run itself."""
    on_its_way = SATISFIES | {StoryState.QUEUED, StoryState.OFFERED, StoryState.RUNNING, StoryState.MERGING}
    hopeful = {s.spec.id for s in epic.stories.values() if s.state in on_its_way}
    for story in sorted(chosen, key=lambda s: s.level):
        if hopeful.issuperset(story.spec.depends_on):
            hopeful.add(story.spec.id)
    return [s for s in chosen if s.spec.id in hopeful]


def _nothing_ready(epic: Epic, command: StartWave, retryable: list[Story]) -> Refused:
    """Why no story can start, with the next move for the state that the epic is in."""
    name = repr(epic.spec.id)
    if all(s.state in SATISFIES for s in epic.stories.values()):
        skipped = sum(s.state is StoryState.SKIPPED for s in epic.stories.values())
        done = sum(s.merged_as is None for s in epic.stories.values()) - skipped
        if skipped:
            why = f"Every story of {name} is merged, or was skipped ({skipped})."
            return Refused(Code.NOTHING_READY, why, "To run a skipped one all the same, retry it.")
        if done:
            why = f"All {len(epic.stories)} stories of {name} are done ({done} by their mark in the epic file)."
            return Refused(Code.NOTHING_READY, why, "To run marked ones all the same, plan again with redo.")
        return Refused(
            Code.NOTHING_READY, f"All {len(epic.stories)} stories of {name} are merged.", "Nothing is left to do."
        )
    busy = [s.spec.id for s in epic.stories.values() if s.state not in SETTLED | {StoryState.PENDING}]
    if busy:
        why = f"Everything that can start in {name} has started ({', '.join(busy)} in flight)."
        return Refused(Code.NOTHING_READY, why, "Wait with story_status(wait_s=45), then start the next wave.")
    if retryable and not command.retry:
        names = ", ".join(f"{s.spec.id} {'asks' if question(s) else s.state}" for s in retryable)
        why = f"No pending story of {name} can start ({names})."
        return Refused(
            Code.NOTHING_READY,
            why,
            "Look at story_status, mend the cause, then start_wave with retry=true; a question is answered with notes.",
        )
    return Refused(
        Code.NOTHING_READY,
        f"No pending story of {name} lies within through={command.through!r}.",
        "Use through='ready' or 'all'.",
    )
