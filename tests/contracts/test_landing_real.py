"""Landing with what only real git has: ignored files, hooks, signatures, remotes, and `gh`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git import landing
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.errors import Code, Refused
from mcp_server.land_port import Candidate, How
from tests.contracts.git_worlds import RealWorld, git, landed

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts here")]

S1 = AttemptId("e", "S1", 1)


@pytest.fixture
async def tip(real: RealWorld) -> Sha:
    await real.start_epic("e")
    return (await landed(real, S1, real.first, {"new.txt": "1\n"})).head


async def land(real: RealWorld, tip: Sha, how: How | None = None) -> str:
    target = await real.land.target(None, real.top)
    candidate = await real.land.compose("e", target, tip, how, "The epic\n\n- S1\n")
    assert isinstance(candidate, Candidate)
    return await real.land.move("e", target, candidate)


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n", "utf-8")
    path.chmod(0o755)
    return path


async def test_an_ignored_file_of_the_users_is_not_written_over(real: RealWorld, tip: Sha) -> None:
    """Git itself would: what is ignored counts for nothing with `git merge`."""
    (real.top / ".git" / "info" / "exclude").write_text("new.txt\n", "utf-8")
    (real.top / "new.txt").write_text("mine\n", "utf-8")
    with pytest.raises(Refused) as refused:
        await land(real, tip)
    assert refused.value.code is Code.DIRTY_CHECKOUT
    assert (real.top / "new.txt").read_text("utf-8") == "mine\n"
    assert real.sha("refs/heads/main") == real.first


async def test_hooks_of_the_users_do_not_run_and_their_configuration_is_not_touched(real: RealWorld, tip: Sha) -> None:
    ran = anyio.Path(f"{real.root}-ran")
    for name in ("post-merge", "pre-merge-commit", "commit-msg", "post-checkout", "reference-transaction"):
        program(real.top / ".git" / "hooks" / name, f"touch {ran}", "exit 1")
    before = (real.top / ".git" / "config").read_bytes()
    await land(real, tip, How.MERGE)
    assert not await ran.exists()
    assert (real.top / ".git" / "config").read_bytes() == before
    assert git(real.top, "status", "--porcelain") == ""


async def test_the_commit_is_the_users_and_its_message_ours(real: RealWorld, tip: Sha) -> None:
    await land(real, tip, How.SQUASH)
    assert git(real.top, "log", "-1", "--format=%an %s%n%b").splitlines()[:2] == ["Ann The epic", "- S1"]
    assert git(real.top, "rev-list", "--count", "HEAD").strip() == "2"


async def test_a_commit_is_signed_where_the_user_signs(real: RealWorld, tip: Sha) -> None:
    status = ("echo '[GNUPG:] BEGIN_SIGNING' >&2", "echo '[GNUPG:] SIG_CREATED D 1 8 00 1 X' >&2")
    signer = program(real.root.parent / "gpg", "cat > /dev/null", *status, "echo '-----BEGIN PGP SIGNATURE-----'")
    git(real.top, "config", "gpg.program", str(signer))
    git(real.top, "config", "commit.gpgSign", "true")
    await land(real, tip, How.SQUASH)
    assert "gpgsig -----BEGIN PGP SIGNATURE-----" in git(real.top, "cat-file", "commit", "HEAD")


@pytest.mark.parametrize("does", ["exit 2", "exec sleep 60"])
async def test_a_commit_that_cannot_be_signed_is_refused_within_its_time(
    real: RealWorld, tip: Sha, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "SIGN_S", 2.0)
    git(real.top, "config", "gpg.program", str(program(real.root.parent / "gpg", does)))
    git(real.top, "config", "commit.gpgSign", "true")
    with pytest.raises(Refused) as refused:
        await land(real, tip, How.SQUASH)
    assert (refused.value.code, "how='ff'" in refused.value.remedy) == (Code.CANNOT_SIGN, True)
    assert real.sha("refs/heads/main") == real.first
    await land(real, tip)
    assert real.sha("refs/heads/main") == tip


async def test_a_history_with_nothing_in_common_is_refused(real: RealWorld, tip: Sha) -> None:
    git(real.top, "checkout", "-q", "--orphan", "other")
    git(real.top, "commit", "-q", "-m", "root")
    with pytest.raises(Refused) as refused:
        await land(real, tip)
    assert refused.value.code is Code.NOTHING_TO_LAND


async def test_what_is_not_a_merge_conflict_in_a_merge_is_a_fault_with_gits_words(real: RealWorld, tip: Sha) -> None:
    (real.top / "mine.txt").write_text("mine\n", "utf-8")
    real.commit(real.top)
    git(real.top, "config", "merge.renames", "nonsense")
    with pytest.raises(Exception, match=r"nonsense|renames"):
        await land(real, tip)


# --- pull requests


@pytest.fixture
def remote(real: RealWorld, tip: Sha) -> Path:
    place = real.root.parent / "remote.git"
    git(real.top, "init", "-q", "--bare", str(place))
    git(real.top, "remote", "add", "origin", str(place))
    return place


def with_gh(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    program(folder / "bin" / "gh", *lines)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


async def offer(real: RealWorld, tip: Sha) -> str:
    return await real.land.offer("e", tip, "main", "The 'epic' $(x)", "- S1: one\n")


async def refused_offer(real: RealWorld, tip: Sha, remote: Path | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        await offer(real, tip)
    assert refused.value.code is Code.NO_PULL_REQUEST
    if remote is not None:
        assert git(remote, "for-each-ref") == "", "nothing was pushed"
    return refused.value


async def test_the_branch_is_pushed_and_the_request_has_title_and_body(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The title is one argument, whatever is in it; no shell sees it."""
    said = real.root.parent / "said"
    create = (
        f'for word in "$@"; do echo "$word" >> {said}; done',
        f"cat >> {said}",
        "echo https://h.example/o/r/pull/7",
    )
    with_gh(monkeypatch, real.root.parent, '[ "$1" = auth ] && exit 0', *create)
    assert await offer(real, tip) == "https://h.example/o/r/pull/7"
    assert git(remote, "rev-parse", "epicwave/e").strip() == tip
    words = said.read_text("utf-8").splitlines()
    assert words[:6] == ["pr", "create", "--base", "main", "--head", "epicwave/e"]
    assert ("The 'epic' $(x)" in words, words[-1]) == (True, "- S1: one")
    assert real.sha("refs/heads/main") == real.first


