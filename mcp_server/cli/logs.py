"""`epicwave logs`: what a story's agent has printed, and is printing."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import anyio
import typer

from mcp_server.adapters.agents.output import plain_lines
from mcp_server.core.checks import fingerprints
from mcp_server.core.model import HOLDS_FILES, Ledger, Story, StoryState
from mcp_server.core.policy import jitter, poll_after_s
from mcp_server.core.spec import AttemptId, EpicId, StoryId
from mcp_server.core.steer import epic_of, story_of
from mcp_server.errors import Code, Refused
from mcp_server.server.holder import holder_of
from mcp_server.server.host import LOOK_MAX_S, LOOK_S
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

AT_WORK = HOLDS_FILES | {StoryState.QUEUED}
"""States in which there is more to come, while somebody has the engine."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    story: StoryId
    epic: EpicId | None = None
    attempt: int | None = None
    follow: bool = False
    checks: bool = False
    as_json: bool = False


async def show_log(repo: Path, asked: Asked) -> None:
    """Print the log of the story's latest attempt, or of the one that was asked for; with `follow` until it rests.

    Raises `Refused`: `unknown_epic`, `unknown_story`, and `bad_argument` for a story of several epics, and for an
    attempt that there has not been or that has no log.
    """
    world = await World.open(repo)
    mirror = Mirror(world.journal_path)
    epic = _epic_with(mirror.ledger(), asked)
    printed = Printed(world, asked, epic)
    story = story_of(mirror.ledger().epics[epic], asked.story)
    number = _attempt(story, asked)
    if not asked.follow:
        await printed.show(number)
        printed.must_be(number)
        printed.prove(story, number)
        return
    await _follow(printed, mirror, number)


async def _follow(printed: Printed, mirror: Mirror, number: int) -> None:
    """What there is, what comes, and the next attempt's. The story is looked at before its log: no line is missed."""
    asked, quiet_since_s = printed.asked, anyio.current_time()
    while True:
        story = story_of(mirror.ledger().epics[printed.epic], asked.story)
        resting = story.state not in AT_WORK or not _engine_lives(printed.world)
        over = story.attempt > number
        if await printed.show(number, last=over or resting):
            quiet_since_s = anyio.current_time()
        if over and asked.attempt is None:
            number += 1
            continue
        if resting or over:
            printed.prove(story, number)
            printed.end(f"{story.state} (attempt {story.attempt})")
            return
        quiet_s, share = anyio.current_time() - quiet_since_s, jitter(os.getpid(), anyio.current_time())
        await anyio.sleep(poll_after_s(quiet_s, first_s=LOOK_S, cap_s=LOOK_MAX_S, share=share))


def _engine_lives(world: World) -> bool:
    """False when whoever had the engine is gone: then nothing more comes, whatever the journal says of the story."""
    holder = holder_of(world.state_dir)
    return holder is not None and holder.alive


class Printed:
    """Stores how far each log has been printed."""

    def __init__(self, world: World, asked: Asked, epic: EpicId) -> None:
        self.world, self.asked, self.epic = world, asked, epic
        self._number = 0
        self._offset = 0
        self._rest = b""
        """The beginning of a line whose end has not been written yet."""

    async def show(self, number: int, *, last: bool = True) -> bool:
        """Print what the log of the attempt has that was not printed yet; half a line only when it is the `last` look.

        True when there was anything.
        """
        path = anyio.Path(self._path(number))
        if number != self._number:
            self._number, self._offset, self._rest = number, 0, b""
            if self.asked.follow and number and not self.asked.as_json:
                typer.echo(f"== {self.epic}/{self.asked.story} attempt {number}: {path}", err=True)
        began = self._offset
        if await path.exists():
            async with await anyio.open_file(path, "rb") as log:
                await log.seek(self._offset)
                while chunk := await log.read(CHUNK_BYTES):
                    self._offset += len(chunk)
                    whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
                    if newline:
                        self._say(whole)
        if last and self._rest:
            self._say(self._rest)
            self._rest = b""
        return self._offset > began

    def end(self, words: str) -> None:
        """Say how it stands now; on standard error, since standard output is the log."""
        if not self.asked.as_json:
            typer.echo(f"== {self.epic}/{self.asked.story} is {words}", err=True)

    def prove(self, story: Story, number: int) -> None:
        """With the output of checks: on which trees they ran last and how they ended, on standard error."""
        last = story.attempt if story.proven is not None or story.failure is None else story.failure.attempt
        if self.asked.checks and not self.asked.as_json and last == number:
            for line in fingerprints(story):
                typer.echo(f"== {line}", err=True)

    def must_be(self, number: int) -> None:
        """Raises `Refused(bad_argument)` when there was no log."""
        if self._path(number).exists():
            return
        kind = "no check of it has run" if self.asked.checks else "a sub-agent of the editor's has none, and gc removes"
        raise Refused(
            Code.BAD_ARGUMENT,
            f"There is no log {self._path(number)}: {kind}{'' if self.asked.checks else ' old ones'}.",
            f"See `epicwave status {self.epic}`, or choose another attempt with --attempt.",
        )

    def _path(self, number: int) -> Path:
        attempt = AttemptId(self.epic, self.asked.story, number)
        return self.world.log_path(attempt, checks=self.asked.checks)

    def _say(self, raw: bytes) -> None:
        for line in plain_lines(raw):
            if self.asked.as_json:
                said = {"epic": self.epic, "story": self.asked.story, "attempt": self._number, "line": line}
                typer.echo(json.dumps(said))
            else:
                typer.echo(line)


def _epic_with(ledger: Ledger, asked: Asked) -> EpicId:
    if asked.epic is not None:
        story_of(epic_of(ledger, asked.epic), asked.story)
        return asked.epic
    having = [name for name, epic in ledger.epics.items() if asked.story in epic.stories]
    if len(having) == 1:
        return having[0]
    if having:
        why = f"Several epics have a story {asked.story!r}: {', '.join(having)}."
        raise Refused(Code.BAD_ARGUMENT, why, f"Name one: `epicwave logs {asked.story} --epic {having[0]}`.")
    some = ", ".join([f"{name}/{story}" for name, epic in ledger.epics.items() for story in epic.stories][:20])
    raise Refused(
        Code.UNKNOWN_STORY,
        f"No epic that is planned here has a story {asked.story!r}.",
        f"Use one of: {some}." if some else "Start with: epicwave run EPIC",
    )


def _attempt(story: Story, asked: Asked) -> int:
    """Number of the attempt to begin with; 0 for one that is to come. Raises `Refused(bad_argument)`."""
    wanted = story.attempt if asked.attempt is None else asked.attempt
    if asked.follow and asked.attempt is None:
        return wanted
    if not 1 <= wanted <= story.attempt:
        why = f"Story {asked.story!r} has had {story.attempt or 'no'} attempt{'s' if story.attempt > 1 else ''}"
        raise Refused(
            Code.BAD_ARGUMENT,
            f"{why}, so there is no log{'' if asked.attempt is None else f' of number {asked.attempt}'}.",
            "See `epicwave status` for what it waits for; with -f the log is shown as soon as there is one.",
        )
    return wanted
