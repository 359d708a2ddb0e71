"""What only real git can get wrong: hooks, configuration, other people's checkouts, odd repositories and odd files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault
from mcp_server.ports import Conflicted, Done, Landing, NoCommits, Uncommitted, WrongBase
from tests.contracts.git_worlds import START, RealWorld, git, git_bytes, landed, new_repository, worked

pytestmark = pytest.mark.anyio

S1, S2 = AttemptId("e", "S1", 1), AttemptId("e", "S2", 1)
SAVED = "refs/epicwave/rescue/e/S1/1"
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, symlinks and shell scripts")


async def whole_life(world: RealWorld) -> None:
    """One attempt rescued, one landed, one in conflict, everything closed."""
    await world.start_epic("e")
    async with world.worktrees.hold(S1, world.first) as path:
        world.write(path, "a.txt", "half\n")
    head = await worked(world, S2._replace(number=2), world.first, {"a.txt": "theirs\n"})
    await landed(world, S2, world.first, {"a.txt": "1\n"})
    assert isinstance(await world.merge.rebase(S2._replace(number=2), world.first, head), Conflicted)
    late = await worked(world, S1._replace(number=2), world.first, {"b.txt": "2\n"})
    landing = await world.merge.rebase(S1._replace(number=2), world.first, late)
    assert isinstance(landing, Landing)
    assert await world.merge.advance(S1, landing.onto, landing.head)
    for attempt in await world.worktrees.held():
        await world.merge.forget(attempt)
    await world.merge.close("e")


def user_side(top: Path) -> dict[str, bytes]:
    """All of the user's that we could touch."""
    found = {str(path): path.read_bytes() for path in top.rglob("*") if path.is_file() and ".git" not in path.parts}
    found |= {name: (top / ".git" / name).read_bytes() for name in ("index", "config", "HEAD")}
    found |= {str(path): path.read_bytes() for path in (top / ".git" / "hooks").iterdir()}
    status = ("--no-optional-locks", "status", "--porcelain=v2", "--branch", "-z", "--ignored")
    return found | {"status": git_bytes(top, *status)}


async def test_a_whole_life_leaves_the_users_checkout_byte_for_byte_as_it_was(real: RealWorld) -> None:
    real.write(real.top, "a.txt", "the user's own change\n")
    real.write(real.top, "untracked.txt", "mine\n")
    git(real.top, "rm", "-q", "--cached", "b.txt")
    git(real.top, "config", "extensions.worktreeConfig", "true")
    before = user_side(real.top)
    await whole_life(real)
    assert user_side(real.top) == before
    assert git(real.top, "worktree", "list").count("\n") == 1
    assert git(real.top, "branch", "--format=%(refname:short)").split() == ["epicwave/e", "main"]
    assert not (real.top / ".git" / "worktrees").exists()
    assert list(real.root.iterdir()) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_whole_life_passes_on_both_event_loops(real: RealWorld) -> None:
    await whole_life(real)


@posix
async def test_hooks_that_fail_stop_the_agents_commits_and_none_of_our_operations(real: RealWorld) -> None:
    head = await worked(real, S2, real.first, {"b.txt": "2\n"})
    hooks = "pre-commit post-checkout pre-rebase reference-transaction post-commit prepare-commit-msg commit-msg"
    for name in hooks.split():
        real.write(real.top, f".git/hooks/{name}", "#!/bin/sh\nexit 1\n")
        (real.top / ".git/hooks" / name).chmod(0o755)
    await real.start_epic("e")
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "a.txt", "half\n")
        with pytest.raises(subprocess.CalledProcessError):
            real.commit(path)
    assert real.files(SAVED)["a.txt"] == "half\n"
    landing = await real.merge.rebase(S2, real.first, head)
    assert isinstance(landing, Landing)
    assert await real.merge.advance(S1, landing.onto, landing.head)
    await real.merge.close("e")


