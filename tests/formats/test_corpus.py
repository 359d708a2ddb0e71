"""Real epics, read from the folder that EPICWAVE_CORPUS names; skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.adapters.formats.reading import Reading
from mcp_server.core.planning import BadEpic, plan
from mcp_server.errors import Code, Refused

ROOT = os.environ.get("EPICWAVE_CORPUS", "")
TAPPS = Path(ROOT, "tapps", "wtthornton+TappsCodingAgents")
ENH_002 = TAPPS / "stories" / "enh-002-critical-enhancements.md"
pytestmark = pytest.mark.skipif(not ROOT, reason="EPICWAVE_CORPUS is not set to a folder of real epics")

NEEDS = {
    "2.1": [],
    "2.2": ["2.1"],
    "2.3": [],
    "2.4": ["2.1", "2.2", "2.3"],
    "2.5": ["2.4"],
    "2.6": ["2.4"],
    "2.7": ["2.1"],
    "2.8": [],
    "2.9": ["2.8"],
    "2.10": ["2.8", "2.9"],
    "2.11": ["2.6", "2.9"],
    "2.12": ["2.5", "2.6", "2.7"],
    "2.13": ["2.10", "2.11"],
    "2.14": ["2.12", "2.13"],
    "2.15": ["2.5", "2.6", "2.7"],
}
FILES = {
    "2.1": ["tapps_agents/hooks/config.py"],
    "2.2": ["tapps_agents/hooks/executor.py"],
    "2.3": ["tapps_agents/hooks/events.py"],
    "2.4": ["tapps_agents/hooks/manager.py"],
    "2.5": ["tapps_agents/simple_mode/orchestrators/base.py"],
    "2.6": ["tapps_agents/session/manager.py", "tapps_agents/cli/main.py"],
    "2.7": ["tapps_agents/resources/hooks/templates/*.yaml", "tapps_agents/core/init_project.py"],
    "2.8": ["tapps_agents/beads/specs.py"],
    "2.9": ["tapps_agents/beads/hydration.py"],
    "2.10": ["tapps_agents/cli/commands/task.py"],
    "2.11": ["tapps_agents/session/manager.py"],
    "2.12": ["docs/HOOKS_GUIDE.md"],
    "2.13": ["docs/TASK_MANAGEMENT_GUIDE.md"],
    "2.14": ["README.md", "docs/README.md", "CLAUDE.md", "docs/CONFIGURATION.md"],
    "2.15": ["tests/integration/hooks/", "examples/hooks/"],
}
CRITERIA = [5, 4, 3, 4, 5, 5, 4, 4, 4, 7, 4, 3, 3, 4, 4]
POINTS = [3, 5, 2, 3, 5, 5, 3, 3, 5, 5, 3, 2, 2, 1, 3]


@pytest.fixture(scope="module")
def enh_002() -> Reading:
    return read_epic(ENH_002)


def test_enh_002_is_read_as_a_human_reads_it(enh_002: Reading) -> None:
    stories = enh_002.draft.stories
    assert enh_002.draft.id == "ENH-002"
    assert {story.id: [name for name, _ in story.depends_on] for story in stories} == NEEDS
    assert sum(map(len, NEEDS.values())) == 22
    assert {story.id: [path for path, _ in story.files] for story in stories} == FILES
    assert [len(story.acceptance) for story in stories] == CRITERIA
    assert [story.points for story in stories] == POINTS
    assert all(story.done and story.description for story in stories)
    assert not any(story.critical for story in stories)
    assert [(line.line, line.text) for line in enh_002.unused] == [(394, "CI config")]


def test_enh_002_is_planned_in_seven_waves_when_it_is_done_again(enh_002: Reading) -> None:
    planned = plan(enh_002.draft, redo=True)
    assert [set(wave) for wave in planned.waves] == [
        {"2.1", "2.3", "2.8"},
        {"2.2", "2.7", "2.9"},
        {"2.4", "2.10"},
        {"2.5", "2.6"},
        {"2.11", "2.12", "2.15"},
        {"2.13"},
        {"2.14"},
    ]
    assert [(o.a, o.b, o.shared, o.ordered) for o in planned.overlaps] == [
        ("2.6", "2.11", ("tapps_agents/session/manager.py",), True)
    ]
    assert planned.critical_path == ("2.1", "2.2", "2.4", "2.6", "2.11", "2.13", "2.14")
    assert planned.work_minutes == 50 * 30
    assert "nothing to run" in plan(enh_002.draft).warnings[0]


@pytest.mark.parametrize(
    ("name", "stories", "edges", "files", "criteria", "done"),
    [
        ("stories/enh-001-workflow-enforcement.md", 4, 3, 4, 28, 0),
        ("stories/enh-002-reviewer-quality-tools.md", 4, 4, 12, 21, 1),
        ("stories/enh-002-workflow-improvements.md", 3, 2, 4, 22, 0),
        ("stories/project-cleanup-agent.md", 4, 5, 0, 28, 0),
        ("docs/prd/epic-2-dynamic-expert-rag-engine.md", 6, 0, 0, 6, 0),
        ("docs/prd/epic-3-adaptive-configuration-and-templates.md", 7, 0, 0, 9, 0),
        ("docs/prd/epic-4-story-driven-development-loop.md", 4, 0, 0, 7, 0),
        ("docs/prd/epic-5-progressive-task-level-review.md", 4, 0, 0, 4, 0),
        ("docs/prd/epic-6-yaml-schema-enforcement.md", 7, 0, 0, 16, 0),
        ("docs/prd/epic-8-automated-documentation-generation.md", 7, 0, 0, 16, 0),
        ("docs/prd/epic-9-background-agent-auto-generation.md", 7, 0, 0, 17, 7),
        ("docs/prd/epic-10-documentation-cleanup-and-alignment.md", 7, 0, 0, 14, 0),
    ],
)
def test_the_other_epics_of_the_same_author(
    name: str, stories: int, edges: int, files: int, criteria: int, done: int
) -> None:
    found = read_epic(TAPPS / name).draft.stories
    assert (len(found), sum(len(story.depends_on) for story in found)) == (stories, edges)
    assert (sum(len(story.files) for story in found), sum(len(s.acceptance) for s in found)) == (files, criteria)
    assert sum(story.done for story in found) == done


def outcome(path: Path) -> tuple[int, set[str]]:
    """How many stories were read, and the codes of what was refused."""
    try:
        draft = read_epic(path).draft
    except Refused as refused:
        return 0, {refused.code}
    try:
        plan(draft)
    except BadEpic as refused:
        return len(draft.stories), {error.code for error in refused.errors}
    return len(draft.stories), set()


@pytest.mark.parametrize(("folder", "least_read", "least_stories"), [("tapps", 201, 267), ("bmad_epic", 25, 811)])
def test_every_file_is_read_or_kindly_refused(folder: str, least_read: int, least_stories: int) -> None:
    outcomes = [outcome(path) for path in sorted(Path(ROOT, folder).rglob("*.md"))]
    assert sum(count > 0 for count, _ in outcomes) >= least_read
    assert sum(count for count, _ in outcomes) >= least_stories
    assert set().union(*(codes for _, codes in outcomes)) <= {"unknown_dependency", Code.UNREADABLE_EPIC}


@pytest.mark.parametrize("folder", ["taskmaster", "beads", "kiro", "decoys", "ccpm", "export"])
def test_files_of_other_tools_are_read_or_kindly_refused(folder: str) -> None:
    files = sorted(path for path in Path(ROOT, folder).rglob("*") if path.is_file())
    assert all(count or codes for count, codes in map(outcome, files[:150]))
