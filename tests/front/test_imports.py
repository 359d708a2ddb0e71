"""`epicwave serve` is there at once because it loads next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.front.stage import Editor, Engine
from tests.server.scene import environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is a front where there are Unix sockets")

ALLOWED = {
    "mcp_server",
    "mcp_server.cli",
    "mcp_server.cli.entry",
    "mcp_server.front",
    "mcp_server.front.place",
    "mcp_server.front.pump",
    "mcp_server.front.start",
}
"""All that it may load of us."""
HEAVY = {
    "mcp",
    "mcp_types",
    "pydantic",
    "typer",
    "click",
    "anyio",
    "asyncio",
    "pathlib",
    "dataclasses",
    "git",
    "logging",
}
TELLING = """
import json, os, sys
def told(code, leave=os._exit):
    with open(sys.argv[0], "w") as file: json.dump(sorted(sys.modules), file)
    leave(code)
os._exit = told
sys.argv.pop(0)
from mcp_server.cli.entry import main
sys.argv.insert(0, sys.argv.pop(0))
main()
"""


def test_serve_loads_the_standard_library_and_the_front_alone(repo: Path, engine: Engine) -> None:
    with Editor(repo, TELLING) as editor:
        wire = engine.meets()
        editor.ask(1, "initialize")
        wire.answer(wire.hears())
        editor.hears()
        editor.to.close()
        assert editor.ends() == 0
    loaded = set(json.loads(editor.launched.read_text("utf-8")))
    assert {name for name in loaded if name.split(".")[0] == "mcp_server"} == ALLOWED
    bare = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sorted(sys.modules)))"],
        env=environment(),
        capture_output=True,
        check=True,
    )
    added = loaded - set(json.loads(bare.stdout))  # an editable install loads pathlib before anybody can help it
    assert not {name.split(".")[0] for name in added} & HEAVY
    assert {name.split(".")[0] for name in added} <= sys.stdlib_module_names | {"mcp_server"}
    assert len(added) < 90
