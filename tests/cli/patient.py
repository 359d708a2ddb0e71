"""A repository for the doctor: programs and hooks put into it, and what is said of each subject."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import document, epicwave
from tests.server.scene import Scene

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and shell scripts")
DAY_S = 86_400.0


def program(scene: Scene, name: str, text: str) -> None:
    """Put a program on the PATH."""
    path = scene.repo.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)


def levels(scene: Scene, *words: str) -> dict[str, str]:
    """The worst level of each subject."""
    order = ["ok", "note", "warning", "error"]
    worst: dict[str, str] = {}
    for finding in document(epicwave(scene, "doctor", "--json", *words))["findings"]:
        worst[finding["code"]] = max(worst.get(finding["code"], "ok"), finding["level"], key=order.index)
    return worst


def the(scene: Scene, code: str) -> dict[str, Any]:
    """The one finding of a subject that is not ok."""
    said = document(epicwave(scene, "doctor", "--json"))["findings"]
    (found,) = [finding for finding in said if finding["code"] == code and finding["level"] != "ok"]
    assert found["why"]
    assert found["remedy"]
    return found


def hook(scene: Scene, name: str, text: str, *, folder: Path | None = None, mode: int = 0o755) -> Path:
    path = (folder or scene.repo / ".git" / "hooks") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(mode)
    return path
