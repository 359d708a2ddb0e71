"""Others on the same machine, against the engine process and the front as they are: each is refused."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from mcp_server.front.place import DOOR_FILE
from tests.front.stage import Editor
from tests.journeys.fronts import Engines, call, greet
from tests.journeys.programs import epicwave, wait_until
from tests.server.scene import Scene

pytestmark = [pytest.mark.journey, pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _connect(engines: Engines) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(20)
    wire.connect(engines.met().address)
    return wire


def _refused(editor: Editor) -> str:
    """A front that will not, and says why, to the editor as well."""
    editor.ask(1, "initialize")
    assert editor.hears()["error"]["message"].startswith("unsafe_state: ")
    assert editor.ends(10) == 2
    said = editor.err.read().decode()
    assert said.startswith("unsafe_state: ")
    assert "Traceback" not in said
    return said


def test_an_engine_is_not_disturbed_by_strangers_and_its_token_is_told_nowhere(engines: Engines) -> None:
    with engines.front() as editor:
        greet(editor)
        door = engines.met()
        for said in (b"\n", b'{"token": "guess", "start": "/"}\n', b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000):
            with _connect(engines) as wire:
                try:
                    wire.sendall(said)
                    assert wire.recv(1000) == b""
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert call(editor, "story_status")["content"]
        assert engines.met() == door
        process = psutil.Process(door.pid)
        for what in (process, psutil.Process(editor.process.pid)):
            assert door.token not in "\0".join(what.cmdline())
            assert door.token not in "\0".join(what.environ().values())
        editor.to.close()
        assert editor.ends() == 0
        assert door.token not in editor.err.read().decode()
    for path in engines.state.rglob("*"):
        if path.is_file() and path.name != DOOR_FILE:
            assert door.token.encode() not in path.read_bytes(), path


def test_strangers_who_say_nothing_do_not_keep_an_engine_from_its_end(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are let go after 5 s; until then they are nobody."""
    monkeypatch.setenv("EPICWAVE_IDLE_S", "1")
    with engines.front() as editor:
        greet(editor)
    began_s = time.monotonic()
    with _connect(engines) as one, _connect(engines) as other:
        wait_until(lambda: not engines.living())
        assert time.monotonic() - began_s < 30
        assert (one.recv(1), other.recv(1)) == (b"", b"")


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_state_folder_that_was_opened_to_others_is_used_by_nobody(engines: Engines, mode: int) -> None:
    """The front does not connect, and an engine process does not start; both name what closes it, and it does."""
    with engines.front() as editor:
        greet(editor)
    engines.state.chmod(mode)
    with engines.front() as editor:
        said = _refused(editor)
    assert f"chmod go-rwx {engines.state}" in said
    assert "epicwave doctor --fix" in said
    engines.end()
    assert (engines.state / DOOR_FILE).exists()
    refused = epicwave(engines.repo, "engine").refused()
    assert refused.startswith("unsafe_state: ")
    assert f"chmod go-rwx {engines.state}" in refused
    assert engines.living() == []
    engines.state.chmod(0o700)
    with engines.front() as editor:
        greet(editor)


def test_a_token_that_others_could_have_read_is_not_used(engines: Engines) -> None:
    with engines.front() as editor:
        greet(editor)
    (engines.state / DOOR_FILE).chmod(0o644)
    with engines.front() as editor:
        assert f"chmod go-rwx {engines.state / DOOR_FILE}" in _refused(editor)


@pytest.mark.parametrize("what", ["the state folder", "the door's file", "the socket"])
def test_links_that_somebody_has_put_there_are_not_followed(engines: Engines, tmp_path: Path, what: str) -> None:
    with engines.front() as editor:
        greet(editor)
    places = {"the state folder": engines.state, "the door's file": engines.state / DOOR_FILE}
    place = places.get(what, Path(engines.met().address))
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with engines.front() as editor:
        assert str(place) in _refused(editor)


def test_a_link_in_the_place_of_the_state_folder_is_never_made_use_of(engines: Engines, tmp_path: Path) -> None:
    """Also when there has been no engine process yet: it refuses, and the front tells it in the engine's words."""
    (tmp_path / "elsewhere").mkdir(0o700)
    engines.state.symlink_to(tmp_path / "elsewhere")
    with engines.front() as editor:
        assert f"{engines.state} is not a folder" in _refused(editor)
    assert not list((tmp_path / "elsewhere").iterdir())
