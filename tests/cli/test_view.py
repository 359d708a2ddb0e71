"""What a terminal shows of an epic on its way: the live view, and the lines where there is no terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mcp_server.cli.follow import Look
from mcp_server.cli.screen import LineScreen
from mcp_server.cli.view import view
from mcp_server.core.forecast import Times
from mcp_server.core.model import Cause
from tests.core.build import EPIC, Life, story

WIDTH = 100


def _look(life: Life, lines: dict[str, str] | None = None, note: str = "") -> Look:
    times = Times()
    for event in life.log:
        times.note(event)
    said = {(EPIC, name): line for name, line in (lines or {}).items()}
    return Look(life.ledger, tuple(life.ledger.epics.values()), life.now_s, times, said, note)


def _drawn(look: Look, height: int = 30) -> list[str]:
    console = Console(width=WIDTH, height=height, record=True, file=Path("/dev/null").open("w", encoding="utf-8"))  # noqa: SIM115
    console.print(view(look, height))
    return console.export_text().splitlines()


def _wide() -> Life:
    """Two merged, two at work, one in the merge queue, one failed, two that wait."""
    life = Life(*(story(name) for name in "abcdef"), story("g", "f"), story("h", "c"))
    life.start(slots=4, attempts=1, fail_fast=False)
    for name in "ab":
        life.claim(name)
    life.tick(60.0)
    life.merge("a", "b")
    life.claim("c", "d", "e", "f")
    life.tick(20.0)
    life.use("c", 1.25, 3000)
    life.succeed("d")
    life.fail("f", Cause.AGENT_FAILED)
    return life


def test_the_live_view_has_all_that_a_lead_asks_for() -> None:
    shown = _drawn(_look(_wide(), {"c": "writing the parser", "e": "running 12 tests"}))
    text = "\n".join(shown)
    assert shown[0].startswith(f"Epic {EPIC} ({EPIC})  active  wave 1, asyncio  2 of 8 merged  1.25 USD  3,000 tokens")
    assert "about 2 min left, from 2 finished stories" in shown[1]
    slots = [line for line in shown if "running" in line and line[0].isdigit()]
    assert [(line.split()[1], "running 20 s" in line) for line in slots] == [("c", True), ("e", True)]
    assert "writing the parser" in slots[0]
    assert "running 12 tests" in slots[1]
    assert "2 free" in text
    assert "merge queue: d. Its commits are being rebased and checked." in text
    assert "waves: 1 2/6, 2 0/2" in text
    waiting = shown[-3:]
    assert [line.split()[:2] for line in waiting] == [["f", "failed"], ["g", "blocked"], ["h", "queued"]]
    assert "it broke." in waiting[0]
    assert "Blocked by f" in waiting[1]
    assert all(len(line) <= WIDTH for line in shown)


def test_it_fits_the_terminal_and_says_how_much_was_left_out() -> None:
    life = Life(story("a"), *(story(f"b{n}", "a") for n in range(50)))
    life.start(slots=2)
    life.claim("a")
    shown = _drawn(_look(life), height=20)
    assert len(shown) <= 20
    shown_of_them = sum("queued" in line for line in shown)
    assert f"and {50 - shown_of_them} more" in shown[-1]


def test_nothing_is_foretold_before_anything_has_finished_nor_while_the_epic_is_paused() -> None:
    life = Life(story("a"), story("b", "a"))
    life.start()
    life.claim("a")
    assert "left, from" not in "\n".join(_drawn(_look(life)))
    life.tick(10.0)
    life.merge("a")
    assert "about 10 s left, from 1 finished story" in "\n".join(_drawn(_look(life)))
    life.pause()
    paused = "\n".join(_drawn(_look(life)))
    assert "left, from" not in paused
    assert "The epic is paused (lunch)" in paused


def test_what_is_wrong_with_the_engine_stands_at_the_end() -> None:
    life = Life(story("a"))
    life.start()
    assert _drawn(_look(life, note="Nobody answers."))[-1] == "Nobody answers."


def test_a_log_gets_each_change_once_in_its_order_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    life = Life(story("a"), story("b", "a"))
    screen = LineScreen(Console(width=120, soft_wrap=True, highlight=False, markup=False))
    life.start()
    screen.show(_look(life))
    life.claim("a")
    screen.show(_look(life))
    screen.show(_look(life))
    life.tick(30.0)
    life.merge("a")
    screen.show(_look(life, note="Nobody answers."))
    screen.show(_look(life, note="Nobody answers."))
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert said == [
        f"Epic {EPIC} ({EPIC}): active, 1 offered, 1 queued; branch epicwave/{EPIC}",
        "0.0 s a offered Title of a",
        "0.0 s a running Title of a",
        "30.0 s a merged as tip-a Title of a",
        "30.0 s b offered Title of b",
        "note: Nobody answers.",
    ]
    life.tick(1.0)
    life.merge("b")
    screen.close(_look(life))
    assert f"epicwave land {EPIC}" in capsys.readouterr().out


def test_where_several_epics_are_followed_each_line_names_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    life = Life(story("a"))
    life.plan(story("a"), epic="f")
    screen = LineScreen(Console(width=120, soft_wrap=True, highlight=False, markup=False))
    screen.show(_look(life))
    capsys.readouterr()
    life.start(epic="f")
    screen.show(_look(life))
    assert "f/a" in capsys.readouterr().out
