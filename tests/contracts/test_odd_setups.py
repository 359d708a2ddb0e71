"""Odd setups: programs that hang, settings, clones and formats of all kinds, and a repository of 50,000 files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git.repository import Repository
from mcp_server.errors import Code, Fault, Refused
from mcp_server.ports import Landing, NoCommits, Uncommitted
from tests.contracts.git_worlds import RealWorld, git, new_repository
from tests.contracts.odd_worlds import (
    AGAIN,
    SAVED,
    STORY,
    begun,
    committed,
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
    pytest.mark.skipif(sys.platform == "win32", reason="shell scripts as hooks"),
]

HOOKS = (
    *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "post-checkout", "pre-rebase", "post-rewrite"),
    *("pre-merge-commit", "post-merge", "reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor"),
)
PROGRAMS = (
    *("core.fsmonitor", "gpg.program", "core.editor", "core.pager", "diff.external"),
    *("credential.helper", "core.askPass"),
)
SETTINGS = {
    "output": "merge.conflictStyle=zdiff3 diff.noprefix=true diff.mnemonicPrefix=true diff.external=false core.abbrev=4"
    " core.quotePath=true color.ui=always column.ui=always status.showUntrackedFiles=no status.relativePaths=true"
    " status.branch=true log.showSignature=true log.decorate=full core.pager=false core.editor=false",
    "index": "core.untrackedCache=true index.version=4 feature.manyFiles=true feature.experimental=true"
    " core.splitIndex=true index.threads=4 checkout.workers=4 core.checkStat=minimal core.trustCTime=false"
    " core.preloadIndex=false core.logAllRefUpdates=always gc.auto=1 gc.pruneExpire=now gc.worktreePruneExpire=now"
    " core.bigFileThreshold=1 core.sharedRepository=group transfer.fsckObjects=true safe.bareRepository=explicit",
    "rebase": "rebase.autoSquash=true rebase.autoStash=true rebase.updateRefs=true rebase.rebaseMerges=true"
    " rebase.missingCommitsCheck=error rebase.backend=apply rebase.stat=true merge.stat=true merge.log=true"
    " merge.ff=only merge.verifySignatures=true branch.autoSetupMerge=always branch.autoSetupRebase=always"
    " push.default=current push.autoSetupRemote=true worktree.guessRemote=true submodule.recurse=true"
    " core.whitespace=error apply.whitespace=error",
    "commit": "commit.template=/nowhere commit.cleanup=scissors commit.verbose=2 core.commentChar=;"
    " i18n.commitEncoding=ISO-8859-1 core.symlinks=false core.fileMode=false merge.renames=false"
    " merge.directoryRenames=true user.useConfigOnly=true core.excludesFile=/nowhere core.attributesFile=/nowhere"
    " extensions.worktreeConfig=true",
}
work = writes(new=b"new\n", a__txt=b"changed\n")


async def both_ways(world: RealWorld) -> None:
    await rescued(world, work)
    await landed_as_by_hand(world, work)


async def test_programs_of_the_users_that_hang_do_not_hold_us_up(tmp_path: Path) -> None:
    """Hooks, in their folder or where core.hooksPath is; signing, verifying, the watchman, editor, pager, askpass."""
    world = await begun(tmp_path)
    tip, story = await ready_to_land(world, elsewhere, work)
    merge = await done(world, AGAIN, merges_something)
    hang = tmp_path / "hang"
    hang.write_text("#!/bin/sh\nexec sleep 600\n")
    hang.chmod(0o755)
    for name in HOOKS:
        (world.top / ".git/hooks" / name).symlink_to(hang)
    for key in PROGRAMS:
        git(world.top, "config", key, str(hang))
    for key in ("commit.gpgSign", "tag.gpgSign", "merge.verifySignatures", "log.showSignature"):
        git(world.top, "config", key, "true")
    git(world.top, "config", "core.hooksPath", str(world.top / ".git/hooks"))
    with anyio.fail_after(60):
        for number, each in enumerate((story, merge)):
            landing = await world.merge.rebase(STORY._replace(number=number + 1), world.first, each.head)
            assert isinstance(landing, Landing)
            assert landing.onto == tip
        third = STORY._replace(number=3)
        async with world.worktrees.hold(third, world.first) as path:
            work(path)
            assert await world.worktrees.inspect(third, world.first) == Uncommitted(("a.txt", "new"))
        await world.merge.checkout("e", tip)
        await world.merge.close("e")
    assert world.sha(f"refs/epicwave/rescue/{third}") is not None


def merges_something(at: Path) -> None:
    """A branch with a merge of its own, which is merged and not rebased."""
    git(at, "switch", "-q", "--detach")
    writes(side=b"s\n")(at)
    side = committed(at)
    git(at, "switch", "-q", "-")
    writes(main=b"m\n")(at)
    committed(at)
    git(at, "merge", "-q", "--no-edit", side)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
async def test_no_setting_of_the_users_gets_in_the_way(tmp_path: Path, settings: str) -> None:
    world = await begun(tmp_path)
    for setting in settings.split():
        git(world.top, "config", *setting.split("=", 1))
    head = git(world.top, "config", "--list")

    def commits(at: Path) -> None:
        work(at)
        git(at, "add", "-A")
        git(at, "-c", "commit.template=", "commit", "-q", "--cleanup=verbatim", "-m", "é\n\n; x\n# y\n-- >8 --\nz")

    await rescued(world, work)
    landing = await landed_as_by_hand(world, commits)
    said = git(world.top, "log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%B", landing.head)
    assert "-- >8 --\nz" in said or "scissors" in settings
    assert git(world.top, "config", "--list") == head


def plain(folder: Path) -> Path:
    new_repository(folder / "origin")
    for content in (b"second\n", b"third\n"):
        writes(b__txt=content)(folder / "origin")
        git(folder / "origin", "commit", "-q", "-a", "-m", "more")
    git(folder / "origin", "config", "uploadpack.allowFilter", "true")
    git(folder / "origin", "config", "uploadpack.allowAnySHA1InWant", "true")
    return folder / "origin"


def cloned(*how: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        git(folder, "clone", "-q", *how, f"file://{plain(folder)}", "repo")
        return folder / "repo"

    return make


def bare(folder: Path) -> Path:
    """A bare repository and worktrees beside it; its own HEAD is on the branch that one of them has."""
    git(folder, "clone", "-q", "--bare", str(plain(folder)), "repo.git")
    git(folder / "repo.git", "worktree", "add", "-q", str(folder / "main"), "main")
    return folder / "main"


def sha256(folder: Path) -> Path:
    git(folder, "init", "-q", "-b", "main", "--object-format=sha256", "repo")
    writes(a__txt=b"a\n")(folder / "repo")
    git(folder / "repo", "config", "user.name", "Ann")
    git(folder / "repo", "config", "user.email", "ann@example.org")
    committed(folder / "repo")
    return folder / "repo"


def git_dir_elsewhere(folder: Path) -> Path:
    top = plain(folder)
    git(top, "init", "-q", "--separate-git-dir", str(folder / "git"))
    git(top, "config", "core.worktree", str(top))
    return top


def submodule(folder: Path) -> Path:
    """The user is at work in a submodule: its `.git` is a file, its repository below another's, with core.worktree."""
    new_repository(folder / "super")
    git(folder / "super", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(plain(folder)), "lib")
    return folder / "super" / "lib"


