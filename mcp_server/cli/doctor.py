"""`epicwave doctor`: what would stand in an epic's way in this repository, each with its remedy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import typer

from mcp_server.adapters.agents.profiles import Profile
from mcp_server.adapters.git.inventory import inventory
from mcp_server.cli import doctor_agents, doctor_git, doctor_state
from mcp_server.cli.alone import alone
from mcp_server.cli.findings import Finding, Level, Subject, ok
from mcp_server.cli.garbage import Garbage, Item, leftovers, remove
from mcp_server.cli.terminal import open_console
from mcp_server.core.limits import Strategy
from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.mirror import Mirror
from mcp_server.server.world import World

NAME = "epicwave doctor --fix"
STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}
_CANNOT_GO_ON = {
    Code.GIT_MISSING: Subject.GIT,
    Code.GIT_TOO_OLD: Subject.GIT,
    Code.NO_COMMITS: Subject.COMMITS,
}


async def examine(repo: Path, fix: bool, as_json: bool) -> int:
    """Look at everything, mend what is safe, print. Exit code: 0 nothing above a note, 1 warnings or errors are left.

    Raises `Refused` for a folder that is in no repository.
    """
    fixed: list[str] = []
    try:
        world = await World.open(repo)
    except Refused as refused:
        if refused.code not in _CANNOT_GO_ON:
            raise
        why = "No story can start."
        found = [Finding(_CANNOT_GO_ON[refused.code], Level.ERROR, refused.why, why, refused.remedy)]
    else:
        found = await findings(world)
        if fix:
            fixed = await mended(world, found)
            found = await findings(world)
    if as_json:
        typer.echo(json.dumps(_document(repo, found, fixed), indent=2))
    else:
        _show(found, fixed)
    return 1 if any(finding.is_trouble for finding in found) else 0


async def findings(world: World) -> list[Finding]:
    """One finding or more of every subject. Changes nothing."""
    repository = world.repository
    about_config, settings = doctor_state.config(world)
    about_journal, ledger = doctor_state.journal(world)
    root = world.worktrees_root(settings)
    profiles = doctor_agents.profiles_of(settings, ledger)
    known = [profile for profile in profiles.values() if isinstance(profile, Profile)]
    about_rules, allowed = doctor_agents.permissions(doctor_agents.settings_folders(repository.top))
    if not doctor_agents.asks_claude(known, settings.epic.parallel_strategy):
        about_rules = [ok(Subject.PERMISSIONS, "No agent here works by Claude Code's rules.")]
    teams = settings.epic.parallel_strategy is Strategy.AGENT_TEAMS

    async def disk() -> list[Finding]:
        return doctor_state.disk(world, root)

    async def state_folder() -> list[Finding]:
        return doctor_state.state_folder(world.state_dir)

    return [
        ok(Subject.GIT, f"git {'.'.join(map(str, repository.version))}; 2.34 is the oldest that will do."),
        ok(Subject.COMMITS, f"The checkout {repository.top} is at {(await repository.head_sha())[:12]}."),
        *await _looked(Subject.WORKTREES, lambda: doctor_git.worktrees(repository, root)),
        *await _looked(Subject.BASE, lambda: doctor_git.base(repository, ledger)),
        *await _looked(Subject.HOOKS_PATH, lambda: doctor_git.hooks(repository)),
        *await _looked(Subject.SIGNING, lambda: doctor_git.signing(repository)),
        *await _looked(Subject.LONG_PATHS, lambda: doctor_git.contents(repository, root)),
        *await _looked(Subject.LOCKS, lambda: doctor_git.locks(repository)),
        *about_config,
        *await _looked(Subject.AGENT, lambda: doctor_agents.agents(profiles, repository.top, needed=not teams)),
        *doctor_agents.unattended(known, allowed),
        *about_rules,
        *doctor_state.engine(world),
        *about_journal,
        *await _looked(Subject.STATE_FOLDER, state_folder),
        *await _looked(Subject.LEFTOVERS, lambda: doctor_state.left(world, ledger, root)),
        *await _looked(Subject.SPACE, lambda: doctor_state.space(world, root)),
        *await _looked(Subject.DISK, disk),
        *await _looked(Subject.VERSION, lambda: doctor_state.version(world)),
    ]


async def _looked(subject: Subject, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """What a check finds; one that cannot even look is a finding, and keeps no other from looking."""
    try:
        return await check()
    except (Fault, OSError) as error:
        what = f"It could not be looked at: {error}."
        return [Finding(subject, Level.ERROR, what, "What epicwave cannot read it cannot work with.", "git fsck")]


async def mended(world: World, found: list[Finding]) -> list[str]:
    """Do what is safe about the findings; one sentence each, also for what could not be done."""
    said: list[str] = []
    for finding in found:
        if finding.mend is not None:
            try:
                said.append(finding.mend())
            except OSError as error:
                said.append(f"Not mended: {finding.what} {error.strerror}.")
    if any(finding.code is Subject.LEFTOVERS and finding.is_trouble for finding in found):
        said += await _tidied(world)
    return said


async def _tidied(world: World) -> list[str]:
    """Leftovers of ours, saved and removed as `epicwave gc` does it; never while somebody has the engine."""

    async def work() -> tuple[list[Item], list[str]]:
        root = world.worktrees_root(world.settings())
        ledger = Mirror(world.journal_path).ledger()
        seen = leftovers(ledger, await inventory(world.repository, root))
        items = seen.items()
        return items, await remove(world, ledger, Garbage(seen.pieces, seen.integrations))

    try:
        items, left = await alone(world, world.repository.top, NAME, work)
    except (Refused, Fault) as error:
        return [f"Leftovers stay: {error.why if isinstance(error, Refused) else error.detail}"]
    return [*(f"Saved and removed: {item.kind} {item.name}." for item in items), *(f"Stays: {line}." for line in left)]


def _document(repo: Path, found: list[Finding], fixed: list[str]) -> dict[str, object]:
    levels = Counter(finding.level for finding in found)
    return {
        "folder": str(repo),
        "counts": {level: levels[level] for level in Level},
        "findings": [
            {"code": f.code, "level": f.level, "what": f.what, "why": f.why, "remedy": f.remedy} for f in found
        ],
        "fixed": fixed,
    }


def _show(found: list[Finding], fixed: list[str]) -> None:
    console = open_console()
    for line in fixed:
        console.print(f"fixed    {line}")
    for finding in found:
        console.print(f"{finding.level:<8} {finding.code}: {finding.what}", style=STYLES[finding.level])
        if finding.why:
            console.print(f"         {finding.why}")
        if finding.remedy:
            console.print(f"         -> {finding.remedy}")
    levels = Counter(finding.level for finding in found)
    console.print(", ".join(f"{levels[level]} {level}" for level in Level))
