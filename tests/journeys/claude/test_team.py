"""Strategy agent-teams with the real client: its own sub-agents do the stories of an epic, to the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.journeys.claude.box import NEEDS_CLIENT
from tests.journeys.claude.checkout import WHOLE, git, notes, rescued
from tests.journeys.claude.cost import CALLS, TOKENS, claims
from tests.journeys.claude.session import Record, cost_of, run_session

pytestmark = NEEDS_CLIENT


@pytest.mark.parametrize("script", ["team", "background"])
def test_a_lead_runs_six_stories_in_three_waves(
    script: str, repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """Three work side by side: they meet in the script. Each note quotes those of the wave before: it began there."""
    ran = run_session(script, repository, tmp_path, "--plugin-dir", str(fresh_checkout))
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository) == WHOLE
    assert not rescued(repository)
    cost = cost_of(ran, record_property)
    assert len(cost.answers) <= CALLS
    assert cost.tokens <= TOKENS


def test_the_second_wave_starts_from_the_first_wherever_the_remote_is(
    repository: Path, fresh_checkout: Path, tmp_path: Path, record_property: Record
) -> None:
    """The client makes worktrees from the remote's main branch, which has nothing of this epic, nor of this user."""
    subprocess.run(["git", "clone", "-q", "--bare", repository, tmp_path / "remote.git"], check=True)
    git(repository, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(repository, "fetch", "-q", "origin")
    git(repository, "remote", "set-head", "origin", "main")
    git(repository, "commit", "-q", "-m", "A commit that the remote has not", "--only", "staged.txt")
    (scratch := tmp_path / "scratch").mkdir()
    ran = run_session("team", repository, scratch, "--plugin-dir", str(fresh_checkout))
    assert "EPIC done" in ran.stdout, ran.stdout
    assert notes(repository) == WHOLE
    bases = {claim["story"]: claim["base"] for claim in claims(ran.requests)}
    assert bases["S1"] == git(repository, "rev-parse", "main")[: len(bases["S1"])]
    for story, waits_for in {"S4": ("S1", "S2"), "S5": ("S3",), "S6": ("S4", "S5")}.items():
        there = git(repository, "ls-tree", "--name-only", bases[story], "notes/")
        assert {f"notes/{name}.md" for name in waits_for} <= set(there.split())
