"""The real client as lead and as worker: epics end merged, and the user's checkout is as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.journeys.claude.box import NEEDS_CLIENT, run_in_box

pytestmark = NEEDS_CLIENT

SERVER = json.dumps({"mcpServers": {"epicwave": {"command": "epicwave", "args": ["serve"]}}})


def _git(repository: Path, *command: str) -> str:
    return subprocess.run(
        ["git", *command], cwd=repository, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout


def _checkout(repository: Path) -> str:
    """All that `git status` says, and where the user's branch is."""
    return _git(repository, "status", "--porcelain=v2", "--branch", "--untracked-files=all")


def _landed(repository: Path) -> list[str]:
    """Paths that the epic's branch has and the user's has not."""
    return _git(repository, "diff", "--name-only", "main...epicwave/trio").split()


def test_a_lead_runs_an_epic_through_the_tools(epic_repository: Path, tmp_path: Path) -> None:
    """The client plans, starts and waits; the scripted agent does the stories."""
    before = _checkout(epic_repository)
    command = ["claude", "-p", "Run the epic trio.yaml.", "--mcp-config", SERVER, "--allowedTools", "mcp__epicwave"]
    ran = run_in_box("lead", command, cwd=epic_repository, scratch=tmp_path, timeout_s=200)
    assert ran.exit_code == 0, ran.stderr
    assert "EPIC done" in ran.stdout, ran.stdout
    assert _landed(epic_repository) == ["notes/S1.md", "notes/S2.md", "notes/S3.md"]
    assert _checkout(epic_repository) == before


def test_an_epic_goes_on_when_the_client_has_ended_and_a_terminal_sees_its_end(
    epic_repository: Path, tmp_path: Path
) -> None:
    """The client only starts it; when it has gone nothing is merged yet, and `epicwave watch` stays to the end."""
    before = _checkout(epic_repository)
    script = {
        s: [{"sleep_s": 15}, {"write": {"path": f"notes/{s}.md", "text": s}}, {"commit": s}] for s in ("S1", "S2", "S3")
    }
    (tmp_path / "script.json").write_text(json.dumps(script), "utf-8")
    claude = ["claude", "-p", "Run the epic trio.yaml.", "--mcp-config", SERVER, "--allowedTools", "mcp__epicwave"]
    then = "epicwave status trio --json && exec epicwave watch trio"
    command = ["sh", "-c", f'"$@" >&2 && {then}', "sh", *claude]
    env = {"EPICWAVE_SCRIPT": str(tmp_path / "script.json")}
    ran = run_in_box("starter", command, cwd=epic_repository, scratch=tmp_path, timeout_s=200, env=env)
    assert ran.exit_code == 0, ran.stdout + ran.stderr
    assert "STARTED" in ran.stderr
    status, end = json.JSONDecoder().raw_decode(ran.stdout)
    assert status["epics"][0]["state"] == "active"
    assert {s["state"] for s in status["epics"][0]["stories"]}.isdisjoint({"merged"}), status
    assert "3 merged" in ran.stdout[end:], ran.stdout
    assert _landed(epic_repository) == ["notes/S1.md", "notes/S2.md", "notes/S3.md"]
    assert _checkout(epic_repository) == before
    assert not ran.left


def test_the_profile_claude_does_the_stories(epic_repository: Path, tmp_path: Path) -> None:
    """The built-in profile's flags let the client write, edit and commit, with nobody there to be asked."""
    before = _checkout(epic_repository)
    command = ["epicwave", "run", "trio.yaml", "--strategy", "asyncio", "--slots", "2", "--agent", "claude"]
    ran = run_in_box("worker", command, cwd=epic_repository, scratch=tmp_path, timeout_s=200)
    assert ran.exit_code == 0, ran.stdout + ran.stderr
    assert _landed(epic_repository) == ["notes/S1.md", "notes/S2.md", "notes/S3.md"]
    assert "Done by the client: S3." in _git(epic_repository, "show", "epicwave/trio:notes/S3.md")
    assert _checkout(epic_repository) == before
    assert not _git(epic_repository, "for-each-ref", "refs/epicwave/rescue/"), "nothing was left to rescue"
