"""The door of an engine process lets in whoever knows the token, and tells a stranger nothing."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from mcp_server.errors import Code, Fault, Refused
from mcp_server.front.place import DOOR_FILE, SOCKET_FILE, dial
from mcp_server.server import door as door_module
from mcp_server.server import framing
from mcp_server.server.door import guarding, open_door
from mcp_server.server.session import Hosting
from tests.front.stage import request
from tests.server.opened import Open, opened
from tests.server.scene import Scene

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")]

NOBODY = 65_534


@pytest.fixture
def state(scene: Scene) -> Path:
    return scene.repo / ".git" / "epicwave"


@pytest.fixture(params=["socket", "port"])
async def place(request: pytest.FixtureRequest, scene: Scene, state: Path) -> AsyncGenerator[Open]:
    async with opened(scene.repo, state, unix=request.param == "socket") as place:
        yield place


STRANGERS = {
    "nothing": b"\n",
    "no token": b"{}\n",
    "an empty token": b'{"token": "", "start": "/"}\n',
    "a wrong token": b'{"token": "guess", "start": "/"}\n',
    "a token of another kind": b'{"token": ["guess"], "start": "/"}\n',
    "a token that is no text": b'{"token": "\\ud800", "start": "/"}\n',
    "MCP at once": json.dumps(request(1, "tools/list")).encode() + b"\n",
    "no JSON": b"\xff\xfe\x00 let me in\n",
    "no object": b"[[[[[[]]]]]]\n",
    "deep": b"[" * 60_000 + b"\n",
    "a line without an end": b"x" * 1_000_000,
    "a browser": b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
    "a form of a web page": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n"
    b'{"token": "guess", "start": "/"}\n',
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" * 20,
}


@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS.keys())
async def test_a_stranger_is_told_nothing_and_disturbs_nobody(place: Open, said: bytes) -> None:
    assert await place.say(said, json.dumps(request(1, "tools/list")).encode() + b"\n") == b""
    assert place.visitors.count == 0
    assert await place.serves()


async def test_one_with_nearly_the_token_is_a_stranger(place: Open) -> None:
    token = place.door.token
    for wrong in (token[:-1], token + "x", token.swapcase(), token[:-1] + "\u00e9"):
        assert await place.say(place.hello(token=wrong)) == b""
    assert await place.serves()


@pytest.mark.parametrize("drip", [b"", b"x"])
async def test_one_who_says_nothing_or_hardly_anything_is_let_go(
    place: Open, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is no visitor meanwhile, who would keep the engine process from its end."""
    monkeypatch.setattr(door_module, "HELLO_S", 0.5)
    since_s = place.visitors.since_s
    with anyio.fail_after(10):
        async with await place.connect() as wire, anyio.create_task_group() as group:

            async def dripping() -> None:
                while drip:
                    await wire.send(drip)
                    await anyio.sleep(0.05)

            group.start_soon(dripping)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await wire.receive()
            group.cancel_scope.cancel()
    assert (place.visitors.count, place.visitors.since_s) == (0, since_s)


async def test_a_visitor_counts_from_its_hello_to_its_end(place: Open) -> None:
    before_s = place.visitors.since_s
    async with await place.connect() as wire:
        await wire.send(place.hello())
        with anyio.fail_after(5):
            while place.visitors.count != 1:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    await place.empty()
    assert place.visitors.since_s > before_s


