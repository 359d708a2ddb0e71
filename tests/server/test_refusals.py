"""Requests that may not happen: refused in words a model can act on, before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.lead import Lead
from tests.server.scene import Scene, story

pytestmark = pytest.mark.anyio


@pytest.fixture
async def planned(lead: Lead, scene: Scene) -> Lead:
    """A lead with a planned epic."""
    scene.epic(story("S1"), story("S2", "S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    return lead


@pytest.mark.parametrize(
    ("tool", "argument", "meant"),
    [
        ("plan_epic", "epicfile", "epic_file"),
        ("start_wave", "throug", "through"),
        ("story_status", "wait", "wait_s"),
        ("cancel_epic", "stories", "story"),
    ],
)
async def test_an_unknown_argument_is_refused_with_the_nearest_name(
    planned: Lead, tool: str, argument: str, meant: str
) -> None:
    said = await planned.refused(tool, **{"epic": "notes", argument: "x"} if tool != "plan_epic" else {argument: "x"})
    assert repr(argument) in said
    assert repr(meant) in said


WRONG_VALUES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("story_status", {"wait_s": 3601}, ["wait_s", "3600"]),
    ("story_status", {"wait_s": -1}, ["wait_s", "0"]),
    ("story_status", {"wait_s": "soon"}, ["wait_s", "number"]),
    ("story_status", {"since": "yesterday"}, ["since", "integer"]),
    ("story_status", {"epic": ["notes"]}, ["epic", "string"]),
    ("start_wave", {}, ["epic", "required"]),
    ("start_wave", {"epic": "notes", "slots": 0}, ["slots", "1"]),
    ("start_wave", {"epic": "notes", "strategy": "threads"}, ["strategy", "asyncio"]),
    ("start_wave", {"epic": "notes", "through": "tomorrow"}, ["through", "all"]),
    ("start_wave", {"epic": "notes", "through": True}, ["through"]),
    ("start_wave", {"epic": "notes", "through": 0}, ["through"]),
    ("start_wave", {"epic": "notes", "through": -3}, ["through"]),
    ("start_wave", {"epic": "notes", "retry": "perhaps"}, ["retry", "boolean"]),
    ("cancel_epic", {"epic": None}, ["epic", "string"]),
    ("cancel_epic", {"epic": "notes", "reason": "x" * 201}, ["reason", "200"]),
    ("plan_epic", {"epic_text": {"id": "x"}}, ["epic_text", "string"]),
]


async def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(planned: Lead) -> None:
    for tool, arguments, words in WRONG_VALUES:
        said = await planned.refused(tool, **arguments)
        assert said.startswith("bad_argument: ")
        assert all(word in said for word in words), said


@pytest.mark.parametrize("tool", ["start_wave", "story_status", "cancel_epic"])
async def test_an_unknown_epic_is_named_with_the_known_ones(planned: Lead, tool: str) -> None:
    said = await planned.refused(tool, epic="nots")
    assert said.startswith("unknown_epic: ")
    assert "'nots'" in said
    assert "'notes'" in said


@pytest.mark.parametrize("tool", ["story_status", "cancel_epic"])
async def test_an_unknown_story_is_named_with_some_that_exist(planned: Lead, tool: str) -> None:
    said = await planned.refused(tool, epic="notes", story="S9")
    assert said.startswith("unknown_story: ")
    assert "S1, S2" in said


async def test_a_story_without_its_epic_is_refused(planned: Lead) -> None:
    """It would be looked for in every epic, and its detail would be missing."""
    said = await planned.refused("story_status", story="S1")
    assert said.startswith("bad_argument: ")
    assert "epic" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"agent": "no-such-agent"}, "unknown_agent", ["no-such-agent", "claude", "scripted"]),
        ({"agent": "claud"}, "unknown_agent", ["'claude'"]),
        ({"agent": "a 'b"}, "unknown_agent", ["quot"]),
        ({"slots": 2}, "bad_argument", ["sequential", "asyncio"]),
        ({"slots": 65, "strategy": "asyncio"}, "bad_argument", ["max_parallel_stories", "3"]),
    ],
)
async def test_a_wave_that_cannot_be_is_refused_before_anything_is_made(
    planned: Lead, scene: Scene, arguments: dict[str, Any], code: str, words: list[str]
) -> None:
    before = scene.everything()
    cursor = (await planned.ask("story_status"))["cursor"]
    said = await planned.refused("start_wave", epic="notes", **arguments)
    assert said.startswith(f"{code}: ")
    assert all(word in said for word in words), said
    assert scene.everything() == before
    assert (await planned.ask("story_status"))["cursor"] == cursor


async def test_an_agent_that_is_not_installed_is_refused_before_anything_is_made(
    planned: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = scene.git("--exec-path")
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{git}")
    before = scene.everything()
    said = await planned.refused("start_wave", epic="notes", agent="opencode")
    assert said.startswith("unknown_agent: ")
    assert "opencode" in said
    assert "nstall" in said
    assert scene.everything() == before


async def test_an_agent_of_one_story_that_is_not_there_is_refused_too(lead: Lead, scene: Scene) -> None:
    scene.epic(story("S1"), story("S2", "S1", agent="no-such-agent"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    said = await lead.refused("start_wave", epic="notes")
    assert said.startswith("unknown_agent: ")
    assert not scene.refs("refs/heads/epicwave/")


async def test_a_configuration_that_became_bad_is_refused_and_starts_nothing(planned: Lead, scene: Scene) -> None:
    scene.configure({"parallel_strategy": "threads"})
    said = await planned.refused("start_wave", epic="notes")
    assert said.startswith("bad_config: ")
    assert "parallel_strategy" in said
    assert "sequential | asyncio | agent-teams" in said
    assert not scene.refs("refs/heads/epicwave/")


async def test_an_integration_branch_that_somebody_has_checked_out_is_refused(planned: Lead, scene: Scene) -> None:
    scene.git("switch", "-q", "-c", "epicwave/notes")
    said = await planned.refused("start_wave", epic="notes", agent="scripted")
    assert said.startswith("branch_checked_out: ")
    assert str(scene.repo) in said


async def test_a_branch_of_that_name_which_is_not_ours_is_refused(planned: Lead, scene: Scene) -> None:
    scene.git("commit", "-q", "--allow-empty", "-m", "Other")
    scene.git("branch", "epicwave/notes", "HEAD~1")
    assert (await planned.refused("start_wave", epic="notes", agent="scripted")).startswith("branch_taken: ")


async def test_a_wave_that_is_not_planned_far_enough_is_told_so(planned: Lead, scene: Scene) -> None:
    await planned.ask("start_wave", epic="notes", through=1, agent="scripted")
    assert await planned.until_rest() == {"S1": "merged", "S2": "ready"}
    said = await planned.refused("start_wave", epic="notes", through=1, agent="scripted")
    assert said.startswith("nothing_ready: ")
    assert scene.starts("S2") == 0
