"""A branch on top of the tip without a worktree: trees are merged, commits are written, and nothing is checked out.

Git 2.39 cannot be told the merge base of `merge-tree`. To replay a commit onto another one, a commit is made that has
the other one's tree and the first one's parent: the two have that parent as their base.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.settling import Shared, by_attributes, settings_of
from mcp_server.adapters.git.submodules import heeded
from mcp_server.core.spec import Sha
from mcp_server.ports import Conflicted

MERGE_TREE = (2, 38)
"""The first git that merges trees (`merge-tree --write-tree`)."""
DETAIL_CHARS = 6000
"""Bound of the conflicted hunks that go into the next brief."""
_CLASHED = 1
"""Code of `merge-tree` when the two do not merge cleanly."""
_SUBMODULE = "160000"
_KEPT = (b"author", b"encoding")


class NotHere(Exception):  # noqa: N818 - no error: the worktree can do it
    """This cannot be done, or not for sure, as git does it in a worktree."""


@dataclass(frozen=True, slots=True)
class Weave:
    """One rebase or merge onto a tip. Both calls return a commit on no branch, and raise `NotHere` and `Fault`."""

    repository: Repository
    tip: Sha
    shared: Shared

    async def replayed(self, head: Sha) -> Sha | Conflicted:
        """As `git rebase --empty=drop <tip>` does it: authors, dates and messages stay, merges do not."""
        self._require()
        own = ("--right-only", "--cherry-pick", "--no-merges", "--topo-order", "--reverse")
        look = (*await heeded(self.repository, head), "rev-list", *own, f"{self.tip}...{head}")
        commits = (await self.repository.git.read(*look)).text.split()
        onto = self.tip
        async with by_attributes(self.repository, self.tip, self.shared) as folder:
            for sha in commits:
                raw = (await self.repository.git.read("cat-file", "commit", sha)).out
                grown = await self._grown(folder, onto, sha, raw)
                if isinstance(grown, Conflicted):
                    return grown
                onto = grown
        return onto

    async def merged(self, head: Sha, message: str) -> Sha | Conflicted:
        """As `git merge --no-ff` does it at the tip."""
        self._require()
        async with by_attributes(self.repository, self.tip, self.shared) as folder:
            tree = await self._tree(folder, self.tip, head, self.tip)
        if isinstance(tree, Conflicted):
            return tree
        return await self._commit(tree, self.tip, head, message)

    def _require(self) -> None:
        if self.repository.version < MERGE_TREE or self.shared.is_doubtful:
            raise NotHere

    async def _grown(self, folder: Path | None, onto: Sha, sha: Sha, raw: bytes) -> Sha | Conflicted:
        """The commit, on top of `onto`; `onto` itself when there is nothing left of it."""
        parents, before = parents_of(raw), await self._tree_of(onto)
        if not parents:
            raise NotHere  # it begins a history of its own
        if parents[0] == onto:
            return sha
        between = await self._commit(before, parents[0], None, "epicwave: the tip, seen from a commit of the branch")
        tree = await self._tree(folder, between, sha, onto)
        if isinstance(tree, Conflicted):
            return tree
        if tree == before and tree_of(raw) != await self._tree_of(parents[0]):
            return onto  # what it did was done already
        return await rewritten(self.repository, raw, tree, (onto,))

    async def _tree_of(self, sha: Sha) -> str:
        return (await self.repository.git.read("rev-parse", f"{sha}^{{tree}}")).text

    async def _commit(self, tree: str, parent: Sha, other: Sha | None, message: str) -> Sha:
        above = ("-p", parent, *(("-p", other) if other else ()))
        return (await self.repository.git.read("commit-tree", tree, *above, "-m", message)).text

    async def _tree(self, folder: Path | None, ours: Sha, theirs: Sha, onto: Sha) -> str | Conflicted:
        """The tree of the two; `ours` is what has the tree of `onto`."""
        argv = (*settings_of(self.shared), "merge-tree", "--write-tree", "-z", ours, theirs)
        answer = await self.repository.git.read(*argv, content=folder, ok=(0, _CLASHED, 128))
        tree, *told = answer.out.split(b"\0")
        if answer.code == 0:
            return tree.decode()
        end = told.index(b"") if b"" in told else 0
        if answer.code != _CLASHED or not end:
            raise NotHere  # the worktree says why
        stages = [entry.decode("utf-8", "replace").partition("\t") for entry in told[:end]]
        if any(stage.startswith(_SUBMODULE) for stage, _, _ in stages):
            raise NotHere
        names = {ours: "the tip", theirs: (await self._named(theirs))}
        paths = tuple(sorted({path.removesuffix(f"~{ours}").removesuffix(f"~{theirs}") for _, _, path in stages}))
        seen = await self._commit(tree.decode(), onto, theirs, "epicwave: a conflict")
        detail = f"{_notes(told[end + 1 :])}{await self._hunks(seen, paths)}" or _notes(told[end + 1 :], hunks=False)
        for sha, name in names.items():
            detail = detail.replace(sha, name)
        return Conflicted(self.tip, paths, cut(detail))

    async def _named(self, sha: Sha) -> str:
        look = ("log", "-1", "--no-show-signature", "--format=%h (%s)", sha)
        return (await self.repository.git.read(*look)).text

    async def _hunks(self, seen: Sha, paths: tuple[str, ...]) -> str:
        """Where the tree with git's marks in it differs from both sides: what `git diff` shows of a conflict."""
        argv = ("diff-tree", "--cc", "-p", "--no-commit-id", "--no-ext-diff", "--no-textconv", "--no-color")
        env = {"GIT_LITERAL_PATHSPECS": "1"}
        return (await self.repository.git.read(*argv, seen, "--", *paths, env=env)).text


