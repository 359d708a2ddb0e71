"""Which commands a story's merged tree must pass, whose they are, and which of them an epic file has brought."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from mcp_server.core import argv
from mcp_server.core.limits import Policy
from mcp_server.core.model import CheckRun, Epic, Story, StoryState
from mcp_server.core.spec import Argv, EpicSpec, Limits, Sha, StoryId

MAX_CHECK_S = 7 * 86_400
"""The longest time limit that a check can be given."""
SHA_SHOWN = 10
COMMAND_SHOWN = 80
"""Characters of a command that a fingerprint shows: how it ended must not be what is cut off."""


class Timed(NamedTuple):
    """A command as it was written, with its own time limit in seconds, or None for the policy's."""

    command: Argv
    limit_s: float | None = None


def commands(timed: Iterable[Timed]) -> tuple[Argv, ...]:
    """The commands alone."""
    return tuple(each.command for each in timed)


def limits(timed: Iterable[Timed]) -> Limits:
    """The limits of those that have one."""
    return tuple((each.command, each.limit_s) for each in timed if each.limit_s is not None)


def checks_of(epic: Epic, story: Story, policy: Policy) -> tuple[Argv, ...]:
    """All that the story's merged tree must pass, each once.

    The configuration's checks, the epic's, the guards of its merged stories in the order of their merges, the story's
    own checks, its own guards. The guards of a story that is not merged any more are gone.
    """
    return tuple(dict.fromkeys((*tree_checks(epic, policy), *story.spec.checks, *story.spec.guards)))


def tree_checks(epic: Epic, policy: Policy, without: Collection[StoryId] = ()) -> tuple[Argv, ...]:
    """What the tree of the whole epic must pass, `without` some stories: each once.

    The configuration's checks, the epic's, and the guards of its merged stories in the order of their merges.
    """
    left = chain.from_iterable(merged.spec.guards for merged in _guarding(epic) if merged.spec.id not in without)
    return tuple(dict.fromkeys((*policy.checks, *epic.spec.checks, *left)))


def limit_s(epic: Epic, stories: Iterable[Story], policy: Policy, command: Argv) -> float:
    """The time limit of one check of a batch of stories: the first that is named in the order of `checks_of`."""
    left = chain.from_iterable(story.spec.check_limits for story in (*_guarding(epic), *stories))
    named = (*policy.check_limits, *epic.spec.check_limits, *left)
    return next((own_s for timed, own_s in named if timed == command), policy.check_timeout_s)


def guard_of(epic: Epic, command: Argv) -> Story | None:
    """The merged story that left this check behind; None for one that is nobody's guard."""
    return next((merged for merged in _guarding(epic) if command in merged.spec.guards), None)


def check_words(
    epic: Epic, story: Story, policy: Policy, command: Argv, ahead: Iterable[tuple[Story, Sha]] = ()
) -> str:
    """One of the story's checks as the subject of a sentence, which says whose guard it is.

    `ahead` are the stories of its batch that have landed before it, each with the commit that it landed with.
    """
    shown = f"`{spoken(command)}`"
    if command in policy.checks or command in epic.spec.checks:
        return f"The check {shown}"
    merged = (*((one, one.merged_as) for one in _guarding(epic)), *ahead)
    for owner, sha in merged:
        if command in owner.spec.guards:
            how = f"merged as {sha[:SHA_SHOWN]}" if sha is not None else "done before"
            return f"The guard {shown} of {owner.spec.id}, {how},"
    return f"Its own guard {shown}" if command in story.spec.guards else f"The check {shown}"


def guard_lines(epic: Epic, story: Story) -> list[str]:
    """A line for each guard that the story's merge has to keep green: the merged stories', and its own."""
    others = (one for one in _guarding(epic) if one.spec.id != story.spec.id)
    left = [f"{one.spec.id}: {spoken(command)}" for one in others for command in one.spec.guards]
    return [*left, *(f"its own: {spoken(command)}" for command in story.spec.guards)]


def _guarding(epic: Epic) -> list[Story]:
    """Merged stories that left guards behind, in the order of their merges; first those that were done before."""
    guarding = (story for story in epic.stories.in_state(StoryState.MERGED) if story.spec.guards)
    return sorted(guarding, key=lambda story: story.merge_rank)


# --- what ran ---------------------------------------------------------------------------------------------------------


def last_runs(story: Story) -> tuple[Sha, Sha, tuple[CheckRun, ...]] | None:
    """Base, head and runs of the checks that ran last on the story's work; None when none has."""
    failure = story.failure
    if story.proven is not None:
        return story.proven.onto, story.proven.at or story.proven.head, story.proven.checks
    if failure is None or not failure.checks:
        return None
    return failure.onto or "", failure.head or "", failure.checks


def fingerprints(story: Story) -> list[str]:
    """A line for each check that ran last: on abc123 + def456: `pytest -q` exit 1 in 12 s."""
    last = last_runs(story)
    if last is None:
        return []
    base, head, runs = last
    return [f"on {base[:SHA_SHOWN]} + {head[:SHA_SHOWN]}: {_ran(run)}" for run in runs]


def _ran(run: CheckRun) -> str:
    ended = f"exit {run.exit_code}" if run.exit_code is not None else "ended at its time limit"
    shown = spoken(run.command)
    if len(shown) > COMMAND_SHOWN:
        shown = shown[: COMMAND_SHOWN - 3] + "..."
    return f"`{shown}` {ended} in {run.seconds:.{0 if run.seconds >= 10 else 1}f} s"  # noqa: PLR2004


# --- what an epic file brings -----------------------------------------------------------------------------------------


def brought(spec: EpicSpec, agents: frozenset[str]) -> tuple[Argv, ...]:
    """The commands that came in the epic's file, each once: checks, guards, and agents that are whole command lines.

    `agents` are the profiles that are known here. Of an epic that was handed over inline they are the caller's own.
    """
    if spec.source == "inline":
        return ()
    return tuple(dict.fromkeys(_brought(spec, agents)))


def _brought(spec: EpicSpec, agents: frozenset[str]) -> Iterator[Argv]:
    yield from spec.checks
    for story in spec.stories:
        yield from story.checks
        yield from story.guards
    for agent in (spec.agent, spec.fallback_agent, *(story.agent for story in spec.stories)):
        if agent and agent.strip() not in agents:
            try:
                yield argv.split(agent)
            except argv.ShellSyntaxError:
                continue  # nothing can be started by that name


def digest(command: Argv) -> str:
    """The command's name in the list of what is allowed: SHA-256 of its words as a JSON list in ASCII."""
    return hashlib.sha256(json.dumps(list(command), separators=(",", ":")).encode("ascii")).hexdigest()


def spoken(command: Argv) -> str:
    """The command as it could be typed, with everything escaped that would not be seen, or would hide something."""
    return " ".join(argv.quoted(word) for word in command)
