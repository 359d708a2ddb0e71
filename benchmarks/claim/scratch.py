"""A scratch repository, away from the user's git configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Scratch:
    """A repository with one commit on `main`, and a folder beside it for what is not in it."""

    repo: Path
    beside: Path

    @property
    def environment(self) -> dict[str, str]:
        """What processes get: no git variables of ours, no configuration of the user's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "EPICWAVE_"))}
        return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(self.beside)}

    def git(self, *words: str, at: Path | None = None, more: Mapping[str, str] | None = None) -> str:
        """Run git; what it said. Raises CalledProcessError."""
        environment = {**self.environment, **(more or {})}
        ran = subprocess.run(
            ["git", *words], cwd=at or self.repo, env=environment, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    def commit(self, at: Path, name: str, text: str) -> None:
        """What an agent does: write a file, commit it."""
        (at / name).write_text(text, "utf-8")
        self.git("add", name, at=at)
        self.git("commit", "-q", "-m", f"Write {name}", at=at)


@contextmanager
def scratch(files: int = 20) -> Generator[Scratch]:
    """A repository with so many small files, twenty to a folder; all of it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="epicwave-claims-"))
    made = Scratch(folder / "repo", folder / "beside")
    made.repo.mkdir()
    made.beside.mkdir()
    try:
        for number in range(files):
            path = made.repo / f"part{number // 20}" / f"file{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'"""File {number}."""\n' * 20, "utf-8")
        made.git("init", "-q", "-b", "main")
        made.git("config", "user.name", "Claims")
        made.git("config", "user.email", "claims@localhost")
        made.git("add", "-A")
        made.git("commit", "-q", "-m", "Begin")
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
