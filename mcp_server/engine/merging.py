"""The job of the merge queue: its head, and who may land with it, are rebased, proven and landed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from mcp_server.core.checks import check_words, checks_of, limit_s
from mcp_server.core.events import BranchMerged, MergeProven, MergeRefused
from mcp_server.core.leases import can_repair
from mcp_server.core.model import Cause, CheckRun, Lease, Proven, Story
from mcp_server.core.policy import MERGE_TRIES, backoff_s
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.engine.context import PATHS_SHOWN, Context, saved_work
from mcp_server.engine.environment import set_up_integration
from mcp_server.engine.regenerate import rebased
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import Conflicted, Landing, Ports

LOOKS = 4
"""Times git is asked whether a merge has landed before it is taken for not landed; with backoff 14 seconds."""
TIP_MOVES = 5
"""Times a merge starts again because somebody moved the integration branch meanwhile."""


@dataclass(frozen=True, slots=True)
class _Car:
    """One story of a batch, rebased onto the one before it."""

    attempt: AttemptId
    story: Story
    landing: Landing


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the checks say of a batch: so many of it may land, and the one behind them is to blame for the rest."""

    good: int
    runs: tuple[CheckRun, ...]
    """Of the last one that may land, which has the others in it."""
    red: tuple[CheckRun, ...] = ()
    """Of the one behind them, up to the red one."""
    flaky: tuple[tuple[str, ...], ...] = ()
    """Checks that were red first and then green on the same tree."""


async def integrate(context: Context) -> BranchMerged | MergeRefused:
    """Rebase, prove, move the branch: each step is safe to repeat, so a crash between any two changes nothing.

    Those behind the head of the queue are told of on the way, the head last: whoever landed unheard, because the
    engine died, has its turn next and is recognised.
    """
    attempt, story, ports = context.attempt, context.story, context.ports
    try:
        if story.proven is not None and await ports.merge.contains(attempt.epic, story.proven.head):
            return await landed(context, attempt, story.proven.head, story.files_changed)
        for _ in range(TIP_MOVES):
            first = await rebased(context, attempt)
            if isinstance(first, Conflicted):
                return await _conflict(context, first)
            with anyio.CancelScope(shield=True):
                if first.head == first.onto and await ports.merge.advance(attempt, first.onto, first.head):
                    return await landed(context, attempt, first.head, story.files_changed)
            batch = await _chained(context, first)
            verdict = await _proved(context, batch)
            if not verdict.good:
                return await _refused_for_red(context, batch, verdict)
            await anyio.lowlevel.checkpoint_if_cancelled()  # git does not move without a proof in the journal
            if (fact := await _land(context, batch, verdict)) is not None:
                return fact
    except Fault as fault:
        return await _merge_faulted(context, fault)
    moved = f"the integration branch moved {TIP_MOVES} times while the merge was being checked"
    return await _merge_faulted(context, Fault(FaultCause.GIT, moved))


async def _chained(context: Context, first: Landing) -> list[_Car]:
    """The batch, one rebased onto the other. Whoever cannot be has to wait for a turn of its own, to be told why."""
    batch = [_Car(context.attempt, context.story, first)]
    for attempt in context.behind:
        onto = batch[-1].landing.head
        with suppress(Fault):
            landing = await rebased(context, attempt, onto)
            if isinstance(landing, Landing) and landing.head != onto:
                batch.append(_Car(attempt, context.epic.stories[attempt.story], landing))
    return batch


async def _proved(context: Context, batch: Sequence[_Car]) -> _Verdict:
    """Check the end of the batch; when that is red, once more, and then halves find the first one that is to blame.

    A batch is tried again because to search it costs more than one run; a story alone only if its check is known to
    be flaky: to mend what is broken costs an agent.
    """
    runs = await _checked(context, batch)
    if _is_green(runs):
        return _Verdict(len(batch), runs)
    if len(batch) > 1 or runs[-1].command in context.epic.flaky:
        again = await _checked(context, batch)
        if _is_green(again):
            return _Verdict(len(batch), again, flaky=(runs[-1].command,))
        runs = again
    good, bad, red = 0, len(batch), runs
    proof: tuple[CheckRun, ...] = ()
    while bad - good > 1:
        half = (good + bad) // 2
        runs = await _checked(context, batch[:half])
        if _is_green(runs):
            good, proof = half, runs
        else:
            bad, red = half, runs
    return _Verdict(good, proof, red)


def _is_green(runs: tuple[CheckRun, ...]) -> bool:
    return not runs or runs[-1].exit_code == 0


async def _checked(context: Context, batch: Sequence[_Car]) -> tuple[CheckRun, ...]:
    """The checks of all of them in order, where the last one stands, up to the first red one."""
    ports, attempt, policy = context.ports, context.attempt, context.policy
    every = [checks_of(context.epic, car.story, policy) for car in batch]
    checks = tuple(dict.fromkeys(check for checks in every for check in checks))
    if not checks:
        return ()
    own, runs = context.story.ports, list[CheckRun]()
    cwd = await ports.merge.checkout(attempt.epic, batch[-1].landing.head)
    await set_up_integration(ports, policy.environment, attempt, own)
    for command in checks:
        bound_s = limit_s(context.epic, (car.story for car in batch), policy, command)
        runs.append(await ports.runner.run_check(attempt, command, cwd, bound_s, own))
        if runs[-1].exit_code != 0:
            break
    return tuple(runs)


