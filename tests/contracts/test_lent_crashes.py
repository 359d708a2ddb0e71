"""Kills before and after every lasting change that a call makes in git: it is made again, and nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_server.adapters.git.command import Answer, Git
from mcp_server.core.spec import AttemptId
from mcp_server.ports import NoCommits, Uncommitted
from tests.contracts.git_worlds import START, RealWorld, git

pytestmark = pytest.mark.anyio


LASTING = ("update-ref", "worktree", "symbolic-ref", "checkout")
"""Commands that change what others can see; all else that we run only adds objects."""


class KilledAt(BaseException):
    """This process is gone."""


class Doom:
    """Counts lasting changes, by git and by renames of ours, and kills at a given one: before it is made, or after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at, self.after, self.count = 0, False, 0
        run = Git._run  # pyright: ignore[reportPrivateUsage] - the one place where git changes anything

        async def counted(git: Git, argv: tuple[str, ...], *more: Any) -> Answer:
            with self._may_strike(argv[0] in LASTING and argv[1] != "list"):
                return await run(git, argv, *more)

        patch.setattr(Git, "_run", counted)
        for name in ("rename", "replace"):
            patch.setattr(Path, name, self._counted(getattr(Path, name)))

    def _counted(self, move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def counted(path: Path, to: Path) -> Path:
            with self._may_strike(self.at > 0):
                return move(path, to)

        return counted

    @contextmanager
    def _may_strike(self, lasting: bool) -> Generator[None]:
        self.count += lasting
        here = lasting and self.count == self.at
        if here and not self.after:
            raise KilledAt
        yield
        if here:
            raise KilledAt

    @asynccontextmanager
    async def strikes(self, at: int, *, after: bool) -> AsyncGenerator[None]:
        """Within the block the process dies at the change of that number, when there are so many."""
        self.at, self.after, self.count = at, after, 0
        try:
            yield
        except KilledAt:
            pass
        finally:
            self.at = 0


@pytest.fixture
def doom(monkeypatch: pytest.MonkeyPatch) -> Doom:
    return Doom(monkeypatch)


Act = Callable[[AttemptId], Awaitable[object]]


async def killed_everywhere(
    real: RealWorld, doom: Doom, prepare: Act, act: Act, then: Callable[[AttemptId, Any], Awaitable[None]]
) -> int:
    """Kill `act` at each of its changes, each time in a fresh attempt; make it again after a restart, then look.

    Returns how many kills there were.
    """
    number = 0
    for after in (False, True):
        at = 0
        while True:
            number, at = number + 1, at + 1
            attempt = AttemptId("e", "S1", number)
            before = await prepare(attempt)
            async with doom.strikes(at, after=after):
                await act(attempt)
            struck = doom.count >= at
            real.restart()
            await act(attempt)
            await then(attempt, before)
            if not struck:
                break
    return number - 2


def refs(real: RealWorld, attempt: AttemptId) -> list[str]:
    names = [f"refs/epicwave/{kind}/{attempt}" for kind in ("base", "rescue", "settled")]
    there = [name.split("/")[2] for name in names if real.sha(name)]
    return there + ["branch"] * (real.sha(f"refs/heads/epicwave-work/{attempt}") is not None)


async def at_host(real: RealWorld, attempt: AttemptId) -> Path:
    """A commit and uncommitted work of a host's agent."""
    desk = real.host_desk(f"agent-{attempt.number}", real.first)
    await real.worktrees.lend(attempt, real.first, ours=False)
    real.switch(desk, f"epicwave-work/{attempt}", real.first)
    real.write(desk, "a.txt", "1\n")
    real.commit(desk)
    real.write(desk, "late.txt", "late\n")
    return desk


async def at_ours(real: RealWorld, attempt: AttemptId) -> Path:
    path = await real.worktrees.lend(attempt, real.first, ours=True)
    assert path is not None
    real.write(path, "a.txt", "1\n")
    real.commit(path)
    real.write(path, "late.txt", "late\n")
    return path


WHOLE = {**START, "a.txt": "1\n", "late.txt": "late\n"}


def saved(real: RealWorld, attempt: AttemptId) -> dict[str, str]:
    return real.files(f"refs/epicwave/rescue/{attempt}")


async def test_lending_ours(real: RealWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> None: ...

    async def act(attempt: AttemptId) -> None:
        await real.worktrees.lend(attempt, real.first, ours=True)

    async def then(attempt: AttemptId, _: object) -> None:
        assert await real.worktrees.inspect_lent(attempt, real.first, None) == NoCommits()
        assert refs(real, attempt) == ["base", "branch"]

    assert await killed_everywhere(real, doom, prepare, act, then) == 6


async def test_lending_over_what_a_crash_left(real: RealWorld, doom: Doom) -> None:
    async def act(attempt: AttemptId) -> None:
        await real.worktrees.lend(attempt, real.first, ours=True)

    async def then(attempt: AttemptId, _: object) -> None:
        assert await real.worktrees.inspect_lent(attempt, real.first, None) == NoCommits()
        assert saved(real, attempt) == WHOLE
        assert refs(real, attempt) == ["base", "rescue", "branch"]

    async def prepare(attempt: AttemptId) -> Path:
        return await at_ours(real, attempt)

    assert await killed_everywhere(real, doom, prepare, act, then) == 12


async def test_rescuing_ours(real: RealWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> Path:
        return await at_ours(real, attempt)

    async def act(attempt: AttemptId) -> None:
        await real.worktrees.rescue(attempt)

    async def then(attempt: AttemptId, path: Path) -> None:
        assert (saved(real, attempt), refs(real, attempt), real.there(path)) == (WHOLE, ["rescue"], False)
        assert await real.worktrees.held() == []

    assert await killed_everywhere(real, doom, prepare, act, then) == 6


async def test_rescuing_what_a_host_has(real: RealWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> tuple[Path, object]:
        desk = await at_host(real, attempt)
        return desk, real.seen(desk)

    async def act(attempt: AttemptId) -> None:
        await real.worktrees.rescue(attempt)

    async def then(attempt: AttemptId, before: tuple[Path, object]) -> None:
        desk, seen = before
        assert (saved(real, attempt), refs(real, attempt)) == (WHOLE, ["rescue", "settled", "branch"])
        assert real.seen(desk) == seen
        real.host_clears(desk)
        await act(attempt)
        assert refs(real, attempt) == ["rescue"]

    assert await killed_everywhere(real, doom, prepare, act, then) == 2


async def test_rescuing_what_a_host_had(real: RealWorld, doom: Doom) -> None:
    """The second rescue, with newer commits on the branch."""

    async def prepare(attempt: AttemptId) -> str:
        desk = await at_host(real, attempt)
        await real.worktrees.rescue(attempt)
        head = real.commit(desk)
        real.host_clears(desk)
        return head

    async def act(attempt: AttemptId) -> None:
        await real.worktrees.rescue(attempt)

    async def then(attempt: AttemptId, head: str) -> None:
        assert refs(real, attempt) == ["rescue"]
        assert await real.repository.is_ancestor(head, f"refs/epicwave/rescue/{attempt}")

    assert await killed_everywhere(real, doom, prepare, act, then) == 2


def landed_with(real: RealWorld, attempt: AttemptId) -> None:
    """Note the commit that the attempt lands with, as the journal would."""
    git(real.top, "tag", str(attempt), f"epicwave-work/{attempt}")


async def given_back_and_forgotten(real: RealWorld, attempt: AttemptId) -> None:
    """As the engine ends an attempt that has landed, and as it does it again after a crash."""
    head = real.sha(f"refs/tags/{attempt}")
    assert head is not None
    await real.worktrees.give_back(attempt, head)
    await real.merge.forget(attempt)


async def test_giving_back_and_forgetting_ours(real: RealWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> Path:
        path = await at_ours(real, attempt)
        landed_with(real, attempt)
        return path

    async def act(attempt: AttemptId) -> None:
        await given_back_and_forgotten(real, attempt)

    async def then(attempt: AttemptId, path: Path) -> None:
        assert (saved(real, attempt), refs(real, attempt), real.there(path)) == (WHOLE, ["rescue"], False)
        assert await real.worktrees.held() == []

    assert await killed_everywhere(real, doom, prepare, act, then) == 8


async def test_giving_back_and_forgetting_what_a_host_has(real: RealWorld, doom: Doom) -> None:
    async def prepare(attempt: AttemptId) -> tuple[Path, object]:
        desk = await at_host(real, attempt)
        outcome = await real.worktrees.inspect_lent(attempt, real.first, desk)
        assert isinstance(outcome, Uncommitted), "late.txt lies there"
        landed_with(real, attempt)
        return desk, real.seen(desk)

    async def act(attempt: AttemptId) -> None:
        await given_back_and_forgotten(real, attempt)

    async def then(attempt: AttemptId, before: tuple[Path, object]) -> None:
        desk, seen = before
        assert (saved(real, attempt), refs(real, attempt)) == (WHOLE, ["rescue", "settled", "branch"])
        assert real.seen(desk) == seen
        late = real.commit(desk)
        real.host_clears(desk)
        await act(attempt)
        assert refs(real, attempt) == ["rescue"]
        assert await real.repository.is_ancestor(late, f"refs/epicwave/rescue/{attempt}")

    assert await killed_everywhere(real, doom, prepare, act, then) == 2
