"""The command line in this process, on a scene's repository."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from mcp_server.cli.main import app
from mcp_server.errors import Refused
from tests.server.scene import Scene

_RUN = CliRunner()


def epicwave(scene: Scene, *words: str) -> Result:
    """Run a command; a refusal stays in `exception`, anything else that was raised is raised here."""
    done = _RUN.invoke(app, [*words, "--repo", str(scene.repo)])
    if done.exception is not None and not isinstance(done.exception, SystemExit | Refused):
        raise done.exception
    return done


def refused(done: Result) -> Refused:
    """The refusal that a command ended with."""
    assert isinstance(done.exception, Refused), done.output
    return done.exception


def document(done: Result) -> dict[str, Any]:
    """What it printed with --json: one document, and nothing else."""
    return json.loads(done.stdout)
