"""Who is told of a changed resource, in both eras, and what that costs; and the older handshakes word for word."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client import Transport
from mcp.client.session import IncomingMessage
from mcp.server import MCPServer
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, ResourceListChangedNotification, ResourceUpdatedNotification

from mcp_server.adapters.formats.detect import read_text
from mcp_server.core.model import Ledger
from mcp_server.core.planning import plan
from mcp_server.engine.landed import adopt
from mcp_server.server import subscriptions
from mcp_server.server.app import build
from mcp_server.server.host import Host
from mcp_server.server.world import World
from tests.server.lead import ERAS, Era, Lead, all_are, leading, until
from tests.server.scene import Scene, commit, epic_text, story, write

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:resources/:mcp.MCPDeprecationWarning")]


class Ear:
    """What one client hears, of the list and of the URIs that it follows, however its era says it."""

    def __init__(self, lead: Lead) -> None:
        self.lead = lead
        self._heard: list[str] = []
        self._news = anyio.Event()

    def hear(self, uri: str) -> None:
        """Somebody told us."""
        self._heard.append(uri)
        self._news.set()

    async def news(self, *uris: str, limit_s: float = 10) -> list[str]:
        """Wait until all of these have been told since the last call; everything that was."""
        with anyio.fail_after(limit_s):
            while not set(uris) <= set(self._heard):
                self._news = anyio.Event()
                await self._news.wait()
        heard, self._heard = self._heard, []
        return heard

    @property
    def silent(self) -> bool:
        """True when nothing was told since the last call of `news`."""
        return self._heard == []


LIST = "the list"


@asynccontextmanager
async def listening(server: MCPServer[Any] | Transport, era: Era, *uris: str) -> AsyncGenerator[Ear]:
    """A lead that follows these resources and the list."""
    ears: list[Ear] = []

    async def message(message: IncomingMessage) -> None:
        match message:
            case ResourceUpdatedNotification(params=params):
                ears[0].hear(params.uri)
            case ResourceListChangedNotification():
                ears[0].hear(LIST)
            case _:
                pass

    async with Client(server, mode=era, message_handler=message) as client:
        ears.append(Ear(Lead(client)))
        if era == "legacy":
            for uri in uris:
                await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated] - of the older protocols
            yield ears[0]
            return
        async with (
            client.listen(resources_list_changed=True, resource_subscriptions=list(uris)) as stream,
            anyio.create_task_group() as group,
        ):

            async def drain() -> None:
                async for event in stream:
                    match event:
                        case ResourceUpdated(uri=uri):
                            ears[0].hear(uri)
                        case ResourcesListChanged():
                            ears[0].hear(LIST)
                        case _:
                            pass

            group.start_soon(drain)
            yield ears[0]
            group.cancel_scope.cancel()


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_is_told_when_an_epic_is_planned(scene: Scene, era: Era) -> None:
    """At once, without following anything; the same plan again is no news, a new story is."""
    async with listening(build(scene.repo), era) as ear:
        resources = ear.lead.client.server_capabilities.resources
        assert resources is not None
        assert resources.list_changed
        assert resources.subscribe
        scene.epic(story("S1"))
        await ear.lead.ask("plan_epic", epic_file="epic.yaml")
        await ear.news(LIST, limit_s=1)
        await ear.lead.ask("plan_epic", epic_file="epic.yaml")
        scene.epic(story("S1"), story("S2"))
        assert ear.silent
        await ear.lead.ask("plan_epic", epic_file="epic.yaml")
        await ear.news(LIST, limit_s=1)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_is_told_when_what_it_follows_has_changed(scene: Scene, era: Era) -> None:
    """The epic with each of its stories, a story when its own page changes, a brief when its words do."""
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"), story("S2", "S1"), story("S3"))
    uris = ("epic://notes", "epic://notes/story/S1", "brief://notes/S2")
    async with listening(build(scene.repo), era, *uris) as ear:
        await ear.lead.ask("plan_epic", epic_file="epic.yaml")
        await ear.news(LIST, *uris)
        await ear.lead.ask("start_wave", epic="notes")
        await ear.news("epic://notes", "epic://notes/story/S1")
        await ear.lead.watch(lambda states: states["S1"] == "running")
        scene.open("go")
        await ear.news(*uris)
        await ear.lead.ask("cancel_epic", epic="notes")
        await ear.news("epic://notes")


@pytest.mark.parametrize("era", ERAS)
async def test_what_has_not_changed_is_not_told_of(scene: Scene, era: Era) -> None:
    """Two epics and a story are followed, as they are by then; one epic is run."""
    scene.play("S1", write("S1.md"), commit())
    async with leading(build(scene.repo)) as before:
        for name in ("notes", "other"):
            scene.epic(story("S1"), id=name)
            await before.ask("plan_epic", epic_file="epic.yaml")
    async with listening(build(scene.repo), era, "epic://notes", "epic://other", "epic://other/story/S1") as ear:
        await ear.lead.ask("start_wave", epic="notes")
        await ear.lead.watch(all_are("merged"))
        assert set(await ear.news("epic://notes")) == {"epic://notes"}


@pytest.mark.parametrize("era", ERAS)
async def test_what_another_process_does_is_told_and_the_engine_stays_with_it(
    scene: Scene, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower reads the journal; it neither opens the engine nor keeps anybody from opening it."""
    monkeypatch.setattr(subscriptions, "LIST_S", 0.05)
    scene.play("S1", write("S1.md"), commit())
    async with leading(build(scene.repo)) as other, listening(build(scene.repo), era, "epic://notes") as ear:
        scene.epic(story("S1"))
        await other.ask("plan_epic", epic_file="epic.yaml")
        await ear.news(LIST, "epic://notes")
        await other.ask("start_wave", epic="notes")
        await ear.news("epic://notes")
        await other.watch(all_are("merged"))
        await ear.news("epic://notes")


