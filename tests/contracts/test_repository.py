"""Which repositories are taken and which refused, and that looking changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.adapters.git.repository import Repository, parsed_version
from mcp_server.errors import Code, Fault, Refused
from tests.contracts.git_worlds import git, new_repository

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_user_config")]


async def refusal(path: Path) -> Refused:
    with pytest.raises(Refused) as caught:
        await Repository.open(path)
    assert caught.value.why
    assert caught.value.remedy
    return caught.value


def output(program: str, **env: str) -> str:
    """What a Python program prints, in a process of its own."""
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout.strip()


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5", (2, 39)),
        ("git version 2.39.5 (Apple Git-154)", (2, 39)),
        ("git version 2.45.1.windows.1", (2, 45)),
        ("git version 3.0-rc1", (3, 0)),
        ("git version 2.34.1\n", (2, 34)),
    ],
)
async def test_versions_are_read_as_each_platform_writes_them(text: str, version: tuple[int, int]) -> None:
    assert parsed_version(text) == version


@pytest.mark.parametrize("text", ["git version 2.33.9", "git version 1.8.3.1"])
async def test_an_old_git_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parsed_version(text)
    assert caught.value.code is Code.GIT_TOO_OLD


async def test_no_git_is_refused_kindly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_repository(tmp_path / "repo")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await refusal(tmp_path / "repo")).code is Code.GIT_MISSING


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for git")
async def test_a_git_that_does_not_run_is_refused_kindly(tmp_path: Path) -> None:
    """The stub of macOS without the command line tools; in a process of its own, because GitPython asks once."""
    stub = tmp_path / "git"
    stub.write_text("#!/bin/sh\necho 'xcrun: error: invalid active developer path' >&2\nexit 1\n", "utf-8")
    stub.chmod(0o755)
    program = (
        "import anyio, pathlib\n"
        "from mcp_server.adapters.git.repository import Repository\n"
        "from mcp_server.errors import Refused\n"
        "try: anyio.run(Repository.open, pathlib.Path('.'))\n"
        "except Refused as refused: print(refused.code)\n"
    )
    assert output(program, PATH=str(tmp_path)) == "git_missing"


async def test_importing_the_adapter_does_not_import_gitpython() -> None:
    names = "mcp_server.adapters.git.worktrees, mcp_server.adapters.git.integration"
    assert output(f"import sys, {names}; print('git' in sys.modules)") == "False"


async def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    assert (await refusal(tmp_path / "nowhere")).code is Code.NOT_A_REPOSITORY
    (tmp_path / "file").touch()
    assert (await refusal(tmp_path / "file")).code is Code.NOT_A_REPOSITORY


async def test_a_plain_folder_is_refused_with_git_init_as_the_next_move(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    refused = await refusal(tmp_path / "plain")
    assert refused.code is Code.NOT_A_REPOSITORY
    assert "git init" in refused.remedy
    assert list((tmp_path / "plain").iterdir()) == []


async def test_a_bare_repository_is_refused_and_its_linked_worktree_is_taken(tmp_path: Path) -> None:
    first = new_repository(tmp_path / "repo")
    git(tmp_path, "clone", "-q", "--bare", "repo", "bare.git")
    assert (await refusal(tmp_path / "bare.git")).code is Code.BARE_REPOSITORY
    git(tmp_path / "bare.git", "worktree", "add", "-q", "--detach", str(tmp_path / "linked"), "main")
    repository = await Repository.open(tmp_path / "linked")
    assert (repository.common_dir, await repository.head_sha()) == (tmp_path / "bare.git", first)


async def test_gits_own_folder_is_refused(tmp_path: Path) -> None:
    new_repository(tmp_path / "repo")
    assert (await refusal(tmp_path / "repo" / ".git")).code is Code.NOT_A_REPOSITORY


async def test_a_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "empty")
    before = listing(tmp_path / "empty")
    refused = await refusal(tmp_path / "empty")
    assert refused.code is Code.NO_COMMITS
    assert "git commit" in refused.remedy
    assert listing(tmp_path / "empty") == before


async def test_a_subfolder_and_a_linked_worktree_lead_to_the_same_repository(tmp_path: Path) -> None:
    top = tmp_path / "re po é"
    first = new_repository(top)
    git(top, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    inside, linked = await Repository.open(top / "dir"), await Repository.open(tmp_path / "linked")
    assert (inside.top, linked.top) == (top, tmp_path / "linked")
    assert inside.common_dir == linked.common_dir == top / ".git"
    assert inside.state_dir == top / ".git" / "epicwave"
    assert await inside.head_sha() == await linked.head_sha() == first


async def test_what_a_git_hook_left_in_the_environment_misleads_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_repository(tmp_path / "repo")
    new_repository(tmp_path / "other")
    for name, value in (("GIT_DIR", ".git"), ("GIT_WORK_TREE", "."), ("GIT_INDEX_FILE", ".git/index")):
        monkeypatch.setenv(name, str(tmp_path / "other" / value))
    assert (await Repository.open(tmp_path / "repo")).common_dir == tmp_path / "repo" / ".git"
    assert "GIT_DIR" not in os.environ


async def test_opening_and_looking_changes_nothing(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    new_repository(top)
    os.utime(top / "a.txt", (0, 0))  # the index is stale now: a `git status` that may would write it
    before = listing(top)
    repository = await Repository.open(top)
    await repository.notices()
    await repository.where_checked_out("main")
    await repository.branch_exists("main")
    assert listing(top) == before


async def test_git_never_goes_up_from_the_folder_it_was_sent_to(tmp_path: Path) -> None:
    """A worktree of ours that lost its `.git` file may lie inside the user's checkout."""
    new_repository(tmp_path / "repo")
    repository = await Repository.open(tmp_path / "repo")
    with pytest.raises(Fault):
        await repository.git.write("checkout", "--force", "--detach", at=tmp_path / "repo" / "dir")
    with pytest.raises(Fault):
        await repository.git.write("clean", "-ffd", at=tmp_path / "gone")


