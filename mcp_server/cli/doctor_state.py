"""What the doctor looks at of our own: configuration, engine, journal, folders, leftovers, versions."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread

from mcp_server import __version__
from mcp_server.adapters.git.disk import weight_mb
from mcp_server.adapters.git.inventory import inventory
from mcp_server.adapters.journal.sqlite import backups_of, notices
from mcp_server.cli.doctor_agents import VERSION_BOUND_S, asked_version
from mcp_server.cli.findings import Finding, Level, Subject, ok
from mcp_server.cli.garbage import leftovers
from mcp_server.cli.terminal import count
from mcp_server.core.model import Ledger
from mcp_server.errors import Refused
from mcp_server.front.place import DOOR_FILE, OTHERS, Refusal, read_door
from mcp_server.server.allowed import ALLOWED_FILE
from mcp_server.server.holder import holder_of
from mcp_server.server.mirror import Mirror
from mcp_server.server.settings import CONFIG_FILE, Settings
from mcp_server.server.world import World

LOW_BYTES, EMPTY_BYTES = 2 << 30, 200 << 20
"""Free space below which an epic may run into a full disk, and below which it will."""
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


def config(world: World) -> tuple[list[Finding], Settings]:
    """The configuration; where it cannot be used, what else is looked at takes the defaults."""
    try:
        settings = world.settings()
    except Refused as refused:
        why = "No epic starts with it."
        return [Finding(Subject.CONFIG, Level.ERROR, refused.why, why, refused.remedy)], Settings(
            world.repository.top / CONFIG_FILE
        )
    there = "as it should be" if settings.path.exists() else "not there, so the defaults count"
    return [ok(Subject.CONFIG, f"{settings.path} is {there}.")], settings


def journal(world: World) -> tuple[list[Finding], Ledger]:
    """The journal, read to its end; where that cannot be, what else is looked at sees none."""
    path = world.journal_path
    try:
        ledger = Mirror(path).ledger()
    except Refused as refused:
        why = "Nothing of what was done is known, and nothing starts."
        return [Finding(Subject.JOURNAL, Level.ERROR, refused.why, why, refused.remedy)], Ledger()
    backups = backups_of(path)
    found = [ok(Subject.JOURNAL, f"{path}: {count(ledger.seq, 'fact')} of {count(len(ledger.epics), 'epic')}.")]
    if not backups and (said := notices(path)):
        why = "An older epicwave cannot read the new one."
        found = [
            Finding(Subject.JOURNAL, Level.NOTE, said[0], why, "Have the same epicwave everywhere: epicwave --version")
        ]
    if not backups:
        return [*found, ok(Subject.JOURNAL_BACKUP, "No copy of an older journal.")], ledger
    what = f"A copy of the journal as an older epicwave wrote it: {', '.join(map(str, backups))}."
    remedy = f"When all is well: rm {' '.join(_q(backup) for backup in backups)}"
    return [*found, Finding(Subject.JOURNAL_BACKUP, Level.NOTE, what, "It only takes space.", remedy)], ledger


def engine(world: World) -> list[Finding]:
    """Who has the engine, or had it when they were killed."""
    holder = holder_of(world.state_dir)
    if holder is None:
        return [ok(Subject.ENGINE, "Nobody has the engine.")]
    if holder.alive:
        why = "Changes go by it, and what it has under way is its own."
        found = Finding(Subject.ENGINE, Level.NOTE, f"{holder} has the engine.", why, "epicwave status")
        return [found, *_of_another_version(world)]
    what = f"{holder} had the engine and is gone without an end."
    why = "What it had under way is neither saved nor on record before the next one begins."
    remedy = "epicwave run EPIC to go on, epicwave cancel EPIC to stop it, or epicwave gc when all is over"
    return [Finding(Subject.ENGINE, Level.WARNING, what, why, remedy)]


def _of_another_version(world: World) -> list[Finding]:
    """What a newer epicwave finds when an older engine process has stories under way, or the other way round."""
    try:
        door = read_door(str(world.state_dir))
    except Refusal:  # told by the state folder's finding
        return []
    if door is None or door.version == __version__:
        return []
    what = f"The engine process {door.pid} is epicwave {door.version}; this is {__version__}."
    why = "A newer one asks an older one to make way, which it does when nothing is under way in it."
    return [Finding(Subject.VERSION, Level.WARNING, what, why, f"When all is at rest: kill {door.pid}")]


def state_folder(folder: Path) -> list[Finding]:
    """The folder with journal, logs and token is the user's own, and nobody else's to read."""
    if sys.platform == "win32" or not folder.exists():
        there = "as the system keeps it" if folder.exists() else "not there yet"
        return [ok(Subject.STATE_FOLDER, f"{folder} is {there}.")]
    door = folder / DOOR_FILE
    files = (door, folder / ALLOWED_FILE)
    strange = [_strange(folder, stat.S_ISDIR), *(_strange(path, stat.S_ISREG) for path in files)]
    if found := [finding for finding in strange if finding is not None]:
        return found
    open_ones = [path for path in (folder, *files) if path.exists() and path.stat().st_mode & OTHERS]
    if not open_ones:
        return [ok(Subject.STATE_FOLDER, f"{folder} is yours alone.")]
    return [_open_to_others(path, door.exists()) for path in open_ones]


def _strange(path: Path, is_kind: Callable[[int], bool]) -> Finding | None:
    """A link, or another user's: whoever it belongs to has to say what it is, so nothing is mended."""
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return None
    if is_kind(seen.st_mode) and seen.st_uid == os.geteuid():
        return None
    what = f"{path} is not what epicwave has made, or is another user's."
    why = "Who owns it decides what your agents run: briefs, commands and a token lie there."
    return Finding(Subject.STATE_FOLDER, Level.ERROR, what, why, f"ls -ld {_q(path)}, and move it away")


