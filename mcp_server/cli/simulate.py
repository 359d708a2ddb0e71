"""`epicwave simulate`: whole servers in virtual time, killed and failed in every way, and what became of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mcp_server import __version__
from mcp_server.cli.terminal import open_console
from mcp_server.core.limits import Strategy
from mcp_server.errors import Code, Refused
from mcp_server.testing.fate import Config
from mcp_server.testing.simulation import simulate as run

BROKEN = 1
SHOWN_S = 5.0
"""How often the tally is told on the way."""


def simulate(seed: int, lives: int, strategy: str | None, jobs: int | None) -> int:
    """Simulate, tell, and return the exit code. Raises `Refused(bad_argument)`."""
    only, line = _strategy(strategy), open_console().print
    processes = min(jobs or os.cpu_count() or 1, lives)
    line(f"epicwave {__version__}{_commit()}, Python {platform.python_version()}")
    line(f"{lives:,} lives from seed {seed} on, {only or 'all strategies'}, side by side: {processes}. The first is:")
    line(_words(Config.of(seed, only)))
    began_s = told_s = time.monotonic()

    def told(tally: object) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= SHOWN_S:
            told_s = time.monotonic()
            line(f"{told_s - began_s:.0f} s: {str(tally).partition(chr(10))[0]}")

    done = run(seed, lives, only, processes, told)
    line(f"\n{done.tally}")
    line("seen: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(done.tally.seen.items())))
    line(f"{time.monotonic() - began_s:.1f} s, digest {done.digest}")
    if done.broken is None:
        return 0
    line(f"\nBROKEN by seed {done.broken.seed}:")
    for breach in done.broken.breaches:
        line(f"- {breach}")
    line(f"Its configuration:\n{_words(Config.of(done.broken.seed, only))}")
    line(done.broken.trace)
    again = f" --strategy {only}" if only else ""
    line(f"To see it again{_commit()}: epicwave simulate --seed {done.broken.seed} --lives 1{again}")
    return BROKEN


def _strategy(name: str | None) -> Strategy | None:
    try:
        return Strategy(name) if name is not None else None
    except ValueError:
        known = ", ".join(Strategy)
        raise Refused(Code.BAD_ARGUMENT, f"There is no strategy {name!r}.", f"Use one of: {known}.") from None


def _commit() -> str:
    """The commit of the checkout that this runs from, and whether it was changed since; empty when it is installed."""
    git, root = shutil.which("git"), Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return ""
    said = [
        subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return f", commit {said[0]}{' with changes' if said[1] else ''}"


def _words(configuration: Any, indent: str = "  ") -> str:
    """One line a field."""
    lines: list[str] = []
    for each in fields(configuration):
        value = getattr(configuration, each.name)
        if is_dataclass(value):
            lines += [f"{indent}{each.name}:", _words(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{each.name}: {f'{value:g}' if isinstance(value, float) else value}")
    return "\n".join(lines)
