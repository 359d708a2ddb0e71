"""What a plain `git add` or `git rebase` would get wrong: submodules, filters, text that is not in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mcp_server.adapters.git import command
from mcp_server.errors import Fault
from mcp_server.ports import Conflicted, Done, Landing, NoCommits, Uncommitted
from tests.contracts.git_worlds import RealWorld, git, git_bytes, new_repository
from tests.contracts.odd_worlds import (
    AGAIN,
    SAVED,
    STORY,
    Hand,
    begun,
    done,
    elsewhere,
    landed_as_by_hand,
    ready_to_land,
    rescued,
    world_of,
    writes,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("no_user_config"),
    pytest.mark.skipif(sys.platform == "win32", reason="shell scripts as filters"),
]

CRLF = b"one\r\ntwo\r\n"
LFS = """#!/bin/sh
case $1 in
clean) cat > $0.in; oid=$(git hash-object $0.in); mv $0.in $0.$oid; echo "oid $oid";;
smudge) read word oid; cat $0.$oid;;
esac
"""
IGNORED = pytest.mark.parametrize("ignore", ["none", "all"])


def with_submodule(ignore: str = "none") -> Hand:
    """`lib`, a clone of `library` that has a branch `side` too, each with a commit that the pointer does not have."""

    def start(top: Path) -> None:
        library = top.parent / "library"
        new_repository(library)
        git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib")
        git(top, "config", "-f", ".gitmodules", "submodule.lib.ignore", ignore)
        for branch in ("side", "main"):
            git(library, "checkout", "-q", "-B", branch, git(top / "lib", "rev-parse", "HEAD").strip())
            git(library, "commit", "-q", "--allow-empty", "-m", branch)

    return start


def moves_the_pointer(top: Path, branch: str = "main") -> Hand:
    def work(at: Path) -> None:
        git(at, "update-index", "--cacheinfo", f"160000,{pointer(top, branch)},lib")

    return work


def commits_the_pointer(top: Path, branch: str) -> Hand:
    def work(at: Path) -> None:
        moves_the_pointer(top, branch)(at)
        git(at, "commit", "-q", "-m", f"lib at {branch}")

    return work


def pointer(top: Path, branch: str) -> str:
    return git(top.parent / "library", "rev-parse", branch).strip()


def checks_out_the_submodule(at: Path) -> None:
    git(at, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    git(at / "lib", "config", "user.name", "Ann")
    git(at / "lib", "config", "user.email", "ann@example.org")


@IGNORED
async def test_a_submodules_pointer_lands_and_is_saved(tmp_path: Path, ignore: str) -> None:
    """Also where `.gitmodules` would have git look away from it: what the agent did, it did."""
    world = await begun(tmp_path, with_submodule(ignore))
    async with world.worktrees.hold(AGAIN, world.first) as path:
        moves_the_pointer(world.top)(path)
        assert await world.worktrees.inspect(AGAIN, world.first) == Uncommitted(("lib",))
    assert git(world.top, "rev-parse", f"{SAVED}:lib").strip() == pointer(world.top, "main")
    landing = await landed_as_by_hand(world, commits_the_pointer(world.top, "main"))
    assert landing.files == ("lib",)
    assert git(world.top, "rev-parse", f"{landing.head}:lib").strip() == pointer(world.top, "main")


@IGNORED
async def test_two_pointers_of_one_submodule_are_a_conflict(tmp_path: Path, ignore: str) -> None:
    """With `ignore = all` a plain `git rebase` takes the two commits for one, and drops the second."""
    world = await begun(tmp_path, with_submodule(ignore))
    hands = (commits_the_pointer(world.top, branch) for branch in ("side", "main"))
    _, story = await ready_to_land(world, *hands)
    conflict = await world.merge.rebase(STORY, world.first, story.head)
    assert isinstance(conflict, Conflicted)
    assert conflict.paths == ("lib",)
    assert "CONFLICT (submodule)" in conflict.detail
    assert pointer(world.top, "side") in conflict.detail
    assert pointer(world.top, "main") in conflict.detail


@IGNORED
async def test_work_inside_a_submodule_that_nobody_else_has_is_saved_with_its_history(
    tmp_path: Path, ignore: str
) -> None:
    """Its commits and files are only in the worktree, and would go with it."""
    world = await begun(tmp_path, with_submodule(ignore))
    async with world.worktrees.hold(AGAIN, world.first) as path:
        checks_out_the_submodule(path)
        assert await world.worktrees.inspect(AGAIN, world.first) == NoCommits()
        world.write(path / "lib", "a.txt", "committed inside\n")
        git(path / "lib", "commit", "-q", "-a", "-m", "inside")
        inside = git(path / "lib", "rev-parse", "HEAD").strip()
        world.write(path / "lib", "new.txt", "not committed inside\n")
        assert await world.worktrees.inspect(AGAIN, world.first) == Uncommitted(("lib",))
    assert git(world.top, "show", f"{SAVED}^2:new.txt") == "not committed inside\n"
    assert git(world.top, "rev-parse", f"{SAVED}^2^").strip() == inside
    assert git(world.top, "rev-parse", f"{SAVED}:lib").strip() == inside


async def test_a_pointer_to_a_commit_that_nobody_else_has_lands_and_the_commit_is_kept(tmp_path: Path) -> None:
    """A pointer is the agent's to move, as with `git rebase`; its commit is on the rescue ref."""
    world = await begun(tmp_path, with_submodule())
    async with world.worktrees.hold(AGAIN, world.first) as path:
        checks_out_the_submodule(path)
        world.write(path / "lib", "a.txt", "inside\n")
        git(path / "lib", "commit", "-q", "-a", "-m", "inside")
        inside = git(path / "lib", "rev-parse", "HEAD").strip()
        git(path, "commit", "-q", "-a", "-m", "pointer")
        assert isinstance(await world.worktrees.inspect(AGAIN, world.first), Done)
    assert git(world.top, "show", f"{inside}:a.txt") == "inside\n"
    assert git(world.top, "merge-base", SAVED, inside).strip() == inside


