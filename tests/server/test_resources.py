"""Epics, stories and briefs as resources: what is read, what is listed, who is told of a change, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import (
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
    TextResourceContents,
)

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.limits import Policy
from mcp_server.core.model import Cause, Failure
from mcp_server.server.app import build
from mcp_server.server.pages import BRIEF_MAX, Place, page
from tests.core.build import Life
from tests.core.build import story as spec
from tests.server.lead import ERAS, Era, Lead, leading, until
from tests.server.scene import Scene, commit, epic_text, exit_with, python_check, story, write

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:resources/:mcp.MCPDeprecationWarning")]

PAGE_MAX_BYTES = 8_000
"""2,000 tokens of four bytes."""


async def _read(lead: Lead, uri: str) -> str:
    result = await lead.client.read_resource(uri)
    assert isinstance(result, ReadResourceResult)
    [content] = result.contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (uri, "text/markdown")
    return content.text


async def _uris(lead: Lead) -> list[str]:
    return [resource.uri for resource in (await lead.client.list_resources()).resources]


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_an_epic_is_read_as_a_person_wants_it(lead: Lead, scene: Scene) -> None:
    """What needs somebody first, then what moves, each with its reason; and where the result is."""
    scene.configure({"attempts": 1, "fail_fast": False})
    scene.play("S1", write("S1.md"), commit())
    scene.play("S2", exit_with(3))
    scene.epic(story("S1"), story("S2", "S1"), story("S3", "S2"), story("S4"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    assert "No wave has been started." in await _read(lead, "epic://notes")
    scene.play("S4", write("S4.md"), commit())
    await lead.ask("start_wave", epic="notes", through="all")
    await lead.until_rest()
    text = await _read(lead, "epic://notes")
    assert text.splitlines()[0] == "# notes, Notes: blocked"
    assert "2 of 4 stories are merged, on the branch epicwave/notes." in text
    assert [line[:13].rstrip(":. ") for line in text.splitlines() if line.startswith("- ")] == [
        "- S2 Note S2",
        "- S3 Note S3",
        "- S1 Note S1",
        "- S4 Note S4",
    ]
    assert "- S2 Note S2: failed. Attempt 1 ended as agent_failed: The agent exited with code 3." in text
    assert "- S3 Note S3: blocked. Blocked by S2 (failed)." in text
    assert "- notes, Notes: blocked. 2 of 4 stories are merged" in await _read(lead, "epics://all")


def _never() -> Policy:
    raise AssertionError("only a brief needs the settings")


async def test_a_story_that_asks_comes_first_with_its_question() -> None:
    ledger = Life(spec("a"), spec("b"), spec("c", "b")).ledger
    epic = ledger.epics["e"]
    asks = epic.stories["b"]._replace(attempt=1, failure=Failure(Cause.QUESTION, "Which table?", 1))
    ledger = replace(ledger, epics={"e": epic._replace(stories=epic.stories.put(asks))})
    text = page(ledger, Place("e"), 0.0, _never)
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines[0].startswith("- b Title of b: blocked. It asks: Which table? ")
    assert lines[1].startswith("- c Title of c: blocked. Blocked by b (asks a question).")
    assert "It asks: Which table?" in page(ledger, Place("e", "b"), 0.0, _never)


async def test_a_story_is_read_with_its_reason_and_its_last_failure(lead: Lead, scene: Scene) -> None:
    scene.configure({"attempts": 1, "checks": [list(python_check("raise SystemExit('````` too short')"))]})
    scene.play("S1", write("S1.md"), commit())
    scene.epic(story("S1", description="Write it.", acceptance_criteria=["It is there."]), story("S2", "S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    text = await _read(lead, "epic://notes/story/S2")
    for words in ("# S2 Note S2: pending", "Not tried yet", "Waits for S1 (pending).", "Needs: S1 (ready)", "S2.md"):
        assert words in text
    await lead.ask("start_wave", epic="notes")
    await lead.until_rest()
    text = await _read(lead, "epic://notes/story/S1")
    for words in ("# S1 Note S1: failed", "Attempt 1 of 1", " s in this state", "Write it.", "- It is there."):
        assert words in text
    assert "Attempt 1 ended as checks" in text
    assert "``````text\n````` too short\n``````" in text, "what a log says cannot end its own frame"
    assert "brief://notes/S1" in text
    brief = await _read(lead, "brief://notes/S1")
    assert "Attempt 2." in brief, "what the next one would get"
    assert "Attempt 1 ended as `checks`" in brief


async def test_a_brief_is_read_as_the_agent_gets_it(lead: Lead, scene: Scene) -> None:
    """Word for word what the process was given; afterwards, what the next attempt would get."""
    kept = scene.outside / "brief"
    copy = f"import os, shutil; shutil.copy(os.environ['EPICWAVE_BRIEF'], {str(kept)!r})"
    scene.configure({"checks": [list(python_check("pass"))]})
    scene.play("S1", {"run": list(python_check(copy))}, scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1", description="Write it."), checks=["git status"])
    await lead.ask("plan_epic", epic_file="epic.yaml")
    before = await _read(lead, "brief://notes/S1")
    await lead.ask("start_wave", epic="notes")
    with anyio.fail_after(20):
        while not kept.exists():  # noqa: ASYNC110 - nobody tells us when a file is there
            await anyio.sleep(0.02)
    assert await _read(lead, "brief://notes/S1") == kept.read_text("utf-8") == before
    assert "git status" in before
    assert "Attempt 1." in before
    scene.open("go")
    await lead.until_rest()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("epic://nots", "unknown_epic: "),
        ("epic://notes/story/S9", "unknown_story: "),
        ("brief://notes/S9", "unknown_story: "),
        ("epic://notes/S1", "bad_argument: "),
        ("epic://", "bad_argument: "),
        ("epic://notes/story/..", "bad_argument: "),
        ("file:///etc/passwd", "bad_argument: "),
    ],
)
async def test_what_cannot_be_read_is_refused_in_words(modern: Lead, scene: Scene, uri: str, said: str) -> None:
    scene.epic(story("S1"))
    await modern.ask("plan_epic", epic_file="epic.yaml")
    with pytest.raises(MCPError, match=f"^{said}") as refused:
        await modern.client.read_resource(uri)
    assert (refused.value.code, refused.value.data) == (-32602, {"uri": uri})


async def test_pages_of_a_large_epic_are_bounded(modern: Lead, scene: Scene) -> None:
    """200 stories with long titles and reasons: 2,000 tokens a page, a list that an editor can show."""
    long = "A title that somebody has written who had much to say about it " * 4
    names = [f"STORY-{n:03d}" for n in range(200)]
    stories = [story(n, *names[:i][:3], title=long) for i, n in enumerate(names)]
    stories[-1] |= {"description": long * 200, "acceptance_criteria": [long] * 60}
    epic = epic_text(*stories, title=long)
    await modern.ask("plan_epic", epic_text=epic)
    for uri in ("epic://notes", "epics://all"):
        text = await _read(modern, uri)
        assert len(text.encode()) < PAGE_MAX_BYTES, uri
    assert "- and 170 more" in await _read(modern, "epic://notes")
    assert len((await _read(modern, "epic://notes/story/STORY-199")).encode()) < 2 * PAGE_MAX_BYTES
    text = await _read(modern, "brief://notes/STORY-199")
    assert BRIEF_MAX < len(text) < BRIEF_MAX + 200
    assert "(cut here: the agent gets " in text
    listed = (await modern.client.list_resources()).resources
    assert [len(listed), listed[1].uri, listed[-1].uri] == [100, "epic://notes", "epic://notes/story/STORY-097"]
    assert all(len(resource.title or "") <= 80 for resource in listed)


# --- listing and completing ------------------------------------------------------------------------------------------


async def test_epics_their_stories_and_briefs_are_listed_as_far_as_they_are_planned(lead: Lead, scene: Scene) -> None:
    assert await _uris(lead) == ["epics://all"]
    assert "None is planned" in await _read(lead, "epics://all")
    for name in ("notes", "other"):
        scene.epic(story("S1"), story("S2"), id=name)
        await lead.ask("plan_epic", epic_file="epic.yaml")
    uris = await _uris(lead)
    epics = ["epic://other", "epic://notes"]
    stories = [f"{epic}/story/{s}" for epic in epics for s in ("S1", "S2")]
    briefs = [uri.replace("epic://", "brief://").replace("/story/", "/") for uri in stories]
    assert uris == ["epics://all", *epics, *stories, *briefs]
    for uri in uris:
        assert await _read(lead, uri)
    templates = (await lead.client.list_resource_templates()).resource_templates
    assert [t.uri_template for t in templates] == [
        "epic://{epic}",
        "epic://{epic}/story/{story}",
        "brief://{epic}/{story}",
    ]


async def test_ids_are_completed_in_addresses_and_prompts(lead: Lead, scene: Scene) -> None:
    for name in ("notes", "other"):
        scene.epic(story("S1"), story("S12"), story("T1"), id=name)
        await lead.ask("plan_epic", epic_file="epic.yaml")
    assert (await lead.client.list_prompts()).prompts
    brief = ResourceTemplateReference(uri="brief://{epic}/{story}")
    prompt = PromptReference(name="run_epic")

    async def complete(ref: Any, name: str, value: str, **given: str) -> Sequence[str]:
        return (await lead.client.complete(ref, {"name": name, "value": value}, given or None)).completion.values

    assert await complete(brief, "epic", "") == ["other", "notes"]
    assert await complete(prompt, "epic", "NO") == ["notes"]
    assert await complete(brief, "story", "s1", epic="notes") == ["S1", "S12"]
    assert await complete(brief, "story", "S") == []
    assert await complete(prompt, "strategy", "a") == ["asyncio", "agent-teams"]
    assert await complete(prompt, "file", "") == []


@pytest.mark.parametrize("era", ERAS)
async def test_outside_a_repository_lists_are_short_and_reading_says_why(scene: Scene, era: Era) -> None:
    folder = scene.outside / "elsewhere"
    folder.mkdir()
    async with leading(build(folder), era) as lead:
        assert await _uris(lead) == ["epics://all"]
        with pytest.raises(MCPError, match="not_a_repository"):
            await _read(lead, "epics://all")
        values = await lead.client.complete(PromptReference(name="run_epic"), {"name": "epic", "value": ""})
        assert values.completion.values == []


async def test_reading_and_listing_change_nothing_and_open_no_engine(lead: Lead, scene: Scene) -> None:
    before = scene.everything()
    await _uris(lead)
    await _read(lead, "epics://all")
    with pytest.raises(MCPError):
        await _read(lead, "epic://notes")
    assert scene.everything() == before
    scene.epic(story("S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await until(lambda: not (scene.repo / ".git" / "epicwave" / "engine.json").exists())
    journal = SqliteJournal(scene.repo / ".git" / "epicwave" / "journal.db")
    facts, before = journal.replay(), scene.everything()
    for uri in ("epic://notes", "epic://notes/story/S1", "brief://notes/S1"):
        await _read(lead, uri)
        assert not (scene.repo / ".git" / "epicwave" / "engine.json").exists()
    assert scene.everything() == before
    assert journal.replay() == facts
    journal.close()
