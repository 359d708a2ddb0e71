"""`epicwave init` as a user runs it: a process in a repository, and what it wrote at work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters

from mcp_server.cli import init as cli_init
from mcp_server.cli.init import Asked, write_project
from mcp_server.errors import Refused
from tests.journeys.programs import Said
from tests.server.lead import ERAS, leading
from tests.server.scene import environment

pytestmark = [pytest.mark.journey, pytest.mark.anyio]

PROGRAM = (sys.executable, "-m", "mcp_server.cli")
COMMAND = ("--command", f"'{sys.executable}' -m mcp_server.cli serve")


def _git(folder: Path, *words: str) -> str:
    ran = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8")
    return ran.stdout


def _init(folder: Path, *words: str) -> Said:
    ran = subprocess.run(
        [*PROGRAM, "init", *words],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return Said(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit, settings of its owner's, and a folder."""
    top = tmp_path / "repository"
    (top / "src").mkdir(parents=True)
    (top / "src/app.py").write_text("print('hello')\n", "utf-8")
    (top / ".claude").mkdir()
    (top / ".claude/settings.json").write_text('{\n    "model": "opus"\n}\n', "utf-8")
    (top / ".gitignore").write_text("*.log", "utf-8")
    _git(top, "init", "-q", "-b", "main")
    _git(top, "add", "-A")
    _git(top, "commit", "-q", "-m", "Begin")
    return top


def test_init_from_a_folder_below_and_remove_leave_the_repository_as_it_was(repository: Path) -> None:
    said = _init(repository / "src", *COMMAND)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert "made         .mcp.json" in lines
    assert "changed      .claude/settings.json" in lines
    assert lines[-1].startswith("Next: ")
    changed = {line[3:] for line in _git(repository, "status", "--porcelain", "-uall").splitlines()}
    assert changed == {line[13:] for line in lines[:-1]}, "each file has its line"
    _git(repository, "check-ignore", ".claude/worktrees/agent-1/src")

    again = _init(repository, *COMMAND)
    assert {line[:12].rstrip() for line in again.out.splitlines()[:-1]} == {"unchanged"}
    assert again.out.splitlines()[-1].startswith("Nothing to do")

    gone = _init(repository, "--remove")
    assert gone.code == 0
    assert _git(repository, "status", "--porcelain", "--ignored") == ""
    assert not (repository / ".cursor").exists()
    assert _init(repository, "--remove").out == "There is nothing to take back.\n"


def test_a_dry_run_writes_nothing(repository: Path) -> None:
    said = _init(repository, "--dry-run")
    assert said.code == 0
    assert "would make   .mcp.json" in said.out
    assert said.out.endswith("Dry run: nothing was written.\n")
    assert _git(repository, "status", "--porcelain", "--ignored") == ""


def test_settings_with_a_comment_are_refused_and_nothing_is_written(repository: Path) -> None:
    (repository / ".claude/settings.json").write_text('{\n  // mine\n  "model": "opus"\n}\n', "utf-8")
    said = _init(repository).refused()
    assert said.startswith("bad_config: .claude/settings.json, line 2: a comment")
    assert "Nothing was written." in said
    assert _git(repository, "status", "--porcelain") == " M .claude/settings.json\n"


def test_outside_of_a_repository_it_is_refused(tmp_path: Path) -> None:
    assert _init(tmp_path).refused().startswith("not_a_repository: ")
    assert list(tmp_path.iterdir()) == []


def test_it_may_come_before_the_first_commit(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert _init(tmp_path).code == 0
    assert (tmp_path / ".mcp.json").is_file()


async def test_epicwaves_own_checkout_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the files are the source, and --remove would take that away."""
    monkeypatch.setattr(cli_init, "package_files", repository.resolve)
    with pytest.raises(Refused, match="own checkout"):
        await write_project(repository, Asked(remove=True))


@pytest.mark.parametrize("editor", [".mcp.json", ".cursor/mcp.json"])
async def test_the_server_starts_by_what_was_written(repository: Path, tmp_path: Path, editor: str) -> None:
    """Claude Code starts it in the repository; Cursor starts it in the home, and says where the repository is."""
    _init(repository, *COMMAND)
    entry = json.loads((repository / editor).read_bytes())["mcpServers"]["epicwave"]
    args = [arg.replace("${workspaceFolder}", str(repository)) for arg in entry["args"]]
    cwd = repository if editor == ".mcp.json" else tmp_path
    server = StdioServerParameters(command=entry["command"], args=args, cwd=cwd, env=environment())
    async with leading(server, ERAS[0]) as lead:
        assert "story_status" in {tool.name for tool in (await lead.client.list_tools()).tools}
        await lead.ask("story_status")


@pytest.mark.skipif(sys.platform == "win32", reason="Claude Code runs hooks by a POSIX shell")
def test_the_hook_of_the_settings_finds_its_script(repository: Path) -> None:
    """As the host runs it: by a shell, from a sub-agent's folder, with the project's folder in the environment."""
    _init(repository, *COMMAND)
    before, *_ = json.loads((repository / ".claude/settings.json").read_bytes())["hooks"]["PreToolUse"]
    call = {"hook_event_name": "PreToolUse", "tool_name": "mcp__epicwave__claim_story", "tool_input": {"epic": "e"}}
    ran = subprocess.run(
        ["sh", "-c", before["hooks"][0]["command"]],
        cwd=repository / "src",
        env=environment(CLAUDE_PROJECT_DIR=str(repository)),
        input=json.dumps({**call, "agent_id": "a1", "cwd": "/there"}),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)["hookSpecificOutput"]
    assert told["permissionDecision"] == "allow"
    assert told["updatedInput"] == {"epic": "e", "agent": "a1", "cwd": "/there"}
