"""What the file system refuses us, told as the world's doing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from mcp_server.errors import Fault, FaultCause


@contextmanager
def disk_faults(what: str) -> Generator[None]:
    """Within the block an `OSError` (a full disk, a read-only folder) is a `Fault(disk)` that says what failed."""
    try:
        yield
    except OSError as error:
        raise Fault(FaultCause.DISK, f"{what}: {error}") from error
