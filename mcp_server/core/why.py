"""Why a story is not running, in words that name what it waits for and the next move if there is one."""

from __future__ import annotations

import shlex
from typing import Literal, assert_type

from mcp_server.core.apart import clash
from mcp_server.core.breakers import Hold, Holding, choose, team_hold
from mcp_server.core.landing import landing_words
from mcp_server.core.model import (
    REPOSITORY,
    SATISFIES,
    Cause,
    Epic,
    Failure,
    Ledger,
    Story,
    StoryState,
    Wave,
    WaveState,
    is_alive,
    is_team,
)
from mcp_server.core.settle import candidates, dependencies_merged, holders, occupied, slots_of
from mcp_server.core.sights import foreseen, told, undeclared
from mcp_server.core.spending import warnings
from mcp_server.core.views import holds, question, roots_of_block
from mcp_server.core.wanted import merge_head

_CLAIMABLE = "Waits for a sub-agent that claims it."
_AGAIN = "start_wave with retry=true, or `epicwave run` again"


def why(ledger: Ledger, epic: Epic, story: Story) -> str:
    """The reason, or an empty text for a story that simply runs or is merged by us."""
    match story.state:
        case StoryState.RUNNING:
            return _seen_too(ledger, epic, story, _why_running(story))
        case StoryState.MERGED:
            return "" if story.merged_as is not None else "The epic file marks it as done."
        case StoryState.OFFERED:
            return _why_offered(ledger, epic)
        case StoryState.STOPPING:
            return f"It was told to stop ({story.stop_reason}); its processes are being ended and its work saved."
        case StoryState.CANCELLED:
            return f"It was cancelled ({story.stop_reason}).{_kept(story.failure)} To go on: {_AGAIN}."
        case StoryState.FAILED:
            return f"{ended(story.failure)} No attempt is left. Mend the cause, then {_AGAIN}."
        case StoryState.SKIPPED:
            return f"It was skipped ({story.stop_reason}); what builds on it does not wait. To run it: retry it."
        case StoryState.PENDING:
            return _why_pending(epic, story)
        case StoryState.MERGING:
            return _seen_too(ledger, epic, story, _why_merging(ledger, epic, story))
        case _:
            assert_type(story.state, Literal[StoryState.QUEUED])
            return _why_queued(ledger, epic, story)


def _seen_too(ledger: Ledger, epic: Epic, story: Story, reason: str) -> str:
    """The reason, and what a probe has seen of the story's work."""
    said = [reason, *told(ledger, epic, story), undeclared(story)]
    return " ".join(each for each in said if each)


def ended(failure: Failure | None) -> str:
    """How the last attempt ended, in a sentence or two."""
    if failure is None:
        return ""
    return f"Attempt {failure.attempt} ended as {failure.cause}: {failure.detail}{_kept(failure)}"


def _kept(failure: Failure | None) -> str:
    return f" Its work is kept at {failure.saved_ref}." if failure is not None and failure.saved_ref else ""


def alerts(ledger: Ledger, epic: Epic) -> list[str]:
    """What a lead should know of an epic as a whole: what holds it back, what it has used up, conflicts to come."""
    found = [_paused(epic)] if epic.paused else []
    found += [landing_words(epic)] if epic.landed is not None else []
    found += [in_words(hold, ledger.as_of_s) for hold in holds(ledger, epic)]
    flaky = ", ".join(sorted(f"`{shlex.join(command)}`" for command in epic.flaky))
    found += [f"Flaky, red and green on the same tree: {flaky}. A red run of it is tried once more."] if flaky else []
    return found + warnings(epic) + foreseen(ledger, epic)


def _why_offered(ledger: Ledger, epic: Epic) -> str:
    if not is_team(epic):
        return "Its worktree is being made and set up, and its agent started."
    hold = team_hold(ledger)
    if epic.paused or hold is not None:
        return in_words(hold, ledger.as_of_s) if hold is not None and not epic.paused else _paused(epic)
    return _CLAIMABLE


def _paused(epic: Epic) -> str:
    return f"The epic is paused ({epic.paused}). To go on: resume it."


def in_words(hold: Hold, now_s: float) -> str:
    """What holds stories back, until when, and the next move."""
    who = f"The agent {hold.breaker!r} fails"
    if hold.breaker == REPOSITORY:
        setup = hold.because.startswith((f"{Cause.SETUP}:", f"{Cause.FAULT}: {Cause.SETUP}:"))
        who = "The set-up of worktrees fails" if setup else "Git or the disk fails"
    match hold.how:
        case Holding.PARKED:
            what = f"The agent {hold.breaker!r} has come to a rate limit and is parked"
        case Holding.OPEN:
            what = f"{who}: nothing starts"
        case _:
            assert_type(hold.how, Literal[Holding.PROBING])
            return f"{who}: one attempt finds out whether it works again ({clipped(hold.because)})."
    left_s = (hold.until_s or now_s) - now_s
    at = f"{_clock(hold.until_s or now_s)} UTC"
    return f"{what} until {at}, {left_s:.0f} s from now ({clipped(hold.because)}). To go on at once: resume the epic."


