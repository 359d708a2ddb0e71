"""`epicwave serve` as an editor has it: a process on pipes, spoken to in both eras, ended in every way there is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import StdioServerParameters

from tests.server.lead import ERAS, Era, Lead, crowd, leading, until
from tests.server.scene import Scene, child, commit, environment, story, write

pytestmark = [pytest.mark.journey, pytest.mark.anyio]

AN_HOUR = 3_600.0
PROGRAM = (sys.executable, "-c", "from mcp_server.cli.main import main; main()")
STRAY = "print('a stray print', flush=True)"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _server(scene: Scene) -> StdioServerParameters:
    return StdioServerParameters(command=PROGRAM[0], args=[*PROGRAM[1:], "serve"], cwd=scene.repo, env=environment())


@pytest.mark.parametrize("era", ERAS)
async def test_an_epic_is_planned_started_watched_and_cancelled_over_stdio(scene: Scene, era: Era) -> None:
    scene.play("S2", write("S2.md"), child(AN_HOUR, deaf=False))
    scene.epic(story("S1", agent="scripted"), story("S2", "S1"))
    before = scene.checkout()
    async with leading(_server(scene), era) as lead:
        listed = await lead.client.list_tools()
        wire = json.dumps(listed.model_dump(mode="json", by_alias=True, exclude_unset=True), separators=(",", ":"))
        assert len(wire.encode()) < 13_000
        await lead.ask("plan_epic", epic_file="epic.yaml")
        await lead.ask("start_wave", epic="notes", through="all")
        await lead.watch(lambda states: states["S1"] == "merged")
        await until(lambda: len(scene.children()) == 1)
        reply = await lead.ask("cancel_epic", epic="notes")
        assert [s["processes_gone"] for s in reply["stopped"]] == [True]
        assert scene.processes() == []
        assert reply["merged"] == ["S1"]
    assert scene.leftovers() == []
    assert scene.checkout() == before


class Wire:
    """The server's process and its pipes, without a client's manners."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._number = 0

    def send(self, method: str, **params: Any) -> int:
        """A request; its number."""
        self._number += 1
        assert self.process.stdin is not None
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return self._number

    def receive(self) -> dict[str, Any]:
        """The next message; anything else on the wire is an error here."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's reply."""
        number = self.send("tools/call", name=tool, arguments=arguments)
        answer = self.receive()
        assert answer["id"] == number
        return answer["result"]


@contextmanager
def _wire(scene: Scene, *, before: str = "") -> Generator[Wire]:
    """A server that has been greeted; `before` runs in its process first."""
    code = f"{before}\nfrom mcp_server.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=scene.repo, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        wire = Wire(process)
        try:
            who = {"name": "test", "version": "0"}
            wire.send("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=who)
            assert wire.receive()["result"]["serverInfo"]["name"] == "epicwave"
            yield wire
        finally:
            process.kill()


def _work(scene: Scene, wire: Wire, *, deaf: bool = False) -> None:
    """Two agents with children, one with committed work and one with loose work."""
    scene.play("S1", write("S1.md"), commit(), child(AN_HOUR, deaf=deaf))
    scene.play("S2", write("S2.md"), child(AN_HOUR, deaf=deaf))
    scene.epic(story("S1"), story("S2"), story("S3", "S1"))
    assert not wire.call("plan_epic", epic_file="epic.yaml").get("isError")
    assert not wire.call("start_wave", epic="notes", strategy="asyncio").get("isError")
    deadline = time.monotonic() + 20
    while len(scene.processes()) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(None, id="end of input"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=posix),
        pytest.param(signal.SIGINT, id="SIGINT", marks=posix),
    ],
)
def test_it_ends_within_two_seconds_with_agents_gone_and_work_saved(scene: Scene, how: signal.Signals | None) -> None:
    with _wire(scene) as wire:
        _work(scene, wire)
        began = time.monotonic()
        _end(wire, how)
        assert wire.process.wait(20) == 0
        took_s = time.monotonic() - began
        assert scene.leftovers() == []
        assert took_s < 2 * crowd()
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")
    assert "S2.md" in scene.tree("refs/epicwave/rescue/notes/S2/1")


def _end(wire: Wire, how: signal.Signals | None) -> None:
    if how is not None:
        wire.process.send_signal(how)
    elif wire.process.stdin is not None:
        wire.process.stdin.close()