@pytest.mark.parametrize(
    "settings",
    [
        {"commit.gpgSign": "true", "gpg.program": "false", "tag.gpgSign": "true"},
        {
            "rebase.updateRefs": "true",
            "rebase.autoSquash": "true",
            "rebase.rebaseMerges": "true",
            "rebase.backend": "apply",
        },
        {"status.renames": "copies", "diff.renames": "copies", "diff.noprefix": "true", "status.relativePaths": "true"},
        {"core.quotePath": "true", "color.ui": "always", "status.showStash": "true", "core.fsmonitor": "true"},
        {"merge.ff": "only", "pull.rebase": "true", "branch.autoSetupMerge": "always", "rerere.enabled": "true"},
        {"merge.conflictStyle": "diff3", "core.splitIndex": "true", "worktree.guessRemote": "true"},
    ],
    ids=lambda settings: str(next(iter(settings))),
)
async def test_the_users_settings_do_not_change_the_outcome(real: RealWorld, settings: dict[str, str]) -> None:
    (real.top.parent / "home" / ".gitconfig").touch()
    for key, value in settings.items():
        git(real.top, "config", "--global", key, value)
    git(real.top, "config", "--global", "user.useConfigOnly", "true")
    await real.start_epic("e")
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "a.txt", "half\n")
        git(path, "mv", "b.txt", "moved.txt")
        assert await real.worktrees.inspect(S1, real.first) == Uncommitted(("a.txt", "b.txt", "moved.txt"))
    async with real.worktrees.hold(S2, real.first) as path:
        git(path, "mv", "b.txt", "moved é.txt")
        git(path, "commit", "-q", "--no-gpg-sign", "-m", "moved")
        done = await real.worktrees.inspect(S2, real.first)
        assert isinstance(done, Done)
        assert done.files == ("b.txt", "moved é.txt")
    third = S2._replace(number=3)
    async with real.worktrees.hold(third, real.first) as path:
        real.write(path, "a.txt", "1\n")
        git(path, "commit", "-q", "--no-gpg-sign", "-a", "-m", "third")
        head = git(path, "rev-parse", "HEAD").strip()
    assert await real.merge.advance(S1, real.first, head)
    landing = await real.merge.rebase(S2, real.first, done.head)
    assert isinstance(landing, Landing)
    assert real.files(landing.head) == {"a.txt": "1\n", "dir/c.txt": "c\n", "moved é.txt": "b\n"}
    assert real.sha("refs/heads/epicwave-work/e/S2/1") == done.head


@pytest.mark.usefixtures("no_user_config")
async def test_a_repository_without_an_identity_gets_ours_for_our_own_commits(tmp_path: Path) -> None:
    first = new_repository(tmp_path / "repo", identity=False)
    git(tmp_path / "repo", "config", "user.useConfigOnly", "true")
    config = (tmp_path / "repo/.git/config").read_bytes()
    repository = await Repository.open(tmp_path / "repo")
    world = RealWorld(tmp_path, repository, first)
    async with world.worktrees.hold(S1, first) as path:
        world.write(path, "a.txt", "half\n")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in repository.agent_env.items():
                patch.setenv(name, value)
            git(path, "commit", "-q", "-a", "-m", "x")
        world.write(path, "a.txt", "more\n")
    assert world.files(SAVED)["a.txt"] == "more\n"
    assert git(world.top, "log", "-1", "--format=%cn", SAVED).strip() == "epicwave"
    assert (tmp_path / "repo/.git/config").read_bytes() == config


async def test_the_users_identity_signs_what_we_commit_for_them(real: RealWorld) -> None:
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "a.txt", "half\n")
    assert git(real.top, "log", "-1", "--format=%an %cn", SAVED).strip() == "Ann Ann"
    assert real.repository.agent_env == {}


async def test_it_works_when_started_in_a_linked_worktree_that_is_removed_later(
    real: RealWorld, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    git(real.top, "worktree", "add", "-q", "-b", "side", str(linked))
    world = RealWorld(tmp_path / "more", await Repository.open(linked / "dir"), real.first)
    git(real.top, "worktree", "remove", str(linked))
    await world.start_epic("e")
    assert (await landed(world, S1, world.first, {"a.txt": "1\n"})).files == ("a.txt",)


@pytest.mark.usefixtures("no_user_config")
async def test_a_shallow_clone_will_do(tmp_path: Path) -> None:
    new_repository(tmp_path / "origin")
    git(tmp_path / "origin", "commit", "-q", "--allow-empty", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tmp_path}/origin", "repo")
    git(tmp_path / "repo", "config", "user.name", "Ann")
    git(tmp_path / "repo", "config", "user.email", "ann@example.org")
    repository = await Repository.open(tmp_path / "repo")
    await whole_life(RealWorld(tmp_path, repository, await repository.head_sha()))


@posix
async def test_modes_links_and_renames_survive_the_rescue_and_the_landing(real: RealWorld) -> None:
    def work(path: Path) -> None:
        (path / "a.txt").chmod(0o755)
        (path / "link").symlink_to("nowhere/at all")
        (path / "b.txt").rename(path / "dir" / "b2.txt")
        (path / "binary").write_bytes(bytes(range(256)))

    async with real.worktrees.hold(S1, real.first) as path:
        work(path)
    await real.start_epic("e")
    other = await worked(real, S2, real.first, {"dir/c.txt": "2\n"})
    await real.merge.advance(S1, real.first, other)
    async with real.worktrees.hold(S1._replace(number=2), real.first) as path:
        work(path)
        head = real.commit(path)
        await real.worktrees.inspect(S1._replace(number=2), real.first)
    landing = await real.merge.rebase(S1._replace(number=2), real.first, head)
    assert isinstance(landing, Landing)
    for rev in (SAVED, landing.head):
        listed = git(real.top, "ls-tree", "-r", rev).splitlines()
        modes = {line.split("\t")[1]: line.split()[0] for line in listed}
        expected = {
            "a.txt": "100755",
            "link": "120000",
            "dir/b2.txt": "100644",
            "binary": "100644",
            "dir/c.txt": "100644",
        }
        assert modes == expected
        assert git_bytes(real.top, "show", f"{rev}:binary") == bytes(range(256))
        assert git(real.top, "show", f"{rev}:link") == "nowhere/at all"


async def test_ignored_files_are_left_out_unless_they_were_added_by_force(real: RealWorld) -> None:
    real.write(real.top, ".git/info/exclude", "*.log\n")
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "ignored.log", "no\n")
        assert await real.worktrees.inspect(S1, real.first) == NoCommits()
        real.write(path, "forced.log", "yes\n")
        git(path, "add", "-f", "forced.log")
    assert real.files(SAVED) == {**START, "forced.log": "yes\n"}


