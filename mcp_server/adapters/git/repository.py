"""The user's repository: found and judged once, read often, and changed only in its refs below our own prefixes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import anyio
import anyio.to_thread

from mcp_server.adapters.git.command import MECHANICAL, Git, forget_hook_environment
from mcp_server.adapters.git.status import notices
from mcp_server.core.spec import Sha
from mcp_server.errors import Code, Fault, FaultCause, Refused

OLDEST_GIT = (2, 34)
_VERSION = re.compile(r"git version (\d+)\.(\d+)")


class Tree(NamedTuple):
    """One line of `git worktree list`."""

    path: Path
    branch: str | None
    """Full ref, None when detached."""
    missing: bool
    """Registered, but its folder is gone."""
    also: str | None = None
    """Full ref of the branch that is being rebased in it, or that it was on when we looked again."""

    def has(self, ref: str) -> bool:
        """True when the branch cannot be removed without harm to this worktree."""
        return not self.missing and ref in {self.branch, self.also}


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository, whatever worktree of it we were started in. Made by `open`."""

    git: Git
    top: Path
    """Root of the worktree that we were started in: the user's checkout."""
    common_dir: Path
    """The `.git` folder that all its worktrees share."""
    version: tuple[int, int]
    agent_env: Mapping[str, str]
    """What an agent's environment needs to be able to commit: an identity, when the repository has none."""

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Find the repository of a folder. Changes nothing.

        Raises `Refused`: `git_missing`, `git_too_old`, `not_a_repository`, `bare_repository`, `no_commits`.
        """
        forget_hook_environment()
        version = await _git_version()
        git = Git()
        top, common_dir = await _places(git, path)
        settings = (f"core.hooksPath={common_dir / 'epicwave' / 'no-hooks'}", *MECHANICAL)
        git = Git(common_dir, settings)
        if (await git.read("rev-parse", "--verify", "--quiet", "HEAD^{commit}", at=top, ok=(0, 1, 128))).code:
            raise Refused(
                Code.NO_COMMITS,
                f"The repository {top} has no commit yet, so there is nothing for the stories to start from.",
                'Make a first commit (`git add -A && git commit -m "Start"`) and ask again.',
            )
        asked = [await git.read("var", f"GIT_{role}_IDENT", at=top, ok=(0, 128)) for role in ("AUTHOR", "COMMITTER")]
        agent_env: dict[str, str] = {}
        if any(answer.code for answer in asked):
            git = Git(common_dir, (*settings, "user.name=epicwave", "user.email=epicwave@localhost"))
            for role in ("AUTHOR", "COMMITTER"):
                agent_env |= {f"GIT_{role}_NAME": "epicwave", f"GIT_{role}_EMAIL": "epicwave@localhost"}
        return cls(git, top, common_dir, version, agent_env)

    @property
    def state_dir(self) -> Path:
        """Our own folder, shared by all worktrees and seen by no checkout."""
        return self.common_dir / "epicwave"

    async def head_sha(self) -> Sha:
        """The commit that the user's checkout is at."""
        return (await self.git.read("rev-parse", "--verify", "HEAD^{commit}", at=self.top)).text

    async def notices(self) -> tuple[str, ...]:
        """One sentence for each thing in the user's checkout that a run leaves alone."""
        return await notices(self.git, self.top)

    async def ignores(self, path: str) -> bool:
        """True when git ignores what lies at this path of the user's checkout, whether or not anything is there."""
        return (await self.git.read("check-ignore", "--quiet", path, at=self.top, ok=(0, 1))).code == 0

    async def ignored(self, paths: Sequence[str], at: Path) -> list[str]:
        """Those of these paths that git ignores and does not track in a worktree, in their order."""
        if not paths:
            return []
        asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
        answer = await self.git.read("check-ignore", "-z", "--stdin", at=at, stdin=asked, ok=(0, 1))
        return [os.fsdecode(name) for name in answer.out.split(b"\0") if name]

    async def resolve(self, rev: str, at: Path | None = None) -> Sha | None:
        """The commit that a name stands for; None when there is none."""
        answer = await self.git.read("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}", at=at, ok=(0, 1, 128))
        return answer.text if answer.code == 0 else None

    async def is_ancestor(self, older: Sha, newer: Sha) -> bool:
        """True when `newer` has the commit `older`, or is it."""
        return (await self.git.read("merge-base", "--is-ancestor", older, newer, ok=(0, 1))).code == 0

    async def fork(self, base: Sha, head: Sha) -> Sha | None:
        """Last commit that the two have in common; None when there is none."""
        answer = await self.git.read("merge-base", base, head, ok=(0, 1))
        return answer.text if answer.code == 0 else None

    async def changed(self, old: Sha, new: Sha) -> tuple[str, ...]:
        """Paths that differ, sorted; both names of what was renamed."""
        argv = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--ignore-submodules=none")
        return (await self.git.read(*argv, old, new)).names

    async def refs(self, *prefixes: str, merged: Sha | None = None) -> dict[str, Sha]:
        """Full names and commits of the refs that are one of these, or lie below one that ends in `/`.

        With `merged` only those whose commit is that one, or an ancestor of it.
        """
        only = (f"--merged={merged}",) if merged else ()
        answer = await self.git.read("for-each-ref", "--format=%(refname) %(objectname)", *only, *prefixes)
        return {name: sha for name, _, sha in (line.partition(" ") for line in answer.text.splitlines())}

    async def change_refs(self, *, old: Mapping[str, Sha], new: Mapping[str, Sha | None], why: str) -> None:
        """Set refs, or remove them (None), all or none. Each must still be what `old` says (nothing: missing).

        Raises `Fault(git)` when one is not.
        """
        orders: list[str] = []
        for ref, sha in new.items():
            before = old.get(ref)
            if sha is None and before is not None:
                orders.append(f"delete {ref}\0{before}\0")
            elif sha is not None and before is None:
                orders.append(f"create {ref}\0{sha}\0")
            elif sha is not None and sha != before:
                orders.append(f"update {ref}\0{sha}\0{before}\0")
        if not orders:
            return
        argv, stdin = ("update-ref", "-m", f"epicwave: {why}", "-z", "--stdin"), "".join(orders).encode()
        try:
            await self.git.write(*argv, stdin=stdin)
        except Fault:
            if not await anyio.to_thread.run_sync(clear_ref_locks, self.common_dir, list(new)):
                raise
            await self.git.write(*argv, stdin=stdin)

    async def branch_exists(self, name: str) -> bool:
        """True when there is a branch of that name (without `refs/heads/`)."""
        return f"refs/heads/{name}" in await self.refs(f"refs/heads/{name}")

    async def create_branch(self, name: str, sha: Sha) -> None:
        """Make a branch, or find it there already. Raises `Refused(branch_taken)` when it is at another commit."""
        ref = f"refs/heads/{name}"
        remedy = f"Rename or remove it (`git branch -m {name} NEW-NAME`), or give the epic another id."
        present = await self.resolve(ref)
        if present is None:
            try:
                await self.change_refs(old={}, new={ref: sha}, why="made the integration branch")
            except Fault as fault:
                if "exists" in fault.detail:  # between our look and the order, or a branch whose name is a folder of it
                    raise Refused(
                        Code.BRANCH_TAKEN, f"The branch {name!r} cannot be made: {fault.detail}", remedy
                    ) from fault
                raise
        elif present != sha:
            raise Refused(
                Code.BRANCH_TAKEN, f"The branch {name!r} exists, at {present[:12]} and not at {sha[:12]}.", remedy
            )

    async def trees(self) -> list[Tree]:
        """All worktrees of the repository, the user's first."""
        by_nul = self.version >= (2, 36)  # older ones cannot say -z: a path with a newline in it is beyond them
        answer = await self.git.steady("worktree", "list", "--porcelain", *(["-z"] if by_nul else []))
        records = answer.out.split(b"\0\0" if by_nul else b"\n\n")
        trees = [_tree(record.split(b"\0" if by_nul else b"\n")) for record in records if record.strip(b"\0\n")]
        return await anyio.to_thread.run_sync(_completed, trees, self.common_dir)

    async def where_checked_out(self, branch: str) -> Path | None:
        """The worktree that has the branch checked out, or is rebasing it; None when it is free."""
        return next((tree.path for tree in await self.trees() if tree.has(f"refs/heads/{branch}")), None)

    async def own(self, folder: Path) -> bool:
        """True when the folder is a sound worktree of this repository."""
        if not await anyio.Path(folder).is_dir():
            return False
        argv = ("rev-parse", "--path-format=absolute", "--git-common-dir", "--show-toplevel")
        answer = await self.git.read(*argv, at=folder, ok=(0, 128))
        found = [Path(line) for line in answer.text.splitlines()]
        return answer.code == 0 and [await _real(path) for path in found] == [self.common_dir, await _real(folder)]


