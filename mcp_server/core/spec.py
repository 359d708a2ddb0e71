"""An epic as its author wrote it, and how its parts are named. All frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

EpicId = str
StoryId = str
Sha = str
Argv = tuple[str, ...]
"""A command, as the list of words that it is run as."""
Limits = tuple[tuple[Argv, float], ...]
"""Time limits of single commands, in seconds."""


class AttemptId(NamedTuple):
    """One try at one story. The number is the fence: a late report names an older one."""

    epic: EpicId
    story: StoryId
    number: int

    def __str__(self) -> str:
        return f"{self.epic}/{self.story}/{self.number}"


class Sharing(StrEnum):
    """What two stories whose footprints overlap may do: the policy `overlap`. Of two the stricter one counts."""

    EXCLUSIVE = "exclusive"  # never at work together
    AUTO = "auto"  # apart when they are likely to conflict
    OPTIMISTIC = "optimistic"  # together: the merge queue settles it


class Source(StrEnum):
    """Where an entry of a footprint comes from."""

    DECLARED = "declared"  # the author listed it
    TEXT = "text"  # the author named it in passing: in the title, the description or a criterion
    HISTORY = "history"  # it usually changes together with those


class Predicted(NamedTuple):
    """A file that a story was expected to touch, although its author did not list it."""

    path: str
    source: Source


@dataclass(frozen=True, slots=True)
class StorySpec:
    """A story as its author wrote it."""

    id: StoryId
    title: str
    description: str = ""
    acceptance: tuple[str, ...] = ()
    depends_on: tuple[StoryId, ...] = ()
    files: tuple[str, ...] = ()
    """The footprint: repository-relative paths, folders (ending in `/`) and globs, with `/` between parts."""
    critical: bool = False
    minutes: float | None = None
    """Expected work in minutes; None when the author named none."""
    points: float | None = None
    checks: tuple[Argv, ...] = ()
    """Commands that must pass on the merged tree besides the epic's."""
    agent: str | None = None
    """Name of the agent profile that should do this story; None for the epic's."""
    done: bool = False
    """The author says it is finished: it is not run, and its dependents need not wait."""
    line: int | None = None
    """Line of the epic file where it begins, from 1."""
    guards: tuple[Argv, ...] = ()
    """Checks that it brings for itself and, once it is merged, for every later story of the epic."""
    check_limits: Limits = ()
    """Of its checks and guards; those that are not named have the policy's."""
    overlap: Sharing | None = None
    """None: as the wave has it."""
    predicted: tuple[Predicted, ...] = ()
    """What was found besides `files` when the epic was planned: on record, so that replay needs no git."""

    @property
    def footprint(self) -> tuple[str, ...]:
        """What keeps others away: what the author listed, else what the text names. Guesses from history never do."""
        return self.files or self.guessed(Source.TEXT)

    def guessed(self, source: Source) -> tuple[str, ...]:
        """The paths of one source of predictions."""
        return tuple(path for path, found_in in self.predicted if found_in is source)


@dataclass(frozen=True, slots=True)
class EpicSpec:
    """An epic as its author wrote it, validated: ids unique, dependencies known and acyclic."""

    id: EpicId
    title: str
    goal: str = ""
    stories: tuple[StorySpec, ...] = ()
    checks: tuple[Argv, ...] = ()
    """Commands that every story's merged tree must pass."""
    agent: str | None = None
    fallback_agent: str | None = None
    source: str = "inline"
    """Absolute path of the file it was read from, or `inline`."""
    check_limits: Limits = ()
    """Of its checks."""
    overlap: Sharing | None = None
    """None: as the configuration has it."""

    def as_written(self) -> EpicSpec:
        """Its author's words alone, without what was predicted."""
        return replace(self, stories=tuple(replace(s, predicted=()) if s.predicted else s for s in self.stories))
