"""Where an engine process is met: git's own opinion, without git; and nothing that others could have put there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from mcp_server import __version__
from mcp_server.front.place import DOOR_FILE, Door, Refusal, common_dir, dial, read_door, state_dir
from tests.front.stage import TOKEN, Engine
from tests.journeys.programs import PROGRAM
from tests.server.scene import Scene, environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is a front where there are Unix sockets")


def _git_says(scene: Scene, folder: Path) -> str:
    return os.path.realpath(folder / scene.git("rev-parse", "--git-common-dir", at=folder))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_is_gits_common_folder_in_a_checkout_and_below(scene: Scene) -> None:
    below = scene.repo / "a" / "b"
    below.mkdir(parents=True)
    for folder in (scene.repo, below):
        assert common_dir(str(folder)) == _git_says(scene, folder) == str(scene.repo / ".git")


def test_a_linked_worktree_has_that_of_its_repository(scene: Scene, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    scene.git("worktree", "add", "-q", "--detach", linked)
    (linked / "sub").mkdir()
    for folder in (linked, linked / "sub"):
        assert common_dir(str(folder)) == _git_says(scene, folder) == str(scene.repo / ".git")


def test_a_linked_worktree_of_a_bare_repository_has_that_of_it(scene: Scene, tmp_path: Path) -> None:
    bare, linked = tmp_path / "bare.git", tmp_path / "linked"
    scene.git("clone", "-q", "--bare", ".", bare)
    scene.git("worktree", "add", "-q", "--detach", linked, at=bare)
    assert common_dir(str(linked)) == _git_says(scene, linked) == str(bare)


def test_a_submodule_has_its_own(scene: Scene, tmp_path: Path) -> None:
    inner = Scene(tmp_path / "inner")
    scene.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.repo), "vendor")
    folder = scene.repo / "vendor"
    assert common_dir(str(folder)) == _git_says(scene, folder) == str(scene.repo / ".git" / "modules" / "vendor")


def test_a_repository_in_a_repository_has_its_own(scene: Scene) -> None:
    inner = Scene(scene.repo / "nested")
    assert common_dir(str(inner.repo)) == _git_says(inner, inner.repo) == str(inner.repo / ".git")


def test_a_link_leads_to_where_it_points(scene: Scene, tmp_path: Path) -> None:
    link = tmp_path / "link"
    (scene.repo / "a").mkdir()
    link.symlink_to(scene.repo / "a")
    assert common_dir(str(link)) == _git_says(scene, link) == str(scene.repo / ".git")


def test_a_checkout_whose_git_folder_lies_elsewhere_has_that(scene: Scene, tmp_path: Path) -> None:
    apart, away = tmp_path / "apart", tmp_path / "away.git"
    scene.git("clone", "-q", "--separate-git-dir", away, ".", apart)
    assert common_dir(str(apart)) == _git_says(scene, apart) == str(away)


def test_there_is_none_in_a_bare_repository_in_a_git_folder_and_in_no_repository(scene: Scene, tmp_path: Path) -> None:
    """Also where a checkout is around it."""
    bare = scene.repo / "bare"
    scene.git("clone", "-q", "--bare", ".", bare)
    for folder in (bare, bare / "refs", scene.repo / ".git", scene.repo / ".git" / "hooks", tmp_path, Path("/")):
        assert common_dir(str(folder)) is None, folder
    (tmp_path / ".git").mkdir()
    assert common_dir(str(tmp_path)) is None, "a folder of that name is no repository"


@pytest.mark.parametrize("where", ["bare", "nowhere"])
def test_without_one_serve_answers_by_itself(scene: Scene, tmp_path: Path, where: str) -> None:
    scene.git("clone", "-q", "--bare", ".", tmp_path / "bare")
    (tmp_path / "nowhere").mkdir()
    code = PROGRAM[2].replace("cli.main", "cli.entry")
    who = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}
    with subprocess.Popen(
        [PROGRAM[0], "-c", code, "serve"],
        cwd=tmp_path / where,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "epicwave"
        process.stdin.close()
        assert process.wait(10) == 0
    assert not list(tmp_path.glob("*/epicwave"))


# --- what may be trusted ----------------------------------------------------------------------------------------------


def _state(repo: Path) -> str:
    return state_dir(str(repo / ".git"))


def _dial(repo: Path) -> Door:
    door = read_door(_state(repo))
    assert door is not None
    dial(door).close()
    return door


def _refusal(repo: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        _dial(repo)
    assert caught.value.code == "unsafe_state"
    assert TOKEN not in str(caught.value)
    return caught.value


def test_a_door_that_is_the_users_own_is_dialled(repo: Path, engine: Engine) -> None:
    """One of a newer engine process, that says more than we know, too."""
    assert _dial(repo) == Door(1, 0.0, __version__, str(engine.state / "door.sock"), TOKEN)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o701])
def test_a_state_folder_that_others_can_enter_is_refused(repo: Path, engine: Engine, mode: int) -> None:
    engine.state.chmod(mode)
    refusal = _refusal(repo)
    assert "open to other users" in refusal.why
    assert f"chmod go-rwx {engine.state}" in refusal.remedy
    assert "epicwave doctor --fix" in refusal.remedy


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_door_file_that_others_can_read_or_write_is_refused(repo: Path, engine: Engine, mode: int) -> None:
    (engine.state / DOOR_FILE).chmod(mode)
    refusal = _refusal(repo)
    assert f"chmod go-rwx {engine.state / DOOR_FILE}" in refusal.remedy


@pytest.mark.parametrize("name", ["", "door.json", "door.sock"])
def test_a_link_in_the_place_of_what_is_ours_is_refused(repo: Path, engine: Engine, tmp_path: Path, name: str) -> None:
    """Whoever can put one there chooses whom we talk to."""
    path = engine.state / name
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    assert str(path) in _refusal(repo).why


@pytest.mark.parametrize("name", ["", "door.json", "door.sock"])
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_refused(repo: Path, engine: Engine, name: str) -> None:
    os.chown(engine.state / name, 65_534, -1)
    assert "belongs to somebody else" in _refusal(repo).why


def test_a_file_in_the_place_of_the_socket_is_refused(repo: Path, engine: Engine) -> None:
    path = engine.state / "door.sock"
    path.unlink()
    path.touch(0o600)
    assert "is not a socket" in _refusal(repo).why


def test_a_pipe_in_the_place_of_the_file_is_refused_and_does_not_hold_us(repo: Path, engine: Engine) -> None:
    path = engine.state / DOOR_FILE
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "is not a file" in _refusal(repo).why


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"pid": 1}', b'{"pid":1,"started_s":0,"version":1,"address":2,"token":3}'],
)
def test_a_file_that_says_nothing_of_use_is_no_door(repo: Path, engine: Engine, text: bytes) -> None:
    (engine.state / DOOR_FILE).write_bytes(text)
    assert read_door(_state(repo)) is None


def test_there_is_no_door_before_the_first_engine_process(repo: Path) -> None:
    """Neither in a state folder of a version that had none, which was open to others."""
    assert read_door(_state(repo)) is None
    Path(_state(repo)).mkdir(0o755)
    assert read_door(_state(repo)) is None
    Path(_state(repo)).rmdir()
    Path(_state(repo)).touch()
    assert read_door(_state(repo)) is None


def test_an_address_that_is_a_port_is_dialled_on_this_machine_alone(repo: Path, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dial(Door(1, 0.0, "0", f"127.0.0.1:{port}", TOKEN)).close()
        with pytest.raises(OSError, match="No such file"):
            dial(Door(1, 0.0, "0", f"localhost:{port}", TOKEN))
