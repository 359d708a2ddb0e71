"""Paths that both sides have changed: which rule settles each, and how git is told of it without a word in its config.

Git chooses how to merge a file by its attribute `merge`. We say `union`, or a driver of ours that leaves the tip's side
as it is. In a scratch folder that has the tip's `.gitattributes` files our lines come last and win; in a worktree
they are in a file of global attributes, behind the user's own, and `.gitattributes` wins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from mcp_server.adapters.git.disk import disk_faults
from mcp_server.adapters.git.repository import Repository
from mcp_server.adapters.git.saving import scratch_folder
from mcp_server.core.merge_rules import MergeRule, Way, rule_of
from mcp_server.core.spec import Sha

_ATTRIBUTES = ".gitattributes"
_TIP_DRIVER = ("-c", "merge.epicwave-tip.driver=true", "-c", "merge.epicwave-tip.name=the side of the tip")
"""A merge driver that succeeds and does nothing: the result is what was there, and that is the tip's."""
_FILE_MODES = (b"100644", b"100755")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the tip and a branch have both changed since they parted."""

    paths: frozenset[str] = frozenset()
    rules: Mapping[str, MergeRule] = field(default_factory=dict[str, MergeRule])
    """Those of the paths that a rule settles."""
    only: bool = False
    """The branch has changed nothing but files that are made anew."""
    is_doubtful: bool = False
    """Git would not merge these files in a scratch folder as it does in a worktree."""

    def without_regenerated(self) -> Shared:
        """The same, where files that are made anew are merged like any other."""
        kept = {path: rule for path, rule in self.rules.items() if rule.way is not Way.REGENERATE}
        return Shared(self.paths, kept, is_doubtful=self.is_doubtful)

    @property
    def regenerated(self) -> dict[str, tuple[str, ...]]:
        """Paths that are made anew, and the command."""
        return {path: rule.command for path, rule in self.rules.items() if rule.way is Way.REGENERATE}


async def shared(
    repository: Repository, tip: Sha, head: Sha, rules: Sequence[MergeRule], *, has_merges: bool
) -> Shared:
    """Of a branch that is replayed, every commit counts; of one that is merged as a whole, what has come of them."""
    fork = await repository.fork(tip, head)
    if fork in (None, tip):
        return Shared()
    theirs = frozenset(await repository.changed(fork, head) if has_merges else await _touched(repository, head, tip))
    paths = theirs & frozenset(await repository.changed(fork, tip)) if theirs else theirs
    settled = {path: rule for path in sorted(paths) if (rule := rule_of(rules, path))}
    united = [path for path, rule in settled.items() if rule.way is Way.UNION]
    for path in await _edited(repository, fork, (tip, head), united):
        del settled[path]
    made = {path for path, rule in settled.items() if rule.way is Way.REGENERATE}
    doubtful = bool(paths) and (_has_attributes(theirs) or await _merges_oddly(repository))
    return Shared(paths, settled, only=bool(made) and theirs <= made, is_doubtful=doubtful)


async def _touched(repository: Repository, head: Sha, other: Sha) -> tuple[str, ...]:
    """Paths that one of the commits changes which `head` has and `other` has not, merges left out."""
    look = ("--format=", "--no-show-signature", "--name-only", "--no-renames", "--no-relative", "--no-merges", "-z")
    return (await repository.git.read("log", *look, "--ignore-submodules=none", head, f"^{other}")).names


async def _edited(repository: Repository, fork: Sha, sides: Sequence[Sha], paths: Sequence[str]) -> set[str]:
    """Those of the paths in which one of the sides has taken lines away, which a union would bring back."""
    found: set[str] = set()
    for side in sides if paths else ():
        look = ("diff", "--numstat", "--no-renames", "--no-relative", "--no-ext-diff", "--no-textconv", "-z")
        told = await repository.git.read("--literal-pathspecs", *look, fork, side, "--", *paths)
        rows = (name.split("\t", 2) for name in told.names)
        found |= {path for _, gone, path in rows if gone != "0"}
    return found


def _has_attributes(paths: Iterable[str]) -> bool:
    return any(PurePosixPath(path).name == _ATTRIBUTES for path in paths)


async def _merges_oddly(repository: Repository) -> bool:
    """True when the configuration has programs of its own for merging, or files are converted before it."""
    programs = await repository.git.read("config", "--get-regexp", r"^merge\..*\.driver$", ok=(0, 1))
    converted = await repository.git.read("config", "--type=bool", "merge.renormalize", ok=(0, 1, 128))
    return bool(programs.out) or converted.text == "true"


@asynccontextmanager
async def by_attributes(repository: Repository, tip: Sha, has: Shared) -> AsyncGenerator[Path | None]:
    """A folder that git can merge trees in: it has the tip's attribute files and our lines. None where none matter."""
    if not has.paths:
        yield None
        return
    files = await _attribute_files(repository, tip)
    for path, rule in has.rules.items():
        folder = PurePosixPath(path).parent
        name = str(folder / _ATTRIBUTES)
        files[name] = files.get(name, b"") + b"\n" + _line(PurePosixPath(path).name, rule)
    with disk_faults("A folder to merge in could not be made"):
        place = await anyio.to_thread.run_sync(scratch_folder, repository)
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            await anyio.to_thread.run_sync(_written, Path(scratch), files)
            yield Path(scratch)