def clipped(text: str, most: int = 200) -> str:
    """The text on one line, cut to so many characters."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= most else line[: most - 1] + "…"


def _clock(at_s: float) -> str:
    """Hours and minutes of a moment."""
    minutes = int(at_s // 60)
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _why_running(story: Story) -> str:
    """Nothing, unless it was adopted, or its sub-agent is silent for good, mends a merge, or said how far it is."""
    lease, failure = story.lease, story.failure
    if lease is None:
        return "Its agent has outlived the engine that started it; this one follows it." if story.adopted else ""
    if lease.ended is not None:
        return f"{lease.ended[1]} Its work is being saved."
    if story.repairs and failure is not None:
        return f"Its sub-agent repairs ({story.repairs}): {failure.detail}"
    return lease.note


def _why_pending(epic: Epic, story: Story) -> str:
    asked = question(story)
    if asked and story.failure is not None and story.failure.stuck:
        return _by_hand(epic, story, story.failure)
    if asked:
        answer = f"start_wave(epic={epic.spec.id!r}, notes={{{story.spec.id!r}: 'ANSWER'}})"
        return f"It asks: {asked} Answer with {answer}.{_kept(story.failure)}"
    roots = roots_of_block(epic, story)
    if roots:
        states = ", ".join(f"{r} ({shown_block(epic.stories[r])})" for r in roots)
        return f"Blocked by {states}. To try those again: {_AGAIN}."
    waiting = _unmerged(epic, story)
    before = f" {ended(story.failure)}" if story.failure is not None else ""
    if waiting:
        return f"Waits for {waiting}.{before}"
    wave = epic.wave
    if wave is not None and wave.state is WaveState.DRAINING:
        return f"Wave {wave.number} admits nothing more ({wave.ended_because}).{before}"
    if is_alive(wave) and wave is not None:
        return f"Ready, but not in wave {wave.number}: start_wave adds it.{before}"
    return f"Ready: start_wave starts it.{before}"


def _by_hand(epic: Epic, story: Story, failure: Failure) -> str:
    """The commands by which a human settles a conflict and hands the result to the next attempt."""
    branch, name = f"epicwave/{epic.spec.id}", shlex.quote(story.spec.id)
    mend = shlex.quote(f"mend-{story.spec.id}")
    pick = f", `git cherry-pick {branch}..{failure.saved_ref}` there" if failure.saved_ref else ""
    return (
        f"Waits for you: it conflicted {story.conflicts} times. {failure.detail} By hand: `git worktree add -b {mend} "
        f"../{mend} {branch}`{pick}, settle {', '.join(failure.paths[:3])}, commit; then `epicwave retry "
        f"{epic.spec.id} {name} --note 'cherry-pick {branch}..{mend}'`. Or have it tried again: {_AGAIN}."
    )


def shown_block(story: Story) -> str:
    """How a story blocks others: its state, or that it waits for a human."""
    if not question(story):
        return str(story.state)
    return "waits for a human" if story.failure is not None and story.failure.stuck else "asks a question"


def _unmerged(epic: Epic, story: Story) -> str:
    open_ = [epic.stories[d] for d in story.spec.depends_on if epic.stories[d].state not in SATISFIES]
    return ", ".join(f"{s.spec.id} ({s.state})" for s in open_)


def _why_queued(ledger: Ledger, epic: Epic, story: Story) -> str:
    wave = epic.wave
    again = f" {ended(story.failure)}" if story.failure is not None else ""
    if not dependencies_merged(epic, story):
        return f"Waits for {_unmerged(epic, story)}.{again}"
    if story.not_before_s > ledger.as_of_s:
        return f"Tries again in {story.not_before_s - ledger.as_of_s:.0f} s.{again}"
    assert wave is not None, "only a wave has a queue"  # noqa: S101 - an invariant, for the type checker too
    if epic.paused:
        return _paused(epic) + again
    hold = choose(ledger, wave.policy, story) if not is_team(epic) else None
    if isinstance(hold, Hold):
        return in_words(hold, ledger.as_of_s) + again
    found = clash(ledger, holders(ledger), wave, story)
    if found is not None:
        other_epic, other, shared, chance = found
        odds = f", which would conflict by {chance:.0%}" if chance is not None else ""
        name = other.spec.id if other_epic.spec.id == epic.spec.id else f"{other_epic.spec.id}/{other.spec.id}"
        return f"Waits for its files: {name} ({other.state}) holds {', '.join(shared[:3])}{odds}.{again}"
    return _why_no_slot(ledger, wave, story) + again


def _why_no_slot(ledger: Ledger, wave: Wave, story: Story) -> str:
    busy = ", ".join(s.spec.id for _, s in occupied(holders(ledger), wave))
    ahead = [s.spec.id for _, _, s in candidates(ledger)]
    place = ahead.index(story.spec.id) + 1 if story.spec.id in ahead else 1
    count = slots_of(wave)
    slots = f"{count} slot{'s' if count != 1 else ''}"
    if wave.fewer:
        slots += f" of {wave.policy.slots} (fewer for now, because of faults)"
    return f"Waits for a slot: {slots}, taken by {busy or 'nobody'}; number {place} in line."


def _why_merging(ledger: Ledger, epic: Epic, story: Story) -> str:
    if story.not_before_s > ledger.as_of_s:
        wait_s = story.not_before_s - ledger.as_of_s
        return (
            f"The merge is tried again in {wait_s:.0f} s. {story.failure.detail if story.failure is not None else ''}"
        )
    head = merge_head(epic)
    if head is not None and head.story == story.spec.id:
        return "Its commits are being rebased and checked."
    queue = sorted((s for s in epic.stories.values() if s.state is StoryState.MERGING), key=lambda s: s.merge_rank)
    ahead = [s.spec.id for s in queue if s.merge_rank < story.merge_rank]
    return f"In the merge queue behind {', '.join(ahead) or 'a merge that is being stopped'}."
