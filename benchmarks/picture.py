"""Draw docs/run.svg, the demo's parallel run, from its journal: `python benchmarks/picture.py`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import EpicPlanned
from mcp_server.core.metrics import Span, spans

OUT = Path(__file__).parents[1] / "docs" / "run.svg"
WIDTH, LEFT, ROW = 860, 290, 24
COLOURS = {"merged": ("#2f81f7", "#3fb950"), "checks": ("#2f81f7", "#d1242f")}


def draw(found: list[Span], titles: dict[str, str]) -> str:
    """One row an attempt: its agent's time, then the time in the merge queue and its checks."""
    began_s = min(s.started_s for s in found)
    scale = (WIDTH - LEFT - 20) / (max(s.settled_s for s in found) - began_s)
    rows: list[str] = []
    for number, span in enumerate(found):
        y = 40 + number * ROW
        x1, x2, x3 = (LEFT + (at_s - began_s) * scale for at_s in (span.started_s, span.ended_s, span.settled_s))
        agent, merge = COLOURS.get(span.outcome, ("#2f81f7", "#8b949e"))
        name = f"{span.attempt.story} {titles[span.attempt.story]}" + f" (try {span.attempt.number})" * (
            span.attempt.number > 1
        )
        rows.append(
            f'<text x="10" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="{x1:.1f}" y="{y}" width="{x2 - x1:.1f}" height="16" rx="3" fill="{agent}"/>'
            f'<rect x="{x2:.1f}" y="{y}" width="{max(3.0, x3 - x2):.1f}" height="16" rx="3" fill="{merge}"/>'
        )
    height = 48 + len(found) * ROW
    legend = (
        '<text x="10" y="22">blue: agent at work · green: rebased, checked, merged · red: check failed, tried again · '
        f"{max(s.settled_s for s in found) - began_s:.1f} s in all</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>{legend}{"".join(rows)}</svg>\n'
    )


def main() -> None:
    """Run the demo, read its journal, write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "demo"
        subprocess.run([sys.executable, "-m", "mcp_server.cli", "demo", "--keep", str(kept)], check=True)
        journal = SqliteJournal(kept / "parallel" / ".git" / "epicwave" / "journal.db")
        events = journal.replay()
        journal.close()
    planned = next(e for e in events if isinstance(e, EpicPlanned))
    titles = {s.id: s.title for s in planned.spec.stories}
    OUT.write_text(draw(spans(events, planned.spec.id), titles), "utf-8")
    print(f"{OUT} written")


if __name__ == "__main__":
    main()
