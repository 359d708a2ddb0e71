"""What the doctor looks at in the repository itself: its base, hooks, submodules, large files, paths, locks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread

from mcp_server.adapters.git import habits
from mcp_server.adapters.git.names import integration_branch
from mcp_server.adapters.git.repository import Repository
from mcp_server.cli.findings import Finding, Level, Subject, ok
from mcp_server.cli.terminal import count
from mcp_server.core.model import SETTLED, Epic, Ledger
from mcp_server.errors import Fault

WINDOWS_LIMIT, LINUX_LIMIT, OTHER_LIMIT = 260, 4096, 1024
"""Characters that a whole path may have."""
STORY_ROOM = 40
"""Characters for `<epic>/<story>-<attempt>` below the worktrees' root; most are shorter."""
_NODE = re.compile(r"\bnode_modules\b|\b(?:npx|npm|pnpm|yarn|bunx|lint-staged)\b")
_OTHER_FOLDER = re.compile(r"(?:^|[\s\"'=(])(?:\./)?(\.?venv|\.tox|vendor/bundle)/", re.MULTILINE)
_INSTALL_PYTHON = re.compile(r"^INSTALL_PYTHON='?([^'\n]+?)'?$", re.MULTILINE)


async def worktrees(repository: Repository, root: Path) -> list[Finding]:
    """Git can list them, the way refs are stored is known, and their folder can be made."""
    remedy = f"Set `worktrees_dir` in .epicwave/config.yaml to a folder that you may write, or: mkdir -p {_q(root)}"
    try:
        trees = await repository.trees()
    except Fault as fault:
        return [
            Finding(Subject.WORKTREES, Level.ERROR, fault.detail, "Every story works in one.", "git worktree repair")
        ]
    if await habits.setting(repository, "extensions.refStorage") == "reftable":
        what = "The refs are stored as a reftable."
        why = "epicwave reads where branches are checked out from git's files, which are not there then."
        return [Finding(Subject.WORKTREES, Level.ERROR, what, why, "git refs migrate --ref-format=files")]
    place = next(path for path in (root, *root.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = f"Worktrees cannot be made in {root}: {place} is no folder that you may write."
        return [Finding(Subject.WORKTREES, Level.ERROR, what, "Every story works in one.", remedy)]
    return [ok(Subject.WORKTREES, f"{count(len(trees), 'worktree')}; ours are made in {root}.")]


async def base(repository: Repository, ledger: Ledger) -> list[Finding]:
    """What agents start from is not older than what the user has."""
    named = await habits.branch_of(repository)
    branch = named or await repository.head_sha()
    back = branch if named else f"--detach {branch}"
    found = [f for epic in ledger.epics.values() if (f := await _drifted(repository, epic, branch, back))]
    follows = await habits.upstream(repository)
    late = await habits.behind(repository, "HEAD", follows) if follows else None
    if late:
        what = f"{branch} is {count(late, 'commit')} behind {follows}, as of the last fetch."
        why = "A new epic starts from the commit of your checkout, and would not have them."
        found.append(Finding(Subject.BASE, Level.WARNING, what, why, "git pull"))
    return found or [ok(Subject.BASE, f"New epics start from {branch}; no unfinished epic is behind it.")]


async def _drifted(repository: Repository, epic: Epic, branch: str, back: str) -> Finding | None:
    if all(story.state in SETTLED for story in epic.stories.values()):
        return None
    ours = integration_branch(epic.spec.id)
    late = await habits.behind(repository, f"refs/heads/{ours}", "HEAD")
    if not late:  # None: no wave of it has begun
        return None
    return Finding(
        Subject.BASE,
        Level.WARNING,
        f"{ours} is {count(late, 'commit')} behind {branch}.",
        "Its next stories start from the tip of that branch, and would not have them.",
        f"git switch {ours} && git merge {branch} && git switch {back}",
    )


async def hooks(repository: Repository) -> list[Finding]:
    """Hooks that agents' commits meet: found in a worktree, executable, and with what they need."""
    seen = await habits.hooks(repository)
    return [*_path(repository, seen), *_modes(seen), *_needs(seen), *_on_refs(seen)]


def _path(repository: Repository, seen: habits.Hooks) -> Iterator[Finding]:
    if seen.in_worktrees:
        yield ok(Subject.HOOKS_PATH, f"Hooks: {seen.folder}.")
        return
    yield Finding(
        Subject.HOOKS_PATH,
        Level.WARNING,
        f"core.hooksPath is {seen.setting!r}, relative, and no commit has that folder.",
        "No worktree has it, so your hooks do not look at what agents commit.",
        f"git -C {_q(repository.top)} config core.hooksPath {_q(seen.folder)}",
    )


def _modes(seen: habits.Hooks) -> Iterator[Finding]:
    dead = [hook for hook in seen.found if not hook.executable]
    for hook in dead:
        what = f"The hook {hook.path} is not executable."
        why = "git leaves it out, in your checkout and in every worktree."
        yield Finding(Subject.HOOK_MODE, Level.WARNING, what, why, f"chmod +x {_q(hook.path)}")
    if not dead:
        yield ok(Subject.HOOK_MODE, f"{count(len(seen.found), 'hook')}; git runs what is there.")


def _needs(seen: habits.Hooks) -> Iterator[Finding]:
    """Only hooks that run in a worktree can miss anything there."""
    running = [hook for hook in seen.found if hook.executable and hook.name in habits.ON_COMMIT and seen.in_worktrees]
    lacking = [(hook, what) for hook in running if (what := _lacks(hook.text))]
    for hook, what in lacking:
        yield Finding(
            Subject.HOOK_NEEDS,
            Level.WARNING,
            f"The hook {hook.path} needs {what}.",
            "A fresh worktree has only what is committed: an agent's commit may fail there, again and again.",
            "Have each worktree set up: `setup:` under `epic:` in .epicwave/config.yaml, or with .worktreeinclude. "
            f'Or let it pass without: `test -n "$EPICWAVE_STORY" && exit 0` as the second line of {_q(hook.path)}.',
        )
    if not lacking:
        yield ok(Subject.HOOK_NEEDS, "No hook needs what a worktree does not have.")


def _lacks(text: str) -> str | None:
    """What a hook needs that is not in a worktree; None when nothing is known."""
    if "pre-commit.com" in text or "File generated by pre-commit" in text:
        told = _INSTALL_PYTHON.search(text)
        there = shutil.which("pre-commit") or (told and os.access(told[1], os.X_OK))
        return None if there else "pre-commit, which is neither where it was installed nor on the PATH"
    if "lefthook" in text:
        return None if shutil.which("lefthook") else "lefthook, which is not on the PATH (node_modules is not there)"
    if _NODE.search(text):
        return "node_modules"
    other = _OTHER_FOLDER.search(text)
    return f"{other[1]}/" if other else None


def _on_refs(seen: habits.Hooks) -> Iterator[Finding]:
    found = [hook for hook in seen.found if hook.executable and seen.in_worktrees and hook.name in habits.ON_REFS]
    found = [hook for hook in found if not re.search(r"\bgit[ -]lfs\b", hook.text)]
    for hook in found:
        refuses = hook.name == "reference-transaction"
        yield Finding(
            Subject.HOOK_REFS,
            Level.WARNING if refuses else Level.NOTE,
            f"There is a hook {hook.path}.",
            "It runs at every change of a ref that an agent makes, and may refuse it."
            if refuses
            else "It runs whenever an agent switches branches; epicwave's own git calls run no hooks.",
            f"See that it lets the branches epicwave-work/* alone: less {_q(hook.path)}",
        )
    if not found:
        yield ok(Subject.HOOK_REFS, "No hook looks at checkouts or refs.")


async def signing(repository: Repository) -> list[Finding]:
    """Commits of agents' that have to be signed can be, as far as one sees from here."""
    if await habits.setting(repository, "commit.gpgSign", "bool") != "true":
        return [ok(Subject.SIGNING, "Commits need no signature.")]
    program = await habits.signer(repository)
    if shutil.which(program) is None:
        what = f"Commits are to be signed by {program}, which is not on the PATH."
        why = "Every commit of an agent's fails."
        return [Finding(Subject.SIGNING, Level.WARNING, what, why, "Install it, or: git config commit.gpgSign false")]
    what = f"Commits are signed by {program}."
    why = (
        "An agent cannot answer when that asks for a passphrase; what epicwave itself commits or rebases is not signed."
    )
    remedy = 'See that it does not ask: git commit-tree -S -m signed "HEAD^{tree}" < /dev/null'
    return [Finding(Subject.SIGNING, Level.NOTE, what, why, remedy)]


async def contents(repository: Repository, root: Path, limit: int | None = None) -> list[Finding]:
    """What is in the commit that a worktree cannot have, or cannot have there. `limit`: characters of a path."""
    listing = await habits.listing(repository)
    return [
        _submodules(listing),
        await _lfs(repository, listing),
        await _long_paths(repository, listing, root, limit or _limit()),
    ]


def _submodules(listing: habits.Listing) -> Finding:
    if not listing.submodules:
        return ok(Subject.SUBMODULES, "No submodules.")
    what = f"{count(len(listing.submodules), 'submodule')}: {', '.join(listing.submodules[:5])}."
    why = "They are not checked out in worktrees: agents and checks find empty folders there."
    remedy = "Under `epic:` in .epicwave/config.yaml: `setup: [git submodule update --init --recursive]`"
    return Finding(Subject.SUBMODULES, Level.WARNING, what, why, remedy)


async def _lfs(repository: Repository, listing: habits.Listing) -> Finding:
    if not listing.lfs:
        return ok(Subject.LFS, "No attributes ask for git-lfs.")
    if not await habits.has_lfs(repository):
        required = await habits.setting(repository, "filter.lfs.required") == "true"
        what = "Attributes ask for git-lfs, and it is not installed."
        why = "No worktree can be made." if required else "Worktrees have pointers in place of the large files."
        remedy = "Install git-lfs (git-lfs.com), then: git lfs install"
        return Finding(Subject.LFS, Level.ERROR if required else Level.WARNING, what, why, remedy)
    if await habits.setting(repository, "filter.lfs.process") is None:
        what = "git-lfs is installed and not set up."
        why = "Worktrees have pointers in place of the large files."
        return Finding(Subject.LFS, Level.WARNING, what, why, "git lfs install")
    return ok(Subject.LFS, "git-lfs is installed and set up.")


def _limit() -> int:
    return {"win32": WINDOWS_LIMIT, "linux": LINUX_LIMIT}.get(sys.platform, OTHER_LIMIT)


async def _long_paths(repository: Repository, listing: habits.Listing, root: Path, limit: int) -> Finding:
    longest = len(str(root)) + 1 + STORY_ROOM + 1 + len(listing.longest)
    long = await habits.setting(repository, "core.longpaths", "bool") == "true"
    if longest < limit or (limit == WINDOWS_LIMIT and long):
        return ok(Subject.LONG_PATHS, f"The longest path in a worktree has about {longest} of {limit} characters.")
    return Finding(
        Subject.LONG_PATHS,
        Level.ERROR,
        f"In a worktree {listing.longest[:200]} would have about {longest} characters; {limit} are possible.",
        "git could not write the file, and no worktree could be made.",
        "git config core.longpaths true, or a shorter `worktrees_dir` in .epicwave/config.yaml"
        if limit == WINDOWS_LIMIT
        else "Set a shorter `worktrees_dir` in .epicwave/config.yaml",
    )


async def locks(repository: Repository) -> list[Finding]:
    """No git that is gone has left a lock."""
    found = await anyio.to_thread.run_sync(habits.stale_locks, repository.common_dir)
    return [
        Finding(
            Subject.LOCKS,
            Level.WARNING,
            f"{path} is older than any git holds a lock.",
            "No housekeeping happens any more." if path.name == "maintenance.lock" else "git refuses to change it.",
            f"When no git is at work here: rm {_q(path)}",
        )
        for path in found
    ] or [ok(Subject.LOCKS, "No git that is gone has left a lock.")]


def _q(path: Path) -> str:
    return shlex.quote(str(path))
