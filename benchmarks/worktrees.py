"""What worktrees and merges cost in big repositories: `python benchmarks/worktrees.py [--files N ...]`.

Synthetic repositories, on tmpfs where there is room, so that the disk of the day says nothing. In each, so many at
once:

    plain    `git worktree add` of a new branch, then `git worktree remove --force`
    ours     the adapter's own `hold` and its end, from a pool in which as many worktrees wait; each was an attempt's
    anew     the same without a pool

An agent is the same in all: it changes 20 files, commits, and leaves 200 that git ignores. It is not counted, but in
the time of all together. Getting a worktree is told apart from giving it back: ours is back when its slot is free; its
files are deleted later, and how much later is told too. Then merges: pairs of branches by `git merge-tree --stdin`
against one call each, and a merge that needs no worktree (merge-tree, commit-tree, update-ref) against `git merge` in
one. A ratio above 1 says how much faster ours is.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import anyio
import anyio.to_thread
import psutil

from mcp_server.adapters.git.pool import Keeping, Pool
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.worktrees import GitWorktrees
from mcp_server.core.spec import AttemptId
from mcp_server.ports import Done

RAM = Path("/dev/shm")  # noqa: S108 - looked at for its room, and used by a folder of our own
BYTES_A_FILE = 6000
"""5,000 files are 30 MB, 50,000 are 300 MB."""
CHANGED, IGNORED = 20, 200
BRANCHES = 12
"""Every two of them are a pair: 66."""


@dataclass(slots=True)
class Took:
    """Seconds from asking to having, and from letting go to a free slot, of each; and of all together."""

    get_s: list[float] = field(default_factory=list[float])
    back_s: list[float] = field(default_factory=list[float])
    all_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """One repository with so many files, and a folder beside it."""

    repo: Path
    beside: Path
    files: int

    def git(self, *words: str, at: Path | None = None, stdin: str = "", ok: tuple[int, ...] = (0,)) -> str:
        """Run git, away from the user's configuration; what it said."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(self.beside)}
        argv = ["git", "-c", "gc.auto=0", *words]
        ran = subprocess.run(
            argv, cwd=at or self.repo, env=kept | quiet, capture_output=True, text=True, input=stdin, check=False
        )
        assert ran.returncode in ok, f"{argv}: {ran.stderr}"
        return ran.stdout.strip()

    def agent(self, path: Path, number: int) -> None:
        """What an attempt does."""
        for each in range(CHANGED):
            name = _name((number * CHANGED + each) % self.files)
            (path / name).write_text(f"changed by {number}\n", "utf-8")
        (path / "out").mkdir(exist_ok=True)
        for each in range(IGNORED):
            (path / "out" / f"{each}.o").write_bytes(b"x" * 1000)
        self.git("commit", "-q", "-a", "-m", f"Story {number}", at=path)


def _name(number: int) -> str:
    return f"part{number // 1000}/of{number // 50 % 20}/file{number}.py"


