"""A terminal calls the tools as an editor does: the same replies, and refusals that are themselves again."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_server.core.draft import BadEpic, PlanError
from mcp_server.errors import Code, Fault, FaultCause, JournalError, Refused
from mcp_server.server.app import build
from mcp_server.server.caller import Caller, Gone, calling, refusal, visiting
from mcp_server.server.door import open_door
from mcp_server.server.session import Hosting
from tests.server.engines import end_engine, ended_engines, engine_process, start_engine
from tests.server.lead import leading, until
from tests.server.scene import Scene, story

pytestmark = pytest.mark.anyio


@pytest.fixture
async def caller(scene: Scene) -> AsyncGenerator[Caller]:
    """Somebody at the door of this very process."""
    async with anyio.create_task_group() as group:
        hosting = Hosting(group, "a test")
        state = (await hosting.host(scene.repo)).world.state_dir
        async with open_door(_private(state), hosting, lambda: "the test stays") as visitors:
            async with calling(state, scene.repo) as one:
                yield one
            await until(lambda: visitors.count == 0)
        group.cancel_scope.cancel()


def _private(state: Path) -> Path:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return state


def _state(scene: Scene) -> Path:
    return scene.repo / ".git" / "epicwave"


async def test_a_reply_is_what_an_editor_gets(caller: Caller, scene: Scene) -> None:
    scene.epic(story("S1"), story("S2", "S1"))
    planned = await caller.ask("plan_epic", epic_file=str(scene.repo / "epic.yaml"), epic_text=None)
    assert planned["waves"] == {"1": ["S1"], "2": ["S2"]}
    async with leading(build(scene.repo)) as lead:
        theirs = await lead.ask("story_status", epic="notes")
    assert await caller.ask("story_status", epic="notes") == theirs


async def test_a_refusal_is_itself_again_with_its_code_its_reason_and_its_remedy(caller: Caller) -> None:
    with pytest.raises(Refused) as refused:
        await caller.ask("cancel_epic", epic="nowhere")
    assert refused.value.code is Code.UNKNOWN_EPIC
    assert "'nowhere'" in refused.value.why
    assert refused.value.remedy == "Call plan_epic first."
    with pytest.raises(Refused) as unknown:
        await caller.ask("story_status", epics="all")
    assert unknown.value.code is Code.BAD_ARGUMENT
    assert "epics" in unknown.value.why


async def test_news_come_when_there_is_a_fact_and_not_before(caller: Caller, scene: Scene) -> None:
    scene.epic(story("S1"))
    heard: list[int] = []
    assert await caller.news(0, 0.0) == 0, "the time is up"

    async def listen() -> None:
        heard.append(await caller.news(0, 60.0))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert heard == []
            await caller.ask("plan_epic", epic_file=str(scene.repo / "epic.yaml"))
    assert heard == [1]


async def test_who_only_visits_starts_nothing(scene: Scene) -> None:
    with pytest.raises(Gone):
        async with visiting(_state(scene), scene.repo):
            pass
    assert not _state(scene).exists()


async def test_who_calls_has_an_engine_process_started_and_is_told_when_it_dies(scene: Scene) -> None:
    with ended_engines(scene.repo):
        async with calling(_state(scene), scene.repo) as one:
            first = engine_process(scene.repo)
            assert first is not None
            assert first.pid != os.getpid()
            async with visiting(_state(scene), scene.repo) as guest:
                assert await guest.news(0, 0.0) == 0

            async def kill() -> None:
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(end_engine, scene.repo, signal.SIGKILL)

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                with pytest.raises(Refused, match=r"^engine_restarted: "):
                    await one.ask("engine_news", wait_s=60, since=0)
        started = await anyio.to_thread.run_sync(start_engine, scene.repo)
        assert started.pid != first.pid


async def test_a_state_folder_that_others_can_read_is_refused_and_a_visitor_stays_away(scene: Scene) -> None:
    _private(_state(scene))
    with ended_engines(scene.repo):
        async with calling(_state(scene), scene.repo):
            pass
        (_state(scene) / "door.json").chmod(0o644)
        with pytest.raises(Refused) as refused:
            async with calling(_state(scene), scene.repo):
                pass
        assert refused.value.code is Code.UNSAFE_STATE
        with pytest.raises(Gone):
            async with visiting(_state(scene), scene.repo):
                pass


@pytest.mark.parametrize(
    "error",
    [
        Refused(Code.TOO_LATE, "Story 'S1' is merged: it ended.", "Look at it."),
        Refused(Code.BRANCH_CHECKED_OUT, "It is checked out.", "Leave it."),
        Fault(FaultCause.DISK, "The folder cannot be used: full."),
        JournalError("journal.db: disk I/O error"),
        BadEpic((PlanError(3, "x", "one"), PlanError(4, "x", "two"))).in_full(),
    ],
)
async def test_every_error_of_ours_comes_through_a_tool_as_it_was(error: Refused | Fault | JournalError) -> None:
    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415

    from mcp_server.server.expose import _in_our_words  # noqa: PLC0415  # pyright: ignore[reportPrivateUsage]

    wrapped = ToolError("wrapped")
    wrapped.__cause__ = error
    again = refusal(_in_our_words("a_tool", wrapped))
    assert type(again) is type(error)
    match error, again:
        case Refused(), Refused():
            assert (again.code, again.why, again.remedy) == (error.code, error.why, error.remedy)
        case Fault(), Fault():
            assert again.cause is error.cause
            assert again.detail.rstrip(".") == error.detail.rstrip(".")
        case _:
            assert str(again) == str(error)


async def test_what_no_code_begins_is_told_as_it_is() -> None:
    again = refusal("Unknown tool: engine_news")
    assert isinstance(again, Refused)
    assert again.code is Code.ENGINE_SILENT
    assert "Unknown tool: engine_news" in again.why