async def test_a_clean_checkout_needs_no_notice(tmp_path: Path) -> None:
    new_repository(tmp_path / "repo")
    assert await (await Repository.open(tmp_path / "repo")).notices() == ()


async def test_each_oddity_of_the_checkout_has_its_sentence(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    new_repository(top)
    git(top, "checkout", "-q", "--detach")
    (top / "a.txt").write_text("changed")
    (top / "b.txt").unlink()
    (top / "new file").touch()
    (top / ".git" / "MERGE_HEAD").write_text(git(top, "rev-parse", "HEAD"))
    (top / ".gitmodules").touch()
    said = await (await Repository.open(top)).notices()
    for words in (
        "2 files are in your checkout changed",
        "2 files are in your checkout untracked",
        "A merge is in progress",
    ):
        assert any(words in sentence for sentence in said), (words, said)
    assert any("detached" in sentence for sentence in said)
    assert any("submodules" in sentence for sentence in said)


async def test_a_branch_is_made_once_and_never_taken_over(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    first = new_repository(top)
    repository = await Repository.open(top)
    assert not await repository.branch_exists("epicwave/e")
    await repository.create_branch("epicwave/e", first)
    await repository.create_branch("epicwave/e", first)
    assert await repository.branch_exists("epicwave/e")
    git(top, "commit", "-q", "--allow-empty", "-m", "second")
    with pytest.raises(Refused) as caught:
        await repository.create_branch("epicwave/e", await repository.head_sha())
    assert caught.value.code is Code.BRANCH_TAKEN
    assert git(top, "rev-parse", "epicwave/e").strip() == first


async def test_a_branch_whose_name_is_a_folder_of_ours_is_in_the_way(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    first = new_repository(top)
    git(top, "branch", "epicwave")
    with pytest.raises(Refused) as caught:
        await (await Repository.open(top)).create_branch("epicwave/e", first)
    assert caught.value.code is Code.BRANCH_TAKEN


async def test_where_a_branch_is_checked_out_or_being_rebased_is_known(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    new_repository(top)
    repository = await Repository.open(top)
    assert await repository.where_checked_out("main") == top
    git(top, "checkout", "-q", "--detach")
    assert await repository.where_checked_out("main") is None
    linked = tmp_path / "linked"
    git(top, "worktree", "add", "-q", str(linked), "main")
    (linked / "a.txt").write_text("x")
    git(linked, "commit", "-qam", "x")
    with pytest.raises(subprocess.CalledProcessError):
        git(linked, "rebase", "--exec", "false", "HEAD~1")
    assert await repository.where_checked_out("main") == linked
