"""The environment of a worktree, in real git and by real processes: copies, set-up, ports, a quota."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mcp_server.adapters.journal.sqlite import SqliteJournal
from mcp_server.core.events import AttemptFailed
from mcp_server.core.model import Cause
from tests.journeys.programs import epicwave
from tests.server.scene import PYTHON, Scene, Step, commit, sleep, story, write

pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform == "win32", reason="shell lines")]


def python(code: str) -> list[str]:
    return [*PYTHON, "-c", code]


def sees(code: str, scene: Scene, name: str) -> Step:
    """The agent notes what an expression is in its worktree and its environment."""
    put = f"import os; open({str(scene.outside / name)!r}, 'a').write(str({code}) + '\\n')"
    return {"run": python(put)}


def seen(scene: Scene, name: str) -> list[str]:
    return (scene.outside / name).read_text("utf-8").splitlines()


def failures(scene: Scene) -> list[AttemptFailed]:
    journal = SqliteJournal(scene.repo / ".git" / "epicwave" / "journal.db")
    found = [e for e in journal.replay() if isinstance(e, AttemptFailed)]
    journal.close()
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A repository that ignores `.env` and `node_modules`, and has copies of `.env` made."""
    found = Scene(tmp_path)
    (found.repo / ".gitignore").write_text(".env\nnode_modules/\n", "utf-8")
    (found.repo / ".worktreeinclude").write_text(".env\n", "utf-8")
    found.git("add", "-A")
    found.git("commit", "-q", "-m", "Ignore")
    (found.repo / ".env").write_text("SECRET=1\n", "utf-8")
    return found


LOOK = "(open('.env').read(), os.listdir('node_modules'), os.environ['EPICWAVE_PORT_BASE'])"


def test_agents_and_checks_find_copies_and_what_the_set_up_made_and_nothing_of_it_comes_into_git(scene: Scene) -> None:
    install = "import os, shutil; os.mkdir('node_modules'); shutil.copy('.env', 'node_modules/lib')"
    look = f"import os; print({LOOK})"
    scene.configure(
        {"setup": [python(install)], "checks": [python(look)], "port_base": 31000, "parallel_strategy": "asyncio"}
    )
    scene.git("commit", "-q", "-am", "Set up")
    for name in ("S1", "S2"):
        scene.play(name, sees(LOOK, scene, name), write(f"{name}.md"), commit())
    scene.epic(story("S1"), story("S2"))
    before = scene.checkout()
    ran = epicwave(scene.repo, "run", "epic.yaml")
    assert ran.code == 0, ran
    assert sorted(seen(scene, "S1") + seen(scene, "S2")) == [
        "('SECRET=1\\n', ['lib'], '31000')",
        "('SECRET=1\\n', ['lib'], '31010')",
    ]
    assert {"S1.md", "S2.md"} <= scene.tree("epicwave/notes").keys()
    assert not {".env", "node_modules/lib"} & scene.tree("epicwave/notes").keys()
    assert scene.refs("refs/epicwave/rescue/") == {}
    assert scene.checkout() == before
    assert scene.leftovers() == []


def test_cursors_commands_are_taken_with_the_users_checkout_in_reach(scene: Scene) -> None:
    (scene.repo / ".cursor").mkdir()
    lines = '["mkdir node_modules && cp \\"$ROOT_WORKTREE_PATH/.env\\" node_modules/copy"]'
    (scene.repo / ".cursor" / "worktrees.json").write_text(f'{{"setup-worktree": {lines}}}', "utf-8")
    scene.git("add", "-A")
    scene.git("commit", "-q", "-m", "As in Cursor")
    scene.play("S1", sees("open('node_modules/copy').read()", scene, "S1"), write("S1.md"), commit())
    scene.epic(story("S1"))
    ran = epicwave(scene.repo, "run", "epic.yaml")
    assert ran.code == 0, ran
    assert seen(scene, "S1") == ["SECRET=1", ""]


def test_a_set_up_that_fails_ends_the_attempt_as_setup_with_its_output_and_starts_no_agent(scene: Scene) -> None:
    scene.configure({"setup": [python("print('no network'); raise SystemExit(3)")], "epic_timeout_s": 6})
    scene.git("commit", "-q", "-am", "Set up")
    scene.play("S1", write("S1.md"), commit())
    scene.epic(story("S1"))
    ran = epicwave(scene.repo, "run", "epic.yaml")
    assert ran.code == 1, ran
    assert "ended as setup: The set-up command" in ran.out
    assert "exited with code 3: no network" in ran.out
    [first, *_] = failures(scene)
    assert (first.cause, first.tail) == (Cause.SETUP, "no network")
    assert scene.starts("S1") == 0
    log = scene.repo / ".git" / "epicwave" / "logs" / "notes" / "S1" / "attempt-1.setup.log"
    assert "no network" in log.read_text("utf-8")
    assert scene.leftovers() == []


def test_an_agent_that_fills_its_worktree_is_ended_with_its_processes(scene: Scene) -> None:
    scene.configure({"worktree_quota_mb": 5, "attempts": 1})
    scene.git("commit", "-q", "-am", "Quota")
    fill = {"run": python("open('.env', 'wb').write(b'x' * 9_000_000)")}
    scene.play("S1", fill, sleep(120))
    scene.epic(story("S1"))
    ran = epicwave(scene.repo, "run", "epic.yaml")
    assert ran.code == 1, ran
    [failed] = failures(scene)
    assert (failed.cause, failed.detail) == (
        Cause.QUOTA,
        "It was ended because its worktree grew beyond 5 MB (worktree_quota_mb).",
    )
    assert scene.leftovers() == []
