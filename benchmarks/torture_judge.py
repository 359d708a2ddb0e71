"""The outside judge of `torture.py`: reads git, what the agents wrote down, and what the journal claims; nothing else.

`Evidence` is what was found, `verdict` what is wrong with it. So a forged find can be put before the judge.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(r"T-[A-Za-z0-9]+-[0-9]+-[0-9]+-[0-9]+\b")


@dataclass(slots=True)
class Start:
    """One start of an agent, as it wrote it down itself."""

    story: str
    attempt: int
    base: str = ""
    manner: str = ""
    wrote: set[str] = field(default_factory=set[str])
    committed: set[str] = field(default_factory=set[str])
    removed: set[str] = field(default_factory=set[str])
    """Tokens of others that were in a file which it removed."""
    done: bool = False
    """All was committed on the right base, and it ended as it should."""


@dataclass(slots=True)
class Evidence:
    """What there is when an epic has come to rest."""

    starts: list[Start] = field(default_factory=list[Start])
    depends: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    claims: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """State and last attempt of each story, as the journal says."""
    in_tip: Counter[str] = field(default_factory=Counter[str])
    """Tokens in the tree of the branch's tip, how often."""
    adders: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Commits of the branch that add a token."""
    saved: set[str] = field(default_factory=set[str])
    """Tokens in anything that a rescue ref can reach."""
    ancestors: Mapping[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Of each commit of the branch, itself included."""
    positions: list[str] = field(default_factory=list[str])
    """Where the integration branch has been."""
    red: dict[str, str] = field(default_factory=dict[str, str])
    """Those of them whose check is red, and what it said."""
    red_between: list[str] = field(default_factory=list[str])
    """Commits on the way from one to the next whose check is red: a batch is checked at its end."""


def verdict(found: Evidence) -> dict[str, list[str]]:
    """What is wrong, by kind; nothing when all is well."""
    landed = [start for start in found.starts if any(token in found.adders for token in start.wrote)]
    removed = {token for start in landed for token in start.removed}
    wrong = {
        "not once": [line for start in landed for line in _not_once(found, start, removed)],
        "claims": _claims(found, landed),
        "lies accepted": [line for start in landed for line in _lies(start)],
        "lost": [line for start in found.starts if start not in landed for line in _lost(found, start)],
        "too early": [line for start in landed for line in _too_early(found, start, landed)],
        "red": [f"the branch has been at {sha[:10]}: {said}" for sha, said in found.red.items()],
        "nothing seen": [] if found.starts and found.positions else ["no start of an agent, or no place of the branch"],
    }
    return {kind: lines for kind, lines in wrong.items() if lines}


def _not_once(found: Evidence, start: Start, removed: set[str]) -> list[str]:
    """What a merged attempt committed is added by one commit, and in the tip once, unless somebody removed it."""
    lines: list[str] = []
    for token in sorted(start.committed):
        adders, there = len(found.adders.get(token, ())), found.in_tip[token]
        if adders != 1:
            lines.append(f"{adders} commits add {token}")
        if there != (token not in removed):
            lines.append(f"{token} is in the tip {there} times")
    return lines


def _claims(found: Evidence, landed: Iterable[Start]) -> list[str]:
    """The journal and the branch agree on who is merged, and as which attempt."""
    lines: list[str] = []
    for story, (state, attempt) in found.claims.items():
        there = [start.attempt for start in landed if start.story == story]
        expected = [attempt] if state == "merged" else []
        if there != expected:
            lines.append(f"{story} is {state} with attempt {attempt}, and the branch has attempts {there}")
    return lines


def _lies(start: Start) -> list[str]:
    who = f"{start.story}, attempt {start.attempt} ({start.manner})"
    lines = [] if start.done else [f"{who} was merged, and had not come to its end"]
    loose = start.wrote - start.committed
    return [*lines, *([f"{who} was merged without {sorted(loose)}"] if loose else [])]


def _lost(found: Evidence, start: Start) -> list[str]:
    """What an attempt wrote that was not merged, committed or not, can be had from a rescue ref."""
    who = f"{start.story}, attempt {start.attempt} ({start.manner})"
    return [f"{token} of {who} is nowhere" for token in sorted((start.wrote | start.committed) - found.saved)]


def _too_early(found: Evidence, start: Start, landed: Iterable[Start]) -> list[str]:
    """It started from a commit that has all that its story builds on."""
    if start.base not in found.ancestors:
        return [f"{start.story}, attempt {start.attempt} started from {start.base[:10]}, which the branch has not"]
    behind = found.ancestors[start.base]
    lines: list[str] = []
    for needed in found.depends.get(start.story, ()):
        commits = {
            sha for each in landed if each.story == needed for t in each.committed for sha in found.adders.get(t, ())
        }
        if not commits or not commits <= behind:
            lines.append(f"{start.story}, attempt {start.attempt} started without {needed}")
    return lines