@posix
def test_a_host_that_loses_patience_does_not_lose_work(scene: Scene) -> None:
    """SIGINT, and then SIGTERM twice while it is ending: nothing is cut short."""
    with _wire(scene) as wire:
        _work(scene, wire, deaf=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            wire.process.send_signal(number)
            time.sleep(0.1)
        assert wire.process.wait(20) == 0
        assert scene.leftovers() == []
    assert "S2.md" in scene.tree("refs/epicwave/rescue/notes/S2/1")


@posix
@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(scene: Scene, how: signal.Signals | None) -> None:
    with _wire(scene) as wire:
        _end(wire, how)
        assert wire.process.wait(5) == 0
    assert not (scene.repo / ".git" / "epicwave").exists()


def test_a_kill_leaves_no_agent_and_the_next_server_saves_the_work(scene: Scene) -> None:
    with _wire(scene) as wire:
        _work(scene, wire)
        wire.process.kill()
        wire.process.wait(5)
    deadline = time.monotonic() + 10
    while scene.processes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with _wire(scene) as wire:
        wire.call("plan_epic", epic_file="epic.yaml")
        assert wire.call("story_status", epic="notes")["structuredContent"]["epics"][0]["state"] == "ready"
        _end(wire, None)
        assert wire.process.wait(5) == 0
    assert scene.leftovers() == []
    assert "S2.md" in scene.tree("refs/epicwave/rescue/notes/S2/1")


def test_a_stray_print_does_not_reach_the_wire(scene: Scene) -> None:
    """Neither one of a library's in the middle of a call nor one of a child process."""
    noisy = (
        "import subprocess, mcp_server.server.world as w\n"
        "real = w.load_settings\n"
        "def loud(top):\n"
        "    print('stray', flush=True)\n"
        "    subprocess.run(['git', 'version'])\n"
        "    return real(top)\n"
        "w.load_settings = loud\n"
    )
    with _wire(scene, before=noisy) as wire:
        scene.epic(story("S1"))
        assert not wire.call("plan_epic", epic_file="epic.yaml").get("isError")
        _end(wire, None)
        assert wire.process.wait(5) == 0
        assert wire.process.stderr is not None
        said = wire.process.stderr.read().decode()
        assert "stray" in said
        assert "git version" in said


def test_a_message_of_two_megabytes_is_taken_whole(scene: Scene) -> None:
    text = f"# Epic 1: Large\n\n1. **Story 1.1: One**\n\n   {'a long description ' * 110_000}\n"
    assert len(text) > 2_000_000
    with _wire(scene) as wire:
        reply = wire.call("plan_epic", epic_text=text)
        assert not reply.get("isError"), reply["content"][0]["text"][:500]
        assert reply["structuredContent"]["stories"] == 1
        assert not wire.call("story_status").get("isError")


def test_a_client_that_reads_slowly_gets_every_answer_and_the_work_goes_on(scene: Scene) -> None:
    """Replies of far more than a pipe's size wait for the reader; the engine does not."""
    scene.epic(*[story(f"S{n:02d}", agent="scripted", title="A title of some length " * 3) for n in range(40)])
    with _wire(scene) as wire:
        wire.call("plan_epic", epic_file="epic.yaml")
        wire.call("start_wave", epic="notes")
        asked = {wire.send("tools/call", name="story_status", arguments={"epic": "notes"}) for _ in range(100)}
        deadline = time.monotonic() + 20
        while "S00.md" not in scene.tree("epicwave/notes"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answers = [wire.receive() for _ in asked]
        assert {answer["id"] for answer in answers} == asked
        assert all(answer["result"]["structuredContent"]["totals"]["stories"] == 40 for answer in answers)
        assert sum(len(json.dumps(answer)) for answer in answers) > 200_000


def test_what_is_no_message_is_survived(scene: Scene) -> None:
    with _wire(scene) as wire:
        assert wire.process.stdin is not None
        wire.process.stdin.write(b"this is not JSON\n\xff\xfe\n\n{}\n[]\n")
        number = wire.send("tools/list")
        while (answer := wire.receive()).get("id") != number:
            assert "error" in answer
        assert len(answer["result"]["tools"]) == 8


async def test_two_editor_windows_see_the_same_epic(scene: Scene) -> None:
    """Two processes on one repository: the second looks on, and takes over when the first has gone."""
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"), story("S2", "S1"))
    async with leading(_server(scene)) as second:
        async with leading(_server(scene)) as first:
            await first.ask("plan_epic", epic_file="epic.yaml")
            await first.ask("start_wave", epic="notes")
            await until(lambda: scene.starts("S1") == 1)
            said = await second.refused("start_wave", epic="notes")
            assert said.startswith("engine_elsewhere: ")
            scene.open("go")
            with anyio.fail_after(20):
                await _merged(second)
        await second.ask("start_wave", epic="notes", agent="scripted")
        assert await second.until_rest() == {"S1": "merged", "S2": "merged"}


async def _merged(lead: Lead) -> None:
    await lead.watch(lambda states: states["S1"] == "merged")
