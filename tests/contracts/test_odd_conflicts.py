"""Two stories that do not go together: which paths, in words that help, and nothing of either is lost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_server.adapters.git.conflicts import real_paths
from mcp_server.ports import Conflicted
from tests.contracts.odd_worlds import STORY, Hand, begun, fresh, lying, nothing, ready_to_land, then, writes

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("no_user_config"),
    pytest.mark.skipif(sys.platform == "win32", reason="modes, links and names that Windows has not"),
]

LINES = b"".join(b"%d\n" % number for number in range(20))
BYTES = bytes(range(256))


def rename(old: str, new: str) -> Hand:
    def hand(at: Path) -> None:
        (at / old).rename(at / new)

    return hand


def delete(name: str) -> Hand:
    return lambda at: (at / name).unlink()


def link(name: str, target: str) -> Hand:
    def hand(at: Path) -> None:
        (at / name).unlink(missing_ok=True)
        (at / name).symlink_to(target)

    return hand


def folder(name: str) -> Hand:
    def hand(at: Path) -> None:
        (at / name).unlink(missing_ok=True)
        (at / name).mkdir()
        (at / name / "inside").write_bytes(b"inside\n")

    return hand


def program(name: str) -> Hand:
    return lambda at: (at / name).chmod(0o755)


def write(name: str, content: bytes) -> Hand:
    def hand(at: Path) -> None:
        (at / name).parent.mkdir(exist_ok=True)
        (at / name).write_bytes(content)

    return hand


@dataclass(frozen=True, slots=True)
class Clash:
    """What another story has landed, what this one did, and how the conflict is told."""

    name: str
    meanwhile: Hand
    work: Hand
    paths: tuple[str, ...]
    words: tuple[str, ...]
    start: Hand = nothing


CLASHES = [
    Clash(
        "rename-delete",
        rename("a.txt", "z.txt"),
        delete("a.txt"),
        ("z.txt",),
        ("CONFLICT (rename/delete): a.txt renamed to z.txt in",),
    ),
    Clash(
        "delete-rename", delete("a.txt"), rename("a.txt", "z.txt"), ("z.txt",), ("a.txt renamed to z.txt", "deleted in")
    ),
    Clash(
        "rename-rename",
        rename("a.txt", "y.txt"),
        rename("a.txt", "z.txt"),
        ("a.txt", "y.txt", "z.txt"),
        ("CONFLICT (rename/rename): a.txt renamed to y.txt in", "and to z.txt in"),
    ),
    Clash(
        "two-renames-to-one",
        rename("one", "z"),
        rename("two", "z"),
        ("z",),
        ("CONFLICT (add/add)",),
        start=writes(one=LINES, two=BYTES),
    ),
    Clash(
        "delete-modify",
        delete("a.txt"),
        writes(a__txt=b"changed\n"),
        ("a.txt",),
        ("CONFLICT (modify/delete): a.txt deleted in",),
    ),
    Clash(
        "modes",
        then(writes(n=b"n\n"), program("n")),
        writes(n=b"n\n"),
        ("n",),
        ("CONFLICT (add/add)",),
    ),
    Clash("links", link("l", "b.txt"), link("l", "dir"), ("l",), (), start=link("l", "a.txt")),
    Clash("link-file", link("n", "a.txt"), writes(n=b"n\n"), ("n",), ("CONFLICT (distinct types): n had different",)),
    Clash("file-becomes-link", link("a.txt", "b.txt"), writes(a__txt=b"changed\n"), ("a.txt",), ("different types",)),
    Clash(
        "folder-file",
        folder("n"),
        writes(n=b"n\n"),
        ("n",),
        ("CONFLICT (file/directory): directory in the way of n from",),
    ),
    Clash("file-folder", writes(n=b"n\n"), folder("n"), ("n",), ("directory in the way of n from",)),
    Clash(
        "file-becomes-folder",
        folder("a.txt"),
        writes(a__txt=b"changed\n"),
        ("a.txt",),
        ("directory in the way of a.txt from",),
    ),
    Clash(
        "binary",
        writes(blob=BYTES + b"1"),
        writes(blob=BYTES + b"2"),
        ("blob",),
        ("inary files",),
        start=writes(blob=BYTES),
    ),
    Clash(
        "line-ends-only",
        writes(t=LINES.replace(b"\n", b"\r\n")),
        writes(t=b"first\n" + LINES),
        ("t",),
        ("+ first",),
        start=writes(t=LINES),
    ),
    Clash(
        "not-to-be-merged",
        writes(t=LINES + b"last\n"),
        writes(t=b"first\n" + LINES),
        ("t",),
        (),
        start=writes(t=LINES, __gitattributes=b"t -merge\n"),
    ),
    Clash(
        "into-a-folder-that-moved",
        rename("dir", "moved"),
        write("dir/new", b"new\n"),
        ("moved/new",),
        ("CONFLICT (file location): dir/new added in", "moved to moved/new"),
    ),
    Clash(
        "names",
        then(write("two\nlines", b"1\n"), write("café 🦆 [*]", b"1\n"), write("-dash", b"1\n")),
        then(write("two\nlines", b"2\n"), write("café 🦆 [*]", b"2\n"), write("-dash", b"2\n")),
        ("-dash", "café 🦆 [*]", "two\nlines"),
        ("café 🦆 [*]", "+1", "+ 2"),
    ),
]


@pytest.mark.parametrize("old_git", [False, True], ids=["git", "old-git"])
@pytest.mark.parametrize("clash", CLASHES, ids=lambda clash: clash.name)
async def test_a_conflict_names_the_paths_and_says_what_is_wrong(
    tmp_path: Path, clash: Clash, old_git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await begun(tmp_path, clash.start)
    if old_git:
        monkeypatch.setattr("mcp_server.adapters.git.weave.MERGE_TREE", (99, 0))
    tip, story = await ready_to_land(world, clash.meanwhile, clash.work)
    conflict = await world.merge.rebase(STORY, world.first, story.head)
    assert isinstance(conflict, Conflicted), conflict
    assert conflict.paths == clash.paths
    for words in (clash.paths[0], *clash.words):
        assert words in conflict.detail
    assert conflict.onto == tip == world.sha("refs/heads/epicwave/e")
    assert world.sha(f"refs/heads/epicwave-work/{STORY}") == story.head
    if old_git:
        assert lying(await world.merge.checkout("e", tip)) == fresh(world, tip), "nothing of it is left in the way"


def test_a_name_that_git_made_up_is_the_name_that_was_meant() -> None:
    made_up = ["n~HEAD", "n~15e03d6 (work on a~b)", f"m~{'0' * 40}", "o~HEAD_0", "a~b", "~HEAD", "c~now"]
    assert real_paths(made_up) == ("a~b", "c~now", "m", "n", "o", "~HEAD")
