"""What the real client prints at its end is understood: limits of its provider, errors, and what it cost."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.journeys.claude.box import NEEDS_CLIENT, run_in_box
from tests.journeys.claude.conftest import ROOT
from tests.journeys.claude.request import Json
from tests.journeys.claude.scripts import LIMIT_S

pytestmark = NEEDS_CLIENT

AGENT = [sys.executable, "-m", "tests.journeys.claude.one_agent"]
SUBSCRIBER = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "no-token"}
"""Somebody who is logged in, with no token of anybody's: only they are told when a limit is over."""


def end_of(script: str, repository: Path, scratch: Path, **environment: str) -> Json:
    """The end of one agent, as the runner tells it to the engine."""
    env = {"PYTHONPATH": str(ROOT), "CLAUDE_CODE_MAX_RETRIES": "1", **environment}
    ran = run_in_box(script, AGENT, cwd=repository, scratch=scratch, timeout_s=60, env=env)
    assert ran.exit_code == 0, ran.stderr
    assert not ran.left
    return json.loads(ran.stdout)


def test_a_limit_is_told_with_the_moment_when_it_is_over(scratch_repository: Path, tmp_path: Path) -> None:
    end = end_of("limited", scratch_repository, tmp_path, **SUBSCRIBER)
    assert (end["exit_code"], end["trouble"]) == (1, "rate_limit"), end["tail"]
    assert end["resumes_at_s"] == pytest.approx(time.time() + LIMIT_S, abs=60)


@pytest.mark.parametrize("script", ["overloaded", "stranger"])
def test_an_error_of_the_api_is_told(script: str, scratch_repository: Path, tmp_path: Path) -> None:
    end = end_of(script, scratch_repository, tmp_path)
    assert (end["exit_code"], end["trouble"], end["resumes_at_s"]) == (1, "api_error", None), end["tail"]


def test_the_cost_of_an_agent_is_known_while_it_works_and_at_its_end(scratch_repository: Path, tmp_path: Path) -> None:
    """Each answer of the scripted model counts 20 tokens."""
    end = end_of("greeter", scratch_repository, tmp_path)
    assert (end["exit_code"], end["trouble"]) == (0, None), end["tail"]
    assert end["usage"]["tokens"] == 40
    assert end["usage"]["usd"] > 0
    assert end["told"][0] == {"usd": 0.0, "tokens": 20}
