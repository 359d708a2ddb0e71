"""A rebase without a worktree comes out as one in a worktree does, byte by byte; and what it leaves to the worktree."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_server.adapters.git import integration, weave
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.ports import Conflicted, Landing
from tests.contracts.git_worlds import START, RealWorld, git, git_bytes, worked

pytestmark = pytest.mark.anyio

S1, S2 = AttemptId("e", "S1", 1), AttemptId("e", "S2", 1)
TEXT = "".join(f"line {number}\n" for number in range(12))


@pytest.fixture(autouse=True)
async def begun(real: RealWorld) -> None:
    """A file of some lines besides, so that hunks can be merged."""
    (real.top / "long.txt").write_text(TEXT)
    git(real.top, "add", "-A")
    git(real.top, "commit", "-q", "-m", "long")
    real.first = git(real.top, "rev-parse", "HEAD").strip()
    await real.start_epic("e")


def folder_of(real: RealWorld) -> Path:
    return real.root / "e" / "_integration"


async def both_ways(real: RealWorld, head: Sha) -> tuple[Landing | Conflicted, Landing | Conflicted]:
    """What becomes of a branch without a worktree, and in one."""
    woven = await real.merge.rebase(S2, real.first, head)
    assert not folder_of(real).exists(), "it was done without a worktree"
    version = real.repository.version
    real.repository = replace(real.repository, version=(2, 37))
    real.restart()
    rebased = await real.merge.rebase(S2, real.first, head)
    await real.merge.close("e")
    real.repository = replace(real.repository, version=version)
    real.restart()
    return woven, rebased


def told(real: RealWorld, landing: Landing) -> list[bytes]:
    """Of each commit the tree, the author, the author's date, the message as it is read."""
    look = ("log", "-z", "--reverse", "--encoding=UTF-8", "--format=%T%n%an <%ae> %ad%n%B", "--date=raw")
    return git_bytes(real.top, *look, f"{landing.onto}..{landing.head}").split(b"\0")


def change(real: RealWorld, path: Path, rng: random.Random) -> None:
    """Anything that an agent may do to a file."""
    name = rng.choice(sorted(each.name for each in path.iterdir() if each.is_file() and each.name != ".git"))
    file = path / name
    match rng.randrange(6):
        case 0:
            file.unlink()
        case 1:
            file.rename(path / f"moved-{rng.randrange(3)}-{name}")
        case 2:
            file.write_text(rng.choice(("same\n", f"{rng.random()}\n")))
        case 3:
            (path / f"new-{rng.randrange(4)}.txt").write_text(f"{rng.randrange(2)}\n")
        case 4:
            file.chmod(0o755)
        case _:
            lines = file.read_text().splitlines(keepends=True) or ["\n"]
            lines[rng.randrange(len(lines))] = f"changed {rng.randrange(3)}\n"
            file.write_text("".join(lines))


def commits(real: RealWorld, path: Path, rng: random.Random, count: int) -> Sha:
    for number in range(count):
        for _ in range(rng.randrange(1, 3)):
            change(real, path, rng)
        author = f"--author=Zoé {number} <z{number}@example.org>"
        git(path, "add", "-A")
        git(
            path,
            "commit",
            "-q",
            "--allow-empty",
            author,
            f"--date={10**9 + number} +0530",
            "-m",
            f"n° {number}\n\nBody",
        )
    return git(path, "rev-parse", "HEAD").strip()


def pick(path: Path, sha: Sha) -> None:
    """The tip has one of the commits already, when that can be."""
    try:
        git(path, "cherry-pick", sha)
    except subprocess.CalledProcessError:
        git(path, "cherry-pick", "--abort")


