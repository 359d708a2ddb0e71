"""The claims that were made for epicwave, measured. `python benchmarks/claims.py [--quick] [--only 2,5] [--seed S]`.

One table: what was compared, ours, the other, ours by the other, how often, and a sentence that says what it is worth,
also where the claim does not hold. A full run takes less than ten minutes, `--quick` less than one. Real epics are read
from the folder that EPICWAVE_CORPUS names. Exit code 1 when a claim that was asked for could not be measured.

1 failure detection, 2 polling, 3 worktrees, 4 cascades, 5 barrier waves, 6 graph cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from claim import barriers, cache, cascades, detection, polling, worktrees
from claim.rows import Config, NotYet, Row

CLAIMS: dict[int, Callable[[Config], Iterator[Row]]] = {
    1: detection.rows,
    2: polling.rows,
    3: worktrees.rows,
    4: cascades.rows,
    5: barriers.rows,
    6: cache.rows,
}
HEAD = ("claim", "what", "ours", "other", "ratio", "n", "worth")


def main() -> int:
    """Print the configuration and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--only", type=_numbers, default=list(CLAIMS), help="claims by number: 2,5")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    config = Config(asked.seed, asked.quick)
    print(f"{_configuration(config)}\n", flush=True)
    found: list[Row] = []
    missing: list[str] = []
    for number in asked.only:
        began_s = time.monotonic()
        try:
            found += CLAIMS[number](config)
        except NotYet as reason:
            missing.append(f"claim {number} was not measured: {reason}")
        print(f"claim {number}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    print("\n".join([*_table(found), *missing]))
    return bool(missing)


def _numbers(words: str) -> list[int]:
    numbers = [int(word) for word in words.split(",")]
    if unknown := [str(number) for number in numbers if number not in CLAIMS]:
        raise argparse.ArgumentTypeError(f"there is no claim {', '.join(unknown)}; there are 1 to {len(CLAIMS)}")
    return numbers


def _configuration(config: Config) -> str:
    git = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.strip()
    size = "quick" if config.quick else "full"
    python = f"Python {platform.python_version()} on {platform.system()}"
    load = f" with a load of {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"seed {config.seed}, {size}, {python}, {git}, {os.cpu_count()} cores{load}"


def _table(found: list[Row]) -> Iterator[str]:
    """In Markdown, and to be read as it is."""
    cells = [(str(r.claim), r.what, r.ours, r.other, _shown(r.ratio), str(r.n), r.note) for r in found]
    widths = [max(map(len, column)) for column in zip(HEAD, *cells, strict=True)][:-1]
    for number, line in enumerate([HEAD, *cells]):
        padded = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            yield f"| {' | '.join(['-' * max(3, width) for width in widths])} | --- |"


def _shown(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


if __name__ == "__main__":
    sys.exit(main())
