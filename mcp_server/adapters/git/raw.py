"""Files as their bytes are, whatever attributes and filters make of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mcp_server.adapters.git.command import Git

TOGETHER = 200
"""Files that are named in one call."""
FILES = (b"100644", b"100755")
"""Modes of what is no link and no submodule."""


def together(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The names, as many at a time as one call may have."""
    left = iter(names)
    while some := list(itertools.islice(left, TOGETHER)):
        yield some


async def hashed(git: Git, folder: Path, names: list[bytes], *, store: bool) -> list[str]:
    """Sha of each file's bytes, as far as they can all be read; stored in the repository when asked for."""
    argv = ("hash-object", *(["-w"] if store else []), "--no-filters", "--", *map(os.fsdecode, names))
    call = git.write if store else git.read
    return (await call(*argv, content=folder, ok=(0, 128))).text.splitlines() if names else []


async def untouched(git: Git, folder: Path, stored: Mapping[bytes, str]) -> list[bytes]:
    """Of these files those that have the very bytes that are stored under their sha.

    Git takes one for changed where attributes that came later would store it otherwise (line ends, LFS), and no
    checkout can make it clean.
    """
    found: list[bytes] = []
    for some in together(stored):
        shas = await hashed(git, folder, some, store=False)
        found += [name for name, sha in zip(some, shas, strict=False) if sha == stored[name]]
    return found