async def test_the_list_alone_is_looked_at_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claude Code follows lists only: it hears of an epic that was planned in a terminal."""
    monkeypatch.setattr(subscriptions, "LIST_S", 0.05)
    async with leading(build(scene.repo)) as other, listening(build(scene.repo), "auto") as ear:
        assert [r.uri for r in (await ear.lead.client.list_resources()).resources] == ["epics://all"]
        scene.epic(story("S1"))
        await other.ask("plan_epic", epic_file="epic.yaml")
        await ear.news(LIST)


async def test_before_2026_what_is_no_longer_followed_is_not_told_of(scene: Scene) -> None:
    both = ("epic://notes/story/S1", "epic://notes/story/S2")
    async with listening(build(scene.repo), "legacy", *both) as ear:
        for text, heard in (("", both), ("More.", both[1:]), ("Still more.", ())):
            scene.epic(story("S1", description=text), story("S2", description=text))
            await ear.lead.ask("plan_epic", epic_file="epic.yaml")
            assert set(await ear.news(*heard)) - {LIST} == set(heard)
            if text == "":
                await ear.lead.client.unsubscribe_resource(both[0])  # pyright: ignore[reportDeprecated]
            else:
                await ear.lead.client.unsubscribe_resource(both[1])  # pyright: ignore[reportDeprecated]
        await ear.lead.client.subscribe_resource(both[0])  # pyright: ignore[reportDeprecated] - and again, from now on
        scene.epic(story("S1", description="The end."), story("S2", description="The end."))
        await ear.lead.ask("plan_epic", epic_file="epic.yaml")
        assert await ear.news(both[0]) == [both[0]]


def _followers() -> int:
    return sum(task.name == "follower" for task in anyio.get_running_tasks())


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_is_watched_for_nobody(scene: Scene, era: Era) -> None:
    """Neither before anybody follows, nor after the last one has gone, nor for tools and prompts: they never change."""
    scene.epic(story("S1"))
    async with leading(build(scene.repo), era) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        assert _followers() == 0
        if era == "legacy":
            for uri in ("epic://notes", "epic://notes/story/S1"):
                await lead.client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]
                assert _followers() == 1
            for uri, left in (("epic://notes", 1), ("epic://notes", 1), ("epic://notes/story/S1", 0)):
                await lead.client.unsubscribe_resource(uri)  # pyright: ignore[reportDeprecated]
                await until(lambda left=left: _followers() == left)
        else:
            async with lead.client.listen(resource_subscriptions=["epic://notes"]):
                async with lead.client.listen(resources_list_changed=True):
                    assert _followers() == 2
                await until(lambda: _followers() == 1)
            await until(lambda: _followers() == 0)
            async with lead.client.listen(tools_list_changed=True, prompts_list_changed=True):
                assert _followers() == 0


@pytest.mark.parametrize("era", ERAS)
async def test_a_plan_is_looked_at_for_somebody_only(scene: Scene, era: Era, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice for a client that wants to hear of it, and not at all when nobody is there any more.

    Once more each time, for what is known of footprints: that is the plan's own look.
    """
    looks: list[int] = []
    real = Host.ledger

    def counted(self: Host) -> Ledger:
        looks.append(1)
        return real(self)

    monkeypatch.setattr(Host, "ledger", counted)
    scene.epic(story("S1"))
    async with leading(build(scene.repo), era) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        assert len(looks) == (3 if era == "legacy" else 1)
        if era == "auto":
            async with lead.client.listen(resources_list_changed=True):
                looks.clear()
                await lead.ask("plan_epic", epic_file="epic.yaml")
                assert len(looks) == 3
            await until(lambda: _followers() == 0)
            looks.clear()
            await lead.ask("plan_epic", epic_file="epic.yaml")
            assert len(looks) == 1


