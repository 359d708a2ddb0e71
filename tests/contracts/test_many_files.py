"""A repository with 50,000 files: what we ask of git does not grow; all files are listed twice in a story's life."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_server.adapters.git import command
from mcp_server.ports import Done, Landing
from tests.contracts.git_worlds import git
from tests.contracts.odd_worlds import EARLIER, STORY, world_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_user_config"), pytest.mark.journey]

FEW, MANY = 500, 50_000
CHANGED, ELSEWHERE = "folder001/file00251.txt", "folder000/file00001.txt"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often we called each of git's commands, and under `bytes` how much they said together."""
    counted: Counter[str] = Counter()
    execute = command._execute  # pyright: ignore[reportPrivateUsage] - where all calls come together

    def counting(argv: tuple[str, ...], folder: Path, env: dict[str, str], stdin: bytes, limit_s: float) -> object:
        answer = execute(argv, folder, env, stdin, limit_s)
        counted[next(_words(argv[1:]))] += 1
        counted["bytes"] += len(answer.out)
        return answer

    monkeypatch.setattr(command, "_execute", counting)
    return counted


def _words(argv: tuple[str, ...]) -> Iterator[str]:
    """Without the options that stand before the command."""
    words = iter(argv)
    for word in words:
        if word in {"-c", "-C"}:
            next(words)
        elif not word.startswith("-"):
            yield word


def imported(top: Path, files: int) -> None:
    """In folders of 250, by git's own import; on the branch `next` one of them is changed. Nothing is checked out."""
    git(top.parent, "init", "-q", "-b", "main", str(top))
    commit = "committer Ann <ann@example.org> 1 +0000\ndata 1\nx"
    blobs = "blob\nmark :1\ndata 5\ntext\n\nblob\nmark :2\ndata 5\nnext\n"
    lines = [blobs, f"commit refs/heads/main\nmark :3\n{commit}"]
    lines += [f"M 100644 :1 folder{number // 250:03}/file{number:05}.txt" for number in range(files)]
    lines += [f"\ncommit refs/heads/next\n{commit}\nfrom :3\nM 100644 :2 {ELSEWHERE}\n"]
    content = "\n".join(lines).encode()
    subprocess.run(["git", "fast-import", "--quiet"], cwd=top, input=content, check=True, capture_output=True)
    git(top, "read-tree", "HEAD")


async def life_of_a_story(folder: Path, files: int, calls: Counter[str]) -> Counter[str]:
    """Held, committed, judged, rebased onto what has landed meanwhile, merged and let go."""
    imported(folder / f"repo{files}", files)
    world = await world_of(folder / f"{files}", folder / f"repo{files}")
    assert await world.merge.advance(EARLIER, world.first, git(world.top, "rev-parse", "next").strip())
    calls.clear()
    async with world.worktrees.hold(STORY, world.first) as path:
        world.write(path, CHANGED, "changed\n")
        git(path, "commit", "-q", "-a", "-m", "work")
        outcome = await world.worktrees.inspect(STORY, world.first)
        assert isinstance(outcome, Done)
    landing = await world.merge.rebase(STORY, world.first, outcome.head)
    assert isinstance(landing, Landing)
    assert landing.files == (CHANGED,)
    assert await world.merge.advance(STORY, landing.onto, landing.head)
    await world.merge.forget(STORY)
    return calls.copy()


@pytest.mark.timeout(600)
async def test_fifty_thousand_files_take_the_same_git_calls_as_five_hundred_and_are_listed_twice(
    tmp_path: Path, calls: Counter[str]
) -> None:
    few = await life_of_a_story(tmp_path, FEW, calls)
    many = await life_of_a_story(tmp_path, MANY, calls)
    said = many.pop("bytes") - few.pop("bytes")
    assert many == few
    listing = len(git(tmp_path / f"repo{MANY}", "ls-files", "--stage", "-z", "-v"))
    assert said <= 2.1 * listing, "of its index when it is let go, of the tip when it is merged"
    assert sum(many.values()) < 80, many
