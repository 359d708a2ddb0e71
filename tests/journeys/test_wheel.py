"""What is shipped: the wheel, in an environment of its own, with nothing of the checkout in reach."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

import mcp_server

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def _run(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Run to a good end and answer what it printed."""
    ran = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = ran.stdout.decode("utf-8", "replace")
    assert ran.returncode == 0, said + ran.stderr.decode("utf-8", "replace")
    return said


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, shell_environment: Mapping[str, str]) -> Path:
    """The folder of programs of a fresh environment that the built wheel was installed in."""
    folder = tmp_path_factory.mktemp("wheel")
    env = {name: value for name, value in shell_environment.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    _run(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--wheel-dir", folder, cwd=folder, env=env)
    [wheel] = folder.glob("epicwave-*.whl")
    assert wheel.name == f"epicwave-{mcp_server.__version__}-py3-none-any.whl"
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder, env=env)
    return programs


def test_the_wheel_has_the_program(installed: Path, tmp_path: Path) -> None:
    said = _run(installed / "epicwave", "--version", cwd=tmp_path, env=os.environ)
    assert mcp_server.__version__ in said


def test_the_wheel_runs_the_demo_to_its_end(installed: Path, tmp_path: Path) -> None:
    """The main job, with neither the checkout nor its test dependencies at hand."""
    said = _run(installed / "epicwave", "demo", cwd=tmp_path, env=os.environ)
    assert "checks green" in said


def test_the_wheel_needs_no_test_dependency(installed: Path, tmp_path: Path) -> None:
    """Every module can be imported but those for tests, which need trio; the demo's agent is none of them."""
    walk = (
        "import importlib, pkgutil, mcp_server\n"
        "for found in pkgutil.walk_packages(mcp_server.__path__, 'mcp_server.'):\n"
        "    if found.name.endswith('__main__') or found.name.startswith('mcp_server.testing.'): continue\n"
        "    importlib.import_module(found.name)\n"
        "import mcp_server.testing.scripted_agent\n"
        "print(mcp_server.__file__)\n"
    )
    said = _run(installed / "python", "-c", walk, cwd=tmp_path, env=os.environ)
    assert str(installed.parent) in said
