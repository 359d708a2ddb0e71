"""Whether the journal is what was written: each record's sum goes over its own fields and the sum of the one before.

A CRC is enough: it is there for disks and careless hands, not for forgers. It finds every burst of up to 32 wrong bits,
and of all other damage all but one in four thousand million. The chain finds what a sum of each record alone would not:
records that were taken out, swapped, or that come from another life of the same journal. What no sum can tell is that
the last records are gone; git does (`MergePort.landed`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mcp_server.errors import Code, Refused

FIRST = 0
"""The sum before the first record."""
Row = TypeVar("Row", bound="tuple[Any, ...]")
_NUMBERS = struct.Struct("<qdqq")


Record = tuple[int, float, bytes, int, bytes, int]
"""A row as it lies in the file: seq, at_s, kind, version, body and sum; after damage any may be of any type."""


def chained(before: int, seq: int, at_s: float, kind: bytes, version: int, body: bytes) -> int:
    """The sum of a record behind one whose sum is `before`."""
    return zlib.crc32(body, zlib.crc32(_NUMBERS.pack(seq, at_s, version, len(kind)) + kind, before))


def unbroken(path: Path, rows: Iterable[Record], after: int, before: int) -> Iterator[Record]:
    """The records behind number `after`, whose sum is `before`. Raises `Refused(journal_unreadable)` at a bad one."""
    for row in in_order(path, rows, after):
        try:
            right = chained(before, *row[:-1]) == row[-1]
        except (TypeError, struct.error):  # not even the types of its fields are right
            right = False
        if not right:
            raise damaged(path, f"{_named(row)} is not what was written, or not behind what it was written behind")
        before = row[-1]
        yield row


def in_order(path: Path, rows: Iterable[Row], after: int) -> Iterator[Row]:
    """The same rows. Raises `Refused(journal_unreadable)` when one is missing before the last."""
    for expected, row in enumerate(rows, start=after + 1):
        if row[0] != expected:
            raise damaged(path, f"record {expected} is missing, {_named(row)} is in its place")
        yield row


def _named(row: tuple[Any, ...]) -> str:
    kind = row[2].decode("utf-8", "backslashreplace") if isinstance(row[2], bytes) else repr(row[2])
    return f"record {row[0]} ({kind[:40]})"


def damaged(path: Path, what: str) -> Refused:
    """The journal is not to be believed: nothing is started on it, and nothing in it is changed."""
    return Refused(
        Code.JOURNAL_UNREADABLE,
        f"The journal {path} is damaged: {what}. Nothing was changed.",
        f"Put a good copy of the file there, or move {path.name}, {path.name}-wal and {path.name}-shm away and plan "
        "the epic again: what is on its branch is found in git and not run again, unfinished work is kept under "
        "refs/epicwave/rescue/; the attempts, notes and times of the past are lost.",
    )