@contextmanager
def _place(folder: Path, files: int) -> Generator[Place]:
    top = Path(tempfile.mkdtemp(prefix="epicwave-worktrees-", dir=folder))
    place = Place(top / "repo", top / "beside", files)
    place.repo.mkdir()
    place.beside.mkdir()
    try:
        for number in range(files):
            path = place.repo / _name(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# file {number}\n".ljust(60, "-") * (BYTES_A_FILE // 60), "utf-8")
        (place.repo / ".gitignore").write_text("out/\n", "utf-8")
        place.git("init", "-q", "-b", "main")
        for key, value in {"user.name": "Bench", "user.email": "bench@localhost"}.items():
            place.git("config", key, value)
        place.git("add", "-A")
        place.git("commit", "-q", "-m", "Begin")
        place.git("repack", "-a", "-d", "-q")
        yield place
    finally:
        shutil.rmtree(top, ignore_errors=True)


async def _together(
    at_once: int, one: Callable[[int, Took], Coroutine[None, None, None]], rounds: int, first: int
) -> Took:
    took = Took()
    began_s = time.perf_counter()
    for number in range(rounds):
        async with anyio.create_task_group() as group:
            for each in range(at_once):
                group.start_soon(one, first + number * at_once + each, took)
    took.all_s = (time.perf_counter() - began_s) / rounds
    return took


async def _plain(place: Place, at_once: int, rounds: int) -> Took:
    async def one(number: int, took: Took) -> None:
        path = place.beside / "plain" / f"S{number}"
        began_s = time.perf_counter()
        argv = ("worktree", "add", "-q", "--no-track", "-b", f"plain/{at_once}/{number}", str(path), "main")
        await anyio.to_thread.run_sync(place.git, *argv)
        took.get_s.append(time.perf_counter() - began_s)
        await anyio.to_thread.run_sync(place.agent, path, number)
        began_s = time.perf_counter()
        await anyio.to_thread.run_sync(place.git, "worktree", "remove", "--force", str(path))
        took.back_s.append(time.perf_counter() - began_s)

    return await _together(at_once, one, rounds, 0)


async def _ours(place: Place, at_once: int, rounds: int, pooled: bool) -> tuple[Took, float]:
    """The second number: seconds until all files that were thrown away are deleted, after the last one was back."""
    repository = await Repository.open(place.repo)
    base = await repository.head_sha()
    pool = Pool(repository, place.beside / "ours", Keeping(at_once if pooled else 0))
    worktrees = GitWorktrees(repository, place.beside / "ours", pool)
    epic = f"{'pooled' if pooled else 'anew'}{at_once}"

    async def one(number: int, took: Took) -> None:
        attempt = AttemptId(epic, f"S{number}", 1)
        began_s = time.perf_counter()
        held = worktrees.hold(attempt, base)
        path = await held.__aenter__()
        took.get_s.append(time.perf_counter() - began_s)
        await anyio.to_thread.run_sync(place.agent, path, number)
        assert isinstance(await worktrees.inspect(attempt, base), Done)
        began_s = time.perf_counter()
        await held.__aexit__(None, None, None)
        took.back_s.append(time.perf_counter() - began_s)

    if pooled:
        await _together(at_once, one, 1, 10_000)  # fills the pool
        assert len(pool.idle) == at_once
        await pool.settle(600)
    took = await _together(at_once, one, rounds, 0)
    began_s = time.perf_counter()
    await pool.settle(600)
    later_s = time.perf_counter() - began_s
    await pool.empty()
    await pool.settle(600)
    return took, later_s


def _rows(place: Place, at_once: Sequence[int], rounds: int) -> None:
    head = ("at once", "plain get", "ours get", "ratio", "plain back", "ours back", "ratio", "plain all", "ours all")
    print(("{:>8}" + " {:>10} {:>10} {:>6}" * 3 + " {:>10} {:>9}").format(*head, "ratio", "anew all", "deleted"))
    for number in at_once:
        plain = anyio.run(_plain, place, number, rounds)
        ours, later_s = anyio.run(_ours, place, number, rounds, True)
        anew, _ = anyio.run(_ours, place, number, rounds, False)
        cells: list[str] = []
        for theirs, mine in ((plain.get_s, ours.get_s), (plain.back_s, ours.back_s)):
            here_s, there_s = median(mine), median(theirs)
            cells += [f"{there_s:10.3f}", f"{here_s:10.3f}", f"{there_s / here_s:6.1f}"]
        cells += [f"{plain.all_s:10.3f}", f"{ours.all_s:10.3f}", f"{plain.all_s / ours.all_s:6.1f}"]
        print(f"{number:8}", *cells, f"{anew.all_s:10.3f}", f"{later_s:9.3f}", flush=True)


def _merges(place: Place, rounds: int) -> None:
    """The branches change 20 files each, those of neighbours overlap: some pairs conflict, most do not."""
    work = place.beside / "merges"
    place.git("worktree", "add", "-q", "--detach", str(work), "main")
    names = [f"story/{number}" for number in range(BRANCHES)]
    for number, name in enumerate(names):
        place.git("checkout", "-q", "-b", name, "main", at=work)
        for each in range(CHANGED):
            (work / _name(number * (CHANGED - 1) + each)).write_text(f"changed by {name}\n", "utf-8")
        place.git("commit", "-q", "-a", "-m", name, at=work)
    pairs = list(itertools.combinations(names, 2))
    asked = "".join(f"{one} {other}\n" for one, other in pairs)
    by_one = median(_timed(lambda: [_pair(place, *pair) for pair in pairs]) for _ in range(rounds)) / len(pairs)
    together = ("merge-tree", "--write-tree", "--stdin", "--name-only", "-z")
    in_one = median(_timed(lambda: place.git(*together, stdin=asked)) for _ in range(rounds)) / len(pairs)
    print(
        f"{len(pairs)} pairs by merge-tree, ms a pair: one by one {by_one * 1e3:.2f}, --stdin {in_one * 1e3:.2f}, "
        f"ratio {by_one / in_one:.1f}"
    )
    place.git("branch", "tip", "main")
    without = median(_timed(lambda name=name: _bare_merge(place, name)) for name in names[::2])
    place.git("checkout", "-q", "--detach", "main", at=work)
    inside = median(_timed(lambda name=name: _merge_in(place, work, name)) for name in names[::2])
    print(
        f"a merge, ms: in a worktree {inside * 1e3:.1f}, without one {without * 1e3:.1f}, ratio {inside / without:.1f}"
    )
    place.git("worktree", "remove", "--force", str(work))


def _pair(place: Place, one: str, other: str) -> None:
    place.git("merge-tree", "--write-tree", "--name-only", "-z", one, other, ok=(0, 1))


def _bare_merge(place: Place, name: str) -> None:
    """Onto `tip`, by compare-and-set."""
    before = place.git("rev-parse", "tip", name).split()
    tree = place.git("merge-tree", "--write-tree", *before)
    merged = place.git("commit-tree", tree, "-p", before[0], "-p", before[1], "-m", f"Merge {name}")
    place.git("update-ref", "refs/heads/tip", merged, before[0])


def _merge_in(place: Place, work: Path, name: str) -> None:
    place.git("merge", "-q", "--no-ff", "--no-edit", name, at=work)


def _timed(do: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    do()
    return time.perf_counter() - began_s


def _room(files: int, at_once: int) -> Path:
    """RAM, when there is twice what is wanted, free in it and in the machine; else the temporary folder."""
    wanted = files * 2 * 4096 * (at_once + 3)
    room = min(shutil.disk_usage(RAM).free, psutil.virtual_memory().available) if RAM.is_dir() else 0
    fits = os.access(RAM, os.W_OK) and room > 2 * wanted
    return RAM if fits else Path(tempfile.gettempdir())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3, help="of each, medians are told")
    asked = parser.parse_args()
    version = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.strip()
    for files in asked.files:
        folder = _room(files, max(asked.at_once))
        where = "tmpfs (/dev/shm)" if folder == RAM else f"disk ({folder})"
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        on = f"{version}, {os.cpu_count()} processors, load {load}"
        print(f"\n{files} files on {where}; {on}; seconds, median a worktree")
        with _place(folder, files) as place:
            _rows(place, asked.at_once, asked.rounds)
            _merges(place, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
