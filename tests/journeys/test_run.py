"""`epicwave run`, `plan` and `status` as a user has them: processes, exit codes, and a checkout that is left alone."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.journeys.programs import epicwave, finish, start, wait_until
from tests.server.scene import Scene, Step, argv, child, commit, epic_text, exit_with, python_check, sleep, story, write

pytestmark = pytest.mark.journey

AN_HOUR = 3_600.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_an_epic_is_run_to_merged(scene: Scene) -> None:
    scene.epic(story("S1"), story("S2"), story("S3", "S1", "S2"), checks=[python_check("print('green')")])
    before = scene.checkout()
    said = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted", "--strategy", "asyncio")
    assert said.code == 0, said
    assert "epicwave land notes" in said.out
    assert "Traceback" not in said.err
    assert {"S1.md", "S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    assert scene.git("merge-base", "--is-ancestor", "main", "epicwave/notes") == ""
    assert scene.checkout() == before
    assert scene.leftovers() == []
    again = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted")
    assert again.code == 0, again
    assert "merged" in again.out


def test_a_plan_is_shown_and_changes_nothing(scene: Scene) -> None:
    scene.epic(story("S1"), story("S2", "S1"), story("S3", files=["S1.md"]))
    before = scene.everything()
    said = epicwave(scene.repo, "plan", "epic.yaml")
    assert said.code == 0, said
    assert "critical path S1 -> S2" in said.out
    assert "conflict: S1 and S3 share S1.md" in said.out
    assert scene.everything() == before


def test_a_failure_exits_with_1_and_says_why(scene: Scene) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", exit_with(9))
    scene.epic(story("S1"), story("S2", "S1"), story("S3"))
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 1, said
    assert "exited with code 9" in " ".join(said.out.split())
    assert "Blocked by S1" in said.out
    assert "S3.md" in scene.tree("epicwave/notes"), "what does not depend on it is done"
    status = epicwave(scene.repo, "status", "notes")
    assert status.code == 0
    assert "exited with code 9" in " ".join(status.out.split())


def test_status_refuses_an_unknown_epic_and_tells_of_an_empty_repository(scene: Scene) -> None:
    before = scene.everything()
    assert "epicwave run" in epicwave(scene.repo, "status").out
    assert epicwave(scene.repo, "status", "nots").refused().startswith("unknown_epic: ")
    assert scene.everything() == before


def test_checks_of_the_configuration_the_epic_and_the_story_must_all_pass(scene: Scene) -> None:
    scene.configure({"attempts": 1, "fail_fast": False, "checks": [_absent("A.md")]})
    scene.epic(story("A"), story("B"), story("C", checks=[_absent("C.md")]), story("D"), checks=[_absent("B.md")])
    said = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted")
    assert said.code == 1, said
    merged = scene.tree("epicwave/notes").keys() - scene.tree("main").keys()
    assert merged == {"D.md"}


def _absent(name: str) -> list[str]:
    return list(python_check(f"import os, sys; sys.exit(os.path.exists({name!r}))"))


def test_through_runs_up_to_that_wave_and_the_next_run_goes_on(scene: Scene) -> None:
    scene.epic(story("S1"), story("S2", "S1"))
    first = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted", "--through", "1")
    assert first.code == 1, first
    assert "S1.md" in scene.tree("epicwave/notes")
    assert "S2.md" not in scene.tree("epicwave/notes")
    assert epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted").code == 0
    assert "S2.md" in scene.tree("epicwave/notes")


def test_what_the_file_marks_as_done_is_run_with_redo_only(scene: Scene) -> None:
    scene.play("S1", write("S1.md"), commit())
    scene.epic(story("S1", status="done"), story("S2", "S1", agent="scripted"))
    assert epicwave(scene.repo, "run", "epic.yaml").code == 0
    assert scene.starts("S1") == 0
    assert "S2.md" in scene.tree("epicwave/notes")
    assert epicwave(scene.repo, "run", "epic.yaml", "--redo").code == 0
    assert scene.starts("S1") == 1


def test_a_checkout_in_any_state_is_said_and_left_alone_byte_for_byte(scene: Scene) -> None:
    """Changed, staged, untracked and ignored files, a detached HEAD: stories start from HEAD."""
    (scene.repo / ".gitignore").write_text("*.log\n", "utf-8")
    (scene.repo / "staged.md").write_text("staged\n", "utf-8")
    scene.git("add", ".gitignore", "staged.md")
    (scene.repo / "app.py").write_text("print('changed')\n", "utf-8")
    (scene.repo / "S1.md").write_text("mine, untracked, and what the story writes\n", "utf-8")
    (scene.repo / "run.log").write_text("ignored\n", "utf-8")
    scene.git("checkout", "-q", "--detach")
    scene.epic(story("S1", files=["S1.md", "app.py"]))
    before = scene.checkout()
    said = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted")
    assert said.code == 0, said
    assert "untracked" in said.out
    assert "detached" in said.out
    assert scene.checkout() == before
    assert "changed" not in scene.git("show", "epicwave/notes:app.py")
    assert "staged.md" not in scene.tree("epicwave/notes")


def test_it_is_started_in_a_subfolder_or_a_linked_worktree(scene: Scene) -> None:
    below = scene.repo / "docs" / "deep"
    below.mkdir(parents=True)
    (below / "e.yaml").write_text(epic_text(story("S1"), id="below"), "utf-8")
    assert epicwave(below, "run", "e.yaml", "--agent", "scripted").code == 0
    assert "S1.md" in scene.tree("epicwave/below")

    linked = scene.outside / "linked"
    scene.git("worktree", "add", "-q", "-b", "other", linked)
    scene.git("commit", "-q", "--allow-empty", "-m", "Of the other branch", at=linked)
    (linked / "e.yaml").write_text(epic_text(story("S1"), id="linked"), "utf-8")
    assert epicwave(linked, "run", "e.yaml", "--agent", "scripted").code == 0
    assert scene.git("merge-base", "--is-ancestor", "other", "epicwave/linked") == ""
    assert scene.git("status", "--porcelain", at=linked) == "?? e.yaml"
    assert "linked" in epicwave(scene.repo, "status").out, "one journal for all worktrees"


def test_a_path_with_spaces_and_other_letters_is_no_obstacle(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "Ordner mit Käse 日本", "mein répo's")
    name = "ä b.md"
    scene.epic(story("S1", files=[name], title="Grüße an 世界"))
    said = epicwave(scene.repo, "run", "epic.yaml", "--agent", "scripted")
    assert said.code == 0, said
    assert name in scene.git("ls-tree", "-r", "-z", "--name-only", "epicwave/notes").split("\0")
    assert scene.leftovers() == []


def test_one_after_the_other_and_side_by_side_come_to_the_same_tree(tmp_path: Path) -> None:
    trees: list[dict[str, str]] = []
    for strategy in ("sequential", "asyncio"):
        scene = Scene(tmp_path / strategy)
        same: Step = {"append": {"path": "shared.md", "text": "a line of each\n"}}
        for name in ("S1", "S2", "S3", "S4"):
            scene.play(name, same, write(f"{name}.md"), commit())
        scene.play("S5", write("S5.md"), commit())
        shared = {"files": ["shared.md"]}
        scene.epic(*[story(f"S{n}", **shared) for n in (1, 2, 3)], story("S4", "S1", **shared), story("S5"))
        assert epicwave(scene.repo, "run", "epic.yaml", "--strategy", strategy).code == 0
        trees.append({k: v for k, v in scene.tree("epicwave/notes").items() if not k.startswith(".epicwave/")})
    assert trees[0] == trees[1]
    assert {"S1.md", "S2.md", "S3.md", "S4.md", "S5.md", "shared.md"} <= trees[0].keys()
    assert scene.git("show", "epicwave/notes:shared.md").count("\n") == 3, "four lines: each saw the others'"


def test_two_runs_at_once_are_one_run_and_a_kind_refusal(scene: Scene) -> None:
    scene.play("S1", scene.gate("go"), write("S1.md"), commit())
    scene.epic(story("S1"))
    first = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: scene.starts("S1") == 1)
    said = epicwave(scene.repo, "run", "epic.yaml").refused()
    assert said.startswith("engine_elsewhere: ")
    assert f"`epicwave run` (process {first.pid})" in said
    assert "running" in epicwave(scene.repo, "status").out
    scene.open("go")
    assert finish(first).code == 0
    assert scene.starts("S1") == 1


def test_a_hook_of_the_user_stops_agents_with_its_own_words_and_never_our_merges(scene: Scene) -> None:
    hooks = scene.repo / ".git" / "hooks"
    refusing = "#!/bin/sh\n[ \"$EPICWAVE_STORY\" != S1 ] || { echo 'the hook says no' >&2; exit 1; }\n"
    (hooks / "pre-commit").write_text(refusing, "utf-8")
    for name in ("post-checkout", "pre-rebase", "reference-transaction", "post-rewrite", "post-commit"):
        (hooks / name).write_text('#!/bin/sh\n[ -n "$EPICWAVE_STORY" ]\n', "utf-8")
    for hook in hooks.iterdir():
        hook.chmod(0o755)
    scene.configure({"attempts": 1, "fail_fast": False})
    honest = [{"run": ["git", "add", "-A"]}, {"run": ["git", "commit", "-q", "-m", "With hooks"]}]
    scene.play("S1", write("S1.md"), *honest)
    scene.play("S2", write("S2.md"), *honest)
    scene.play("S3", write("S3.md"), commit())
    scene.epic(story("S1"), story("S2"), story("S3", "S2"))
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 1, said
    assert {"S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    assert "S1.md" not in scene.tree("epicwave/notes")
    log = scene.repo / ".git" / "epicwave" / "logs" / "notes" / "S1" / "attempt-1.log"
    assert "the hook says no" in log.read_text("utf-8")
    assert "S1.md" in scene.tree("refs/epicwave/rescue/notes/S1/1")


def _half_done(scene: Scene, *, deaf: bool = False) -> Path:
    """S1 is quick, S2 works forever in its first attempt, S3 waits for it."""
    scene.play("S1", write("S1.md"), commit())
    scene.play("S2", write("S2.md"), commit(), write("loose.md"), child(AN_HOUR, deaf=deaf), attempt=1)
    for attempt in (2, 3):
        scene.play("S2", write("S2.md"), commit(), attempt=attempt)
    scene.play("S3", write("S3.md"), commit())
    return scene.epic(story("S1"), story("S2", "S1"), story("S3", "S2"))


def _goes_on(scene: Scene) -> None:
    """The same command goes on: merged stories are not run again, half-done work is on a rescue ref."""
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 0, said
    assert {name: scene.starts(name) for name in ("S1", "S2", "S3")} == {"S1": 1, "S2": 2, "S3": 1}
    assert {"S1.md", "S2.md", "S3.md"} <= scene.tree("epicwave/notes").keys()
    assert {"S2.md", "loose.md"} <= scene.tree("refs/epicwave/rescue/notes/S2/1").keys()
    assert scene.leftovers() == []


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_agents_saves_their_work_and_goes_on(scene: Scene, number: signal.Signals) -> None:
    _half_done(scene)
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: len(scene.processes()) == 3 and scene.starts("S2") == 1 and _waits(scene))
    running.send_signal(number)
    said = finish(running)
    assert said.code == 130, said
    assert "Run the same command to go on" in said.out
    assert "Traceback" not in said.err
    assert scene.leftovers() == []
    _goes_on(scene)


def _waits(scene: Scene) -> bool:
    """The agent has come to its last step: its child runs."""
    said = [" ".join(argv(process)) for process in scene.processes()]
    return any("signal" in words or "float(sys.argv[1])" in words for words in said)


@posix
def test_a_killed_run_leaves_no_agent_and_goes_on(scene: Scene) -> None:
    _half_done(scene, deaf=True)
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(lambda: len(scene.processes()) == 3 and _waits(scene))
    running.kill()
    assert finish(running).code == -signal.SIGKILL
    wait_until(lambda: not scene.processes(), 15)
    _goes_on(scene)


def test_what_a_killed_run_left_in_the_merge_queue_is_merged_before_an_edited_epic_is_taken(scene: Scene) -> None:
    """The finished story is not paid for again, and the edit is not refused because of it."""
    checking, go = scene.outside / "checking", scene.outside / "go"
    waits = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.05)"
    )
    scene.configure({"checks": [[sys.executable, "-c", waits, str(checking), str(go)]]})
    scene.play("S1", write("S1.md"), commit())
    scene.epic(story("S1"))
    running = start(scene.repo, "run", "epic.yaml")
    wait_until(checking.exists)
    running.kill()
    finish(running)
    go.touch()
    scene.epic(story("S1"), story("S2", "S1"))
    said = epicwave(scene.repo, "run", "epic.yaml")
    assert said.code == 0, said
    assert "merged first" in said.out
    assert {"S1.md", "S2.md"} <= scene.tree("epicwave/notes").keys()
    assert scene.starts("S1") == 1


def test_a_stall_and_a_time_limit_end_an_attempt_as_their_own_cause(scene: Scene) -> None:
    scene.configure({"attempts": 1, "fail_fast": False, "attempt_timeout_s": 3, "stall_timeout_s": 0.7})
    scene.play("QUIET", sleep(AN_HOUR))
    scene.play("LONG", *[step for _ in range(100) for step in ({"print": "still here"}, sleep(0.1))])
    scene.epic(story("QUIET"), story("LONG"))
    said = epicwave(scene.repo, "run", "epic.yaml", "--strategy", "asyncio")
    assert said.code == 1, said
    assert "ended as stall" in said.out
    assert "ended as timeout" in said.out
    assert scene.leftovers() == []
