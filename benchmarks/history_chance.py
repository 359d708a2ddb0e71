"""How often two changes to a file conflict of which neither replaces lines of the other. By hand; for `histories.py`.

`python benchmarks/history_chance.py [REPOSITORY] [--commits 600]`

Looks at pairs of commits of the first-parent line that change a file one after the other. Had they been made side by
side, they would conflict exactly when the earlier one cannot be taken back from under the later one by a three-way
merge: git itself is asked. Pairs of which the later one replaces lines of the earlier one are left out: they are
dependencies, and never run side by side. Prints the share of pairs that conflict by the product of their numbers of
hunks, beside what `history_world.measured_chance` says; the same for pairs of commits, where any file counts; and how
many hunks a change of so many lines has.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import cache, partial
from itertools import pairwise
from math import prod, sqrt
from pathlib import Path
from typing import NamedTuple

from history_world import measured_chance

HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
BUCKETS = (1, 4, 16, 64, 10**9)
LINES = (2, 5, 10, 20, 50, 100, 10**9)


class Hunk(NamedTuple):
    """Lines that were replaced, and the lines they were replaced by: first, and how many."""

    old: int
    olds: int
    new: int
    news: int


class Pair(NamedTuple):
    """Two changes to a file that follow each other."""

    product: int
    is_dep: bool
    conflicts: bool


def git(repo: Path, *words: str) -> bytes:
    """Run git; nothing when it fails."""
    return subprocess.run(["git", "-C", str(repo), *words], capture_output=True, check=False).stdout


@cache
def hunks(repo: Path, commit: str, path: str) -> list[Hunk]:
    """What a commit changes in a file."""
    diff = git(repo, "diff", "-U0", "--no-ext-diff", f"{commit}^", commit, "--", path)
    return [Hunk(*(int(word) if word is not None else 1 for word in m.groups())) for m in HUNK.finditer(diff)]


def judged(repo: Path, earlier: str, later: str, path: str) -> Pair:
    """What becomes of two changes that are made side by side."""
    ours, theirs = hunks(repo, earlier, path), hunks(repo, later, path)
    written = {line for hunk in ours for line in range(hunk.new, hunk.new + hunk.news)}
    is_dep = any(line in written for hunk in theirs for line in range(hunk.old, hunk.old + hunk.olds))
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder, name) for name in ("later", "base", "before")]
        for side, rev in zip(sides, (later, earlier, f"{earlier}^"), strict=True):
            side.write_bytes(git(repo, "show", f"{rev}:{path}"))
        merged = subprocess.run(["git", "merge-file", "-p", "-q", *sides], capture_output=True, check=False)
    return Pair(len(ours) * len(theirs), is_dep, merged.returncode != 0)


def main() -> int:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--commits", type=int, default=600)
    asked = parser.parse_args()
    ask = partial(git, asked.repository)
    changes: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for commit in ask("rev-list", "--first-parent", "--reverse", "HEAD").decode().split()[-asked.commits :][1:]:
        told = ask("diff-tree", "-r", "--no-renames", "--numstat", "--diff-filter=M", f"{commit}^", commit)
        for line in told.decode("utf-8", "replace").splitlines():
            added, deleted, path = line.split("\t")
            if added != "-":
                changes[path].append((commit, int(added) + int(deleted)))
    commits: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for path, found in changes.items():
        for (earlier, _), (later, _) in pairwise(found):
            if ask("rev-parse", f"{earlier}:{path}") == ask("rev-parse", f"{later}^:{path}"):
                commits[earlier, later].append(judged(asked.repository, earlier, later, path))
    _tell([list(pairs) for pairs in commits.values()])
    _tell_hunks([(n, len(hunks(asked.repository, c, path))) for path, found in changes.items() for c, n in found])
    return 0


def _tell(commits: list[list[Pair]]) -> None:
    free = [pair for pairs in commits for pair in pairs if not pair.is_dep]
    before = 0
    for most in BUCKETS:
        these = [pair for pair in free if before < pair.product <= most]
        before = most
        if these:
            share = sum(pair.conflicts for pair in these) / len(these)
            said = sum(measured_chance(pair.product) for pair in these) / len(these)
            print(f"hunks * hunks up to {most}: {share:.3f} of {len(these)} pairs conflict; the model says {said:.3f}")
    pairs = [pairs for pairs in commits if not any(pair.is_dep for pair in pairs)]
    share = sum(any(pair.conflicts for pair in each) for each in pairs) / max(1, len(pairs))
    said = sum(1 - prod(1 - measured_chance(pair.product) for pair in each) for each in pairs) / max(1, len(pairs))
    print(f"pairs of commits: {share:.3f} of {len(pairs)} conflict; the model says {said:.3f}")


def _tell_hunks(found: list[tuple[int, int]]) -> None:
    before = 0
    for most in LINES:
        these = [(lines, number) for lines, number in found if before < lines <= most]
        before = most
        if these:
            number, said = sum(n for _, n in these) / len(these), sum(sqrt(n) for n, _ in these) / len(these)
            print(f"changes of up to {most} lines: {number:.1f} hunks, mean of {len(these)}; the model says {said:.1f}")


if __name__ == "__main__":
    sys.exit(main())