async def test_a_request_that_is_open_already_takes_the_push(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = 'echo "a pull request for branch x already exists: https://h.example/o/r/pull/3" >&2; exit 1'
    with_gh(monkeypatch, real.root.parent, '[ "$1" = auth ] && exit 0', exists)
    assert await offer(real, tip) == "https://h.example/o/r/pull/3"


async def test_without_gh_the_commands_are_named_and_nothing_is_pushed(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", dict[str, str]().get)
    refused = await refused_offer(real, tip, remote)
    assert f"git push origin {tip}:refs/heads/epicwave/e" in refused.remedy
    assert "gh pr create --base main --head epicwave/e" in refused.remedy


async def test_a_gh_that_is_not_logged_in_is_told_and_nothing_is_pushed(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gh(monkeypatch, real.root.parent, "echo You are not logged into any hosts >&2", "exit 1")
    refused = await refused_offer(real, tip, remote)
    assert "not logged into any hosts" in refused.why
    assert "gh auth login" in refused.remedy


async def test_a_push_that_a_hook_refuses_is_told_with_its_words(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gh(monkeypatch, real.root.parent, "exit 0")
    program(real.top / ".git" / "hooks" / "pre-push", "echo not on Fridays >&2", "exit 1")
    assert "not on Fridays" in (await refused_offer(real, tip, remote)).why


async def test_a_request_that_gh_does_not_open_is_told(
    real: RealWorld, tip: Sha, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gh(monkeypatch, real.root.parent, '[ "$1" = auth ] && exit 0', "echo no such base >&2", "exit 1")
    assert "no such base" in (await refused_offer(real, tip)).why


async def test_without_a_remote_there_is_nowhere_to_open_one(real: RealWorld, tip: Sha) -> None:
    assert "no remote" in (await refused_offer(real, tip)).why