async def test_a_submodule_that_is_only_checked_out_leaves_nothing_behind(tmp_path: Path) -> None:
    world = await begun(tmp_path, with_submodule())
    async with world.worktrees.hold(AGAIN, world.first) as path:
        checks_out_the_submodule(path)
    assert world.sha(SAVED) is None


async def test_files_of_an_embedded_repository_that_was_committed_as_a_pointer_are_kept(tmp_path: Path) -> None:
    """`git add -A` on a clone inside the worktree: git warns and stores a pointer that leads nowhere."""
    world = await begun(tmp_path)
    async with world.worktrees.hold(AGAIN, world.first) as path:
        inside = new_repository(path / "clone")
        git(path, "-c", "advice.addEmbeddedRepo=false", "add", "-A")
        git(path, "commit", "-q", "-m", "clone")
        assert isinstance(await world.worktrees.inspect(AGAIN, world.first), Done)
    assert git(world.top, "rev-parse", f"{SAVED}^2").strip() == inside


def with_lfs(top: Path) -> None:
    """A filter as git-lfs sets it up: the commit has a pointer, the content lies beside the program."""
    program = top.parent / "lfs"
    program.write_text(LFS)
    program.chmod(0o755)
    for key, value in {"clean": f"{program} clean", "smudge": f"{program} smudge", "required": "true"}.items():
        git(top, "config", f"filter.lfs.{key}", value)
    writes(big=b"old\0", other=b"o\n", __gitattributes=b"big filter=lfs merge=binary -text\n")(top)


async def test_large_files_stay_pointers(tmp_path: Path) -> None:
    world = await begun(tmp_path, with_lfs)
    work = writes(big=bytes(range(256)))
    await rescued(world, work)
    landing = await landed_as_by_hand(world, work)
    for rev in (SAVED, landing.head):
        assert git_bytes(world.top, "show", f"{rev}:big").startswith(b"oid ")


async def test_a_missing_filter_program_is_told_where_it_is_required(tmp_path: Path) -> None:
    """As git itself has it: a worktree without its large files is no place to work in."""
    world = await begun(tmp_path, with_lfs)
    (tmp_path / "lfs").unlink()
    with pytest.raises(Fault, match="smudge filter lfs failed"):
        async with world.worktrees.hold(STORY, world.first):
            pytest.fail("there is no such worktree")
    assert await world.worktrees.held() == []


async def test_a_missing_filter_program_is_no_matter_where_it_is_not_required(tmp_path: Path) -> None:
    world = await begun(tmp_path, with_lfs)
    (tmp_path / "lfs").unlink()
    git(world.top, "config", "filter.lfs.required", "false")
    async with world.worktrees.hold(STORY, world.first) as path:
        assert (path / "big").read_bytes().startswith(b"oid ")


