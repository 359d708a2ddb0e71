"""What the doctor finds of the agents: not there, silent, or kept from committing when nobody is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mcp_server.cli import doctor_agents
from tests.cli.patient import levels, posix, program, the
from tests.cli.shell import epicwave
from tests.server.scene import Scene, exit_with, story

pytestmark = posix


def claude_settings(folder: Path, permissions: Mapping[str, list[str]]) -> None:
    (folder / ".claude").mkdir(parents=True, exist_ok=True)
    (folder / ".claude" / "settings.json").write_text(json.dumps({"permissions": permissions}), "utf-8")


def test_an_agent_that_is_not_installed_is_found(scene: Scene) -> None:
    scene.configure({"agent": "gemini"})
    assert the(scene, "agent")["level"] == "error"
    program(scene, "gemini", "echo 0.9.1")
    assert levels(scene)["agent"] == "ok"


def test_agents_of_stories_are_looked_at_too_until_they_are_done(scene: Scene) -> None:
    scene.configure({"attempts": 1})
    scene.play("S1", exit_with(9))
    program(scene, "codex", "exit 1")
    scene.epic(story("S1"), story("S2", "S1", agent="codex"))
    assert epicwave(scene, "run", str(scene.repo / "epic.yaml")).exit_code == 1
    assert "codex --version` ended with 1" in the(scene, "agent")["what"]


def test_under_agent_teams_a_missing_program_is_only_a_note(scene: Scene) -> None:
    scene.configure({"agent": "gemini", "parallel_strategy": "agent-teams"})
    assert the(scene, "agent")["level"] == "note"


def test_an_agent_that_hangs_is_found_in_bounded_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_agents, "VERSION_BOUND_S", 1.0)
    program(scene, "gemini", "sleep 3000 & sleep 3000")
    scene.configure({"agent": "gemini"})
    began_s = time.monotonic()
    assert "said nothing for 1 s" in the(scene, "agent")["what"]
    assert time.monotonic() - began_s < 30


def test_a_command_of_the_users_own_is_not_run_to_see_what_it_says(scene: Scene) -> None:
    program(scene, "mine", f"touch {scene.outside}/was-run")
    scene.configure({"agent": "mine"}, {"mine": {"command": ["mine"]}})
    assert levels(scene)["agent"] == "ok"
    assert not (scene.outside / "was-run").exists()


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        ("claude -p", "Bash"),
        ("claude -p --allowedTools Read,Edit", "Bash"),
        ("claude -p --permission-mode acceptEdits", "Bash"),
        ("claude --allowedTools Bash", "-p"),
        ("cursor-agent -p", "--force"),
        ("cursor-agent --force", "-p"),
        ("codex exec -", "may write"),
        ("codex exec --sandbox read-only -", "may write"),
        ("codex --yolo", "exec"),
        ("gemini --approval-mode auto_edit", "yolo"),
    ],
)
def test_an_agent_that_would_have_to_ask_is_found(scene: Scene, command: str, lacks: str) -> None:
    program(scene, command.split(maxsplit=1)[0], "echo 1.0")
    scene.configure({"agent": "mine"}, {"mine": {"command": command}})
    found = the(scene, "unattended")
    assert lacks in found["what"]
    assert found["level"] == "error"


@pytest.mark.parametrize(
    "command",
    [
        "claude -p --allowedTools Bash,Edit",
        "claude --print --allowedTools 'Bash(git add:*)' 'Bash(git commit:*)' --verbose",
        "claude -p --allowed-tools=Bash",
        "claude -p --dangerously-skip-permissions",
        "claude -p --permission-mode bypassPermissions",
        "agent -p -f",
        "codex exec --full-auto -",
        "codex exec -s danger-full-access -",
        "gemini --yolo",
        "my-own-thing --whatever",
    ],
)
def test_an_agent_that_asks_nobody_is_sound(scene: Scene, command: str) -> None:
    program(scene, command.split(maxsplit=1)[0], "echo 1.0")
    scene.configure({"agent": "mine"}, {"mine": {"command": command}})
    assert levels(scene)["unattended"] == "ok"


@pytest.mark.parametrize("name", ["claude", "cursor", "codex", "gemini", "opencode", "scripted"])
def test_the_built_in_agents_ask_nobody(scene: Scene, name: str) -> None:
    scene.configure({"agent": name})
    assert levels(scene)["unattended"] == "ok"


def test_what_claude_codes_settings_allow_counts_for_its_command(scene: Scene) -> None:
    program(scene, "claude", "echo 1.0")
    scene.configure({"agent": "claude -p --permission-mode acceptEdits"})
    assert levels(scene)["unattended"] == "error"
    claude_settings(scene.repo, {"allow": ["Bash(git *)"]})
    assert levels(scene)["unattended"] == "ok"


@pytest.mark.parametrize("kind", ["deny", "ask"])
@pytest.mark.parametrize(
    "rule", ["Bash", "Bash(*)", "Bash(git commit:*)", "Bash(git commit *)", "Bash(git *)", "Edit", "Write(**)"]
)
def test_a_rule_that_keeps_agents_from_their_work_is_found(scene: Scene, kind: str, rule: str) -> None:
    program(scene, "claude", "echo 1.0")
    scene.configure({"agent": "claude"})
    claude_settings(scene.repo, {kind: ["Bash(curl:*)", rule]})
    found = the(scene, "permissions")
    assert rule in found["what"]
    assert f"permissions.{kind}" in found["remedy"]


@pytest.mark.parametrize("rule", ["Bash(git push:*)", "Bash(git commit-tree *)", "Edit(./.env)", "Read", "WebFetch"])
def test_a_rule_about_something_else_is_sound(scene: Scene, rule: str) -> None:
    program(scene, "claude", "echo 1.0")
    scene.configure({"agent": "claude"})
    claude_settings(scene.repo, {"deny": [rule]})
    assert levels(scene)["permissions"] == "ok"


def test_rules_of_the_users_own_settings_count_and_those_for_sub_agents_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    claude_settings(scene.outside, {"deny": ["Bash"]})
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(scene.outside / ".claude"))
    assert levels(scene)["permissions"] == "ok", "the scripted agent knows no such rules"
    scene.configure({"parallel_strategy": "agent-teams"})
    assert "Your settings deny" in the(scene, "permissions")["what"]


def test_settings_that_cannot_be_read_are_found(scene: Scene) -> None:
    program(scene, "claude", "echo 1.0")
    scene.configure({"agent": "claude"})
    (scene.repo / ".claude").mkdir()
    (scene.repo / ".claude/settings.json").write_text('{"permissions": {"deny": {}}}', "utf-8")
    assert the(scene, "permissions")["level"] == "warning"