def alternates(folder: Path) -> Path:
    git(folder, "clone", "-q", "--shared", str(plain(folder)), "repo")
    return folder / "repo"


def grafted(folder: Path) -> Path:
    """History cut by a replace ref, as after an import, and a file replaced by another."""
    top = plain(folder)
    git(top, "replace", "--graft", "HEAD")
    other = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=top, input=b"replaced\n", check=True, capture_output=True
    )
    git(top, "replace", git(top, "rev-parse", "HEAD:dir/c.txt").strip(), other.stdout.decode().strip())
    git(top, "checkout", "-q", "--force", "HEAD", "--", ".")
    return top


SETUPS = {
    "shallow": cloned("--depth=1"),
    "without-blobs": cloned("--filter=blob:none"),
    "without-trees": cloned("--filter=tree:0"),
    "bare-with-worktrees": bare,
    "sha256": sha256,
    "git-dir-elsewhere": git_dir_elsewhere,
    "in-a-submodule": submodule,
    "alternates": alternates,
    "replaced": grafted,
}


@pytest.mark.parametrize("make", SETUPS.values(), ids=SETUPS)
async def test_the_kind_of_repository_is_no_matter(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    await both_ways(await world_of(tmp_path, make(tmp_path)))


async def test_the_branch_in_a_submodules_checkout_is_not_moved(tmp_path: Path) -> None:
    world = await world_of(tmp_path, submodule(tmp_path))
    story = await done(world, STORY, work)
    git(world.top, "checkout", "-q", "epicwave/e")
    with pytest.raises(Fault, match="epicwave/e is checked out in"):
        await world.merge.advance(STORY, world.first, story.head)


async def test_blobs_that_their_origin_cannot_send_are_told(tmp_path: Path) -> None:
    world = await world_of(tmp_path, cloned("--filter=blob:none", "--no-checkout")(tmp_path))
    (tmp_path / "origin").rename(tmp_path / "gone")
    with pytest.raises(Fault, match="from promisor remote"):
        async with world.worktrees.hold(STORY, world.first):
            pytest.fail("there is no such worktree")
    assert await world.worktrees.held() == []


def two_folders(at: Path) -> None:
    for name in ("in", "out"):
        (at / name).mkdir()
        writes(f=b"f\n")(at / name)


@pytest.mark.parametrize("sparse_index", ["false", "true"])
async def test_in_a_sparse_checkout_worktrees_are_sparse_and_results_are_whole(
    tmp_path: Path, sparse_index: str
) -> None:
    """What lies outside of the cone is neither missed nor touched; work outside of it counts as well."""
    world = await begun(tmp_path, two_folders)
    git(world.top, "config", "index.sparse", sparse_index)
    git(world.top, "sparse-checkout", "set", "--cone", "in")

    def beyond(at: Path) -> None:
        (at / "out").mkdir()
        writes(f=b"meanwhile\n")(at / "out")
        git(at, "add", "--sparse", "out/f")

    def inside_and_beyond(at: Path) -> None:
        writes(f=b"changed\n")(at / "in")
        (at / "out").mkdir()
        writes(new=b"new\n")(at / "out")
        git(at, "add", "--sparse", "out/new")

    landing = await landed_as_by_hand(world, inside_and_beyond, beyond)
    assert landing.files == ("in/f", "out/new")
    async with world.worktrees.hold(AGAIN, world.first) as path:
        assert not (path / "dir").exists()
        assert await world.worktrees.inspect(AGAIN, world.first) == NoCommits()
        writes(f=b"changed\n")(path / "in")
        (path / "out").mkdir()
        writes(new=b"new\n")(path / "out")
    assert git(world.top, "diff", "--name-only", world.first, SAVED).split() == ["in/f", "out/new"]


async def test_work_is_saved_beside_a_bare_repository_even_when_its_worktree_is_broken(tmp_path: Path) -> None:
    world = await world_of(tmp_path, bare(tmp_path))
    async with world.worktrees.hold(AGAIN, world.first) as path:
        work(path)
        (path / ".git").unlink()
    assert git(world.top, "show", f"{SAVED}:new") == "new\n"


@pytest.mark.parametrize("bare_too", [False, True])
async def test_a_repository_without_a_commit_is_refused(tmp_path: Path, bare_too: bool) -> None:
    git(tmp_path, "init", "-q", *(["--bare"] if bare_too else []), "repo")
    with pytest.raises(Refused) as caught:
        await Repository.open(tmp_path / "repo")
    assert caught.value.code is (Code.BARE_REPOSITORY if bare_too else Code.NO_COMMITS)


async def test_a_folder_whose_checkout_is_elsewhere_is_refused(tmp_path: Path) -> None:
    git(plain(tmp_path), "config", "core.worktree", str(tmp_path))
    (tmp_path / "origin").rename(tmp_path.parent / f"{tmp_path.name} moved")
    with pytest.raises(Refused) as caught:
        await Repository.open(tmp_path.parent / f"{tmp_path.name} moved")
    assert caught.value.code is Code.NOT_A_REPOSITORY


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
async def test_another_users_repository_will_do_once_it_is_trusted(tmp_path: Path) -> None:
    top = plain(tmp_path)
    for path in (top, *top.rglob("*")):
        os.lchown(path, 12345, 12345)
    with pytest.raises(Refused, match="does not trust"):
        await Repository.open(top)
    git(tmp_path, "config", "--global", "--add", "safe.directory", str(top))
    await both_ways(await world_of(tmp_path, top))
