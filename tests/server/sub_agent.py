"""A sub-agent of the editor as our tools meet it: in a worktree that the host made, or in none of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.server.lead import Lead
from tests.server.scene import Scene


class SubAgent:
    """Stores where it works and what it was given; runs the commands that it is told, letter by letter."""

    def __init__(self, lead: Lead, scene: Scene, name: str, *, isolated: bool = True) -> None:
        self.lead = lead
        self.scene = scene
        self.name = name
        self.place = scene.repo
        self.claimed: dict[str, Any] = {}
        if isolated:
            self.place = scene.outside / "host" / f"agent-{name}"
            scene.git("worktree", "add", "-q", "-b", f"worktree-agent-{name}", self.place, "main")

    @property
    def lease(self) -> str:
        return self.claimed["lease"]

    async def claim(self, story: str | None = None, epic: str = "notes", **more: Any) -> dict[str, Any]:
        """Claim, and run the first command."""
        wanted = {} if story is None else {"story": story}
        reply = await self.lead.ask("claim_story", epic=epic, cwd=str(self.place), agent=self.name, **wanted, **more)
        if reply["claimed"]:
            self.claimed = reply
            if reply.get("worktree"):
                self.place = Path(reply["worktree"])
            else:
                self.run(reply["first_command"])
        return reply

    def run(self, command: str) -> str:
        """A plain command in its worktree."""
        ran = subprocess.run(shlex.split(command), cwd=self.place, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        return ran.stdout

    def write(self, path: str, text: str = "done\n") -> None:
        (self.place / path).write_text(text, "utf-8")

    def work(self, path: str, text: str = "done\n") -> None:
        """Write a file and commit it."""
        self.write(path, text)
        self.run("git add -A")
        self.run(f"git commit -q -m 'Write {path}'")

    async def report(self, outcome: str, note: str = "") -> dict[str, Any]:
        return await self.lead.ask("report_story", lease=self.lease, outcome=outcome, note=note, cwd=str(self.place))

    async def refused(self, outcome: str, note: str = "") -> str:
        return await self.lead.refused(
            "report_story", lease=self.lease, outcome=outcome, note=note, cwd=str(self.place)
        )

    async def done(self) -> dict[str, Any]:
        """Report done, and again while the answer is that it is being checked."""
        reply = await self.report("done")
        while reply["answer"] == "checking":
            reply = await self.report("done")
        return reply


def commands_in(refusal: str) -> list[str]:
    """The git commands that a refusal tells to run, in order."""
    return [c for c in re.findall(r"`([^`]+)`", refusal) if c.startswith("git ")]
