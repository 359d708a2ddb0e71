"""What the journeys start from: the plugin as a clone has it, and a user in the middle of something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house
from tests.journeys.claude import checkout
from tests.journeys.claude.session import COST

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def fresh_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's own files, as a clone has them: no environment, no caches."""
    folder = tmp_path_factory.mktemp("clone") / "epicwave"
    for path, text in house.read_tree(ROOT).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the journeys that passed have cost."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == COST
    ]
    if lines:
        terminalreporter.section("what the journeys cost")
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `epic.yaml`, six notes in three waves."""
    return checkout.make(tmp_path_factory.mktemp("repository"), checkout.NOTES_EPIC)