async def test_a_change_within_the_second_of_the_commit_is_saved(real: RealWorld) -> None:
    """Git knows such a change only by the age of the index: a copy of the index has to be as old."""
    git(real.top, "config", "core.trustCTime", "false")
    async with real.worktrees.hold(S1, real.first) as path:
        for content in ("half\n", "more\n"):
            real.write(path, "a.txt", content)
            os.utime(path / "a.txt", (10**9, 10**9))
            if content == "half\n":
                real.commit(path)
        os.utime(real.top / ".git" / "worktrees" / path.name / "index", (10**9, 10**9))
        assert await real.worktrees.inspect(S1, real.first) == Uncommitted(("a.txt",))
    assert real.files(SAVED)["a.txt"] == "more\n"


async def test_a_worktree_in_the_middle_of_a_conflict_is_saved(real: RealWorld) -> None:
    theirs = await worked(real, S2, real.first, {"a.txt": "theirs\n"})
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "a.txt", "ours\n")
        ours = real.commit(path)
        with pytest.raises(subprocess.CalledProcessError):
            git(path, "merge", theirs)
        assert await real.worktrees.inspect(S1, real.first) == Uncommitted(("(unfinished merge)", "a.txt"))
    saved = real.files(SAVED)["a.txt"]
    assert "ours" in saved
    assert "theirs" in saved
    assert git(real.top, "merge-base", SAVED, ours).strip() == ours


async def test_an_unfinished_rebase_is_uncommitted_work_even_when_all_is_clean(real: RealWorld) -> None:
    async with real.worktrees.hold(S1, real.first) as path:
        for content in ("1\n", "2\n"):
            real.write(path, "a.txt", content)
            last = real.commit(path)
        with pytest.raises(subprocess.CalledProcessError):
            git(path, "rebase", "--force-rebase", "--exec", "false", real.first)
        assert await real.worktrees.inspect(S1, real.first) == Uncommitted(("(unfinished rebase)",))
    assert git(real.top, "merge-base", SAVED, last).strip() == last, "the commits still to be rebased are saved too"


async def test_a_head_without_a_commit_is_the_wrong_base_and_its_files_are_saved(real: RealWorld) -> None:
    async with real.worktrees.hold(S1, real.first) as path:
        git(path, "checkout", "-q", "--orphan", "island")
        real.write(path, "a.txt", "alone\n")
        assert isinstance(await real.worktrees.inspect(S1, real.first), WrongBase)
    assert real.files(SAVED) == {**START, "a.txt": "alone\n"}


async def test_repositories_inside_the_worktree_are_saved_as_their_files(real: RealWorld) -> None:
    async with real.worktrees.hold(S1, real.first) as path:
        new_repository(path / "[inner] clone")
        new_repository(path / "[inner] clone" / "deeper")
        real.write(path, "fresh/x.txt", "no commit yet\n")
        git(path / "fresh", "init", "-q")
        assert isinstance(await real.worktrees.inspect(S1, real.first), Uncommitted)
    inner = {f"[inner] clone/{name}": content for name, content in START.items()}
    deeper = {f"[inner] clone/deeper/{name}": content for name, content in START.items()}
    assert real.files(SAVED) == {**START, **inner, **deeper, "fresh/x.txt": "no commit yet\n"}


async def test_a_sparse_checkout_is_not_taken_for_deletions(real: RealWorld) -> None:
    git(real.top, "sparse-checkout", "set", "--cone", "other")
    async with real.worktrees.hold(S1, real.first) as path:
        assert not (path / "dir").exists()
        assert await real.worktrees.inspect(S1, real.first) == NoCommits()
        real.write(path, "a.txt", "half\n")
    assert real.files(SAVED) == {**START, "a.txt": "half\n"}


