"""Run inside the box: the agent `claude` through the real runner, in this folder; its end is printed as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import anyio

from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.core.model import Usage
from mcp_server.core.spec import AttemptId
from mcp_server.ports import AgentCall


async def main() -> None:
    """Carry out a brief as an attempt does."""
    told: list[Usage] = []
    folder = Path.cwd()
    call = AgentCall(AttemptId("E1", "S1", 1), "claude", folder, "# Story S1: Look around", 60, 60)
    end = await ProcessRunner(folder.parent / "logs", folder / ".git").run_agent(call, lambda _: None, told.append)
    json.dump({**asdict(end), "told": [asdict(usage) for usage in told]}, sys.stdout)


if __name__ == "__main__":
    anyio.run(main)