@pytest.mark.parametrize("seed", range(14))
async def test_a_rebase_without_a_worktree_comes_out_as_one_in_a_worktree(
    real: RealWorld, tmp_path: Path, seed: int
) -> None:
    """Random branches on random tips: the same trees, authors, dates, messages; or the same conflict."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
    path = tmp_path / "hand"
    git(real.top, "worktree", "add", "-q", "--detach", str(path), real.first)
    head = commits(real, path, rng, rng.randrange(1, 4))
    git(path, "checkout", "-q", real.first)
    if rng.random() < 0.4:
        pick(path, head)
    real.moves("refs/heads/epicwave/e", commits(real, path, rng, rng.randrange(1, 3)))
    woven, rebased = await both_ways(real, head)
    assert type(woven) is type(rebased)
    assert (woven.onto, getattr(woven, "files", ())) == (rebased.onto, getattr(rebased, "files", ()))
    if isinstance(woven, Landing) and isinstance(rebased, Landing):
        assert told(real, woven) == told(real, rebased)
    elif isinstance(woven, Conflicted) and isinstance(rebased, Conflicted):
        assert woven.paths == rebased.paths


async def test_a_conflict_shows_the_hunks_of_both_sides_and_their_names(real: RealWorld) -> None:
    head = await worked(real, S2, real.first, {"long.txt": TEXT.replace("line 5", "theirs"), "b.txt": "2\n"})
    onto = await worked(real, S1, real.first, {"long.txt": TEXT.replace("line 5", "ours")})
    assert await real.merge.advance(S1, real.first, onto)
    woven, rebased = await both_ways(real, head)
    assert isinstance(woven, Conflicted)
    assert isinstance(rebased, Conflicted)
    marks = ["<<<<<<< the tip", "ours", "=======", "theirs", f">>>>>>> {head[:7]} (work)"]
    lines = [line.lstrip("+- ") for line in woven.detail.splitlines()]
    assert [line for line in lines if line in marks] == marks
    hunks = [[line for line in each.detail.splitlines() if line[2:6] == "line"] for each in (woven, rebased)]
    assert hunks[0] == hunks[1] != [], "the same hunk"


async def test_a_conflict_that_is_no_hunk_is_told_in_a_sentence(real: RealWorld) -> None:
    async with real.worktrees.hold(S2, real.first) as path:
        real.delete(path, "a.txt")
        head = real.commit(path)
        await real.worktrees.inspect(S2, real.first)
    assert await real.merge.advance(S1, real.first, await worked(real, S1, real.first, {"a.txt": "1\n"}))
    woven, _ = await both_ways(real, head)
    assert isinstance(woven, Conflicted)
    assert f"CONFLICT (modify/delete): a.txt deleted in {head[:7]} (work) and modified in the tip." in woven.detail


async def test_odd_messages_and_signatures(real: RealWorld, tmp_path: Path) -> None:
    """Latin-1 stays Latin-1, no end of line is added to a message, and a signature that is no longer true goes."""
    path = tmp_path / "hand"
    git(real.top, "worktree", "add", "-q", "--detach", str(path), real.first)
    (path / "b.txt").write_text("2\n")
    git(path, "add", "-A")
    tree = git(path, "write-tree").strip()
    ident = b"Jos\xe9 <j@example.org> 1000000000 -0330"
    raw = b"tree %s\nparent %s\nauthor %s\ncommitter %s\nencoding ISO-8859-1\n"
    raw += b"gpgsig -----BEGIN\n x\n -----END\n\ncaf\xe9, no end"
    raw %= (tree.encode(), real.first.encode(), ident, ident)
    (tmp_path / "raw").write_bytes(raw)
    head = git(path, "hash-object", "-t", "commit", "-w", str(tmp_path / "raw")).strip()
    assert await real.merge.advance(S1, real.first, await worked(real, S1, real.first, {"a.txt": "1\n"}))
    git(real.top, "config", "user.name", "Ann Müller")
    landing = await real.merge.rebase(S2, real.first, head)
    assert isinstance(landing, Landing)
    written = git_bytes(real.top, "cat-file", "commit", landing.head)
    assert written.endswith(b"\nencoding ISO-8859-1\n\ncaf\xe9, no end")
    assert b"\nauthor " + ident + b"\n" in written
    assert b"gpgsig" not in written
    assert git(real.top, "log", "-1", "--format=%an %cn", landing.head).strip() == "José Ann Müller"


async def test_a_commit_that_was_empty_from_the_start_is_kept_and_one_that_became_so_is_not(real: RealWorld) -> None:
    async with real.worktrees.hold(S2, real.first) as path:
        git(path, "commit", "-q", "--allow-empty", "-m", "nothing, on purpose")
        real.write(path, "a.txt", "1\n")
        real.write(path, "b.txt", "1\n")
        real.commit(path)
        head = git(path, "rev-parse", "HEAD").strip()
        await real.worktrees.inspect(S2, real.first)
    onto = await worked(real, S1, real.first, {"a.txt": "1\n"}, {"b.txt": "1\n", "new.txt": "1\n"})
    assert await real.merge.advance(S1, real.first, onto)
    woven, rebased = await both_ways(real, head)
    assert isinstance(woven, Landing)
    assert isinstance(rebased, Landing)
    assert git(real.top, "log", "--format=%s", f"{onto}..{woven.head}").splitlines() == ["nothing, on purpose"]
    assert told(real, woven) == told(real, rebased)


async def test_the_attributes_of_the_tip_say_how_files_are_merged(real: RealWorld) -> None:
    """Also those in folders; without a worktree git would not see them."""
    files = {".gitattributes": "[attr]whole -merge\n", "dir/.gitattributes": "c.txt whole\n", "dir/c.txt": TEXT}
    first = await worked(real, S1, real.first, files)
    assert await real.merge.advance(S1, real.first, first)
    head = await worked(real, S2, first, {"dir/c.txt": TEXT.replace("line 2\n", "theirs\n")})
    onto = await worked(real, S1._replace(number=2), first, {"dir/c.txt": TEXT.replace("line 9\n", "ours\n")})
    assert await real.merge.advance(S1, first, onto)
    woven, rebased = await both_ways(real, head)
    assert isinstance(woven, Conflicted)
    assert isinstance(rebased, Conflicted)
    assert woven.paths == rebased.paths == ("dir/c.txt",)


def a_driver(real: RealWorld) -> None:
    git(real.top, "config", "merge.mine.driver", "printf 'mine\\n' > %A")
    real.write(real.top, ".git/info/attributes", "a.txt merge=mine\n")


def remembered(real: RealWorld) -> None:
    git(real.top, "config", "rerere.enabled", "true")
    path = real.root / "taught"
    git(real.top, "worktree", "add", "-q", "--detach", str(path), "epicwave/e")
    with pytest.raises(subprocess.CalledProcessError):
        git(path, "cherry-pick", "epicwave-work/e/S2/1~1")
    (path / "a.txt").write_text("mine\n")
    git(path, "add", "-A")
    git(path, "-c", "core.editor=true", "cherry-pick", "--continue")
    git(real.top, "config", "--unset", "rerere.enabled")  # the folder it made is enough


@pytest.mark.parametrize("prepare", [a_driver, remembered])
async def test_a_program_of_the_users_or_what_git_remembers_is_left_to_the_worktree(
    real: RealWorld, prepare: Callable[[RealWorld], None]
) -> None:
    head = await worked(real, S2, real.first, {"a.txt": "theirs\n"}, {"b.txt": "2\n"})
    assert await real.merge.advance(S1, real.first, await worked(real, S1, real.first, {"a.txt": "ours\n"}))
    assert isinstance(await real.merge.rebase(S2, real.first, head), Conflicted)
    prepare(real)
    config = (real.top / ".git" / "config").read_bytes()
    landing = await real.merge.rebase(S2, real.first, head)
    assert isinstance(landing, Landing), landing
    assert real.files(landing.head) == {**START, "long.txt": TEXT, "a.txt": "mine\n", "b.txt": "2\n"}
    assert folder_of(real).exists()
    assert (real.top / ".git" / "config").read_bytes() == config


async def test_where_the_user_has_git_remember_nothing_we_do_not_begin_to(real: RealWorld) -> None:
    """That folder alone would switch it on in their own checkout."""
    head = await worked(real, S2, real.first, {"a.txt": "theirs\n"})
    assert await real.merge.advance(S1, real.first, await worked(real, S1, real.first, {"a.txt": "ours\n"}))
    await both_ways(real, head)
    assert not (real.top / ".git" / "rr-cache").exists()


async def test_nothing_is_left_in_the_folder_for_scratch(real: RealWorld) -> None:
    head = await worked(real, S2, real.first, {"a.txt": "theirs\n"})
    assert await real.merge.advance(S1, real.first, await worked(real, S1, real.first, {"a.txt": "ours\n"}))
    assert isinstance(await real.merge.rebase(S2, real.first, head), Conflicted)
    assert os.listdir(real.repository.state_dir / "tmp") == []  # noqa: PTH208 - a name each is enough


async def test_a_last_commit_that_cannot_be_written_again_gets_one_with_the_file_made_anew(
    real: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_here(*_: object) -> Sha:
        raise weave.NotHere

    head = await worked(real, S2, real.first, {"b.txt": "2\n"})
    real.write(await real.merge.checkout("e", head), "a.txt", "anew\n")
    monkeypatch.setattr(integration, "rewritten", not_here)
    made = await real.merge.amend(S2, Landing(real.first, head, ("b.txt",), (("a.txt", ("x",)),)), ["a.txt"])
    assert made == Landing(real.first, made.head, ("a.txt", "b.txt"))
    assert real.files(f"{made.head}^") == real.files(head)
