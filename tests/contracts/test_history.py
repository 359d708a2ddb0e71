"""The history port against real git: files of HEAD, files of commits, whatever they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import anyio
import pytest

from mcp_server.adapters.git import history
from mcp_server.adapters.git.command import Git
from mcp_server.adapters.git.history import GitHistory
from mcp_server.adapters.git.repository import Repository
from mcp_server.core.predict import NO_PAST
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import History
from tests.contracts.git_worlds import git, new_repository

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_user_config")]
ODD = ("with space.txt", "käse.txt", "dir/new\nline.txt", '"quoted".txt', "[id].ts")


@pytest.fixture
async def top(tmp_path: Path) -> Path:
    new_repository(tmp_path / "repo")
    return tmp_path / "repo"


def _commit(top: Path, *names: str) -> frozenset[str]:
    for name in names:
        (top / name).parent.mkdir(exist_ok=True, parents=True)
        with (top / name).open("a", encoding="utf-8") as file:
            file.write("more\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "\x02 a message\n\nwith a.txt in it")
    return frozenset(names)


async def _history(top: Path) -> History:
    return GitHistory(await Repository.open(top))


async def test_files_and_changes_are_those_of_git_with_odd_names(top: Path) -> None:
    changes = [_commit(top, "a.txt", "b.txt"), _commit(top, *ODD)]
    past = await (await _history(top)).past()
    assert past.files == {"a.txt", "b.txt", "dir/c.txt", *ODD}
    assert past.changes == (changes[1], changes[0], frozenset({"a.txt", "b.txt", "dir/c.txt"}))


async def test_merges_are_left_out_and_a_commit_without_files_counts(top: Path) -> None:
    git(top, "switch", "-q", "-c", "side")
    side = _commit(top, "side.txt")
    git(top, "switch", "-q", "main")
    main = _commit(top, "main.txt")
    git(top, "merge", "-q", "--no-ff", "-m", "merge", "side")
    git(top, "commit", "-q", "--allow-empty", "-m", "empty")
    past = await (await _history(top)).past()
    assert sorted(past.changes[:3], key=sorted) == [frozenset(), main, side]
    assert len(past.changes) == 4


async def test_it_is_asked_again_only_when_head_has_moved(top: Path) -> None:
    past = await _history(top)
    first = await past.past()
    assert await past.past() is first
    _commit(top, "new.txt")
    assert "new.txt" in (await past.past()).files


async def test_looking_changes_nothing_and_a_subfolder_sees_the_whole_repository(top: Path) -> None:
    (top / "a.txt").write_text("edited\n", "utf-8")
    index, config = (top / ".git" / "index").read_bytes(), (top / ".git" / "config").read_bytes()
    past = await (await _history(top / "dir")).past()
    assert "a.txt" in past.files
    assert ((top / ".git" / "index").read_bytes(), (top / ".git" / "config").read_bytes()) == (index, config)


async def test_a_shallow_clone_tells_what_it_has(top: Path, tmp_path: Path) -> None:
    _commit(top, "a.txt")
    git(tmp_path, "clone", "-q", "--depth=1", top.as_uri(), "shallow")
    past = await (await _history(tmp_path / "shallow")).past()
    assert "dir/c.txt" in past.files
    assert len(past.changes) == 1


async def test_only_the_last_commits_are_looked_at(top: Path) -> None:
    _commit(top, "a.txt")
    with patch.object(history, "COMMITS", 1):
        assert (await (await _history(top)).past()).changes == (frozenset({"a.txt"}),)


@pytest.mark.parametrize("how", ["slow", "broken"])
async def test_a_git_that_cannot_say_costs_the_guess_and_not_the_plan(top: Path, how: str) -> None:
    class Ill(Git):
        async def read(self, *argv: str, **more: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            if "log" not in argv:
                return await super().read(*argv, **more)  # pyright: ignore[reportArgumentType]
            if how == "broken":
                raise Fault(FaultCause.GIT, "no")
            return await anyio.sleep(3600)

    repository = await Repository.open(top)
    ill = GitHistory(replace(repository, git=Ill(repository.common_dir)))
    with patch.object(history, "LIMIT_S", 0.3):
        assert await ill.past() == NO_PAST