async def _git_version() -> tuple[int, int]:
    remedy = (
        "Install git 2.34 or newer (https://git-scm.com/downloads), see that `git --version` works, and start again."
    )
    if shutil.which("git") is None:
        raise Refused(Code.GIT_MISSING, "There is no `git` command on the PATH.", remedy)
    try:
        text = (await Git().read("version", at=Path(await anyio.Path.home()))).text
    except (ImportError, Fault) as error:  # GitPython's import asks git for its version too
        said = " ".join(str(error).split())
        raise Refused(Code.GIT_MISSING, f"`git` is on the PATH but does not run: {said}", remedy) from error
    return parsed_version(text)


def parsed_version(text: str) -> tuple[int, int]:
    """`git version 2.39.5 (Apple Git-154)` is (2, 39). Raises `Refused`: `git_too_old`, `git_missing`."""
    match = _VERSION.search(text)
    if match is None:
        raise Refused(Code.GIT_MISSING, f"`git version` answered {text[:80]!r}.", "Put a real git first on the PATH.")
    version = int(match[1]), int(match[2])
    if version < OLDEST_GIT:
        raise Refused(
            Code.GIT_TOO_OLD, f"This is {text.strip()}; 2.34 is the oldest that will do.", "Update git and start again."
        )
    return version