async def test_a_stream_of_lists_opens_nothing_while_the_server_starts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claude Code opens one before it asks for the tools, for which it waits."""
    opened: list[Path] = []
    monkeypatch.setattr(World, "open", opened.append)
    async with listening(build(scene.repo), "auto") as ear:
        await ear.lead.client.list_tools()
        await anyio.wait_all_tasks_blocked()
        assert _followers() == 1
        assert opened == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_follower_outside_a_repository_waits_and_harms_nobody(
    scene: Scene, era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "LATER_S", 0.05)
    folder = scene.outside / "elsewhere"
    folder.mkdir()
    async with listening(build(folder), era, "epic://notes") as ear:
        assert (await ear.lead.refused("story_status")).startswith("not_a_repository: ")
        scene.git("clone", "-q", scene.repo, folder)
        async with anyio.create_task_group() as group:
            planned = plan(read_text(epic_text(story("S1"))).draft)
            async with Host(await World.open(folder), group, "a test").engine() as engine:
                await adopt(engine, planned)
        await ear.news("epic://notes")


# --- the older protocols, word for word ------------------------------------------------------------------------------


class Raw:
    """A client without an SDK: it writes JSON-RPC and reads whatever comes."""

    def __init__(self, reading: Any, writing: Any) -> None:
        self._reading, self._writing = reading, writing
        self._number = 0
        self.told: list[dict[str, Any]] = []
        """Notifications, in order."""

    async def tell(self, method: str) -> None:
        """A notification."""
        await self._writing.send(SessionMessage(JSONRPCNotification(jsonrpc="2.0", method=method)))

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a request."""
        self._number += 1
        request = JSONRPCRequest(jsonrpc="2.0", id=self._number, method=method, params=params)
        await self._writing.send(SessionMessage(request))
        with anyio.fail_after(20):
            while (answer := await self.next()).get("id") != self._number:
                self.told.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    async def next(self) -> dict[str, Any]:
        """The next message."""
        message = await self._reading.receive()
        return message.message.model_dump(by_alias=True, exclude_unset=True)


@asynccontextmanager
async def raw(server: MCPServer[Any]) -> AsyncGenerator[Raw]:
    """The server on two streams, as over stdio."""
    inner = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
    async with create_client_server_memory_streams() as (ours, theirs), anyio.create_task_group() as group:
        group.start_soon(inner.run, *theirs, inner.create_initialization_options())
        yield Raw(*ours)
        await ours[1].aclose()


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
async def test_the_older_handshakes_work_word_for_word(scene: Scene, version: str) -> None:
    """Cursor's `initialize`, and all that this server offers beside its tools."""
    scene.epic(story("S1"))
    async with raw(build(scene.repo)) as client:
        who = {"name": "cursor-vscode", "version": "1.0.0"}
        hello = await client.ask("initialize", protocolVersion=version, capabilities={}, clientInfo=who)
        assert hello["protocolVersion"] == version
        assert hello["serverInfo"]["name"] == "epicwave"
        capabilities = hello["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
        assert capabilities["tools"] == {"listChanged": False}
        assert capabilities["prompts"] == {"listChanged": False}
        assert capabilities["completions"] == {}
        await client.tell("notifications/initialized")
        assert len((await client.ask("tools/list"))["tools"]) >= 4
        assert len((await client.ask("prompts/list"))["prompts"]) == 3
        assert [r["uri"] for r in (await client.ask("resources/list"))["resources"]] == ["epics://all"]
        assert await client.ask("resources/subscribe", uri="epic://notes") == {}
        planned = await client.ask("tools/call", name="plan_epic", arguments={"epic_file": "epic.yaml"})
        assert planned["structuredContent"]["epic"] == "notes"
        assert {"jsonrpc": "2.0", "method": "notifications/resources/list_changed"} in client.told
        with anyio.fail_after(10):
            while client.told[-1]["method"] != "notifications/resources/updated":
                client.told.append(await client.next())
        assert client.told[-1]["params"] == {"uri": "epic://notes"}
        [content] = (await client.ask("resources/read", uri="epic://notes"))["contents"]
        assert content["text"].startswith("# notes, Notes: planned")
        assert await client.ask("resources/unsubscribe", uri="epic://notes") == {}