@asynccontextmanager
async def by_settings(repository: Repository, has: Shared) -> AsyncGenerator[tuple[str, ...]]:
    """Words for git's command line that bring the rules into a merge in a worktree."""
    if not has.rules:
        yield ()
        return
    lines = b"".join(_line(path, rule) for path, rule in has.rules.items())
    users = await _global_attributes(repository)
    with disk_faults("A file of attributes could not be made"):
        place = await anyio.to_thread.run_sync(scratch_folder, repository)
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            await anyio.to_thread.run_sync(_written, Path(scratch), {"attributes": users + b"\n" + lines})
            yield (*settings_of(has), "-c", f"core.attributesFile={Path(scratch, 'attributes')}")


def settings_of(has: Shared) -> tuple[str, ...]:
    """Words for git's command line that make our driver known where a rule needs it."""
    return _TIP_DRIVER if any(rule.way is not Way.UNION for rule in has.rules.values()) else ()


async def _attribute_files(repository: Repository, tip: Sha) -> dict[str, bytes]:
    listed = (await repository.git.read("ls-tree", "-r", "-z", "--full-tree", tip)).out.split(b"\0")
    found: dict[str, bytes] = {}
    for entry in listed:
        told, _, name = entry.partition(b"\t")
        if name.rpartition(b"/")[2] == _ATTRIBUTES.encode() and told.split(b" ")[0] in _FILE_MODES:
            blob = told.split(b" ")[2].decode()
            found[os.fsdecode(name)] = (await repository.git.read("cat-file", "blob", blob)).out
    return found


async def _global_attributes(repository: Repository) -> bytes:
    """The user's own, which ours would stand in for otherwise."""
    named = await repository.git.read("config", "--type=path", "core.attributesFile", ok=(0, 1, 128))
    home = os.environ.get("XDG_CONFIG_HOME") or Path(await anyio.Path.home(), ".config")
    path = anyio.Path(named.path if named.code == 0 else Path(home, "git", "attributes"))
    with disk_faults(f"{path} could not be read"):
        return await path.read_bytes() if await path.is_file() else b""


def _written(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _line(path: str, rule: MergeRule) -> bytes:
    """One line of attributes for this very path, relative to the file that the line is in."""
    literal = "".join(f"\\{char}" if char in "*?[\\" else char for char in path)
    quoted = "".join(_QUOTED.get(char, char) for char in literal)
    return f'"/{quoted}" merge={"union" if rule.way is Way.UNION else "epicwave-tip"}\n'.encode()


_QUOTED = {'"': '\\"', "\\": "\\\\", **{chr(code): f"\\{code:03o}" for code in range(32)}}