@pytest.mark.parametrize("program", ["/gone", "false", "sleep 60 & exec sleep 60"])
async def test_work_is_saved_as_it_lies_when_its_filter_is_gone_or_fails_or_hangs(
    tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await begun(tmp_path, with_lfs)
    work = writes(big=b"new\0", other=b"changed\n", unknown=b"u\n")
    async with world.worktrees.hold(AGAIN, world.first) as path:
        work(path)
        (path / "link").symlink_to("big")
        git(world.top, "config", "filter.lfs.clean", program)
        monkeypatch.setattr(command, "CALL_LIMIT_S", 1.0)
    expected = {"big": "new\0", "other": "changed\n", "unknown": "u\n", "link": "big"}
    assert {name: git(world.top, "show", f"{SAVED}:{name}") for name in expected} == expected
    assert git(world.top, "diff", "--name-only", world.first, SAVED).split() == sorted(expected)


async def test_a_hanging_filter_does_not_hold_up_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await begun(tmp_path, with_lfs)
    async with world.worktrees.hold(AGAIN, world.first) as path:
        (path / "big").write_bytes(b"new\0")
        git(world.top, "config", "filter.lfs.clean", "sleep 60 & exec sleep 60")
        monkeypatch.setattr(command, "CALL_LIMIT_S", 1.0)
        with pytest.raises(Fault, match="did not complete"):
            await world.worktrees.inspect(AGAIN, world.first)


async def test_text_that_its_attributes_do_not_allow_is_saved_as_it_lies(tmp_path: Path) -> None:
    """Neither broken UTF-16 nor line ends that `core.safecrlf` objects to may keep work from being saved."""
    start = writes(wide="Tür\n".encode("utf-16"), __gitattributes=b"wide working-tree-encoding=UTF-16\n")
    world = await begun(tmp_path, start, {"core.autocrlf": "input", "core.safecrlf": "true"})
    broken = b"\xff\xfe\xff"
    async with world.worktrees.hold(AGAIN, world.first) as path:
        writes(wide=broken, dos=CRLF)(path)
        (path / "a.txt").unlink()
    assert git_bytes(world.top, "show", f"{SAVED}:wide") == broken
    assert git_bytes(world.top, "show", f"{SAVED}:dos") == CRLF
    assert git(world.top, "diff", "--name-only", world.first, SAVED).split() == ["a.txt", "dos", "wide"]


async def not_in_order(tmp_path: Path) -> RealWorld:
    """`dos` was committed with CRLF before attributes asked for LF: git takes it for changed in every checkout."""
    top = tmp_path / "repo"
    new_repository(top)
    (top / "dos").write_bytes(CRLF)
    git(top, "add", "dos")
    (top / ".gitattributes").write_text("dos text\n")
    git(top, "add", ".gitattributes")
    git(top, "commit", "-q", "-m", "not in order")
    return await world_of(tmp_path, top)


def commits(**contents: bytes) -> Hand:
    def work(at: Path) -> None:
        writes(**contents)(at)
        git(at, "add", *contents)
        git(at, "commit", "-q", "-m", "work", "--", *contents)

    return work


async def only(world: RealWorld, work: Hand) -> Done:
    """The work is done; `done` would put the line ends in order besides."""
    async with world.worktrees.hold(STORY, world.first) as path:
        work(path)
        assert git(path, "status", "--short") == " M dos\n", "or there is nothing to see here"
        outcome = await world.worktrees.inspect(STORY, world.first)
    assert isinstance(outcome, Done)
    return outcome


async def test_line_ends_that_are_not_in_order_are_nobodys_work(tmp_path: Path) -> None:
    world = await not_in_order(tmp_path)
    async with world.worktrees.hold(AGAIN, world.first):
        assert await world.worktrees.inspect(AGAIN, world.first) == NoCommits()
    assert world.sha(SAVED) is None
    async with world.worktrees.hold(AGAIN, world.first) as path:
        world.write(path, "new", "n\n")
        assert await world.worktrees.inspect(AGAIN, world.first) == Uncommitted(("new",))
    assert git(world.top, "diff", "--name-only", world.first, SAVED).split() == ["new"]
    third = AGAIN._replace(number=3)
    async with world.worktrees.hold(third, world.first) as path:
        (path / "dos").write_bytes(CRLF + b"more\r\n")
        assert await world.worktrees.inspect(third, world.first) == Uncommitted(("dos",))
    assert git(world.top, "show", f"refs/epicwave/rescue/{third}:dos") == "one\ntwo\nmore\n"


async def test_a_story_lands_past_line_ends_that_are_not_in_order(tmp_path: Path) -> None:
    """A plain `git rebase` refuses: `You have unstaged changes`."""
    world = await not_in_order(tmp_path)
    story = await only(world, commits(new=b"n\n"))
    other = await done(world, STORY._replace(story="S1"), elsewhere)
    assert await world.merge.advance(STORY._replace(story="S1"), world.first, other.head)
    landing = await world.merge.rebase(STORY, world.first, story.head)
    assert isinstance(landing, Landing)
    assert landing.files == ("new",)


async def test_work_that_git_was_told_not_to_look_at_is_saved(tmp_path: Path) -> None:
    """By `core.ignoreStat`, or by an agent's `update-index --assume-unchanged`."""
    world = await begun(tmp_path, settings={"core.ignoreStat": "true"})
    async with world.worktrees.hold(AGAIN, world.first) as path:
        world.write(path, "b.txt", "seen\n")
        assert await world.worktrees.inspect(AGAIN, world.first) == Uncommitted(("b.txt",))
        git(path, "update-index", "--assume-unchanged", "a.txt")
        world.write(path, "a.txt", "hidden\n")
    assert git(world.top, "show", f"{SAVED}:a.txt") == "hidden\n"


async def test_an_empty_folder_is_nothing_that_git_could_keep(tmp_path: Path) -> None:
    world = await begun(tmp_path)
    async with world.worktrees.hold(AGAIN, world.first) as path:
        (path / "empty").mkdir()
        assert await world.worktrees.inspect(AGAIN, world.first) == NoCommits()
    assert world.sha(SAVED) is None
