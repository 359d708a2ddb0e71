"""`epicwave gc`: remove what our journal made and nobody needs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import anyio
import typer

from mcp_server.cli.alone import alone
from mcp_server.cli.garbage import DAY_S, Ages, Garbage, Item, garbage, remove
from mcp_server.cli.terminal import count, open_console
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

NAME = "epicwave gc"
WORDS = {
    "worktree": "worktree",
    "branch": "attempt branch",
    "base_ref": "base ref",
    "integration_worktree": "integration worktree",
    "pooled_worktree": "pooled worktree",
    "trash": "folder to be deleted",
    "rescue_ref": "rescue ref",
    "log": "log",
    "journal_backup": "journal backup",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command line."""

    dry_run: bool = False
    older_than_days: float = 14.0
    rescue: bool = False
    as_json: bool = False


async def collect(repo: Path, asked: Asked) -> int:
    """Remove it and say so. Exit code: 0, or 1 when something could not be removed.

    Raises `Refused(engine_elsewhere)` while another process has the engine and something to do in it, and for a journal
    that cannot be read. A dry run only looks, whoever has it.
    """
    world = await World.open(repo)
    root = world.worktrees_root(world.settings())
    ages = Ages(world.clock.now_s(), asked.older_than_days * DAY_S, asked.rescue)

    async def work() -> tuple[Garbage, list[Item], list[str]]:
        ledger = Mirror(world.journal_path).ledger()
        found = await garbage(world, ledger, root, ages)
        items = found.items()
        return found, items, [] if asked.dry_run or not items else await remove(world, ledger, found)

    looks_only = asked.dry_run or not await anyio.Path(world.journal_path).exists()
    found, items, left = await work() if looks_only else await alone(world, repo, NAME, work)
    if asked.as_json:
        typer.echo(json.dumps(_document(found, items, left, asked), indent=2))
    else:
        _show(found, items, left, asked)
    return 1 if left else 0


def _document(found: Garbage, items: list[Item], left: list[str], asked: Asked) -> dict[str, object]:
    kinds = Counter(item.kind for item in items)
    return {
        "dry_run": asked.dry_run,
        "older_than_days": asked.older_than_days,
        "counts": {kind: kinds[kind] for kind in WORDS},
        "size_bytes": sum(item.size_bytes for item in items),
        "removed": [item._asdict() for item in items],
        "kept": [kept._asdict() for kept in found.kept],
        "not_ours": list(found.not_ours),
        "not_removed": left,
    }


def _show(found: Garbage, items: list[Item], left: list[str], asked: Asked) -> None:
    console = open_console()
    for item in items:
        size = f"  {item.size_bytes:,} bytes" if item.size_bytes else ""
        console.print(f"{WORDS[item.kind]:<20} {item.name}{size}")
    for kept in found.kept:
        console.print(f"{'kept':<20} {kept.name}: {kept.why}")
    for name in found.not_ours:
        console.print(f"{'not ours':<20} {name}: the journal does not know it")
    kinds = Counter(item.kind for item in items)
    parts = ", ".join(count(number, WORDS[kind]) for kind, number in kinds.items())
    size_bytes = sum(item.size_bytes for item in items)
    console.print(f"{parts or 'Nothing to remove'}; {size_bytes:,} bytes.")
    if asked.dry_run:
        console.print("Dry run: nothing was changed.")
    for line in left:
        console.print(f"NOT REMOVED: {line}")
