"""`epicwave gc`: what our journal made and nobody needs goes, saved first; everything else stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mcp_server.server.host import holding
from tests.cli.patient import DAY_S
from tests.cli.shell import document, epicwave, refused
from tests.journeys.programs import finish, start, wait_until
from tests.server.scene import Scene, commit, exit_with, story, write

RESCUE = "refs/epicwave/rescue/notes"
OLD = {"GIT_COMMITTER_DATE": "@1700000000 +0000"}


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """An epic that has run: S1 merged in its second attempt, S2 failed and its work saved, S3 behind it."""
    scene.configure({"attempts": 2, "fail_fast": False})
    scene.play("S1", write("half.md"), exit_with(9), attempt=1)
    scene.play("S1", write("S1.md"), commit(), attempt=2)
    scene.play("S2", write("S2.md"), exit_with(9))
    scene.epic(story("S1"), story("S2"), story("S3", "S2"))
    assert epicwave(scene, "run", str(scene.repo / "epic.yaml"), "--strategy", "asyncio").exit_code == 1
    assert set(scene.refs(f"{RESCUE}/")) == {f"{RESCUE}/S1/1", f"{RESCUE}/S2/1", f"{RESCUE}/S2/2"}
    return scene


def state(scene: Scene) -> Path:
    return scene.repo / ".git/epicwave"


def files(scene: Scene) -> dict[str, bytes]:
    """All that lies in the state folder, but for SQLite's own working files, which come and go with its readers."""
    found = (p for p in state(scene).rglob("*") if p.is_file() and not p.name.endswith(("-shm", "-wal")))
    return {str(p): p.read_bytes() for p in found}


def left(scene: Scene, attempt: str, rev: str = "main") -> Path:
    """Worktree, branch and base ref of an attempt, as a kill -9 leaves them, with a file that nobody has saved."""
    name, _, number = attempt.partition("/")
    folder = scene.outside / f"worktrees/notes/{name}-{number}"
    scene.git("worktree", "add", "-q", "--lock", "-b", f"epicwave-work/notes/{attempt}", folder, rev)
    scene.git("update-ref", f"refs/epicwave/base/notes/{attempt}", "main")
    (folder / "unsaved.txt").write_text("mine\n", "utf-8")
    return folder


def aged(scene: Scene, ref: str) -> None:
    """The same content on a commit of 2023."""
    os.environ |= OLD
    try:
        scene.git("update-ref", ref, scene.git("commit-tree", f"{ref}^{{tree}}", "-m", "Old"))
    finally:
        for name in OLD:
            del os.environ[name]


def logs_of(scene: Scene, name: str) -> list[str]:
    return sorted(path.name for path in (state(scene) / "logs/notes" / name).glob("*"))


def age_logs(scene: Scene, days: float) -> None:
    for path in (state(scene) / "logs").rglob("attempt-*"):
        since_s = time.time() - days * DAY_S
        os.utime(path, (since_s, since_s))


def test_after_a_run_that_ended_in_order_there_is_nothing_to_remove(scene: Scene) -> None:
    before, kept = scene.everything(), files(scene)
    done = epicwave(scene, "gc")
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == "Nothing to remove; 0 bytes."
    now, found = scene.everything(), files(scene)
    assert {p for p in {*kept, *found} if kept.get(p) != found.get(p)} == set()
    assert now == before


def test_in_a_repository_without_epics_it_makes_nothing(tmp_path: Path) -> None:
    fresh = Scene(tmp_path, "fresh")
    assert epicwave(fresh, "gc").output == "Nothing to remove; 0 bytes.\n"
    assert not state(fresh).exists()


def test_leftovers_of_an_attempt_that_is_over_go_and_what_was_unsaved_is_saved(scene: Scene) -> None:
    folder, before = left(scene, "S2/2"), scene.git("rev-parse", f"{RESCUE}/S2/2")
    size_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    said = document(epicwave(scene, "gc", "--json"))
    assert {"kind": "worktree", "name": str(folder), "size_bytes": size_bytes} in said["removed"]
    assert said["counts"] == {
        "worktree": 1,
        "branch": 1,
        "base_ref": 1,
        "integration_worktree": 0,
        "pooled_worktree": 0,
        "trash": 0,
        "rescue_ref": 0,
        "log": 0,
        "journal_backup": 0,
    }
    assert said["size_bytes"] == size_bytes
    assert said["not_removed"] == []
    assert scene.leftovers() == []
    assert scene.git("show", f"{RESCUE}/S2/2:unsaved.txt") == "mine"
    assert scene.git("show", f"{before}:S2.md") == "done"
    scene.git("merge-base", "--is-ancestor", before, f"{RESCUE}/S2/2")  # what was there before is there still


def test_what_was_unsaved_in_an_attempt_of_a_merged_story_is_saved_too(scene: Scene) -> None:
    left(scene, "S1/2", "epicwave/notes")
    assert epicwave(scene, "gc").exit_code == 0
    assert scene.leftovers() == []
    assert scene.git("show", f"{RESCUE}/S1/2:unsaved.txt") == "mine"


