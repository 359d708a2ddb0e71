"""The house keeps its rules, and each rule catches what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tree() -> house.Tree:
    return house.read_tree(ROOT)


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_the_checkout_keeps_the_rule(rule: house.Rule, tree: house.Tree) -> None:
    findings = rule(tree)
    assert not findings, "\n" + "\n".join(findings)


def test_the_tree_has_what_the_rules_are_about(tree: house.Tree) -> None:
    """A rule over an empty tree would always be kept."""
    assert {"pyproject.toml", ".ci/run", "mcp_server/ports.py", "tests/house.py"} <= tree.keys()
    assert not [path for path in tree if path.startswith((".git/", ".venv"))]


def _long_function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


_VERSIONS = {
    "pyproject.toml": '[project]\nversion = "1.0"\n',
    "mcp_server/__init__.py": '__version__ = "1.0"\n',
    ".claude-plugin/plugin.json": '{"version": "1.0"}',
    ".cursor-plugin/plugin.json": '{"version": "1.0"}',
}

PLANTED: list[tuple[house.Rule, str, str]] = [
    (house.small_files, "mcp_server/core/a.py", "x = 1\n" * 401),
    (house.small_files, "tests/a.py", "x = 1\n" * 401),
    (house.small_functions, "benchmarks/a.py", _long_function(61)),
    (house.small_functions, "tests/a.py", "class A:\n    async " + _long_function(61).replace("    x", "        x")),
    (house.rooms_are_known, "mcp_server/utils/a.py", ""),
    (house.rooms_are_known, "mcp_server/helpers.py", ""),
    (house.imports_go_downward, "mcp_server/core/a.py", "from mcp_server.ports import Clock"),
    (house.imports_go_downward, "mcp_server/errors.py", "import mcp_server.core.model"),
    (
        house.imports_go_downward,
        "mcp_server/engine/a.py",
        "def f():\n    from mcp_server.adapters.git import worktrees",
    ),
    (house.imports_go_downward, "mcp_server/adapters/git/a.py", "from ...engine import engine"),
    (house.imports_go_downward, "mcp_server/server/a.py", "from mcp_server import cli"),
    (house.imports_go_downward, "mcp_server/cli/main.py", "from mcp_server.testing import world"),
    (house.core_is_pure, "mcp_server/core/a.py", "from time import monotonic"),
    (house.core_is_pure, "mcp_server/core/a.py", "import os.path"),
    (house.libraries_stay_home, "mcp_server/core/views.py", "import networkx as nx"),
    (house.libraries_stay_home, "mcp_server/engine/a.py", "from git import Repo"),
    (house.libraries_stay_home, "mcp_server/cli/pump.py", "from mcp.server import MCPServer"),
    (house.no_banned_calls, "tests/a.py", "import os\nos.chdir('/')"),
    (house.no_banned_calls, "mcp_server/engine/a.py", "from asyncio import gather"),
    (house.no_banned_calls, "mcp_server/engine/a.py", "import time\ntime.sleep(1)"),
    (house.no_shell, "tests/a.py", "run('ls', shell=True)"),
    (house.no_wide_except, "mcp_server/engine/a.py", "try:\n    f()\nexcept:\n    pass"),
    (
        house.no_wide_except,
        "mcp_server/engine/a.py",
        "try:\n    f()\nexcept (OSError, Exception) as e:\n    log(e)\n    raise",
    ),
    (house.no_wide_except, "tests/a.py", "try:\n    f()\nexcept BaseException:\n    pass"),
    (house.no_wide_except, "tests/a.py", "try:\n    f()\nexcept* Exception:\n    pass"),
    (house.no_wide_except, "tests/a.py", "with contextlib.suppress(Exception):\n    f()"),
    (house.nothing_beside_the_checkout, "README.md", f"see {house.ELSEWHERE[0]}/corpus"),
    (house.no_registry_host, ".ci/run", f"pip install -i https://{house.REGISTRIES[0]}"),
    (house.one_version, "pyproject.toml", '[project]\nversion = "1.1"\n'),
    (house.one_version, "mcp_server/__init__.py", "version = 1.0\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_caught(rule: house.Rule, path: str, text: str) -> None:
    findings = rule({**_VERSIONS, path: text})
    assert any(finding.startswith(f"{path}:") for finding in findings), findings


KEPT: list[tuple[house.Rule, str, str]] = [
    (house.small_files, "tests/a.py", "x = 1\n" * 400),
    (house.small_functions, "tests/a.py", _long_function(60)),
    (house.rooms_are_known, "mcp_server/core/deep/a.py", ""),
    (
        house.imports_go_downward,
        "mcp_server/engine/a.py",
        "from mcp_server import __version__\nfrom mcp_server.engine import jobs",
    ),
    (house.imports_go_downward, "mcp_server/cli/demo.py", "from mcp_server.testing import agent"),
    (house.imports_go_downward, "mcp_server/testing/a.py", "from mcp_server.server import app"),
    (house.core_is_pure, "mcp_server/engine/a.py", "import time"),
    (house.core_is_pure, "mcp_server/core/a.py", "from mcp_server.core import time"),
    (house.libraries_stay_home, "mcp_server/adapters/git/a.py", "import git\nimport git.exc"),
    (house.libraries_stay_home, "tests/a.py", "import mcp\nimport git\nimport networkx"),
    (house.libraries_stay_home, "mcp_server/cli/a.py", "import mcp_server.server.app"),
    (house.no_banned_calls, "tests/journeys/a.py", "import time\ntime.sleep(0.01)"),
    (house.no_wide_except, "tests/a.py", "try:\n    f()\nexcept BaseException:\n    undo()\n    raise"),
    (house.no_wide_except, "tests/a.py", "try:\n    f()\nexcept ExceptionGroup:\n    pass"),
    (house.nothing_beside_the_checkout, ".ci/run", f"{house.ELSEWHERE[0]}/corpus"),
    (house.one_version, "README.md", ""),
]


@pytest.mark.parametrize(("rule", "path", "text"), KEPT)
def test_what_a_rule_allows_is_no_finding(rule: house.Rule, path: str, text: str) -> None:
    assert rule({**_VERSIONS, path: text}) == []
