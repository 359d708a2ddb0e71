"""`epicwave simulate`: what it prints, in which order, and how it ends."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from mcp_server import __version__
from mcp_server.cli.main import app
from mcp_server.core import breakers
from mcp_server.core.limits import Strategy
from mcp_server.core.model import Ledger
from mcp_server.errors import Code, Refused
from mcp_server.testing.fate import Config

run = CliRunner()


def test_versions_and_the_configuration_come_first_and_the_digest_last() -> None:
    done = run.invoke(app, ["simulate", "--seed", "7", "--lives", "3", "--jobs", "1"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith(f"epicwave {__version__}")
    assert "Python 3." in lines[0]
    assert lines[1] == "3 lives from seed 7 on, all strategies, side by side: 1. The first is:"
    assert lines[2:4] == ["  seed: 7", f"  stories: {Config.of(7).stories}"]
    assert "work: 0 lost, 0 duplicated, 0 resurrected; other promises broken: none" in lines
    assert re.fullmatch(r"[\d.]+ s, digest [0-9a-f]{64}", lines[-1])


def test_a_broken_promise_is_told_with_its_seed_its_configuration_and_the_command_that_shows_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing_is_held(_ledger: Ledger, _name: str) -> None:
        return None

    monkeypatch.setattr(breakers.held, "__code__", nothing_is_held.__code__)
    done = run.invoke(app, ["simulate", "--lives", "100", "--jobs", "1", "--strategy", "asyncio"])
    assert done.exit_code == 1
    (seed,) = re.findall(r"^BROKEN by seed (\d+):$", done.output, re.MULTILINE)
    told = done.output[done.output.index("BROKEN") :]
    assert re.search(r"^- (breaker|held): e/e\d+/\d+ ", told, re.MULTILINE)
    assert f"  seed: {seed}\n" in told
    assert told.rstrip().endswith(f"epicwave simulate --seed {seed} --lives 1 --strategy asyncio")
    again = run.invoke(app, ["simulate", "--seed", seed, "--lives", "1", "--strategy", str(Strategy.ASYNCIO)])
    assert again.exit_code == 1
    assert f"BROKEN by seed {seed}:" in again.output


def test_an_unknown_strategy_is_refused_with_those_that_there_are() -> None:
    done = run.invoke(app, ["simulate", "--strategy", "threads"])
    assert isinstance(done.exception, Refused)
    assert done.exception.code is Code.BAD_ARGUMENT
    assert "agent-teams" in done.exception.remedy