def test_an_integration_worktree_of_an_epic_at_rest_goes(scene: Scene) -> None:
    folder = scene.outside / "worktrees/notes/_integration"
    scene.git("worktree", "add", "-q", "--detach", folder, "epicwave/notes")
    assert document(epicwave(scene, "gc", "--json"))["counts"]["integration_worktree"] == 1
    assert scene.leftovers() == []


def space(scene: Scene) -> str:
    (found,) = [each for each in document(epicwave(scene, "doctor", "--json"))["findings"] if each["code"] == "space"]
    return found["what"]


def waiting(scene: Scene) -> tuple[Path, Path]:
    """A worktree in the pool and one that was thrown away, as a kill -9 leaves them."""
    idle, trash = (scene.outside / "worktrees" / name for name in ("_pool/1a2b", "_trash/3c4d"))
    scene.git("worktree", "add", "-q", "--detach", "--lock", "--reason", "epicwave pool", idle)
    trash.mkdir(parents=True)
    (trash / "file").write_text("much", "utf-8")
    return idle, trash


def test_the_pool_is_emptied_and_what_was_thrown_away_is_deleted(scene: Scene) -> None:
    idle, trash = waiting(scene)
    told = space(scene)
    assert "by 1 waiting for the next attempts" in told
    assert "by 1 about to be deleted" in told
    said = document(epicwave(scene, "gc", "--json"))
    kinds = {item["kind"]: item["name"] for item in said["removed"]}
    assert kinds == {"pooled_worktree": str(idle), "trash": str(trash)}
    assert (said["not_ours"], said["not_removed"], scene.leftovers()) == ([], [], [])
    assert list((scene.outside / "worktrees").glob("_*")) == []
    assert "waiting" not in space(scene)


def test_the_pool_of_a_wave_that_goes_on_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    idle, trash = waiting(scene)
    monkeypatch.setattr("mcp_server.cli.garbage.is_alive", bool)
    said = document(epicwave(scene, "gc", "--json"))
    assert {"name": str(idle), "why": "it waits for a story of a wave that is alive"} in said["kept"]
    assert [item["name"] for item in said["removed"]] == [str(trash)]
    assert (idle.exists(), trash.exists()) == (True, False)


def test_a_dry_run_says_the_same_and_changes_nothing(scene: Scene) -> None:
    left(scene, "S2/2")
    age_logs(scene, 20)
    before, kept = scene.everything(), files(scene)
    would = epicwave(scene, "gc", "--dry-run").output.splitlines()
    now, found = scene.everything(), files(scene)
    assert {p for p in {*kept, *found} if kept.get(p) != found.get(p)} == set()
    assert now == before
    assert would.pop() == "Dry run: nothing was changed."
    assert epicwave(scene, "gc").output.splitlines() == would
    assert scene.leftovers() == []


def test_logs_of_merged_stories_go_when_they_are_old_and_no_others(scene: Scene) -> None:
    s1, s2 = logs_of(scene, "S1"), logs_of(scene, "S2")
    assert len(s1) > 2
    age_logs(scene, 13)
    assert document(epicwave(scene, "gc", "--json"))["counts"]["log"] == 0
    assert document(epicwave(scene, "gc", "--json", "--older-than", "12"))["counts"]["log"] == len(s1)
    assert logs_of(scene, "S1") == []
    assert logs_of(scene, "S2") == s2, "its story has failed"


def test_rescue_refs_go_when_they_are_old_and_their_story_is_merged(scene: Scene) -> None:
    aged(scene, f"{RESCUE}/S2/1")
    young = scene.refs(f"{RESCUE}/")
    assert document(epicwave(scene, "gc", "--json"))["counts"]["rescue_ref"] == 0
    assert scene.refs(f"{RESCUE}/") == young
    aged(scene, f"{RESCUE}/S1/1")
    said = document(epicwave(scene, "gc", "--json"))
    assert [item["name"] for item in said["removed"]] == [f"{RESCUE}/S1/1"]
    assert {"name": f"{RESCUE}/S2/1", "why": "its story is failed, not merged"} in said["kept"]
    assert set(scene.refs(f"{RESCUE}/")) == {f"{RESCUE}/S2/1", f"{RESCUE}/S2/2"}


def test_rescue_refs_of_failed_stories_go_only_when_that_is_asked_for(scene: Scene) -> None:
    aged(scene, f"{RESCUE}/S2/1")
    said = document(epicwave(scene, "gc", "--json", "--rescue"))
    assert [item["name"] for item in said["removed"]] == [f"{RESCUE}/S2/1"]
    assert f"{RESCUE}/S2/2" in scene.refs(f"{RESCUE}/"), "it is young"


def test_notes_of_what_has_landed_stay(scene: Scene) -> None:
    landed = scene.refs("refs/epicwave/landed/")
    assert landed
    left(scene, "S1/1")
    epicwave(scene, "gc", "--older-than", "0", "--rescue")
    assert scene.refs("refs/epicwave/landed/") == landed
    assert scene.refs("refs/heads/epicwave/"), "and so does the result"


