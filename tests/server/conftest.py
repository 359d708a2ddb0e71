"""What the server's tests start from: a scratch repository and a client in memory, in both eras of the protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mcp_server.server.app import build
from tests.server.lead import ERAS, Lead, leading
from tests.server.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(params=ERAS)
async def lead(request: pytest.FixtureRequest, scene: Scene) -> AsyncGenerator[Lead]:
    """A lead of its own server on the scene's repository."""
    async with leading(build(scene.repo), request.param) as connected:
        yield connected


@pytest.fixture
async def modern(scene: Scene) -> AsyncGenerator[Lead]:
    """The same in the present era only, where what is tested does not come near the protocol."""
    async with leading(build(scene.repo)) as connected:
        yield connected
