"""`epicwave serve --http` as a host has it: a process with a port, and who is answered there and who is not."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client

from mcp_server.server.web import BODY_BYTES
from tests.front.stage import request
from tests.journeys.fronts import IDLE_S, Engines, call, greet
from tests.journeys.programs import PATIENCE_S, Process, finish, start
from tests.server.lead import ERAS, Era, all_are, crowd, leading, until
from tests.server.scene import Scene, child, commit, environment, story, write
from tests.server.test_subscriptions import LIST, listening

pytestmark = [
    pytest.mark.journey,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:resources/:mcp.MCPDeprecationWarning"),
]

AN_HOUR = 3_600.0
OWN = "a token of the user's own"[2:].replace(" ", "-")
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
_SAYS = re.compile(r"serves MCP at http://127\.0\.0\.1:(\d+)/mcp; the bearer token is (?:in )?(.+)\. End it")


@dataclass(frozen=True)
class Server:
    """A process that serves."""

    process: Process
    port: int
    token: str
    where: str

    @property
    def transport(self) -> Transport:
        """For a client with the token."""
        who = httpx2.AsyncClient(headers={"Authorization": f"Bearer {self.token}"}, timeout=60)
        return streamable_http_client(f"http://127.0.0.1:{self.port}/mcp", http_client=who)

    def post(self, *, text: bytes | None = None, method: str = "POST", **headers: str) -> http.client.HTTPResponse:
        """What somebody is answered who asks for the handshake, or for what is in the text."""
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
        said = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        body = json.dumps(request(1, "initialize", **params)).encode() if text is None else text
        wire.request(method, "/mcp", body, {name: value for name, value in said.items() if value})
        return wire.getresponse()


@contextmanager
def serving(repo: Path, *words: str, **more: str) -> Generator[Server]:
    process = start(repo, "serve", "--http", *words, env=environment(**more))
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = _SAYS.search(said)
        assert found is not None, said + process.stderr.read()
        given = more.get("EPICWAVE_HTTP_TOKEN") or OWN
        token = Path(found[2]).read_text("utf-8") if found[2].startswith("/") else given
        yield Server(process, int(found[1]), token, found[2])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def server(scene: Scene) -> Generator[Server]:
    with serving(scene.repo) as server:
        yield server


@pytest.mark.parametrize("era", ERAS)
async def test_an_epic_is_planned_started_watched_and_cancelled_over_http(
    scene: Scene, server: Server, era: Era
) -> None:
    scene.play("S2", write("S2.md"), child(AN_HOUR, deaf=False))
    scene.epic(story("S1", agent="scripted"), story("S2", "S1"))
    async with leading(server.transport, era) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.ask("start_wave", epic="notes", through="all")
        await lead.watch(lambda states: states["S1"] == "merged")
        await until(lambda: len(scene.children()) == 1)
        reply = await lead.ask("cancel_epic", epic="notes")
        assert [s["processes_gone"] for s in reply["stopped"]] == [True]
        assert reply["merged"] == ["S1"]
        assert (await lead.refused("start_wave", epic="other")).startswith("unknown_epic: ")
    server.process.terminate()
    server.process.wait(20)
    assert scene.leftovers() == []


@pytest.mark.parametrize("era", ERAS)
async def test_each_client_hears_what_it_follows_and_nothing_else(scene: Scene, server: Server, era: Era) -> None:
    """Also when the one that came first has left."""
    scene.epic(story("S1", agent="scripted"), story("S2", agent="scripted"))
    one, two = "epic://notes/story/S1", "epic://notes/story/S2"
    async with listening(server.transport, era, two) as second:
        async with listening(server.transport, era, one) as first:
            await first.lead.ask("plan_epic", epic_file="epic.yaml")
            assert two not in await first.news(one, LIST)
            assert one not in await second.news(two, LIST)
        await second.lead.ask("start_wave", epic="notes")
        assert one not in await second.news(two)
        assert await second.lead.until_rest() == {"S1": "merged", "S2": "merged"}


@posix
async def test_an_editors_front_and_an_http_client_see_the_same_epic(
    scene: Scene, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPICWAVE_IDLE_S", IDLE_S)
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"))
    engines = Engines(scene.repo, scene.outside)
    async with leading(server.transport) as lead:
        await lead.ask("plan_epic", epic_file="epic.yaml")
        with engines.front() as editor:
            greet(editor)
            assert engines.met().pid == server.process.pid
            assert not call(editor, "start_wave", epic="notes").get("isError")
        await lead.watch(all_are("running"))
        scene.open("go")
        assert await lead.until_rest() == {"S1": "merged"}
    said = finish(start(scene.repo, "serve", "--http")).refused()
    assert said.startswith("engine_elsewhere: ")
    assert str(server.process.pid) in said
    assert engines.living() == []


# --- who is let in ----------------------------------------------------------------------------------------------------


async def test_only_who_has_the_token_and_comes_from_here_is_served(server: Server) -> None:
    port = server.port
    assert server.post().status == 200
    refused: list[tuple[int, dict[str, str]]] = [
        (401, {"Authorization": ""}),
        (401, {"Authorization": "Bearer guess"}),
        (401, {"Authorization": f"Bearer {server.token}x"}),
        (401, {"Authorization": f"Basic {server.token}"}),
        (401, {"Authorization": "", "Origin": "http://evil.example"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": f"https://127.0.0.1:{port}"}),
        (403, {"Origin": "http://localhost:1"}),
        (421, {"Host": "evil.example"}),
        (421, {"Host": f"evil.example:{port}"}),
        (421, {"Host": "127.0.0.1:1"}),
        (400, {"Content_Type": "text/plain"}),
        (413, {"text": "x" * (BODY_BYTES + 1)}),
    ]
    for status, how in refused:
        text = how.pop("text", None)
        answer = server.post(text=text.encode() if text else None, **how)
        assert answer.status == status, how
        said = answer.read().decode()
        assert server.token not in said
        assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert server.post(Origin=origin, Host=f"localhost:{port}").status == 200


async def test_a_web_page_is_not_told_that_it_may(server: Server) -> None:
    """Its browser asks first, and is answered without a word of CORS."""
    for token in (server.token, ""):
        answer = server.post(
            method="OPTIONS",
            text=b"",
            Authorization=f"Bearer {token}" if token else "",
            Origin="http://evil.example",
            Access_Control_Request_Method="POST",
        )
        assert answer.status in {401, 403, 405}
        assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]


async def test_a_token_of_the_older_sessions_is_no_way_in(server: Server) -> None:
    """A session's id without the bearer token is worth nothing."""
    session = server.post().getheader("mcp-session-id")
    assert session
    text = json.dumps(request(2, "tools/list")).encode()
    assert server.post(text=text, Authorization="", mcp_session_id=session).status == 401


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", server.port))  # free: it has one address, not all
    [address] = {line.split()[1] for line in _listening() if int(line.split()[1].rpartition(":")[2], 16) == server.port}
    assert address.startswith("0100007F:")


