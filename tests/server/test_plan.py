"""plan_epic: what it answers, and what it refuses without a trace."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mcp_server.server.app import build
from tests.server.lead import Lead, leading
from tests.server.scene import Scene, epic_text, story

pytestmark = pytest.mark.anyio


async def test_a_file_is_planned_into_waves_conflicts_and_a_critical_path(lead: Lead, scene: Scene) -> None:
    scene.epic(
        story("S1", minutes=10),
        story("S2", minutes=20, files=["shared/"]),
        story("S3", "S1", minutes=5, files=["shared/x.md"]),
        story("S4", "S2", "S3", minutes=10),
        checks=["true"],
    )
    plan = await lead.ask("plan_epic", epic_file="epic.yaml")
    assert (plan["epic"], plan["title"], plan["stories"]) == ("notes", "Notes", 4)
    assert plan["waves"] == {"1": ["S2", "S1"], "2": ["S3"], "3": ["S4"]}, "the longest path first"
    assert plan["critical_path"] == ["S2", "S4"]
    assert (plan["critical_path_minutes"], plan["work_minutes"]) == (30, 45)
    assert [c["stories"] for c in plan["conflicts"]] == [["S2", "S3"]]
    assert "start_wave" in plan["next"]


async def test_the_text_itself_is_planned_like_a_file(lead: Lead) -> None:
    plan = await lead.ask("plan_epic", epic_text=epic_text(story("S1"), story("S2", "S1")))
    assert plan["waves"] == {"1": ["S1"], "2": ["S2"]}


async def test_a_file_is_found_from_the_folder_that_the_server_was_started_in(scene: Scene) -> None:
    below = scene.repo / "docs"
    below.mkdir()
    (below / "e.yaml").write_text(epic_text(story("S1")), "utf-8")
    async with leading(build(below)) as lead:
        assert (await lead.ask("plan_epic", epic_file="e.yaml"))["stories"] == 1


async def test_what_could_not_be_used_is_told_with_its_line(lead: Lead) -> None:
    text = (
        "# Epic 1: Notes\n\n## Stories\n\n1. **Story 1.1: One**\n\n   Depends on: Story 1.9 or whatever is there\n\n"
        "2. **Story 1.2: Two**\n\n   Depends on: Story 1.1\n"
    )
    result = await lead.client.call_tool("plan_epic", {"epic_text": text})
    told = str(result)
    assert "7" in told
    assert "1.9" in told


async def test_both_a_file_and_a_text_are_refused_and_neither_too(lead: Lead) -> None:
    for arguments in ({}, {"epic_file": "epic.yaml", "epic_text": "id: x"}):
        said = await lead.refused("plan_epic", **arguments)
        assert said.startswith("bad_argument: ")
        assert "epic_file" in said
        assert "epic_text" in said


async def test_every_error_of_a_file_is_named_with_its_line(lead: Lead, scene: Scene) -> None:
    path = scene.epic(
        story("S1", "S3"), story("S2", "S1"), story("S3", "S2"), story("S4", "S4"), story("S5", "Z5"), story("S5")
    )
    lines = path.read_text("utf-8").splitlines()
    cycle, itself, unknown = (1 + lines.index(x) for x in ("- id: S1", "  - S4", "  - Z5"))
    twice = len(lines) - lines[::-1].index("- id: S5")
    said = await lead.refused("plan_epic", epic_file="epic.yaml")
    assert said.startswith("bad_epic: ")
    assert f"line {cycle}: dependency cycle" in said
    assert "S1 -> S3 -> S2 -> S1" in said
    assert f"line {itself}: story 'S4' depends on itself" in said
    assert f"line {unknown}: story 'S5' depends on 'Z5'" in said
    assert f"line {twice}: story id 'S5' is used twice" in said
    assert not scene.refs("refs/heads/epicwave/")


async def test_a_refused_plan_is_not_taken(lead: Lead, scene: Scene) -> None:
    scene.epic(story("S1", "S1"))
    await lead.refused("plan_epic", epic_file="epic.yaml")
    assert "epics" not in await lead.ask("story_status")


@pytest.mark.parametrize("path", ["missing.yaml", "docs", "../../../../nowhere/e.yaml", "\0", "x" * 300])
async def test_a_path_without_a_readable_file_is_refused(modern: Lead, scene: Scene, path: str) -> None:
    (scene.repo / "docs").mkdir()
    said = await modern.refused("plan_epic", epic_file=path)
    assert said.startswith("unreadable_epic: ")


async def test_a_bad_configuration_is_refused_with_its_key(modern: Lead, scene: Scene) -> None:
    scene.epic(story("S1"))
    scene.configure({"max_paralel_stories": 3})
    said = await modern.refused("plan_epic", epic_file="epic.yaml")
    assert said.startswith("bad_config: ")
    assert "max_paralel_stories" in said
    assert "did you mean max_parallel_stories" in said
    scene.configure({})
    await modern.ask("plan_epic", epic_file="epic.yaml")


async def test_an_edited_epic_is_taken_again_also_when_it_was_moved_and_anothers_is_not(
    modern: Lead, scene: Scene
) -> None:
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    other = scene.epic(story("S1"), story("S2", "S1"))
    assert (await modern.ask("plan_epic", epic_file="epic.yaml"))["stories"] == 2
    (scene.repo / "other.yaml").write_text(epic_text(story("T1")), "utf-8")
    assert (await modern.refused("plan_epic", epic_file="other.yaml")).startswith("epic_exists: ")
    other.rename(scene.repo / "moved.yaml")
    await modern.ask("plan_epic", epic_file="moved.yaml")


async def test_the_checkouts_own_changes_are_named_and_left_alone(modern: Lead, scene: Scene) -> None:
    scene.epic(story("S1"))
    (scene.repo / "app.py").write_text("print('changed')\n", "utf-8")
    scene.git("checkout", "-q", "--detach")
    before = scene.checkout()
    notices = " ".join((await modern.ask("plan_epic", epic_file="epic.yaml"))["notices"])
    assert "untracked" in notices
    assert "detached" in notices
    assert "uncommitted" in notices or "not committed" in notices or "changes" in notices
    assert scene.checkout() == before


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        ([], "not_a_repository"),
        ([["init", "-q", "--bare"]], "bare_repository"),
        ([["init", "-q"]], "no_commits"),
    ],
)
async def test_a_folder_that_cannot_be_worked_in_is_refused_by_every_tool(
    tmp_path: Path, commands: list[list[str]], code: str
) -> None:
    _git(tmp_path, *commands)
    before = _paths(tmp_path)
    async with leading(build(tmp_path)) as lead:
        assert (await lead.refused("plan_epic", epic_text=epic_text(story("S1")))).startswith(f"{code}: ")
        assert (await lead.refused("start_wave", epic="x")).startswith(f"{code}: ")
        assert (await lead.refused("story_status")).startswith(f"{code}: ")
        assert (await lead.refused("cancel_epic", epic="x")).startswith(f"{code}: ")
    assert _paths(tmp_path) == before


def _git(folder: Path, *commands: list[str]) -> None:
    for command in commands:
        subprocess.run(["git", *command], cwd=folder, check=True)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_a_repository_that_gets_its_first_commit_is_looked_at_again(tmp_path: Path) -> None:
    """The refusal's own next move works, without a new server."""
    _git(tmp_path, ["init", "-q"])
    async with leading(build(tmp_path)) as lead:
        await lead.refused("story_status")
        _git(tmp_path, ["commit", "-q", "--allow-empty", "-m", "Start"])
        await lead.ask("story_status")


