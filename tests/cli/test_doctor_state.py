"""What the doctor finds of epicwave's own: engine, journal, folders, leftovers, disk, versions; and what it mends."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcp_server import __version__
from mcp_server.adapters.agents.tree import identity
from mcp_server.cli import doctor_state
from mcp_server.core.model import Process
from mcp_server.server.holder import write_holder
from mcp_server.server.host import holding
from tests.cli.patient import DAY_S, levels, posix, program, the
from tests.cli.shell import document, epicwave
from tests.journal.files import old, read
from tests.server.scene import Scene, allow, commit, exit_with, story, write

pytestmark = posix
SHM = Path("/dev/shm")  # noqa: S108 - nothing is written there


def test_a_living_engine_and_one_that_was_killed_are_found(scene: Scene) -> None:
    state = scene.repo / ".git/epicwave"
    with holding(state, "a test"):
        assert the(scene, "engine")["what"] == f"a test, process {os.getpid()} has the engine."
        assert levels(scene)["engine"] == "note"
    assert levels(scene)["engine"] == "ok"
    write_holder(state, "epicwave run", Process(2**22 + 1, 1.0))
    assert levels(scene)["engine"] == "warning"


def test_a_process_that_came_later_is_not_taken_for_the_holder(scene: Scene) -> None:
    state = scene.repo / ".git/epicwave"
    state.mkdir(mode=0o700)
    own = identity(os.getpid())
    write_holder(state, "epicwave run", own)
    assert levels(scene)["engine"] == "note"
    write_holder(state, "epicwave run", Process(own.pid, own.started_s - DAY_S))
    assert levels(scene)["engine"] == "warning"


def test_a_journal_that_cannot_be_read_is_found(scene: Scene) -> None:
    state = scene.repo / ".git/epicwave"
    state.mkdir(mode=0o700)
    (state / "journal.db").write_bytes(b"no database at all" * 100)
    assert the(scene, "journal")["level"] == "error"


def test_a_journal_of_an_older_format_is_found_and_left_as_it_is(scene: Scene) -> None:
    _run_epic(scene)
    path = scene.repo / ".git/epicwave/journal.db"
    events = read(path)
    path.unlink()
    before = old(path, events).read_bytes()
    found = the(scene, "journal")
    assert found["level"] == "note"
    assert "old format" in found["what"]
    assert path.read_bytes() == before


def test_a_copy_of_an_older_journal_is_found(scene: Scene) -> None:
    state = scene.repo / ".git/epicwave"
    state.mkdir(mode=0o700)
    (state / "journal.db.v1-backup").touch()
    assert the(scene, "journal_backup")["remedy"].endswith(f"rm {state}/journal.db.v1-backup")


def test_a_state_folder_that_others_may_read_is_found_and_mended(scene: Scene) -> None:
    state = scene.repo / ".git/epicwave"
    state.mkdir()
    state.chmod(0o755)
    assert the(scene, "state_folder")["remedy"] == f"chmod 700 {state}"
    done = epicwave(scene, "doctor", "--json", "--fix")
    assert document(done)["fixed"] == [f"{state} is yours alone now (mode 700)."]
    assert done.exit_code == 0, "what is mended is no trouble any more"
    assert state.stat().st_mode & 0o777 == 0o700
    assert levels(scene)["state_folder"] == "ok"


def test_a_state_folder_of_another_users_is_found_and_not_mended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (scene.repo / ".git/epicwave").mkdir(mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr(doctor_state.os, "geteuid", lambda: me + 1)
    said = document(epicwave(scene, "doctor", "--json", "--fix"))
    assert "error" in [finding["level"] for finding in said["findings"] if finding["code"] == "state_folder"]
    assert said["fixed"] == []


def test_a_state_folder_that_is_a_link_is_found_and_not_mended(scene: Scene) -> None:
    (scene.outside / "elsewhere").mkdir(mode=0o755)
    (scene.repo / ".git/epicwave").symlink_to(scene.outside / "elsewhere")
    assert levels(scene, "--fix")["state_folder"] == "error"
    assert (scene.outside / "elsewhere").stat().st_mode & 0o777 == 0o755


def _run_epic(scene: Scene) -> None:
    """S1 is merged; S2 has failed, and what it did is on a rescue ref."""
    scene.configure({"attempts": 1, "fail_fast": False})
    scene.play("S1", write("S1.md"), commit())
    scene.play("S2", write("S2.md"), exit_with(9))
    scene.epic(story("S1"), story("S2"))
    assert epicwave(scene, "run", str(scene.repo / "epic.yaml"), "--strategy", "asyncio").exit_code == 1
    (scene.repo / ".git/epicwave").chmod(0o700)


def test_leftovers_are_found_and_mended_with_what_is_unsaved_in_them(scene: Scene) -> None:
    _run_epic(scene)
    assert levels(scene)["leftovers"] == "ok"
    assert the(scene, "rescued")["level"] == "note"
    tree = scene.outside / "worktrees/notes/S2-1"
    scene.git("worktree", "add", "-q", "-b", "epicwave-work/notes/S2/1", tree, "main")
    scene.git("update-ref", "refs/epicwave/base/notes/S2/1", "main")
    (tree / "unsaved.txt").write_text("mine", "utf-8")
    found = the(scene, "leftovers")
    assert str(tree) in found["what"]
    assert found["remedy"] == "epicwave gc"
    said = document(epicwave(scene, "doctor", "--json", "--fix"))["fixed"]
    assert f"Saved and removed: worktree {tree}." in said
    assert scene.leftovers() == []
    assert "unsaved.txt" in scene.tree("refs/epicwave/rescue/notes/S2/1")
    assert levels(scene)["leftovers"] == "ok"


def test_a_worktree_of_ours_whose_folder_is_gone_is_found_and_mended(scene: Scene) -> None:
    _run_epic(scene)
    tree = scene.outside / "worktrees/notes/S1-1"
    scene.git("worktree", "add", "-q", "--lock", "-b", "epicwave-work/notes/S1/1", tree, "epicwave/notes")
    shutil.rmtree(tree)
    assert str(tree) in the(scene, "leftovers")["what"]
    epicwave(scene, "doctor", "--fix")
    assert scene.leftovers() == []


def test_while_somebody_has_the_engine_leftovers_stay_and_that_is_said(scene: Scene) -> None:
    _run_epic(scene)
    scene.git("branch", "epicwave-work/notes/S2/1", "main")
    with holding(scene.repo / ".git/epicwave", "another"):
        (said,) = document(epicwave(scene, "doctor", "--json", "--fix"))["fixed"]
    assert said.startswith("Leftovers stay: Another process runs this repository's engine (another, ")
    assert "epicwave-work/notes/S2/1" in scene.git("branch", "--list", "epicwave-work/*")


def test_what_the_journal_does_not_know_is_found_and_left(scene: Scene) -> None:
    scene.git("branch", "epicwave-work/other/S1/1")
    assert "epicwave-work/other/S1/1" in the(scene, "not_ours")["what"]
    epicwave(scene, "doctor", "--fix")
    assert scene.git("branch", "--list", "epicwave-work/*").strip() == "epicwave-work/other/S1/1"


@pytest.mark.parametrize(("free_bytes", "level"), [(100 << 20, "error"), (1 << 30, "warning"), (5 << 30, "ok")])
def test_a_disk_that_is_nearly_full_is_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, free_bytes: int, level: str
) -> None:
    def usage(_place: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free_bytes)

    monkeypatch.setattr(doctor_state.shutil, "disk_usage", usage)
    assert levels(scene)["disk"] == level


@pytest.mark.skipif(not SHM.is_dir(), reason="needs a second file system")
def test_worktrees_on_another_file_system_are_found(scene: Scene) -> None:
    if SHM.stat().st_dev == scene.repo.stat().st_dev:
        pytest.skip("needs a second file system")
    scene.configure({"worktrees_dir": str(SHM / "epicwave-never-made")})
    assert the(scene, "file_system")["level"] == "note"


def test_another_epicwave_on_the_path_is_found(scene: Scene) -> None:
    program(scene, "epicwave", "echo epicwave 0.0.1")
    assert "says 'epicwave 0.0.1'" in the(scene, "version")["what"]
    program(scene, "epicwave", f"echo epicwave {__version__}")
    assert levels(scene)["version"] == "ok"


def _door(scene: Scene, version: str, mode: int) -> Path:
    path = scene.repo / ".git/epicwave/door.json"
    said = {"pid": os.getpid(), "started_s": 0.0, "version": version, "address": "127.0.0.1:1", "token": "secret"}
    path.write_text(json.dumps(said), "utf-8")
    path.chmod(mode)
    return path


def test_a_token_that_others_may_read_is_found_and_mended(scene: Scene) -> None:
    (scene.repo / ".git/epicwave").mkdir(mode=0o700)
    door = _door(scene, __version__, 0o600)
    assert levels(scene)["state_folder"] == "ok"
    door.chmod(0o644)
    found = the(scene, "state_folder")
    assert (found["level"], found["remedy"]) == ("error", f"chmod 600 {door}")
    (said,) = document(epicwave(scene, "doctor", "--json", "--fix"))["fixed"]
    assert said.startswith(f"{door} is yours alone now (mode 600). The token may be known")
    assert door.stat().st_mode & 0o777 == 0o600


def test_an_engine_process_of_another_version_is_found(scene: Scene) -> None:
    with holding(scene.repo / ".git/epicwave", "epicwave engine"):
        (scene.repo / ".git/epicwave").chmod(0o700)
        _door(scene, "0.0.1", 0o600)
        assert f"is epicwave 0.0.1; this is {__version__}" in the(scene, "version")["what"]
        _door(scene, __version__, 0o600)
        assert levels(scene)["version"] == "ok"


def test_a_list_of_allowed_commands_that_others_may_write_is_found_and_mended(scene: Scene) -> None:
    allow(scene.repo, ("true",))
    path = scene.repo / ".git/epicwave/allowed.json"
    assert levels(scene)["state_folder"] == "ok"
    path.chmod(0o666)
    found = the(scene, "state_folder")
    assert "decides which commands of epic files run" in found["why"]
    assert document(epicwave(scene, "doctor", "--json", "--fix"))["fixed"] == [f"{path} is yours alone now (mode 600)."]
    assert levels(scene)["state_folder"] == "ok"
