"""Three screens: a live view for a terminal, a line a change for a log, and JSON a change for a program."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import typer
from rich.console import Console
from rich.live import Live

from mcp_server.cli.follow import SILENT_S, Look, Screen
from mcp_server.cli.show import change_line, epic_line, story_table
from mcp_server.cli.terminal import open_console
from mcp_server.cli.view import view
from mcp_server.core.model import LIVE, Epic, Ledger, StoryState
from mcp_server.core.spec import EpicId
from mcp_server.core.views import EpicState, epic_state
from mcp_server.core.why import alerts
from mcp_server.server.paging import compact
from mcp_server.server.wire_whole import whole

REDRAW_S = 0.5


class LiveScreen:
    """Draws the state over what was drawn before. Stores the terminal's part that it draws on."""

    every_s = REDRAW_S

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def show(self, look: Look) -> None:
        """Draw it."""
        self._live.start()
        self._live.update(view(look, self._console.height - 1), refresh=True)

    def close(self, look: Look, *, interrupted: bool = False) -> None:
        """Leave the last state behind, and what the view had no room for."""
        self._live.stop()
        _report(self._console, look, tables=interrupted or any(not _is_done(look.ledger, e) for e in look.epics))


class LineScreen:
    """One line a change. Stores what has been said."""

    every_s = SILENT_S

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = math.nan
        self._seq = 0
        self._known: dict[EpicId, None] = {}
        self._note = ""

    def show(self, look: Look) -> None:
        """Say what has changed since the last time; at first, what moves."""
        if math.isnan(self._began_s):
            self._began_s = look.now_s
        for epic in look.epics:
            self._changes(look, epic)
        if look.note and look.note != self._note:
            self._console.print(f"note: {look.note}")
        self._seq, self._note = look.ledger.seq, look.note

    def _changes(self, look: Look, epic: Epic) -> None:
        named = len(look.epics) > 1
        is_new = epic.spec.id not in self._known
        if is_new:
            self._known[epic.spec.id] = None
            self._console.print(epic_line(look.ledger, epic))
            moving = list(epic.stories.in_state(*LIVE, StoryState.MERGING))
        else:
            moving = [s for s in epic.stories.values() if s.changed > self._seq]
        for story in sorted(moving, key=lambda s: s.changed):
            at_s = max(0.0, story.since_s - self._began_s)
            self._console.print(change_line(epic, story, at_s, named=named))
        if not is_new and any(breaker.changed > self._seq for breaker in look.ledger.breakers.values()):
            for alert in alerts(look.ledger, epic):
                self._console.print(f"note: {alert}")

    def close(self, look: Look, *, interrupted: bool = False) -> None:  # noqa: ARG002 - a log has the table in any case
        """Say where each story is."""
        _report(self._console, look, tables=True)


class JsonScreen:
    """One JSON object a line: the whole state, then what has changed. Stores what was told last, of what epics."""

    every_s = math.inf

    def __init__(self) -> None:
        self._told: Ledger | None = None

    def show(self, look: Look) -> None:
        """Tell what has changed; an epic that is new is told whole."""
        said = whole(look.ledger, look.epics, look.now_s, look.times, look.lines, before=self._told)
        if said.epics or self._told is None:
            typer.echo(compact(said))
        self._told = replace(look.ledger, epics={epic.spec.id: epic for epic in look.epics})

    def close(self, look: Look, *, interrupted: bool = False) -> None:  # noqa: ARG002 - the state says it
        """Tell what has changed since."""
        self.show(look)


@contextmanager
def open_screen(console: Console | None = None, *, as_json: bool = False) -> Generator[Screen]:
    """The screen for where we are. Whatever happens in the block, the terminal is as it was afterwards."""
    console = console or open_console()
    if as_json:
        yield JsonScreen()
    elif console.is_terminal:
        live = Live(console=console, auto_refresh=False)
        try:
            yield LiveScreen(console, live)
        finally:
            live.stop()
    else:
        yield LineScreen(console)


def _is_done(ledger: Ledger, epic: Epic) -> bool:
    return epic_state(ledger, epic) is EpicState.DONE


def _report(console: Console, look: Look, *, tables: bool) -> None:
    if not look.epics:
        console.print(NOTHING_PLANNED)
    for epic in look.epics:
        if tables:
            console.print(story_table(look.ledger, epic, look.now_s))
        console.print(epic_line(look.ledger, epic))
        merged = any(s.merged_as is not None for s in epic.stories.values())
        if merged and _is_done(look.ledger, epic):
            console.print(f"All stories are merged. Take them over with: epicwave land {epic.spec.id}")


NOTHING_PLANNED = "No epic is planned in this repository. Start with: epicwave run EPIC"