def _listening() -> list[str]:
    try:
        lines = Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]
    except FileNotFoundError:
        pytest.skip("needs Linux's list of sockets")
    return [line for line in lines if line.split()[3] == "0A"]


@posix
def test_its_token_is_in_a_file_of_the_users_and_nowhere_else(scene: Scene, server: Server) -> None:
    path = Path(server.where)
    assert path.parent == scene.repo / ".git" / "epicwave"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(server.token) >= 43
    server.process.send_signal(signal.SIGTERM)
    said = finish(server.process)
    assert server.token not in said.out + said.err
    assert not path.exists()


async def test_a_token_of_the_users_own_is_used_and_not_handed_on(scene: Scene) -> None:
    """Agents run what a model says: they must not find it in their environment."""
    look = "import os, pathlib; pathlib.Path('S1.md').write_text(str('EPICWAVE_HTTP_TOKEN' in os.environ))"
    scene.play("S1", {"run": ["python3", "-c", look]}, commit())
    scene.epic(story("S1"))
    with serving(scene.repo, EPICWAVE_HTTP_TOKEN=OWN) as server:
        assert server.where == "the one that you have given"
        assert not (scene.repo / ".git" / "epicwave" / "http.token").exists()
        async with leading(server.transport) as lead:
            await lead.ask("plan_epic", epic_file="epic.yaml")
            await lead.ask("start_wave", epic="notes")
            assert await lead.until_rest() == {"S1": "merged"}
    assert scene.git("show", "epicwave/notes:S1.md") == "False"


@posix
async def test_the_network_is_served_only_when_the_user_says_so_and_brings_a_token(
    scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{OWN}\n", "utf-8")
    path.chmod(0o644)

    def refused(*words: str, **more: str) -> str:
        said = finish(start(scene.repo, "serve", "--http", *words, env=environment(**more))).refused()
        assert OWN not in said
        return said

    assert "--public" in refused("--host", "0.0.0.0")  # noqa: S104
    assert "--token-file" in refused("--host", "0.0.0.0", "--public", EPICWAVE_HTTP_TOKEN=OWN)  # noqa: S104
    assert refused("--token-file", str(path)).startswith("unsafe_state: ")
    assert "--token-file" in refused("--token-file", str(tmp_path / "none"))
    assert "16" in refused(EPICWAVE_HTTP_TOKEN="short")  # noqa: S106
    path.chmod(0o600)
    with serving(scene.repo, "--token-file", str(path)) as server:
        assert server.post().status == 200
        assert f"port {server.port}" in refused("--port", str(server.port))
    assert not (scene.repo / ".git" / "epicwave" / "http.token").exists()


# --- the end ----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_in_order_within_two_seconds(scene: Scene, server: Server, how: signal.Signals) -> None:
    """While agents work, a client listens and another one waits."""
    scene.play("S1", write("S1.md"), child(AN_HOUR, deaf=False))
    scene.epic(story("S1"))
    with pytest.raises((ExceptionGroup, httpx2.HTTPError)):  # noqa: PT012
        async with (
            listening(server.transport, "auto", "epic://notes/story/S1") as ear,
            anyio.create_task_group() as group,
        ):
            await ear.lead.ask("plan_epic", epic_file="epic.yaml")
            cursor = (await ear.lead.ask("start_wave", epic="notes"))["cursor"]
            await until(lambda: len(scene.children()) == 1)
            group.start_soon(_wait, ear.lead.ask, cursor)
            await anyio.sleep(0.3)
            began_s = time.monotonic()
            server.process.send_signal(how)
            await anyio.to_thread.run_sync(server.process.wait, 20)
            took_s = time.monotonic() - began_s
            assert took_s < 2 * crowd()
            raise httpx2.HTTPError("the clients may see the end as they like")
    assert server.process.returncode == 0
    assert scene.leftovers() == []
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    assert not (scene.repo / ".git" / "epicwave" / "door.json").exists()


async def _wait(ask: Any, cursor: str) -> None:
    await ask("story_status", epic="notes", since=cursor, wait_s=45)


def test_a_kill_leaves_nothing_that_is_in_the_way(scene: Scene, server: Server) -> None:
    server.process.kill()
    server.process.wait()
    with serving(scene.repo, "--port", str(server.port)) as another:
        assert another.token != server.token
        assert another.post().status == 200
        assert another.post(Authorization=f"Bearer {server.token}").status == 401
    assert subprocess.run(["git", "status"], cwd=scene.repo, check=True, capture_output=True).returncode == 0
