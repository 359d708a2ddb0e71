"""What a repository's owner has set up that a linked worktree does not have, or that stands in its way. Read only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.repository import Repository, listed

ON_COMMIT = ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit")
ON_REFS = ("post-checkout", "reference-transaction")
STALE_S, STALE_UPKEEP_S = 600.0, 86_400.0
"""A lock of git's that is older belongs to nobody: git holds one for seconds, housekeeping its own for hours."""
TEXT_BYTES = 65_536
_GITLINK = "160000"


class Hook(NamedTuple):
    """One hook of the user's that git knows by its name."""

    name: str
    path: Path
    executable: bool
    text: str
    """What it says, and for husky what its wrapper runs."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks that a commit of an agent's meets."""

    setting: str | None
    """`core.hooksPath` as it is written; None: the default."""
    folder: Path
    """Where they lie, seen from the user's checkout."""
    in_worktrees: bool
    """False when the folder is relative to the worktree and no commit has it: then no worktree has it."""
    found: tuple[Hook, ...]


class Listing(NamedTuple):
    """What the commit of the checkout says about its files."""

    submodules: tuple[str, ...]
    longest: str
    """Path with the most characters."""
    lfs: bool
    """Attributes ask for git-lfs."""


def asking(repository: Repository) -> Git:
    """Git with the user's own settings, which our own calls leave out."""
    return Git(repository.common_dir, ())


async def setting(repository: Repository, key: str, kind: str = "") -> str | None:
    """A setting as git reads it in the user's checkout; None when there is none, or none of that kind."""
    typed = [f"--type={kind}"] if kind else []
    answer = await asking(repository).read("config", *typed, "--get", key, at=repository.top, ok=(0, 1, 128))
    return answer.text if answer.code == 0 else None


async def hooks(repository: Repository) -> Hooks:
    """The user's hooks, whether or not they work."""
    said = await setting(repository, "core.hooksPath", "path")
    if not said:
        folder, inside = repository.common_dir / "hooks", True
    else:
        folder = repository.top / said  # an absolute one stays as it is
        inside = Path(said).is_absolute() or bool((await _tracked(repository, said)).strip())
    names = (*ON_COMMIT, *ON_REFS)
    found = await anyio.to_thread.run_sync(lambda: tuple(_read_hooks(folder, names)))
    return Hooks(said, folder, inside, found)


async def _tracked(repository: Repository, folder: str) -> str:
    answer = await repository.git.read("ls-files", "--", folder, at=repository.top, ok=(0, 128))  # 128: outside of it
    return answer.text


def _read_hooks(folder: Path, names: tuple[str, ...]) -> Iterator[Hook]:
    for name in names:
        path = folder / name
        if path.is_file():
            text = _text(path)
            if folder.name == "_":  # husky: the folder has wrappers, what they run lies beside it
                text += _text(folder.parent / name)
            yield Hook(name, path, sys.platform == "win32" or os.access(path, os.X_OK), text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(TEXT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


async def listing(repository: Repository) -> Listing:
    """One look at all paths of the checkout's commit, and at its attributes."""
    answer = await repository.git.read("ls-tree", "-r", "-z", "HEAD", at=repository.top)
    submodules: list[str] = []
    longest = ""
    for line in answer.names:
        meta, _, path = line.partition("\t")
        if meta.startswith(_GITLINK):
            submodules.append(path)
        longest = max(longest, path, key=len)
    attributes = (":(top,glob)**/.gitattributes",)
    lfs = await repository.git.read(
        "grep", "-q", "-E", r"^[^#].*filter=lfs", "HEAD", "--", *attributes, at=repository.top, ok=(0, 1)
    )
    return Listing(tuple(submodules), longest, lfs.code == 0)


async def has_lfs(repository: Repository) -> bool:
    """True when git finds git-lfs."""
    answer = await asking(repository).read("lfs", "version", at=repository.top, ok=(0, 1, 127, 128))
    return answer.code == 0


async def signer(repository: Repository) -> str:
    """The program that signs commits."""
    kind = await setting(repository, "gpg.format") or "openpgp"
    usual = {"openpgp": "gpg", "x509": "gpgsm", "ssh": "ssh-keygen"}.get(kind, "gpg")
    old = await setting(repository, "gpg.program", "path") if kind == "openpgp" else None
    return await setting(repository, f"gpg.{kind}.program", "path") or old or usual


async def behind(repository: Repository, old: str, new: str) -> int | None:
    """How many commits of `new` `old` does not have; None when one of them is no commit."""
    counted = await repository.git.read("rev-list", "--count", f"{old}..{new}", "--", at=repository.top, ok=(0, 128))
    return int(counted.text) if counted.code == 0 else None


async def branch_of(repository: Repository) -> str | None:
    """The branch that the user's checkout is on; None when HEAD is detached."""
    answer = await repository.git.read("symbolic-ref", "--quiet", "--short", "HEAD", at=repository.top, ok=(0, 1))
    return answer.text or None


async def upstream(repository: Repository) -> str | None:
    """What the branch of the user's checkout follows, as of the last fetch; None when it follows nothing."""
    argv = ("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    answer = await repository.git.read(*argv, at=repository.top, ok=(0, 128))
    return answer.text if answer.code == 0 else None


def stale_locks(common_dir: Path, now_s: float | None = None) -> list[Path]:
    """Lock files of git's that are too old to be held: of the index, HEAD, refs, packed refs, housekeeping."""
    now_s = time.time() if now_s is None else now_s
    folders = (common_dir, *listed(common_dir / "worktrees"))
    found = [lock for folder in folders if folder.is_dir() for lock in folder.glob("*.lock")]
    found += [
        Path(folder, name)
        for folder, _, names in os.walk(common_dir / "refs")
        for name in names
        if name.endswith(".lock")
    ]
    upkeep = common_dir / "objects" / "maintenance.lock"
    old = [lock for lock in found if _older(lock, now_s - STALE_S)]
    return sorted(old) + ([upkeep] if _older(upkeep, now_s - STALE_UPKEEP_S) else [])


def _older(path: Path, than_s: float) -> bool:
    try:
        return path.stat().st_mtime < than_s
    except (FileNotFoundError, NotADirectoryError):
        return False
