"""Markdown epics in the shapes people write, each in a small file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.adapters.formats.detect import read_epic, read_text
from mcp_server.adapters.formats.reading import Reading
from mcp_server.core.draft import DraftStory
from mcp_server.core.planning import BadEpic, plan

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> Reading:
    reading = read_epic(FIXTURES / name)
    assert reading.format == "markdown"
    return reading


def stories(reading: Reading) -> dict[str, DraftStory]:
    return {story.id: story for story in reading.draft.stories}


def needs(reading: Reading) -> dict[str, list[str]]:
    return {story.id: [name for name, _ in story.depends_on] for story in reading.draft.stories}


def paths(story: DraftStory) -> list[str]:
    return [path for path, _ in story.files]


def test_a_bmad_epic() -> None:
    """List items; criteria on one line; a tick or "(Completed ...)" is done; later lists are no second stories."""
    reading = fixture("bmad.md")
    draft = reading.draft
    assert (draft.title, draft.id) == ("Tidy Catalogue", None)
    assert draft.goal.startswith("Make the catalogue")
    assert [(s.id, s.title, s.line, s.done) for s in draft.stories] == [
        ("6.1", "Plant index", 16, False),
        ("6.2", "Shade filter", 20, True),
        ("6.3", "Printed list", 25, True),
    ]
    assert needs(reading) == {"6.1": [], "6.2": ["6.1"], "6.3": []}
    assert draft.stories[0].acceptance == (
        "every plant is found",
        "unknown names give an empty list",
        "lookups run after Story 6.2 lands",
    )
    assert draft.stories[0].description == "- Read all plants once and keep them in memory."
    assert paths(draft.stories[2]) == ["src/print.py", "docs/"]
    assert [line.line for line in reading.unused] == [12, 30]
    assert any("1 stories are ticked in another list" in note and "6.1" in note for note in reading.notes)


def test_an_executable_epic() -> None:
    """Reference ids, phases between the stories, criteria as a list, several files on a line, 2.10 after 2.2."""
    reading = fixture("executable.md")
    found = stories(reading)
    assert (reading.draft.id, reading.draft.line) == ("GRD-002", 3)
    assert list(found) == ["2.1", "2.2", "2.10"]
    assert needs(reading) == {"2.1": [], "2.2": ["2.1"], "2.10": ["2.1", "2.2"]}
    assert found["2.1"].acceptance == (
        "The schema has events, names and commands",
        "A missing file gives defaults; and says so once",
        "Status: is shown as text, after Story 2.3 was read",
    )
    assert paths(found["2.2"]) == ["garden/hooks/run.py", "garden/hooks/templates/*.yaml"]
    assert [(s.done, s.critical, s.points) for s in found.values()] == [
        (True, False, 3.0),
        (False, True, 5.0),
        (False, False, None),
    ]
    assert [(line.line, line.text) for line in reading.unused] == [(57, "CI config")]
    assert found["2.1"].description == (
        "Load and check `.garden/hooks.yaml`.\n\n- Tests required: Unit tests in `tests/test_config.py`\n\n"
        "- GitHub Issue: TBD"
    )
    assert plan(reading.draft).waves == (("2.1",), ("2.2",), ("2.10",))


def test_a_guide_epic() -> None:
    """Headings with bold labels, one status a story, checks in a code block; code blocks hold no stories."""
    reading = fixture("guide.md")
    found = stories(reading)
    assert reading.draft.goal == "Keep it warm."
    assert reading.draft.checks == (("python", "-m", "pytest", "-q"),)
    assert needs(reading) == {"1.1": [], "1.2": ["1.1"], "1.3": ["1.1", "1.2"], "1.4": ["1.1", "1.2", "1.3"]}
    assert [s.done for s in found.values()] == [True, False, False, False]
    assert found["1.2"].acceptance == ("Turns on below five degrees", "Turns off above ten")
    assert found["1.3"].acceptance == ("rings", "rings again")
    assert found["1.2"].checks == (("python", "-m", "pytest", "tests/test_heater.py"), ("ruff", "check", "."))
    assert paths(found["1.2"]) == ["src/heater.py", "Dockerfile"]
    assert [line.text for line in reading.unused] == [
        "https://example.com/spec.html",
        "the weather service",
        "waiting for rain",
    ]
    assert "### Story 9.9" in found["1.1"].description


def test_a_user_story_epic() -> None:
    """Its own ids, and "Story 1" still means one of them; numbered criteria; a test plan is no story."""
    reading = fixture("userstory.md")
    found = stories(reading)
    assert (reading.draft.id, reading.draft.goal) == ("WTR-001", "Water the plants.")
    assert list(found) == ["WTR-001-S1", "WTR-001-S2", "WTR-001-S3"]
    assert needs(reading)["WTR-001-S2"] == ["WTR-001-S1"]
    assert needs(reading)["WTR-001-S3"] == ["WTR-001-S1", "WTR-001-S2"]
    pump, valve, clock = found.values()
    assert pump.acceptance == ("Pumps water", "The log has: the litres; the time")
    assert paths(pump) == ["water/pump.py", "water/agent.py", "water/valve.py"]
    assert (pump.points, pump.minutes, valve.points, valve.minutes) == (3.0, 180.0, 2.0, 480.0)
    assert paths(clock) == ["docs/clock.md"]
    assert [line.text for line in reading.unused] == [
        "Blocks: Story 3",
        "the usual places",
        "2. **Story 1** (Pump) - depends on Story 3",
    ]
    assert not any(s.critical or s.done for s in found.values())


def test_a_newer_bmad_epic() -> None:
    """Front matter, several epics, given/when/then, letters in ids, hyphens, French spacing, a story crossed out."""
    reading = fixture("bmad_v6.md")
    found = stories(reading)
    assert list(found) == ["KB-01.1", "KB-01.2", "12-1", "12-2"]
    assert found["KB-01.1"].acceptance == (
        "**Given** a bed **When** I plant **Then** it is taken **And** it is listed",
        "**Given** a full bed **Then** planting is refused",
    )
    assert needs(reading) == {"KB-01.1": [], "KB-01.2": ["KB-01.1"], "12-1": [], "12-2": ["12-1", "KB-01.2"]}
    assert found["12-1"].points == 5.0
    assert found["12-1"].done
    assert [line.text for line in reading.unused] == [
        "Soil",
        "depends on Story KB-01.3 in spirit",
        "### ~~Story KB-01.3: Bed colours~~ - ABSORBED INTO Story KB-01.1",
        "Epic 7",
    ]
    assert any("2 epics" in note for note in reading.notes)


@pytest.mark.parametrize(
    "head",
    [
        "### Story 2.1: T",
        "## Story 2.1: T",
        "#### 📋 Story 2.1: T ##",
        "### Story 2.1 - T",
        "### Story 2.1 — T",
        "### Story 2.1 : T",
        "### **Story 2.1: T**",
        "### User Story 2.1: T",
        "1. **Story 2.1: T**",
        "12) **Story 2.1: T**",
        "- **Story 2.1: T**",
        "- **Story 2.1:** T",
        "* **Story 2.1** - T",
        "**Story 2.1: T**",
        "### Story 2.1: T ⏳ TODO",
    ],
)
def test_a_story_may_begin_in_many_ways(head: str) -> None:
    (story,) = read_text(f"# E\n\n## Stories\n\n{head}\n   - does it\n").draft.stories
    assert (story.id, story.title, story.done, story.line) == ("2.1", "T", False, 5)


@pytest.mark.parametrize(
    "head",
    [
        "### ✅ Story 2.1: T",
        "1. ✅ **Story 2.1: T** (Completed 2025-12-14)",
        "1. **Story 2.1: T** ✅",
        "- [x] **Story 2.1: T**",
        "### Story 2.1: T (Done)",
    ],
)
def test_a_ticked_story_is_done_unless_its_status_says_otherwise(head: str) -> None:
    (story,) = read_text(f"# E\n\n{head}\n").draft.stories
    assert (story.title, story.done) == ("T", True)
    (story,) = read_text(f"# E\n\n{head}\n   **Status:** In Progress\n").draft.stories
    assert not story.done


@pytest.mark.parametrize(
    "line",
    [
        "### Story Points",
        "**Story Points:** 3",
        "## Story 22 went well",
        "1. **Story 2.1** (T)",
        "We told Story 2.1: T",
        "> **Story so far**",
    ],
)
def test_what_only_mentions_a_story_is_none(line: str) -> None:
    assert [s.id for s in read_text(f"# E\n\n### Story 1.1: A\n\n{line}\n").draft.stories] == ["1.1"]


def test_two_stories_that_both_tell_of_one_id_are_a_duplicate() -> None:
    text = "# E\n\n### Story 1.1: A\nAcceptance criteria: x\n\n### Story 1.1: B\nAcceptance criteria: y\n"
    with pytest.raises(BadEpic) as refusal:
        plan(read_text(text).draft)
    assert [(error.line, error.code) for error in refusal.value.errors] == [(6, "duplicate_id")]


def test_of_a_summary_and_a_story_the_one_with_fields_is_read() -> None:
    text = "# E\n\n## Overview\n\n- **Story 1.1: A** - soon\n\n## Stories\n\n### Story 1.1: A\n\n**Points:** 2\n"
    (story,) = read_text(text).draft.stories
    assert (story.line, story.points) == (9, 2.0)


def test_a_block_that_is_never_closed_is_told() -> None:
    reading = read_text("# E\n\n### Story 1.1: T\n\n```\n### Story 1.2: U\n")
    assert any("line 5 is never closed" in note for note in reading.notes)


def test_a_longer_fence_is_closed_only_by_one_as_long() -> None:
    text = "# E\n\n### Story 1.1: T\n\n````\n```\n### Story 1.2: U\n```\n### Story 1.3: V\n````\n### Story 1.4: W\n"
    assert [story.id for story in read_text(text).draft.stories] == ["1.1", "1.4"]


def test_a_report_on_a_story_is_no_second_story() -> None:
    """A story's own status counts; what a later section says of it does not."""
    text = (
        "# E\n\n### Story 1.1: T\n\n**Points:** 1\n\n## Implementation Status\n\n### Story 1.1: T\n\n**Status:** done\n"
    )
    (story,) = read_text(text).draft.stories
    assert (story.line, story.done) == (3, False)


def test_a_storys_own_id_goes_before_what_another_is_called() -> None:
    text = "# E\n\n### Story A1: T\n**Story ID:** A2\n\n### Story A2: U\n**Story ID:** A1\n**Dependencies:** Story a2\n"
    assert needs(read_text(text)) == {"A2": [], "A1": ["A2"]}


def test_front_matter_and_comments_are_not_read() -> None:
    text = "---\nid: x\n### Story 0.1: F\n---\n# E\n<!-- ### Story 0.2: C\n### Story 0.3: D\n-->\n### Story 1.1: T\n"
    assert [story.id for story in read_text(text).draft.stories] == ["1.1"]


def test_what_two_stories_are_called_means_neither() -> None:
    """Two epics in one file both have a "Story 1"."""
    block = "### Story 1: T\n\n**Story ID:** {}-1\n\n### Story 2: U\n\n**Story ID:** {}-2\n\n**Dependencies:** {}\n\n"
    reading = read_text("# E\n\n" + block.format("A", "A", "A-1") + block.format("B", "B", "Story 1"))
    assert needs(reading) == {"A-1": [], "A-2": ["A-1"], "B-1": [], "B-2": ["1"]}
