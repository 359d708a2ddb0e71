"""`epicwave init`: the files that a project needs to use epicwave without the plugin; `--remove` takes them back.

All files are read and thought through before the first is written: a refusal changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.repository import Repository
from mcp_server.cli.init_files import Outcome, ProjectFile, read, real, write
from mcp_server.cli.init_project import Server, package_files, project_files, server_of
from mcp_server.cli.terminal import open_console
from mcp_server.errors import Code, Refused


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    command: str | None = None
    remove: bool = False
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One file: what it is, and what becomes of it."""

    path: str
    before: bytes | None
    outcome: Outcome

    @property
    def changes(self) -> bool:
        """True when there is something to write, or to remove."""
        return self.outcome.content != self.before

    def line(self, *, dry_run: bool) -> str:
        """`made .mcp.json`."""
        if not self.changes:
            word = "left alone" if self.outcome.left else "unchanged"
        elif self.before is None:
            word = "would make" if dry_run else "made"
        elif self.outcome.content is None:
            word = "would remove" if dry_run else "removed"
        else:
            word = "would change" if dry_run else "changed"
        left = "; ".join(self.outcome.left)
        return f"{word:<12} {self.path}" + (f": {'left alone: ' if self.changes else ''}{left}" if left else "")


async def write_project(repo: Path, asked: Asked, console: Console | None = None) -> None:
    """Write the files, or take them back. Raises `Refused` or `Fault` before anything has changed."""
    console = console or open_console()
    top = await _top(repo)
    server = server_of(asked.command)
    steps = apply(top, project_files(server), asked)
    for step in steps:
        if not asked.remove or step.changes or step.outcome.left:
            console.print(step.line(dry_run=asked.dry_run))
    for line in _closing(steps, server, asked):
        console.print(line)


async def _top(repo: Path) -> Path:
    """The top of the checkout. The files may come before its first commit, and never into epicwave's own source."""
    try:
        top = (await Repository.open(repo)).top
    except Refused as refused:
        if refused.code is not Code.NO_COMMITS:
            raise
        top = (await Git().read("rev-parse", "--show-toplevel", at=repo)).path.resolve()
    if package_files() == top:
        why = f"{top} is epicwave's own checkout, where these files are the source."
        raise Refused(Code.BAD_ARGUMENT, why, "Run it in the repository that you work in, or name that with --repo.")
    return top


def apply(top: Path, files: Iterable[ProjectFile], asked: Asked) -> list[Step]:
    """What becomes of each file; written unless it is a dry run.

    Raises `Refused` with all that stands in the way, and then nothing is written; `Fault(disk)`.
    """
    steps: list[Step] = []
    refusals: list[Refused] = []
    seen: dict[Path, bytes | None] = {}  # by where they really lie: two files of a project may be links to one
    for file in files:
        target = real(top, file.path)
        try:
            before = seen[target] if target in seen else read(target, file.path)
            change = file.take if asked.remove else file.put
            outcome = change(before, force=asked.force)
        except Refused as refused:
            refusals.append(refused)
            continue
        seen[target] = outcome.content
        steps.append(Step(file.path, before, outcome))
    if refusals:
        raise Refused(
            refusals[0].code,
            " ".join([*(refused.why for refused in refusals), "Nothing was written."]),
            " ".join(dict.fromkeys(refused.remedy for refused in refusals)),
        )
    if not asked.dry_run:
        write(top, {step.path: step.outcome.content for step in steps if step.changes})
    return steps


def _closing(steps: list[Step], server: Server, asked: Asked) -> list[str]:
    """What else is to be known, and the next step."""
    if asked.dry_run:
        return ["Dry run: nothing was written."]
    if asked.remove:
        if any(step.changes for step in steps):
            return ["What init wrote is taken back. Commit that; merged work stays on the branches epicwave/<epic>."]
        return ["There is nothing to take back."]
    lines: list[str] = []
    if server.place is not None and any(step.changes for step in steps):
        lines.append(
            f"note: the server is started from {server.place}, which only this machine has. To share the files: "
            'epicwave init --force --command "uvx --from git+URL epicwave serve"'
        )
    if any(step.changes for step in steps):
        lines.append(
            "Next: commit these files, open the repository in Claude Code or Cursor, trust it and approve the server "
            "epicwave when asked, and say: plan docs/epic.md with epicwave and run it."
        )
    elif not any(step.outcome.left for step in steps):
        lines.append("Nothing to do: all of it is there.")
    return lines
