"""The same epic under each strategy ends with the same tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.claude.box import NEEDS_CLIENT, run_in_box
from tests.journeys.claude.checkout import WHOLE, git
from tests.journeys.claude.session import TIMEOUT_S, held_to, run_session

pytestmark = NEEDS_CLIENT


@pytest.mark.parametrize("strategy", ["sequential", "asyncio", "agent-teams"])
def test_every_strategy_ends_with_the_same_tree(
    strategy: str, repository: Path, fresh_checkout: Path, tmp_path: Path
) -> None:
    """Sub-agents of one client, or a client of its own for each story, one by one or side by side: all six notes."""
    expected = _tree_with(WHOLE, repository, tmp_path / "expected")
    (scratch := tmp_path / "scratch").mkdir()
    if strategy == "agent-teams":
        run_session("team", repository, scratch, "--plugin-dir", str(fresh_checkout))
    else:
        command = ["epicwave", "run", "epic.yaml", "--strategy", strategy, "--agent", "claude"]
        with held_to(repository) as ran:
            ran += [run_in_box("headless", command, cwd=repository, scratch=scratch, timeout_s=TIMEOUT_S)]
    assert git(repository, "rev-parse", "epicwave/six^{tree}") == expected


def _tree_with(notes: dict[str, str], repository: Path, folder: Path) -> str:
    """The tree of the user's branch with these notes in it, and nothing else."""
    git(repository, "clone", "-q", str(repository), str(folder))
    (folder / "notes").mkdir()
    for name, words in notes.items():
        (folder / "notes" / f"{name}.md").write_text(f"{words}\n", "utf-8")
    git(folder, "add", "notes")
    return git(folder, "write-tree")