class Court:
    """Collects the evidence. Stores the repository, its branch, and how git and the check are run."""

    def __init__(self, repo: Path, branch: str, check: Path, environment: Mapping[str, str], scratch: Path) -> None:
        self._repo, self._branch, self._check, self._scratch = repo, branch, check, scratch
        self._environment = {**environment, "TORTURE_JUDGE": "1"}

    def evidence(
        self, truth: Path, depends: Mapping[str, tuple[str, ...]], claims: Mapping[str, tuple[str, int]]
    ) -> Evidence:
        """All of it."""
        parents = {
            line.split(" ")[0]: line.split(" ")[1:]
            for line in self._git("rev-list", "--parents", "--topo-order", "--reverse", self._branch).splitlines()
        }
        ancestors: dict[str, set[str]] = {}
        for sha, above in parents.items():
            ancestors[sha] = {sha}.union(*(ancestors[each] for each in above))
        positions = self.positions()
        told = {sha: self._said(sha) for sha in positions}
        line = self._git("rev-list", "--first-parent", self._branch).split()
        between = [sha for sha in line if sha not in told and self._said(sha)]
        return Evidence(
            starts_of(truth),
            depends,
            claims,
            Counter(TOKEN.findall(self._git("grep", "-h", "-I", "-e", "T-", self._branch, "--", ok=(0, 1)))),
            self._adders(),
            self._saved(),
            ancestors,
            positions,
            {sha: said for sha, said in told.items() if said},
            between,
        )

    def positions(self) -> list[str]:
        """Where the branch has been, first to last: by its reflog, and by the recovery refs where there are any."""
        log = self._repo / ".git" / "logs" / "refs" / "heads" / self._branch
        moved = [line.split(" ")[1] for line in log.read_text("utf-8").splitlines()] if log.exists() else []
        epic = self._branch.rpartition("/")[2]
        kept = self._git("for-each-ref", "--format=%(objectname)", f"refs/epicwave/recovery/{epic}/").split()
        return list(dict.fromkeys([*moved, *kept, self._git("rev-parse", self._branch).strip()]))

    def _said(self, sha: str) -> str:
        """What the check says of a commit when it is red; empty when it is green."""
        tree = self._scratch / sha
        tree.mkdir(parents=True)
        packed = subprocess.run(self._argv("archive", sha), env=self._environment, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-m", "-C", str(tree)], input=packed.stdout, check=True)
        done = subprocess.run(
            [str(self._check)], cwd=tree, env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        return (done.stdout.strip() or f"exit code {done.returncode}") if done.returncode else ""

    def _adders(self) -> dict[str, list[str]]:
        """Commits of the branch by the tokens that they add; a line that only moved is none."""
        words = (
            "log",
            "-p",
            "-U0",
            "--no-merges",
            "--no-color",
            "--no-ext-diff",
            "-M",
            "--format=commit %H",
            self._branch,
        )
        found: dict[str, list[str]] = {}
        for told in re.split(r"^commit ", self._git(*words), flags=re.MULTILINE)[1:]:
            sha, _, diff = told.partition("\n")
            added = Counter(t for line in diff.splitlines() if line[:1] == "+" for t in TOKEN.findall(line))
            gone = Counter(t for line in diff.splitlines() if line[:1] == "-" for t in TOKEN.findall(line))
            names = set(TOKEN.findall("\n".join(line for line in diff.splitlines() if line[:4] in ("+++ ", "--- "))))
            for token, number in added.items():
                if number - gone[token] > 0 and (number > 1 or token not in names):
                    found.setdefault(token, []).append(sha)
        return found

    def _saved(self) -> set[str]:
        refs = self._git("for-each-ref", "--format=%(refname)", "refs/epicwave/rescue/").split()
        if not refs:
            return set()
        objects = self._git("rev-list", "--objects", "--no-object-names", *refs)
        return set(TOKEN.findall(self._git("cat-file", "--batch", feed=objects)))

    def _argv(self, *words: str) -> list[str]:
        return ["git", "-C", str(self._repo), *words]

    def _git(self, *words: str, feed: str = "", ok: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            self._argv(*words), env=self._environment, input=feed.encode(), stdout=subprocess.PIPE, check=False
        )
        assert done.returncode in ok, f"git {words[0]} ended with {done.returncode}"
        return done.stdout.decode("utf-8", "replace")


def starts_of(truth: Path) -> list[Start]:
    """All starts of agents. A line that was cut short by a kill is left out: it was not told."""
    found: list[Start] = []
    for path in sorted(truth.glob("*.jsonl")):
        story, attempt, _ = path.stem.split("-")
        start = Start(story, int(attempt))
        for line in path.read_text("utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            said = json.loads(line)
            match said["what"]:
                case "start":
                    start.base, start.manner = said["base"], said["manner"]
                case "wrote":
                    start.wrote.add(said["token"])
                case "committed":
                    start.committed |= set(said["tokens"])
                case "removed":
                    start.removed |= set(said["tokens"])
                case _:
                    start.done = True
        found.append(start)
    return found
