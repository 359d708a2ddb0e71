"""The built-in agent does real work on a real repository, through the real runner."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.core.model import Cause, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.ports import AgentCall, ProcessEnd
from mcp_server.testing.scripted_agent import declared

pytestmark = pytest.mark.anyio


class Repository:
    """A repository with one commit, and a story to be done in it."""

    def __init__(self, top: Path) -> None:
        self.top = top / "repo"
        self.logs = top / "logs"
        self.top.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("app.py", "print('app')")
        self.git("add", ".")
        self.git("commit", "-qm", "start")

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=T", "-c", "user.email=t@t")
        return subprocess.run(
            ["git", *identity, *words], cwd=self.top, check=True, capture_output=True, text=True
        ).stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_bytes(text.encode())

    def read(self, path: str) -> str:
        return (self.top / path).read_bytes().decode()

    async def work(self, *files: str, number: int = 1) -> ProcessEnd:
        listed = "\n".join(f"- {file}" for file in files)
        before = "# Story S-1: Make it ✓\n\n## What to do\n\n## Files\n\n- as a description may have it\n"
        brief = f"{before}\n## Files\n\n{listed}\n\nStay within these.\n\n## Checks\n\n- `x`\n"
        runner = ProcessRunner(self.logs, self.top / ".git")
        call = AgentCall(AttemptId("E", "S-1", number), "scripted", self.top, brief, 60, 60)
        return await runner.run_agent(call, lambda _: None, lambda _: None)

    def committed(self) -> list[str]:
        assert self.git("status", "--porcelain") == ""
        return self.git("diff", "--name-only", "HEAD~1", "HEAD").splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(entry: object) -> None:
        (tmp_path / "script.json").write_text(json.dumps({"S-1": entry}))
        monkeypatch.setenv("EPICWAVE_SCRIPT", str(tmp_path / "script.json"))

    return write


async def test_each_file_gets_a_line_in_its_own_comment_syntax_and_is_committed(repository: Repository) -> None:
    repository.write("web/page.html", "<p>\r\n")
    repository.write("package.json", '{"name": "x"}')
    repository.git("add", ".")
    repository.git("commit", "-qm", "more")
    end = await repository.work("app.py", "web/page.html", "web/new.ts", "package.json", "Makefile")
    assert end.exit_code == 0, end.tail
    assert repository.committed() == ["Makefile", "app.py", "package.json", "web/new.ts", "web/page.html"]
    assert repository.read("app.py") == "print('app')\n# S-1, attempt 1\n"
    assert repository.read("web/page.html") == "<p>\r\n<!-- S-1, attempt 1 -->\r\n"
    assert repository.read("web/new.ts") == "// S-1, attempt 1\n"
    assert json.loads(repository.read("package.json")) == {"name": "x", "x-stories": {"S-1": "1"}}
    assert repository.git("log", "-1", "--format=%s") == "Story S-1: Make it ✓"


async def test_globs_and_folders_get_a_file_of_the_storys_own_name(repository: Repository) -> None:
    end = await repository.work("docs/", "src/**/*.py", "tests/test_*.py", "lib/[ab]?.{js,ts}", "*/deep/x.go")
    assert end.exit_code == 0, end.tail
    assert repository.committed() == ["docs/s_1.md", "lib/ax.js", "s_1/deep/x.go", "src/s_1.py", "tests/test_s_1.py"]


async def test_what_can_take_no_line_leaves_a_note_instead(repository: Repository) -> None:
    """Binaries, ignored files and paths that lead outside are let be, and the story still has a commit."""
    (repository.top / "logo.png").write_bytes(b"\x89PNG\xff\xfe")
    repository.write(".gitignore", "secret\n")
    repository.git("add", ".")
    repository.git("commit", "-qm", "more")
    end = await repository.work("logo.png", "secret", "../outside.py")
    assert end.exit_code == 0, end.tail
    assert repository.committed() == ["docs/stories/s-1.md"]
    assert not (repository.top.parent / "outside.py").exists()


async def test_hooks_signing_and_a_missing_identity_do_not_stop_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME", raising=False)
        monkeypatch.delenv(f"GIT_{role}_EMAIL", raising=False)
    hook = repository.top / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    repository.git("config", "commit.gpgSign", "true")
    end = await repository.work("app.py")
    assert end.exit_code == 0, end.tail
    assert repository.committed() == ["app.py"]


async def test_a_script_is_done_step_by_step(repository: Repository, script: Any) -> None:
    script(
        [
            {"print": "hello ✓"},
            {"write": {"path": "a/b.txt", "text": "one\n"}},
            {"append": {"path": "a/b.txt", "text": "two\n"}},
            {"replace": {"path": "app.py", "old": "app", "new": "APP"}},
            {"commit": "by script"},
            {"delete": "app.py"},
            {"sleep_s": 0.01},
            {"run": ["git", "stash", "-q"]},
            {"exit": 9},
        ]
    )
    end = await repository.work("app.py")
    assert end.exit_code == 9
    assert "\nhello ✓\n" in end.tail
    assert repository.committed() == ["a/b.txt", "app.py"]
    assert (repository.read("a/b.txt"), repository.read("app.py")) == ("one\ntwo\n", "print('APP')")


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([{"run": ["git", "nonsense"]}], 1),
        ([{"replace": {"path": "app.py", "old": "nowhere", "new": ""}}], 1),
        ([{"fly": 1}], 1),
        ([{"commit": "nothing to commit"}], 1),
    ],
)
async def test_a_step_that_fails_ends_it(repository: Repository, script: Any, steps: object, code: int) -> None:
    script(steps)
    end = await repository.work()
    assert end.exit_code == code
    assert repository.git("rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize(
    ("step", "trouble", "in_s"),
    [
        ({"rate_limit": 90}, Cause.RATE_LIMIT, 90),
        ({"rate_limit": None}, Cause.RATE_LIMIT, None),
        ({"api_error": "overloaded"}, Cause.API_ERROR, None),
        ({"crash": 9}, Cause.CRASH, None),
        ({"exit": 1}, None, None),
    ],
)
async def test_trouble_can_be_played_and_is_recognised(
    repository: Repository, script: Any, step: object, trouble: Cause | None, in_s: float | None
) -> None:
    script([{"print": "scripted: rate limit, try again in 5 seconds"}, {"usage": {"usd": 0.25, "tokens": 70}}, step])
    end = await repository.work("app.py")
    assert end.trouble is trouble, end.tail
    assert (end.resumes_at_s and end.resumes_at_s - time.time()) == (in_s and pytest.approx(in_s, abs=20))
    assert end.usage == Usage(0.25, 70)


async def test_a_script_may_write_what_its_story_did_not_declare(repository: Repository, script: Any) -> None:
    script([{"write": {"path": "other.txt", "text": "x"}}, {"commit": "strayed"}])
    assert (await repository.work("app.py")).exit_code == 0
    assert repository.committed() == ["other.txt"]


async def test_each_attempt_may_have_its_own_steps_and_others_get_the_default(
    repository: Repository, script: Any
) -> None:
    script({"1": [{"exit": 3}]})
    assert (await repository.work("app.py")).exit_code == 3
    assert (await repository.work("app.py", number=2)).exit_code == 0
    assert repository.read("app.py").endswith("# S-1, attempt 2\n")


def test_a_brief_without_files_declares_none() -> None:
    assert declared("# Title\n\n## What to do\n\n- not a file\n") == []
