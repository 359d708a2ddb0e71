"""The disk: what it refuses us, told as the world's doing; how much is free, and what a worktree takes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp_server.errors import Fault, FaultCause


@contextmanager
def disk_faults(what: str) -> Generator[None]:
    """Within the block an `OSError` (a full disk, a read-only folder) is a `Fault(disk)` that says what failed."""
    try:
        yield
    except OSError as error:
        raise Fault(FaultCause.DISK, f"{what}: {error}") from error


def free_mb(folder: Path) -> float:
    """Room on the disk where a folder is, or will be, in millions of bytes. Raises `Fault(disk)`."""
    with disk_faults(f"{folder} cannot be looked at"):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(there).free / 1e6


def weight_mb(top: Path) -> float:
    """What a folder takes on the disk, without `.git`, in millions of bytes; what goes while we look counts nothing."""
    return sum(map(_size, _below(os.fspath(top)))) / 1e6


def _below(folder: str) -> Iterator[os.DirEntry[str]]:
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name == ".git":
                        continue
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue


def _size(entry: os.DirEntry[str]) -> int:
    try:
        seen = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    return getattr(seen, "st_blocks", -(-seen.st_size // 512)) * 512