@pytest.mark.usefixtures("no_user_config")
async def test_a_repository_with_submodules_will_do(tmp_path: Path) -> None:
    new_repository(tmp_path / "library")
    new_repository(tmp_path / "repo")
    allow = ("-c", "protocol.file.allow=always", "submodule")
    git(tmp_path / "repo", *allow, "--quiet", "add", f"{tmp_path}/library", "lib")
    git(tmp_path / "repo", "commit", "-q", "-m", "with a submodule")
    repository = await Repository.open(tmp_path / "repo")
    world = RealWorld(tmp_path, repository, await repository.head_sha())
    await world.start_epic("e")
    async with world.worktrees.hold(S1, world.first) as path:
        git(path, *allow, "--quiet", "update", "--init")
        world.write(path, "lib/built.o", "untracked in the submodule\n")
        assert await world.worktrees.inspect(S1, world.first) == NoCommits()
        world.write(path, "a.txt", "half\n")
    assert git(world.top, "diff", "--name-only", world.first, SAVED).split() == ["a.txt"]
    assert (await landed(world, S2, world.first, {"b.txt": "1\n"})).files == ("b.txt",)
    await world.merge.close("e")


async def test_what_was_settled_in_a_merge_commit_lands(real: RealWorld) -> None:
    """The agent merged the tip into its branch and settled the conflict: replaying its commits would conflict again."""
    await real.start_epic("e")
    onto = (await landed(real, S2, real.first, {"a.txt": "theirs\n"})).head
    async with real.worktrees.hold(S1, real.first) as path:
        real.write(path, "a.txt", "ours\n")
        real.commit(path)
        with pytest.raises(subprocess.CalledProcessError):
            git(path, "merge", "epicwave/e")
        real.write(path, "a.txt", "settled\n")
        head = real.commit(path)
        assert await real.worktrees.inspect(S1, real.first) == Done(head, ("a.txt",))
    further = (await landed(real, S2._replace(number=2), onto, {"b.txt": "further\n"})).head
    landing = await real.merge.rebase(S1, real.first, head)
    assert isinstance(landing, Landing)
    assert (landing.onto, landing.files) == (further, ("a.txt",))
    assert real.files(landing.head) == {"a.txt": "settled\n", "b.txt": "further\n", "dir/c.txt": "c\n"}
    assert await real.merge.advance(S1, further, landing.head)
    assert await real.merge.rebase(S1, real.first, head) == Landing(landing.head, landing.head, ())


async def test_a_branch_of_the_attempts_name_that_somebody_made_is_a_fault(real: RealWorld) -> None:
    git(real.top, "branch", "epicwave-work")
    with pytest.raises(Fault):
        async with real.worktrees.hold(S1, real.first):
            pytest.fail("git allows no branch below another")
    assert await real.worktrees.held() == []


async def test_work_that_the_disk_cannot_take_is_a_fault_and_is_saved_when_it_can(real: RealWorld) -> None:
    """The file in the way stands for a full disk: the operating system refuses, not git."""
    path = await real.crashed(S1, real.first)
    real.write(path, "a.txt", "half\n")
    in_the_way = real.repository.state_dir / "tmp"
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.touch()
    with pytest.raises(Fault, match=r"disk: .* could not be saved"):
        await real.worktrees.rescue(S1)
    assert real.there(path)
    in_the_way.unlink()
    assert await real.worktrees.rescue(S1) == SAVED
    assert real.files(SAVED)["a.txt"] == "half\n"


async def test_a_worktree_that_the_disk_cannot_take_is_a_fault(real: RealWorld) -> None:
    """No attempt can begin there; nothing of it is left but what the next look clears away."""
    folder = real.root / S1.epic
    folder.parent.mkdir(exist_ok=True)
    folder.touch()
    with pytest.raises(Fault, match=r"disk: .* could not be made"):
        async with real.worktrees.hold(S1, real.first):
            pass
    folder.unlink()
    async with real.worktrees.hold(S1, real.first) as path:
        assert real.there(path)


@posix
async def test_a_worktree_whose_removal_was_killed_leaves_no_half_registration(
    real: RealWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git had removed the gitdir, and the lock before it, when it was killed: it does not list such a half."""
    path = await real.crashed(S1, real.first)
    half = real.top / ".git" / "worktrees" / path.name
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    git_found = shutil.which("git")
    kill = f'*" worktree remove "*) rm "{half}/gitdir"; kill -9 $$;;'
    wrapper.write_text(f'#!/bin/sh\ncase " $* " in {kill} esac\nexec {git_found} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert half.exists()
    await real.worktrees.rescue(S1)
    assert not half.exists()
    assert await real.worktrees.held() == []