def _open_to_others(path: Path, has_door: bool) -> Finding:
    mode = PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE

    def mend() -> str:
        path.chmod(mode)
        known = " The token may be known: the next engine process has a new one." if path.name == DOOR_FILE else ""
        return f"{path} is yours alone now (mode {mode:o}).{known}"

    what = f"Others may look into {path} (mode {stat.S_IMODE(path.stat().st_mode):o})."
    why = "It has what agents are told and what they print."
    if path.name == ALLOWED_FILE:
        why = "Who writes it decides which commands of epic files run, so no wave starts with any."
    elif has_door:
        why = "Who reads the token in it can steer your agents, and nothing connects to the engine process meanwhile."
    level = Level.ERROR if has_door else Level.WARNING
    return Finding(Subject.STATE_FOLDER, level, what, why, f"chmod {mode:o} {_q(path)}", mend)


async def left(world: World, ledger: Ledger, root: Path) -> list[Finding]:
    """Worktrees and branches of attempts that are over, what is under our names and not ours, and saved work."""
    seen = await inventory(world.repository, root)
    found = leftovers(ledger, seen)
    items = found.items()
    findings: list[Finding] = []
    if items:
        what = f"{count(len(items), 'leftover')} of attempts that are over: {_some([item.name for item in items])}."
        why = "They take space, and a branch of them is in the way of whoever wants its name."
        findings.append(Finding(Subject.LEFTOVERS, Level.WARNING, what, why, "epicwave gc"))
    else:
        findings.append(ok(Subject.LEFTOVERS, "Nothing is left of attempts that are over."))
    if found.not_ours:
        what = f"The journal does not know {_some(found.not_ours)}."
        why = "Another epicwave or a person made them; they are left alone."
        remedy = "git worktree list; git branch --list 'epicwave*'; remove what is nobody's with git"
        findings.append(Finding(Subject.NOT_OURS, Level.NOTE, what, why, remedy))
    else:
        findings.append(ok(Subject.NOT_OURS, "Nothing under our names is unknown to the journal."))
    if rescues := seen.rescues:
        what = f"{count(len(rescues), 'rescue ref')}: {_some([rescue.ref for rescue in rescues])}."
        why = "They have work that did not land. gc removes those of merged stories after 14 days."
        findings.append(Finding(Subject.RESCUED, Level.NOTE, what, why, f"git log -p {rescues[0].ref}"))
    else:
        findings.append(ok(Subject.RESCUED, "No work that did not land is kept."))
    return findings


async def space(world: World, root: Path) -> list[Finding]:
    """What our worktrees take on the disk, and how much of it only waits."""
    seen = await inventory(world.repository, root)
    parts = {"waiting for the next attempts": seen.idle, "about to be deleted": seen.trash}
    all_mb = await anyio.to_thread.run_sync(weight_mb, root)
    said = [f"{all_mb:,.0f} MB are taken by worktrees in {root}"]
    for what, paths in parts.items():
        mb = sum([await anyio.to_thread.run_sync(weight_mb, path) for path in paths])
        said += [f"{mb:,.0f} MB of it by {len(paths)} {what}"] if paths else []
    return [ok(Subject.SPACE, f"{', '.join(said)}.")]


def disk(world: World, root: Path) -> list[Finding]:
    """Room for worktrees and for the journal, and whether both have the same disk."""
    place = next(path for path in (root, *root.parents) if path.exists())
    common = world.repository.common_dir
    found: list[Finding] = []
    for path in (place, common):
        free_bytes = shutil.disk_usage(path).free
        if free_bytes < LOW_BYTES:
            level = Level.ERROR if free_bytes < EMPTY_BYTES else Level.WARNING
            what = f"{free_bytes / (1 << 20):,.0f} MiB are free where {path} is."
            why = "A full disk stops the engine; nothing is lost, and nothing goes on."
            found.append(Finding(Subject.DISK, level, what, why, "epicwave gc, then make room"))
    if not found:
        found = [ok(Subject.DISK, f"{shutil.disk_usage(place).free / (1 << 30):,.0f} GiB are free for worktrees.")]
    if place.stat().st_dev == common.stat().st_dev:
        return [*found, ok(Subject.FILE_SYSTEM, "Worktrees and repository have one file system.")]
    what = f"Worktrees are made in {root}, on another file system than {common}."
    why = "It fills by itself, and what is made there at the start of the system (a RAM disk) goes with it."
    remedy = "Set `worktrees_dir` in .epicwave/config.yaml when that is not meant"
    return [*found, Finding(Subject.FILE_SYSTEM, Level.NOTE, what, why, remedy)]


async def version(world: World) -> list[Finding]:
    """The `epicwave` on the PATH, which editors start, is this one."""
    mine = f"epicwave {__version__} on Python {platform.python_version()}"
    other = shutil.which("epicwave")
    if other is None:
        return [ok(Subject.VERSION, f"{mine}; no epicwave on the PATH.")]
    exit_code, said = await asked_version((other, "--version"), world.repository.top, VERSION_BOUND_S)
    if exit_code == 0 and said == f"epicwave {__version__}":
        return [ok(Subject.VERSION, f"{mine}; the one on the PATH is as new.")]
    how = f"says {said!r}" if exit_code == 0 else "does not say its version"
    what = f"This is {mine}; {other} {how}."
    why = "An editor may start that one, and two versions share a journal."
    return [Finding(Subject.VERSION, Level.WARNING, what, why, f"{_q(Path(other))} --version; install the same one")]


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 - three are enough to know them by
    return ", ".join(names[:3]) + more


def _q(path: Path) -> str:
    return shlex.quote(str(path))
