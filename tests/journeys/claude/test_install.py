"""The plugin in the real client: it is valid, it installs from the repository itself, it brings its tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.claude import checkout
from tests.journeys.claude.box import NEEDS_CLIENT, run_in_box
from tests.journeys.claude.checkout import WHOLE, notes
from tests.journeys.claude.conftest import ROOT
from tests.journeys.claude.request import Json
from tests.journeys.claude.session import run_session

pytestmark = NEEDS_CLIENT


@pytest.mark.parametrize("strictness", [["--strict"], ["--profile", "directory"]], ids=["strict", "directory"])
def test_the_client_finds_the_plugin_valid(strictness: list[str], fresh_checkout: Path, tmp_path: Path) -> None:
    """Manifest, marketplace, skill, and a README that says enough."""
    command = ["claude", "plugin", "validate", ".", *strictness]
    ran = run_in_box("greeter", command, cwd=fresh_checkout, scratch=tmp_path, timeout_s=60)
    assert ran.exit_code == 0, ran.stdout + ran.stderr
    assert "skills: epicwave:run-epic" in ran.stdout


def test_the_repository_is_its_own_marketplace(fresh_checkout: Path, scratch_repository: Path, tmp_path: Path) -> None:
    install = (
        f"claude plugin marketplace add {fresh_checkout} && claude plugin install epicwave@epicwave"
        " && claude plugin list --json"
    )
    ran = run_in_box("greeter", ["sh", "-c", install], cwd=scratch_repository, scratch=tmp_path, timeout_s=60)
    assert ran.exit_code == 0, ran.stdout + ran.stderr
    assert '"id": "epicwave@epicwave"' in ran.stdout


@pytest.mark.parametrize("prompt", ["/epicwave:run-epic trio.yaml", "Plan the epic trio.yaml."], ids=["skill", "words"])
def test_the_plugin_brings_its_tools(prompt: str, fresh_checkout: Path, epic_repository: Path, tmp_path: Path) -> None:
    """Nobody is asked, though no rule allows them: the plugin's hook does."""
    command = ["claude", "-p", prompt, "--plugin-dir", str(fresh_checkout)]
    ran = run_in_box("planner", command, cwd=epic_repository, scratch=tmp_path, timeout_s=120)
    assert ran.exit_code == 0, ran.stderr
    assert '"critical_path"' in ran.stdout, ran.stdout
    assert (tmp_path / "uvx.log").read_text("utf-8").splitlines()[0] == str(fresh_checkout)


def test_the_installed_plugin_runs_an_epic(fresh_checkout: Path, repository: Path, tmp_path: Path) -> None:
    """Its agents and skills are there; its hooks let workers work, and let none end without a report."""
    (repository / "epic.yaml").write_text(checkout.PAIR, "utf-8")
    install = f"claude plugin marketplace add {fresh_checkout} >&2 && claude plugin install epicwave@epicwave >&2"
    options = ["--output-format", "stream-json", "--verbose"]
    start = ["sh", "-c", f'{install} && exec "$@"', "sh"]
    ran = run_session("forgetful", repository, tmp_path, *options, first=start)
    events: list[Json] = [json.loads(line) for line in ran.stdout.splitlines()]
    begun, ended = events[0], events[-1]
    assert {"epicwave:story-worker", "epicwave:story-reviewer"} <= set(begun["agents"])
    assert {"epicwave:plan-epic", "epicwave:run-epic", "epicwave:epic-status"} <= set(begun["skills"])
    assert ended["result"] == "EPIC done"
    assert ended["permission_denials"] == []
    assert notes(repository, "pair") == {"S1": WHOLE["S1"], "S2": "S2(S1())"}


def test_the_files_of_init_are_enough_without_the_plugin(repository: Path, tmp_path: Path) -> None:
    """The same session in a project that `epicwave init` has prepared, and that knows nothing of the plugin."""
    (repository / "epic.yaml").write_text(checkout.PAIR, "utf-8")
    init = [sys.executable, "-m", "mcp_server.cli", "init", "--command", "epicwave serve"]
    subprocess.run(init, cwd=repository, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    ran = run_session("quiet", repository, tmp_path)
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository, "pair") == {"S1": WHOLE["S1"], "S2": "S2(S1())"}