async def _land(context: Context, batch: Sequence[_Car], verdict: _Verdict) -> BranchMerged | None:
    """The proofs on record, then git, then who has landed, and who was to blame. None when the tip has moved."""
    ports, good = context.ports, batch[: verdict.good]
    head, rest, last = good[0], good[1:], good[-1]
    for car in good:
        at = last.landing.head if car is not last else None
        proven = Proven(car.landing.onto, car.landing.head, verdict.runs, at, verdict.flaky)
        context.report(MergeProven(car.attempt, proven, car.landing.files, ports.clock.now_s()))
    with anyio.CancelScope(shield=True):  # once git moves, the facts must follow
        before = tuple((car.attempt, car.landing.head) for car in good[:-1])
        if not await ports.merge.advance(last.attempt, head.landing.onto, last.landing.head, before):
            return None
        for car in rest:
            context.report(await landed(context, car.attempt, car.landing.head, car.landing.files))
        if verdict.red:
            context.report(await _refused_for_red(context, batch, verdict))
        return await landed(context, head.attempt, head.landing.head, head.landing.files)


async def has_landed(ports: Ports, attempt: AttemptId, proven: Proven) -> bool:
    """True when the integration branch has what was proven. While git fails it is asked again: a guess could be wrong.

    After `LOOKS` it is taken for not merged: most likely there is no such branch any more.
    """
    for faults in range(LOOKS):
        if faults:
            await anyio.sleep(backoff_s(faults))
        with suppress(Fault):
            return await ports.merge.contains(attempt.epic, proven.head)
    return False


async def forget(ports: Ports, attempt: AttemptId, lease: Lease | None) -> None:
    """Remove the branch of an attempt that has landed, and a lent worktree. When that fails, the next start does it."""
    with suppress(Fault), anyio.CancelScope(shield=True):
        if lease is not None and lease.head is not None:
            await ports.worktrees.give_back(attempt, lease.head)
        await ports.merge.forget(attempt)


async def landed(context: Context, attempt: AttemptId, tip: Sha, files: tuple[str, ...]) -> BranchMerged:
    """The end of an attempt that git has."""
    await forget(context.ports, attempt, context.epic.stories[attempt.story].lease)
    return BranchMerged(attempt, tip, files, context.ports.clock.now_s())


async def _merge_faulted(context: Context, fault: Fault) -> BranchMerged | MergeRefused:
    """The work is good and stays where it is, to be tried again; after the last try it is saved, unless git has it."""
    story, attempt = context.story, context.attempt
    last = story.merge_faults + 1 >= MERGE_TRIES
    if last and story.proven is not None and await has_landed(context.ports, attempt, story.proven):
        return await landed(context, attempt, story.proven.head, story.files_changed)
    saved = await saved_work(context.ports, attempt) if last else None
    detail = f"{fault.cause}: {fault.detail}"
    return MergeRefused(attempt, Cause.FAULT, detail, fault.tail, saved, context.ports.clock.now_s())


async def _conflict(context: Context, conflict: Conflicted) -> MergeRefused:
    paths = ", ".join(conflict.paths[:PATHS_SHOWN])
    detail = f"Its commits conflict with {conflict.onto[:10]}, what was merged meanwhile, in: {paths}."
    saved = await _kept(context, context.attempt)
    now_s = context.ports.clock.now_s()
    return MergeRefused(
        context.attempt, Cause.CONFLICT, detail, conflict.detail, saved, now_s, conflict.onto, conflict.paths
    )


async def _refused_for_red(context: Context, batch: Sequence[_Car], verdict: _Verdict) -> MergeRefused:
    """The one behind those that may land is to blame; what it broke may be the guard of one of them."""
    car, run = batch[verdict.good], verdict.red[-1]
    ahead = [(other.story, other.landing.head) for other in batch[: verdict.good]]
    ended = f"exited with code {run.exit_code}" if run.exit_code is not None else "ran into its time limit"
    onto, head = car.landing.onto, car.landing.head
    subject = check_words(context.epic, car.story, context.policy, run.command, ahead)
    detail = f"{subject} {ended} on the tree merged with {onto[:10]}."
    saved = await _kept(context, car.attempt)
    now_s = context.ports.clock.now_s()
    return MergeRefused(car.attempt, Cause.CHECKS, detail, run.tail, saved, now_s, onto, head=head, checks=verdict.red)


async def _kept(context: Context, attempt: AttemptId) -> str | None:
    """Where the work is saved and cleared away to; nowhere when its sub-agent is to mend it where it is."""
    repairs = can_repair(context.epic, context.epic.stories[attempt.story])
    return None if repairs else await saved_work(context.ports, attempt)