async def _places(git: Git, path: Path) -> tuple[Path, Path]:
    """Top of the checkout and common `.git` folder of wherever `path` is."""
    if not await anyio.Path(path).is_dir():
        raise Refused(Code.NOT_A_REPOSITORY, f"There is no folder {path}.", "Name the folder of a git repository.")
    kind = await git.read("rev-parse", "--is-bare-repository", "--is-inside-work-tree", at=path, ok=(0, 128))
    if "dubious ownership" in kind.err:
        why = f"git does not trust {path}: another user owns it."
        raise Refused(Code.NOT_A_REPOSITORY, why, f"Run `git config --global --add safe.directory {path}` if you do.")
    if kind.code:
        remedy = "Start in a repository, or make this one: `git init`, then a first commit."
        raise Refused(Code.NOT_A_REPOSITORY, f"{path} is not in a git repository.", remedy)
    bare, inside = kind.text.split()
    if inside != "true":
        if bare == "true":
            remedy = "Start in a clone or in a linked worktree of it (`git worktree add`)."
            raise Refused(Code.BARE_REPOSITORY, f"{path} is a bare repository, without a checkout.", remedy)
        raise Refused(
            Code.NOT_A_REPOSITORY, f"{path} is git's own folder.", "Start in the checkout that it belongs to."
        )
    top = (await git.read("rev-parse", "--show-toplevel", at=path)).path
    common = (await git.read("rev-parse", "--path-format=absolute", "--git-common-dir", at=path)).path
    return await _real(top), await _real(common)


async def _real(path: Path) -> Path:
    return Path(await anyio.Path(path).resolve())


def _tree(lines: list[bytes]) -> Tree:
    said: dict[str, str] = {}
    for line in lines:
        key, _, value = os.fsdecode(line).partition(" ")
        said[key] = value
    if "worktree" not in said:
        raise Fault(FaultCause.GIT, f"`git worktree list` said {lines!r}")
    return Tree(Path(said["worktree"]), said.get("branch"), "prunable" in said)


def _completed(trees: list[Tree], common_dir: Path) -> list[Tree]:
    """What git's list does not tell: rebases, and a folder that is gone while its worktree is locked."""
    if not trees:
        return []
    main, *linked = trees
    also = branches_had(common_dir)
    return [
        main._replace(also=also.get(None)),
        *(
            tree._replace(
                missing=tree.missing or not (tree.path / ".git").exists(), also=also.get(os.path.realpath(tree.path))
            )
            for tree in linked
        ),
    ]


def clear_ref_locks(common_dir: Path, refs: list[str]) -> bool:
    """Remove the locks that a killed git left on refs of ours. True when there were any.

    Only for refs that nobody else writes, when their processes are gone and git has been asked several times.
    """
    ours = [ref for ref in refs if ref.startswith(("refs/epicwave/", "refs/heads/epicwave"))]
    held = [lock for ref in ours if (lock := common_dir / f"{ref}.lock").exists()]
    for lock in held:
        lock.unlink(missing_ok=True)
    return bool(held)


def branches_had(common_dir: Path) -> dict[str | None, str]:
    """Branches that are being rebased or are checked out, by the real path of the worktree (None: the main one).

    `git worktree list` calls a worktree detached while it rebases; git itself goes by these files. HEAD is read after
    them: a rebase that ended meanwhile has attached it again.
    """
    found: dict[str | None, str] = {}
    for git_dir in (common_dir, *listed(common_dir / "worktrees")):
        link = None if git_dir == common_dir else text_of(git_dir / "gitdir")
        if link is None and git_dir != common_dir:
            continue  # half a worktree
        rebased = text_of(git_dir / "rebase-merge" / "head-name") or text_of(git_dir / "rebase-apply" / "head-name")
        head = text_of(git_dir / "HEAD") or ""
        if rebased or head.startswith("ref: "):
            found[link and os.path.realpath((git_dir / link).parent)] = rebased or head.removeprefix("ref: ")
    return found


def listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing when it is not there, or goes while we look: other worktrees come and go."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def text_of(path: Path) -> str | None:
    """What a small file says; None when it is not there, or goes while we look."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
