"""A folder looked at through an index of our own: what is in it, and what of that git could not take as it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_server.adapters.git.command import Answer
from mcp_server.adapters.git.raw import FILES, hashed, together, untouched
from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import Sha

BROKEN = 128
"""Git's code for `fatal`."""
_KILLED = -9
"""It took longer than any call of ours may."""
_ALL = ("--all", "--sparse", "--ignore-errors")
_GITLINK = b"160000 "


@dataclass(frozen=True, slots=True)
class Scratch:
    """One folder, and the index that stands for it."""

    repository: Repository
    folder: Path
    at: Path | None
    """The folder again when it is a sound worktree; else it is taken as content of the repository."""
    index: Path

    async def write(
        self, *argv: str, stdin: bytes = b"", ok: tuple[int, ...] = (0,), env: Mapping[str, str] | None = None
    ) -> Answer:
        """Run git on that index."""
        env = {"GIT_INDEX_FILE": str(self.index), **(env or {})}
        content = None if self.at else self.folder
        return await self.repository.git.write(*argv, at=self.at, content=content, env=env, stdin=stdin, ok=ok)

    async def add_all(self, parent: Sha | None) -> bool:
        """Take all that lies there; False when the index is broken.

        What git will not take is taken as its bytes are: a filter that fails, hangs or is gone, line ends that
        `core.safecrlf` objects to, a text that is not in the encoding it should be in. What git would only take anew
        (line ends that no commit has brought into order yet) stays as it is.
        """
        added = await self.write("add", *_ALL, ok=(0, 1, BROKEN, _KILLED))
        if added.code and not await self._add_left():
            return False
        hidden = [entry.partition(b"\t")[2] for entry in await self._entries() if entry[:1].islower()]
        if hidden:  # git was told, by a setting or by its agent, not to look at these again
            await self.write("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=b"\0".join(hidden))
            await self.write("add", *_ALL, ok=(0, 1, BROKEN, _KILLED))
        if parent:
            await self._leave_as_it_is(parent)
        return True

    async def _add_left(self) -> bool:
        await anyio.Path(f"{self.index}.lock").unlink(missing_ok=True)  # of a git that was killed
        off = await self._filters_off()
        argv = ("diff-files", "-z", "--name-only", "--ignore-submodules=all")
        changed = await self.write(*off, *argv, ok=(0, BROKEN))
        if changed.code:
            return False
        left = [name for name in (changed.out + await self._others()).split(b"\0") if name and not name.endswith(b"/")]
        for some in together(dict.fromkeys(left)):
            await self._add_bytes(some)
        return True

    async def _filters_off(self) -> list[str]:
        """Options for git, so that it runs none of the filters that its configuration has."""
        said = await self.write("config", "-z", "--name-only", "--get-regexp", r"^filter\.", ok=(0, 1))
        drivers = sorted({name.rpartition(".")[0] for name in said.names if "=" not in name})
        settings = [f"{driver}.{key}" for driver in drivers for key in ("clean=", "process=", "required=false")]
        return [word for setting in settings for word in ("-c", setting)]

    async def _leave_as_it_is(self, parent: Sha) -> None:
        """Put back what is stored otherwise now, though the file has the very bytes that the parent has stored."""
        argv = ("diff-index", "--cached", "-z", "--raw", "--no-renames", "--diff-filter=M", "--ignore-submodules=all")
        told = (await self.write(*argv, parent)).out.split(b"\0")
        before = {name: meta.split(b" ") for meta, name in zip(told[::2], told[1::2], strict=False)}
        same = {
            name: meta[2].decode() for name, meta in before.items() if meta[0].removeprefix(b":") == meta[1] in FILES
        }
        now = await untouched(self.repository.git, self.folder, same)
        orders = [b"%s %s\t%s\0" % (before[name][1], before[name][2], name) for name in now]
        if orders:
            await self.write("update-index", "-z", "--index-info", stdin=b"".join(orders))

    async def _add_bytes(self, names: list[bytes]) -> None:
        seen = await anyio.to_thread.run_sync(lambda: list(_looked_at(self.folder, names)))
        files = [name for name, mode, _ in seen if mode.startswith("100")]
        shas = iter(await hashed(self.repository.git, self.folder, files, store=True))
        orders: list[bytes] = []
        for name, mode, target in seen:
            if mode == "120000":
                stored = await self.write("hash-object", "-w", "--no-filters", "--stdin", stdin=target)
                sha = stored.text
            else:
                sha = next(shas) if mode != "0" else "0" * 40
            orders.append(f"{mode} {sha}\t".encode() + name + b"\0")
        await self.write("update-index", "-z", "--index-info", stdin=b"".join(orders))

    async def _entries(self) -> list[bytes]:
        """A letter, mode, sha and stage, and the name. The letter is a small one where git would not look again."""
        return (await self.write("ls-files", "-z", "--stage", "-v")).out.split(b"\0")

    async def _others(self) -> bytes:
        return (await self.write("ls-files", "-z", "--others", "--exclude-standard")).out

    async def repositories_inside(self, parent: Sha | None) -> tuple[list[str], list[str]]:
        """Folders that are repositories of their own: those that are new, and the submodules that `parent` has.

        Of a new one git would save a pointer to it, or nothing at all.
        """
        entries = await self._entries()
        links = [entry.partition(b"\t")[2] for entry in entries if entry[2:].startswith(_GITLINK)]
        known = await self._links_of(parent, links) if parent and links else set[bytes]()
        others = [name.rstrip(b"/") for name in (await self._others()).split(b"\0") if name.endswith(b"/")]
        names = [(os.fsdecode(name), name in known) for name in sorted({*links, *others})]
        there = [(name, old) for name, old in names if await anyio.Path(self.folder / name / ".git").exists()]
        return [name for name, old in there if not old], [name for name, old in there if old]

    async def _links_of(self, parent: Sha, names: list[bytes]) -> set[bytes]:
        wanted = (os.fsdecode(name) for name in names)
        entries = (await self.write("ls-tree", "-z", "--full-tree", parent, "--", *wanted)).out.split(b"\0")
        return {entry.partition(b"\t")[2] for entry in entries if entry.startswith(_GITLINK)}


def _looked_at(folder: Path, names: list[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
    """Name, git's mode (`0`: gone) and the target of a link. What nobody can read, or save, is left out."""
    for name in names:
        path = folder / os.fsdecode(name)
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield name, "120000", os.fsencode(path.readlink())
            elif stat.S_ISREG(mode) and os.access(path, os.R_OK):
                yield name, "100755" if mode & stat.S_IXUSR else "100644", b""
        except (FileNotFoundError, NotADirectoryError):
            yield name, "0", b""