async def test_a_message_that_is_too_long_ends_its_connection_alone(
    place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MESSAGE_BYTES", 10_000)
    async with await place.connect() as other:
        await other.send(place.hello())
        assert await place.say(place.hello() + b"x" * 100_000) == b""
        await other.send(json.dumps(request(1, "ping")).encode() + b"\n")
        assert b'"id":1' in await other.receive()
    await place.empty()


async def test_an_error_in_one_session_is_logged_and_ends_it_alone(
    place: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = door_module._serve  # pyright: ignore[reportPrivateUsage]

    async def broken(*_: object) -> None:
        message = "a bug of ours"
        raise RuntimeError(message)

    monkeypatch.setattr(door_module, "_serve", broken)
    assert await place.say(place.hello()) == b""
    monkeypatch.setattr(door_module, "_serve", real)
    assert await place.serves()
    assert "a bug of ours" in caplog.text
    assert place.door.token not in caplog.text


async def test_to_be_out_of_descriptors_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "FULL_S", 0.0)
    tries = iter([OSError(errno.EMFILE, "full"), anyio.BrokenResourceError(), "a stream", "another"])
    met: list[str] = []

    class Full:
        async def accept(self) -> str:
            await anyio.lowlevel.checkpoint()
            got = next(tries, None)
            if got is None:
                await anyio.sleep_forever()
            if isinstance(got, Exception):
                raise got
            return str(got)

    async def visit(stream: anyio.abc.SocketStream) -> None:
        met.append(str(stream))

    with anyio.move_on_after(0.3):
        await door_module._let_in(cast("anyio.abc.SocketListener", Full()), visit)  # pyright: ignore[reportPrivateUsage]
    assert met == ["a stream", "another"]


# --- who may be there -------------------------------------------------------------------------------------------------

_AS_NOBODY = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as wire:
    wire.settimeout(10)
    wire.connect(sys.argv[2])
    try:
        wire.sendall(sys.stdin.buffer.read())
        print(wire.recv(1000))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""


@pytest.fixture
def public() -> Generator[Path]:
    """A folder that everybody may pass through."""
    with tempfile.TemporaryDirectory(prefix="door-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs Linux, and root to be somebody else")
@pytest.mark.parametrize("uid", [0, NOBODY])
async def test_another_user_is_refused_even_with_the_token(public: Path, scene: Scene, uid: int) -> None:
    """Should both folder and socket ever be open to it."""
    state = public / "epicwave"
    async with opened(scene.repo, state, unix=True) as place:
        state.chmod(0o711)
        (state / SOCKET_FILE).chmod(0o666)
        asked = place.hello() + json.dumps(request(1, "ping")).encode() + b"\n"
        ran = await anyio.run_process(
            [sys.executable, "-c", _AS_NOBODY, str(uid), place.door.address], input=asked, check=True
        )
        assert (b"jsonrpc" in ran.stdout) == (uid == 0), ran.stdout
        assert uid == 0 or ran.stdout.strip() == b"b''"
        state.chmod(0o700)


def _mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def _made(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


async def test_the_token_is_for_the_user_alone_from_the_first_moment(
    scene: Scene, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    real = json.dump

    def watched(said: Any, file: Any) -> None:
        real(said, file)
        seen.extend((path.name, _mode(path)) for path in state.iterdir() if "json" in path.name)

    monkeypatch.setattr(door_module.json, "dump", watched)
    before = os.umask(0)
    try:
        async with opened(scene.repo, state, unix=True) as place:
            assert _mode(state / DOOR_FILE) == 0o600
            assert _mode(place.door.address) == 0o600
            assert _mode(Path(place.door.address).parent) == 0o700
            assert _mode(state) == 0o700
            assert len(place.door.token) >= 43, "256 bits"
    finally:
        os.umask(before)
    assert seen == [(f"{DOOR_FILE}.{os.getpid()}", 0o600)]
    assert not (state / DOOR_FILE).exists()


async def test_each_door_has_its_own_token(scene: Scene, state: Path) -> None:
    tokens: set[str] = set()
    for unix in (True, True, False):
        async with opened(scene.repo, state, unix=unix) as place:
            tokens.add(place.door.token)
    assert len(tokens) == 3


async def _refused(scene: Scene, state: Path) -> str:
    with pytest.raises(Refused) as caught:
        await _open_and_close(scene, state)
    assert caught.value.code is Code.UNSAFE_STATE
    return f"{caught.value.why} {caught.value.remedy}"


async def _open_and_close(scene: Scene, state: Path) -> None:
    async with opened(scene.repo, state, unix=True):
        pass


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o777, 0o701])
async def test_a_state_folder_with_a_token_that_was_open_to_others_is_refused(
    scene: Scene, state: Path, mode: int
) -> None:
    (_made(state, mode) / DOOR_FILE).touch(0o600)
    said = await _refused(scene, state)
    assert f"chmod go-rwx {state}" in said
    assert "epicwave doctor --fix" in said


@pytest.mark.parametrize("mode", [0o755, 0o775])
async def test_one_from_before_there_were_tokens_is_closed(scene: Scene, state: Path, mode: int) -> None:
    _made(state, mode)
    async with opened(scene.repo, state, unix=True) as place:
        assert _mode(state) == 0o700
        assert await place.serves()


async def test_a_state_folder_that_is_a_link_is_refused(scene: Scene, state: Path, tmp_path: Path) -> None:
    os.symlink(_made(tmp_path / "elsewhere", 0o700), state)  # noqa: PTH211
    assert f"{state} is not a folder" in await _refused(scene, state)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("what", ["link", "file", "folder"])
async def test_what_is_no_socket_in_the_place_of_the_socket_is_refused_and_kept(
    public: Path, scene: Scene, what: str
) -> None:
    """In a folder whose path is short enough for the socket to be there."""
    state = public / "epicwave"
    state.mkdir(0o700)
    (public / "prey").write_text("of value", "utf-8")
    path = state / SOCKET_FILE
    {"link": lambda: path.symlink_to(public / "prey"), "file": path.touch, "folder": path.mkdir}[what]()
    assert f"{path} is not a socket" in await _refused(scene, state)
    assert (public / "prey").read_text("utf-8") == "of value"
    assert SOCKET_FILE in os.listdir(state)  # noqa: PTH208


async def test_a_door_file_that_is_a_link_is_refused_and_what_it_points_to_is_kept(
    scene: Scene, state: Path, tmp_path: Path
) -> None:
    _made(state, 0o700)
    (tmp_path / "prey").write_text("of value", "utf-8")
    (state / DOOR_FILE).symlink_to(tmp_path / "prey")
    assert str(state / DOOR_FILE) in await _refused(scene, state)
    assert (tmp_path / "prey").read_text("utf-8") == "of value"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", DOOR_FILE, SOCKET_FILE])
async def test_what_belongs_to_somebody_else_is_refused(public: Path, scene: Scene, name: str) -> None:
    state = public / "epicwave"
    async with opened(scene.repo, state, unix=True) as place:
        door = (state / DOOR_FILE).read_text("utf-8")
    if name == SOCKET_FILE:
        with closing(_socket_at(place.door.address)):
            pass
    (state / DOOR_FILE).touch(0o600)
    (state / DOOR_FILE).write_text(door, "utf-8")
    os.chown(state / name, NOBODY, -1)
    assert "belongs to somebody else" in await _refused(scene, state)


def _socket_at(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(path)
    return bound


async def test_a_front_meets_the_door_by_its_port_as_well(place: Open) -> None:
    dial(place.door).close()


async def test_a_refusal_within_the_open_door_comes_out_as_it_is(scene: Scene, state: Path) -> None:
    """`epicwave run` says it in two lines, as any other."""
    refused = Refused(Code.UNKNOWN_EPIC, "There is none.", "Plan one.")
    with guarding(state), pytest.raises(Refused) as caught:
        async with open_door(state, cast("Hosting", None), lambda: ""):
            raise refused
    assert caught.value is refused
    assert not (state / DOOR_FILE).exists()


async def test_a_full_disk_under_the_door_file_is_a_fault_and_leaves_nothing(
    scene: Scene, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes out by itself, for whoever has to say it in two lines."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(door_module.json, "dump", full)
    with guarding(state):
        with pytest.raises(Fault, match=r"door\.json cannot be written: .*No space left"):
            async with open_door(state, cast("Hosting", None), lambda: ""):
                pass
        assert sorted(name for name in os.listdir(state) if name.startswith("door.")) == ["door.guard"]  # noqa: PTH208
