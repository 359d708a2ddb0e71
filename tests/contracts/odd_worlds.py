"""Odd repositories, and the two ways that work in them goes: to the integration branch, and onto a rescue ref."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.ports import Done, Landing, Uncommitted
from tests.contracts.git_worlds import RealWorld, git, new_repository

EARLIER, STORY, AGAIN = AttemptId("e", "S1", 1), AttemptId("e", "S2", 1), AttemptId("e", "S2", 2)
SAVED = f"refs/epicwave/rescue/{AGAIN}"
Hand = Callable[[Path], None]
"""What somebody does in a checkout, and does not commit."""
Lying = dict[str, tuple[str, bytes]]


def nothing(_: Path) -> None:
    """Leave it as it is."""


def writes(**contents: bytes) -> Hand:
    """Somebody who writes files; `__` in a keyword is a `.` of the name."""

    def hand(at: Path) -> None:
        for name, content in contents.items():
            (at / name.replace("__", ".")).write_bytes(content)

    return hand


def then(*hands: Hand) -> Hand:
    """One after the other."""

    def hand(at: Path) -> None:
        for each in hands:
            each(at)

    return hand


elsewhere = writes(elsewhere=b"landed first\n")


@dataclass(frozen=True, slots=True)
class Odd:
    """One kind of repository, and a story in it."""

    name: str
    work: Hand
    start: Hand = nothing
    """What is committed beside `START` before the epic begins."""
    meanwhile: Hand = elsewhere
    """What another story has landed when this one comes to the queue."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Configuration of the user's in the repository."""


async def begun(folder: Path, start: Hand = nothing, settings: Mapping[str, str] | None = None) -> RealWorld:
    """The repository, and in it an epic at its second commit, which has what `start` makes."""
    top = folder / "repo"
    new_repository(top)
    for key, value in (settings or {}).items():
        git(top, "config", key, value)
    start(top)
    committed(top)
    return await world_of(folder, top)


async def world_of(folder: Path, top: Path) -> RealWorld:
    """A repository that is there already, with an epic at its HEAD."""
    git(top, "config", "user.name", "Ann")
    git(top, "config", "user.email", "ann@example.org")
    repository = await Repository.open(top)
    world = RealWorld(folder, repository, await repository.head_sha())
    await world.start_epic("e")
    return world


def committed(at: Path) -> Sha:
    """All that lies there as a commit, as an agent makes it; the head when there is nothing to commit."""
    git(at, "add", "-A")
    if git(at, "diff", "--cached", "--name-only", "--ignore-submodules=none"):
        git(at, "commit", "-q", "-m", "work")
    return git(at, "rev-parse", "HEAD").strip()


async def done(world: RealWorld, attempt: AttemptId, work: Hand) -> Done:
    """An attempt whose agent commits its work."""
    async with world.worktrees.hold(attempt, world.first) as path:
        work(path)
        committed(path)
        outcome = await world.worktrees.inspect(attempt, world.first)
    assert isinstance(outcome, Done), outcome
    return outcome


async def ready_to_land(world: RealWorld, meanwhile: Hand, work: Hand) -> tuple[Sha, Done]:
    """The tip, with another story on it, and a story that was begun before."""
    story = await done(world, STORY, work)
    other = await done(world, EARLIER, meanwhile)
    assert await world.merge.advance(EARLIER, world.first, other.head)
    return other.head, story


async def landed_as_by_hand(world: RealWorld, work: Hand, meanwhile: Hand = elsewhere) -> Landing:
    """The whole way; the tree that comes out is what `git rebase` makes of it in the hands of the user."""
    tip, story = await ready_to_land(world, meanwhile, work)
    by_hand = rebased_by_hand(world, story.head, tip)
    landing = await world.merge.rebase(STORY, world.first, story.head)
    assert isinstance(landing, Landing), landing
    assert landing.onto == tip
    assert listing(world.top, landing.head) == listing(world.top, by_hand)
    assert await world.merge.advance(STORY, landing.onto, landing.head)
    assert world.sha("refs/heads/epicwave/e") == landing.head
    checked = await world.merge.checkout("e", landing.head)
    assert lying(checked) == fresh(world, landing.head), "the checks see what a fresh checkout has"
    await world.merge.close("e")
    return landing


async def rescued(world: RealWorld, work: Hand) -> None:
    """Work that its agent does not commit; what comes back from the rescue ref is what lay there, byte for byte."""
    async with world.worktrees.hold(AGAIN, world.first) as path:
        work(path)
        left = lying(path)
        assert isinstance(await world.worktrees.inspect(AGAIN, world.first), Uncommitted)
    assert fresh(world, SAVED) == left


def rebased_by_hand(world: RealWorld, head: Sha, onto: Sha) -> Sha:
    """What the user gets who rebases a branch in a worktree of their own."""
    desk = desk_of_the_user(world, head)
    git(desk, "rebase", "-q", onto)
    return git(desk, "rev-parse", "HEAD").strip()


def fresh(world: RealWorld, rev: str) -> Lying:
    """What a checkout of a commit has in it."""
    return lying(desk_of_the_user(world, rev))


def desk_of_the_user(world: RealWorld, rev: str) -> Path:
    """A worktree that is the user's own business, clean and detached at a commit."""
    desk = world.top.parent / "desk of the user"
    if desk.exists():
        git(desk, "checkout", "-q", "--force", "--detach", rev)
    else:
        git(world.top, "worktree", "add", "-q", "--detach", str(desk), rev)
    return desk


def listing(top: Path, rev: str) -> dict[str, str]:
    """Mode, type and sha of each path of a commit."""
    lines = git(top, "ls-tree", "-r", "-z", rev).split("\0")
    return {name: told for told, _, name in (line.partition("\t") for line in lines) if name}


def lying(at: Path) -> Lying:
    """Every file and link below a folder: what it is, and its bytes. Of a repository inside only that it is there."""
    found: Lying = {}
    folders = [at]
    while folders:
        for path in folders.pop().iterdir():
            name = os.fspath(path.relative_to(at))
            if path.is_symlink():
                found[name] = ("link", os.fsencode(path.readlink()))
            elif path.is_file():
                runs = path.stat().st_mode & stat.S_IXUSR
                found[name] = ("program" if runs else "file", path.read_bytes())
            elif not (path / ".git").exists():
                folders.append(path)
    found.pop(".git", None)
    return found
