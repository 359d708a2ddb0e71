"""Everything here runs in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.testing.clock import virtual_time


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A new clock for each test, that jumps when every task waits."""
    return virtual_time()
