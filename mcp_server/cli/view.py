"""The live view of an epic: how far it is, what is in each slot, the plan's waves, how long still, and what waits."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mcp_server.cli.follow import Look
from mcp_server.cli.show import STYLES
from mcp_server.core.forecast import forecast
from mcp_server.core.model import LIVE, SATISFIES, SETTLED, Epic, Story, StoryState, is_alive
from mcp_server.core.settle import slots_of
from mcp_server.core.views import epic_state, shown_state
from mcp_server.core.why import alerts, why
from mcp_server.server.wire import cut

BAR = 40
"""Columns of the progress bar."""
WAITING_MIN = 3
"""Lines for stories that wait, however low the terminal is."""
_ORDER = ("failed", "blocked", "cancelled", "ready", "queued", "pending", "skipped")
"""Whom somebody has to look after comes first."""


def view(look: Look, height: int) -> RenderableType:
    """All that is followed, in so many lines if it can be done."""
    if not look.epics:
        return Text("Nothing is under way.")
    parts = [part for epic in look.epics for part in _epic(look, epic, height // len(look.epics))]
    return Group(*parts, *([Text(look.note, style="yellow")] if look.note else []))


def _epic(look: Look, epic: Epic, height: int) -> Iterator[RenderableType]:
    above = [_head(look, epic), *(Text(alert, style="yellow") for alert in alerts(look.ledger, epic))]
    slots = _slots(look, epic)
    below = [_one_line(text) for text in (_merging(look, epic), _waves(epic)) if text]
    yield from above
    yield _bar(look, epic)
    yield slots
    yield from below
    yield _waiting(look, epic, max(WAITING_MIN, height - len(above) - slots.row_count - len(below) - 3))


def _head(look: Look, epic: Epic) -> Text:
    """`Notes (notes)  active  wave 2, asyncio  3 of 11 merged  1.20 USD`."""
    state, wave = str(epic_state(look.ledger, epic)), epic.wave
    merged = sum(s.state in SATISFIES for s in epic.stories.values())
    parts = [f"wave {wave.number}, {wave.policy.strategy}"] if wave is not None and is_alive(wave) else []
    parts.append(f"{merged} of {len(epic.stories)} merged")
    if epic.used.usd:
        parts.append(f"{epic.used.usd:.2f} USD")
    if epic.used.tokens:
        parts.append(f"{epic.used.tokens:,} tokens")
    head = Text(f"{cut(epic.spec.title, 60)} ({epic.spec.id})  ", style="bold", no_wrap=True, overflow="ellipsis")
    return head.append(state, STYLES.get(state, "")).append("  " + "  ".join(parts), "not bold")


def _bar(look: Look, epic: Epic) -> Table:
    done = sum(s.state in SATISFIES for s in epic.stories.values())
    guess = forecast(look.ledger, epic, look.times, look.now_s)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=len(epic.stories), completed=done, width=BAR), str(guess) if guess else "")
    return grid


def _slots(look: Look, epic: Epic) -> Table:
    """What is alive, a slot a line, with the last words of its agent; then how many slots are free."""
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    alive = list(epic.stories.in_state(*LIVE))
    for number, story in enumerate(alive, 1):
        state = shown_state(epic, story)
        last = look.lines.get((epic.spec.id, story.spec.id), "")
        said = last or why(look.ledger, epic, story) or cut(story.spec.title, 60)
        tries = f"attempt {story.attempt}" if story.attempt > 1 else ""
        table.add_row(
            f"{number} {story.spec.id}",
            f"{state} {_for(look.now_s - story.since_s)}",
            tries,
            cut(story.agent, 12),
            said,
            style=STYLES.get(state, ""),
        )
    wave = epic.wave
    if wave is not None and is_alive(wave) and slots_of(wave) > len(alive):
        table.add_row(f"{slots_of(wave) - len(alive)} free", "", "", "", "", style="dim")
    return table


def _merging(look: Look, epic: Epic) -> str:
    queue = sorted(epic.stories.in_state(StoryState.MERGING), key=lambda s: s.merge_rank)
    if not queue:
        return ""
    return f"merge queue: {', '.join(s.spec.id for s in queue)}. {why(look.ledger, epic, queue[0])}"


def _waves(epic: Epic) -> str:
    """`waves: 1 4/4, 2 1/5, 3 0/2`: of each wave of the plan, how many are merged."""
    found: dict[int, tuple[int, int]] = {}
    for story in epic.stories.values():
        done, all_ = found.get(story.level, (0, 0))
        found[story.level] = done + (story.state in SATISFIES), all_ + 1
    return "waves: " + ", ".join(f"{level} {done}/{all_}" for level, (done, all_) in sorted(found.items()))


def _waiting(look: Look, epic: Epic, most: int) -> Table:
    """What is not alive and not merged, with its reason, in so many lines at most."""
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    waiting = [s for s in epic.stories.values() if _waits(s)]
    waiting.sort(key=lambda s: (_ORDER.index(shown_state(epic, s)), -s.rank))
    shown = waiting if len(waiting) <= most else waiting[: most - 1]
    for story in shown:
        state = shown_state(epic, story)
        table.add_row(story.spec.id, state, why(look.ledger, epic, story), style=STYLES.get(state, ""))
    if len(shown) < len(waiting):
        table.add_row("", "", f"and {len(waiting) - len(shown)} more", style="dim")
    return table


def _waits(story: Story) -> bool:
    return story.state in {StoryState.QUEUED, StoryState.PENDING} | (SETTLED - {StoryState.MERGED})


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _for(seconds: float) -> str:
    """`12 s`, `3 min`, `1 h 05`."""
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole // 60 % 60:02}"
