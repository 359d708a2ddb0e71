"""The plugin in the real client: it is valid, it installs from the repository itself, it brings its tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house
from tests.journeys.claude.box import NEEDS_CLIENT, run_in_box

pytestmark = NEEDS_CLIENT

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def fresh_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's own files, as a clone has them: no environment, no caches."""
    folder = tmp_path_factory.mktemp("clone") / "epicwave"
    for path, text in house.read_tree(ROOT).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return folder


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


def test_the_plugin_brings_its_tools(fresh_checkout: Path, epic_repository: Path, tmp_path: Path) -> None:
    """Typing the skill's name is enough to be allowed the tools that it names."""
    command = ["claude", "-p", "/epicwave:run-epic trio.yaml", "--plugin-dir", str(fresh_checkout)]
    ran = run_in_box("planner", command, cwd=epic_repository, scratch=tmp_path, timeout_s=120)
    assert ran.exit_code == 0, ran.stderr
    assert '"critical_path"' in ran.stdout, ran.stdout
    assert (tmp_path / "uvx.log").read_text("utf-8").splitlines()[0] == str(fresh_checkout)