async def test_where_a_footprint_comes_from_is_told_with_what_changes_with_it(lead: Lead, scene: Scene) -> None:
    for n in range(3):
        (scene.repo / "app.py").write_text(f"{n}\n", "utf-8")
        (scene.repo / "test_app.py").write_text(f"{n}\n", "utf-8")
        scene.git("add", "-A")
        scene.git("commit", "-q", "-m", "Both")
    scene.epic(story("S1"), story("S2", files=[], description="Mend app.py."), story("S3", files=["app.py"]))
    reply = await lead.ask("plan_epic", epic_file="epic.yaml")
    assert reply["footprints"] == [
        "2 by declared: no record yet",
        "1 by text: no record yet",
        "2 by history: no record yet",
        "S2: app.py (text) likely test_app.py (history)",
        "S3: likely test_app.py (history)",
    ]
    assert [c["stories"] for c in reply["conflicts"]] == [["S2", "S3"]]
    assert reply["useful_slots"] == 1.5
    page = (await lead.client.read_resource("epic://notes/story/S2")).contents[0]
    assert "Files that its text names: app.py" in str(page)
    assert "Usually change with them: test_app.py" in str(page)


async def test_a_file_that_everything_touches_is_proposed_with_its_gain_and_exempt_only_when_configured(
    lead: Lead, scene: Scene
) -> None:
    for n in range(20):
        (scene.repo / "LOG.md").write_text(f"{n}\n", "utf-8")
        scene.git("add", "-A")
        scene.git("commit", "-q", "-m", "Log")
    scene.epic(*(story(f"S{n}", files=[f"{n}.md", "LOG.md"]) for n in range(3)))
    reply = await lead.ask("plan_epic", epic_file="epic.yaml")
    (words,) = [notice for notice in reply["notices"] if "footprint_exempt" in notice]
    assert "LOG.md (95%)" in words
    assert "`footprint_exempt: [LOG.md]` in .epicwave/config.yaml useful parallelism is 3.0 instead of 1.0" in words
    assert len(reply["conflicts"]) == 3
    scene.configure({"footprint_exempt": ["LOG.md"]})
    again = await lead.ask("plan_epic", epic_file="epic.yaml")
    assert ("conflicts" in again, again["useful_slots"]) == (False, 3)
    assert not [notice for notice in again.get("notices", []) if "footprint_exempt" in notice]


async def test_stories_that_may_run_together_are_no_conflict(lead: Lead) -> None:
    both = [story("S1", files=["x"]), story("S2", files=["x"])]
    reply = await lead.ask("plan_epic", epic_text=epic_text(*both, overlap="optimistic"))
    assert "conflicts" not in reply
