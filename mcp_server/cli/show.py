"""State to text for a log or a terminal: one line an epic, a table of its stories, a line for each change."""

from __future__ import annotations

from rich.table import Table

from mcp_server.core.model import Epic, Ledger, Story, StoryState
from mcp_server.core.views import counts, epic_state, shown_state
from mcp_server.core.why import alerts, ended, why
from mcp_server.server.wire import cut

STYLES = {
    "running": "cyan",
    "offered": "cyan",
    "merging": "yellow",
    "merged": "green",
    "done": "green",
    "failed": "red",
    "cancelled": "red",
    "skipped": "yellow",
    "blocked": "red",
    "stopping": "red",
}


def epic_line(ledger: Ledger, epic: Epic) -> str:
    """`Title (id): active, 3 merged, 2 running ...; branch epicwave/id`."""
    parts = ", ".join(f"{n} {state}" for state, n in counts(epic).items())
    line = f"{epic.spec.title} ({epic.spec.id}): {epic_state(ledger, epic)}, {parts}; branch epicwave/{epic.spec.id}"
    return "\n".join([line, *alerts(ledger, epic)])


def story_table(ledger: Ledger, epic: Epic, now_s: float) -> Table:
    """Every story with its state, attempt, time in that state, and why it is not running."""
    table = Table(box=None, pad_edge=False)
    for name in ("story", "state", "try", "for"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    for story in epic.stories.values():
        state = shown_state(epic, story)
        reason = why(ledger, epic, story) or cut(story.spec.title, 60)
        for_s = f"{max(0.0, now_s - story.since_s):.0f} s"
        table.add_row(story.spec.id, state, str(story.attempt or ""), for_s, reason, style=STYLES.get(state, ""))
    return table


def change_line(epic: Epic, story: Story, seconds: float, *, named: bool = False) -> str:
    """One change of state as a plain line: `  12.3 s  S4  running (attempt 2)  Title`; `named` where there are more."""
    state = shown_state(epic, story)
    extra = ""
    if story.state in (StoryState.RUNNING, StoryState.OFFERED) and story.attempt > 1:
        extra = f" (attempt {story.attempt})"
    elif story.state is StoryState.MERGED and story.merged_as:
        extra = f" as {story.merged_as[:10]}"
    elif story.state in (StoryState.QUEUED, StoryState.PENDING, StoryState.FAILED, StoryState.CANCELLED):
        extra = f": {ended(story.failure)}" if story.failure is not None else ""
    name = f"{epic.spec.id}/{story.spec.id}" if named else story.spec.id
    return f"{seconds:7.1f} s  {name}  {state}{extra}  {story.spec.title}"
