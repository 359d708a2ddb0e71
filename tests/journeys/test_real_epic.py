"""A real epic of somebody else's project, read and run to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import BranchMerged
from mcp_server.core.planning import plan
from tests.journeys.programs import epicwave
from tests.server.scene import Scene

EPIC = Path("tapps", "wtthornton+TappsCodingAgents", "stories", "enh-002-critical-enhancements.md")

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif("EPICWAVE_CORPUS" not in os.environ, reason="EPICWAVE_CORPUS names no folder of real epics"),
]


@pytest.fixture
def epic() -> Path:
    return Path(os.environ["EPICWAVE_CORPUS"]) / EPIC


def test_a_real_epic_of_fifteen_stories_ends_merged(tmp_path: Path, epic: Path) -> None:
    """In a repository that has the files it names, with the agent that changes each of them."""
    scene = Scene(tmp_path)
    stories = {s.id: s.files for s in plan(read_epic(epic).draft, redo=True).spec.stories}
    assert len(stories) == 15
    for path in {path for files in stories.values() for path in files if not path.endswith("/") and "*" not in path}:
        (scene.repo / path).parent.mkdir(parents=True, exist_ok=True)
        (scene.repo / path).write_text(f"# {path}\n", "utf-8")
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "The files that it names")
    before = scene.checkout()
    words = ["--redo", "--agent", "scripted", "--strategy", "asyncio", "--slots", "4"]
    said = epicwave(scene.repo, "run", epic, *words)
    assert said.code == 0, said
    assert scene.checkout() == before
    assert scene.leftovers() == []

    journal = SqliteJournal(scene.repo / ".git" / "epicwave" / "journal.db")
    merged = {e.attempt.story: set(e.files) for e in journal.replay() if isinstance(e, BranchMerged)}
    journal.close()
    assert merged.keys() == stories.keys()
    branch = scene.git("for-each-ref", "--format=%(refname:short)", "refs/heads/epicwave/")
    changed = set(scene.git("diff", "--name-only", "main", branch).splitlines())
    for name, files in stories.items():
        named = {path for path in files if not path.endswith("/") and "*" not in path}
        assert named <= merged[name], name
        assert named <= changed, name
