"""`epicwave plan`: the plan of an epic file, as text or JSON."""

from __future__ import annotations

from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

from mcp_server.adapters.formats.detect import Reading, read_epic
from mcp_server.cli.terminal import count, open_console
from mcp_server.core.planning import BadEpic, Plan
from mcp_server.core.planning import plan as make_plan
from mcp_server.core.predict import Known
from mcp_server.core.spec import Source, StorySpec
from mcp_server.errors import Fault, Refused
from mcp_server.server.mirror import Mirror
from mcp_server.server.wire import cut
from mcp_server.server.wire_plan import PlanReply, UnusedText, footprint_words, proposal_words
from mcp_server.server.world import World

UNUSED_SHOWN = 20


def show_plan(path: Path, *, redo: bool, as_json: bool) -> None:
    """Print it. Raises `Refused` with every error of the file and its line."""
    reading = read_epic(path)
    try:
        planned = make_plan(reading.draft, redo=redo, known=anyio.run(_known))
    except BadEpic as bad:
        raise bad.in_full() from None
    if as_json:
        unused = [UnusedText(line=u.line, text=u.text, why=u.why) for u in reading.unused]
        print(PlanReply.of(planned, unused, list(reading.notes)).model_dump_json(indent=2))  # noqa: T201 - its output
        return
    console = open_console()
    _summary(console, planned)
    console.print(_table(planned))
    _details(console, planned, reading)


async def _known() -> Known:
    """What the repository that we are in tells; nothing where there is none, or none that can be read."""
    try:
        world = await World.open(Path())
        return await world.known(Mirror(world.journal_path).ledger())
    except (Refused, Fault):
        return Known()


def _summary(console: Console, planned: Plan) -> None:
    spec = planned.spec
    done = sum(s.done for s in spec.stories)
    console.print(f"{spec.title}  (id {spec.id})")
    console.print(
        f"{count(len(spec.stories), 'story')}{f' ({done} already done)' if done else ''}, "
        f"{count(len(planned.waves), 'wave')}, {count(sum(len(s.depends_on) for s in spec.stories), 'dependency')}"
    )
    if planned.critical_path:
        console.print(
            f"critical path {' -> '.join(planned.critical_path)}: {planned.critical_minutes:g} of "
            f"{planned.work_minutes:g} min of work (at most {planned.useful:.1f}x from running in parallel)"
        )


def _table(planned: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("wave", "story", "title", "needs", "files"):
        table.add_column(name, overflow="fold")
    by_id = {s.id: s for s in planned.spec.stories}
    for number, wave in enumerate(planned.waves, 1):
        for story_id in wave:
            story = by_id[story_id]
            title = cut(story.title, 60) + (" (done)" if story.done else "") + (" (critical)" if story.critical else "")
            table.add_row(str(number), story_id, title, ", ".join(story.depends_on), _files(story))
    return table


def _files(story: StorySpec) -> str:
    """What keeps others away; where it is only guessed, that is said."""
    guessed = " (from its text)" if story.footprint and not story.files else ""
    more = story.guessed(Source.HISTORY)
    return ", ".join(story.footprint) + guessed + (f"; likely {', '.join(more)}" if more else "")


def _details(console: Console, planned: Plan, reading: Reading) -> None:
    for overlap in planned.overlaps:
        if not overlap.ordered:
            console.print(
                f"conflict: {overlap.a} and {overlap.b} share {', '.join(overlap.shared[:3])}; "
                + ("never together" if overlap.apart else "together, the merge queue settles it")
            )
    for words in footprint_words(planned):
        console.print(f"footprints: {words}")
    for words in proposal_words(planned):
        console.print(f"exempt: {words}")
    for warning in planned.warnings:
        console.print(f"warning: {warning}")
    for note in reading.notes:
        console.print(f"note: {note}")
    for unused in reading.unused[:UNUSED_SHOWN]:
        console.print(f"not used: line {unused.line}: {cut(unused.text, 80)} ({unused.why})")
    if len(reading.unused) > UNUSED_SHOWN:
        console.print(f"not used: and {len(reading.unused) - UNUSED_SHOWN} more lines")
