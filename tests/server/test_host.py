"""Who has the engine: the lock, the end of the engine, and what happens at its edges."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.formats.detect import read_epic
from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.planning import plan
from mcp_server.engine.landed import adopt
from mcp_server.errors import Code, Fault, JournalError, Refused
from mcp_server.server import launch as launching
from mcp_server.server.app import build
from mcp_server.server.host import Host, holding
from mcp_server.server.launch import Launch, launch
from mcp_server.server.world import World
from tests.server.lead import Lead, leading, text_of, until
from tests.server.scene import Scene, commit, story, write

pytestmark = pytest.mark.anyio


async def test_many_calls_at_once_meet_one_engine(scene: Scene) -> None:
    """An engine that is just closing is waited for, and never taken for somebody else's."""
    scene.epic(story("S1"))

    async def both(lead: Lead) -> None:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.refused("cancel_epic", epic="nots")

    async with leading(build(scene.repo)) as lead:
        for _ in range(5):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(both, lead)


async def test_a_start_that_is_cancelled_while_git_works_commands_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that git runs in is waited for; what comes after it must not happen."""
    world = await World.open(scene.repo)
    planned = plan(read_epic(scene.epic(story("S1", agent="scripted"))).draft)
    async with anyio.create_task_group() as group, Host(world, group, "a test").engine() as engine:
        await adopt(engine, planned)
        with anyio.CancelScope() as scope:

            async def cut(*_: object) -> None:
                scope.cancel()

            monkeypatch.setattr(launching, "_prepare_branch", cut)
            await launch(world, engine, Launch("notes"))
        assert engine.ledger.epics["notes"].wave is None
    assert not scene.refs("refs/heads/epicwave/")


async def test_a_state_folder_that_cannot_be_used_is_said_and_mended_without_a_new_server(
    lead: Lead, scene: Scene
) -> None:
    in_the_way = scene.repo / ".git" / "epicwave"
    in_the_way.write_text("in the way", "utf-8")
    scene.epic(story("S1"))
    result = await lead.client.call_tool("plan_epic", {"epic_file": "epic.yaml"})
    said = text_of(result)
    assert result.is_error
    assert said.startswith("disk: ")
    assert str(in_the_way) in said
    assert "call again" in said
    in_the_way.unlink()
    await lead.ask("plan_epic", epic_file="epic.yaml")


async def test_a_journal_that_cannot_be_written_ends_the_engine_and_not_the_server(
    lead: Lead, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while an agent works: it is stopped, its work is saved, and looking goes on."""
    scene.play("S1", write("S1.md"), scene.gate("go"), commit())
    scene.epic(story("S1"))
    await lead.ask("plan_epic", epic_file="epic.yaml")
    await lead.ask("start_wave", epic="notes")
    await until(lambda: len(scene.children()) == 1)

    def full(*_: object) -> None:
        raise JournalError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "append", full)
        scene.open("go")
        await until(lambda: not scene.processes())
        result = await lead.client.call_tool("cancel_epic", {"epic": "notes"})
        assert result.is_error
        assert "no space left on device" in text_of(result)
        assert "Free the disk" in text_of(result)
        assert (await lead.states())["S1"] == "running", "what the journal knew last"
    await lead.ask("cancel_epic", epic="notes")
    assert (await lead.states())["S1"] == "cancelled"
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    await until(lambda: not scene.leftovers())


def test_the_lock_is_for_one_names_its_holder_and_is_given_back(tmp_path: Path) -> None:
    with holding(tmp_path, "the first"):
        with pytest.raises(Refused, match="the first, process") as refused, holding(tmp_path, "the second"):
            pass
        assert refused.value.code is Code.ENGINE_ELSEWHERE
    with holding(tmp_path, "the third"):
        pass
    assert not (tmp_path / "engine.json").exists()


def test_a_holder_whose_name_cannot_be_written_does_not_keep_the_lock(tmp_path: Path) -> None:
    (tmp_path / "engine.json").mkdir()
    with pytest.raises(Fault), holding(tmp_path, "the first"):
        pass
    (tmp_path / "engine.json").rmdir()
    with holding(tmp_path, "the second"):
        pass