def _notes(told: list[bytes], *, hunks: bool = True) -> str:
    """What git says of conflicts that are no hunks: deletions, renames, modes, types. Without hunks, of all."""
    lines: list[str] = []
    while told and told[0].isdigit():
        count = int(told[0])
        kind, text = (each.decode("utf-8", "replace") for each in told[count + 1 : count + 3])
        if kind.startswith("CONFLICT") and not (hunks and text.startswith("CONFLICT (content)")):
            lines.append(f"{' '.join(text.split())}\n")
        told = told[count + 3 :]
    return "".join(lines)


def cut(detail: str) -> str:
    """A conflict's detail, within its bound."""
    return detail if len(detail) <= DETAIL_CHARS else detail[:DETAIL_CHARS] + "\n... (cut)"


def parents_of(raw: bytes) -> list[Sha]:
    """Of a commit as git stores it."""
    return [line[7:].decode() for line in _headers(raw) if line.startswith(b"parent ")]


def tree_of(raw: bytes) -> str:
    """Of a commit as git stores it."""
    return _headers(raw)[0].removeprefix(b"tree ").decode()


def _headers(raw: bytes) -> list[bytes]:
    return raw.partition(b"\n\n")[0].split(b"\n")


async def rewritten(repository: Repository, raw: bytes, tree: str, parents: tuple[Sha, ...]) -> Sha:
    """The commit with another tree and other parents: author, date and message byte by byte, without a signature."""
    committer = (await repository.git.read("var", "GIT_COMMITTER_IDENT")).out.strip()
    content = recast(raw, tree, parents, committer)
    answer = await repository.git.read("hash-object", "-t", "commit", "-w", "--stdin", stdin=content, ok=(0, 128))
    if answer.code:
        raise NotHere  # an author that git would not write today
    return answer.text


def recast(raw: bytes, tree: str, parents: tuple[Sha, ...], committer: bytes) -> bytes:
    """The bytes of that commit. Raises `NotHere` when the committer cannot be written in the message's encoding."""
    head, _, message = raw.partition(b"\n\n")
    kept = {name: line for line in head.split(b"\n") if (name := line.partition(b" ")[0]) in _KEPT}
    if b"author" not in kept:
        raise NotHere
    if b"encoding" in kept:
        committer = _encoded(committer, kept[b"encoding"].partition(b" ")[2].decode("ascii", "replace"))
    above = [f"tree {tree}".encode(), *(f"parent {sha}".encode() for sha in parents)]
    lines = [*above, kept[b"author"], b"committer " + committer]
    lines += [kept[b"encoding"]] if b"encoding" in kept else []
    return b"\n".join(lines) + b"\n\n" + message


def _encoded(committer: bytes, encoding: str) -> bytes:
    try:
        return committer.decode("utf-8").encode(codecs.lookup(encoding).name)
    except (LookupError, UnicodeError):
        raise NotHere from None