def test_a_copy_of_an_older_journal_goes_when_it_is_old(scene: Scene) -> None:
    copy = state(scene) / "journal.db.v1-backup"
    copy.write_bytes(b"old")
    assert document(epicwave(scene, "gc", "--json"))["counts"]["journal_backup"] == 0
    since_s = time.time() - 15 * DAY_S
    os.utime(copy, (since_s, since_s))
    assert document(epicwave(scene, "gc", "--json"))["counts"]["journal_backup"] == 1
    assert not copy.exists()
    assert (state(scene) / "journal.db").exists()


def test_what_the_journal_does_not_know_is_named_and_stays(scene: Scene) -> None:
    """Another epicwave's, a person's, and an attempt that this journal has not come to."""
    scene.git("branch", "epicwave-work/other/S1/1")
    scene.git("branch", "epicwave-work/my-own")
    scene.git("branch", "epicwave-work/notes/S2/3")
    scene.git("branch", "epicwave/their-epic")
    scene.git("update-ref", "refs/epicwave/rescue/other/S1/1", "main")
    folder = scene.outside / "worktrees/other/S9-1"
    scene.git("worktree", "add", "-q", "--detach", folder)
    before = scene.everything()
    said = document(epicwave(scene, "gc", "--json", "--older-than", "0", "--rescue"))
    assert set(said["not_ours"]) == {
        "epicwave-work/other/S1/1",
        "refs/heads/epicwave-work/my-own",
        "epicwave-work/notes/S2/3",
        "epicwave/their-epic",
        "refs/epicwave/rescue/other/S1/1",
        str(folder),
    }
    after = scene.everything()
    assert {r: s for r, s in before["refs"].items() if "rescue/notes" not in r} == {
        r: s for r, s in after["refs"].items() if "rescue/notes" not in r
    }
    assert after["trees"] == before["trees"]


def test_a_branch_that_a_worktree_of_the_hosts_has_stays(scene: Scene, tmp_path: Path) -> None:
    """Whether or not all of it is settled; it goes when the worktree does."""
    host = tmp_path / "host"
    scene.git("worktree", "add", "-q", "-b", "epicwave-work/notes/S1/1", host, "main")
    assert document(epicwave(scene, "gc", "--json"))["not_removed"] == []
    scene.git("update-ref", "refs/epicwave/settled/notes/S1/1", "main")
    said = document(epicwave(scene, "gc", "--json"))
    assert said["removed"] == []
    assert [kept["name"] for kept in said["kept"]] == ["epicwave-work/notes/S1/1"]
    assert host.is_dir()
    scene.git("worktree", "remove", host)
    assert document(epicwave(scene, "gc", "--json"))["counts"]["branch"] == 1


def test_while_another_process_has_the_engine_it_is_refused_and_nothing_goes(scene: Scene) -> None:
    left(scene, "S2/2")
    before = scene.everything()
    with holding(state(scene), "another"):
        assert refused(epicwave(scene, "gc")).code == "engine_elsewhere"
        assert epicwave(scene, "gc", "--dry-run").exit_code == 0, "looking is free"
    assert scene.everything() == before


def test_what_cannot_be_removed_is_named_and_the_exit_code_is_1(scene: Scene) -> None:
    left(scene, "S2/2")
    (scene.repo / ".git/refs/heads/epicwave-work/notes/S2/2.lock").touch()
    (scene.repo / ".git/packed-refs.lock").touch()
    done = epicwave(scene, "gc", "--json")
    assert done.exit_code == 1
    (line,) = document(done)["not_removed"]
    assert line.startswith("notes/S2/2: ")


@pytest.mark.journey
def test_an_engine_process_with_nothing_to_do_makes_way(scene: Scene) -> None:
    folder = left(scene, "S2/2")
    (state(scene) / "door.json").unlink(missing_ok=True)
    engine = start(scene.repo, "engine")
    try:
        wait_until((state(scene) / "door.json").exists)
        assert epicwave(scene, "gc").exit_code == 0
        engine.wait(10)
    finally:
        engine.terminate()
        assert finish(engine).code == 0
    assert not folder.exists()


@pytest.mark.journey
def test_an_attempt_that_an_engine_was_killed_in_is_not_over_and_stays(scene: Scene) -> None:
    scene.configure({"attempts": 2})
    scene.play("S4", write("S4.md"), scene.gate("never"))
    scene.epic(story("S4"), id="more")
    running = start(scene.repo, "run", "epic.yaml")
    wait_until((scene.outside / "worktrees/more/S4-1/S4.md").exists)
    running.kill()
    finish(running)
    said = document(epicwave(scene, "gc", "--json", "--older-than", "0", "--rescue"))
    assert said["not_removed"] == []
    assert [kept["name"] for kept in said["kept"]] == ["more/S4/1"]
    assert (scene.outside / "worktrees/more/S4-1/S4.md").exists()
    assert epicwave(scene, "cancel", "more", "S4").exit_code == 0
    assert scene.leftovers() == []
