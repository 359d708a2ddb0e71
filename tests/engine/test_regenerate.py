"""Files that a merge rule leaves to a command: made anew on the merged tree before its checks, or it is a conflict."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcp_server.core.events import MergeProven, MergeRefused
from mcp_server.core.merge_rules import MergeRule, Way
from mcp_server.core.model import Cause
from mcp_server.core.spec import AttemptId
from mcp_server.testing.fake_git import ROOT
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio

LOCK = ("make", "lock")
THERE = ROOT / "e" / "_integration"
FILE = "web/it.lock"


@asynccontextmanager
async def _locked(*, exit_code: int | None = 0, beside: str = "") -> AsyncGenerator[tuple[World, list[Path]]]:
    """Two stories at once that both change a lock file besides their own, and where a command made it anew."""
    async with a_world() as world:
        checks, ran = world.runner.judge, list[Path]()

        def judge(attempt: AttemptId, command: tuple[str, ...], cwd: Path) -> int | None:
            if command != LOCK:
                return checks(attempt, command, cwd)
            ran.append(cwd)
            if exit_code == 0:
                world.git.write(THERE, FILE, f"made of {len(world.git.desks[THERE].files)} files\n")
                world.git.write(THERE, "junk", "left behind")
            return exit_code

        world.runner.judge = judge
        both = [FILE, *beside.split()]
        plays = {name: world.good(act=world.truth.work_on(*both)) for name in "ab"}
        world.does(**plays)
        world.plan(*(story(name, files=f"{name}.txt") for name in "ab"))
        world.start(attempts=1, repairs=0, merge_rules=(MergeRule("*.lock", Way.REGENERATE, LOCK),))
        await world.rest()
        yield world, ran


def _refusals(world: World) -> list[MergeRefused]:
    return [event for event in world.journal.replay() if isinstance(event, MergeRefused)]


async def test_a_lock_file_of_two_stories_is_made_anew_in_its_folder_and_both_land() -> None:
    async with _locked() as (world, ran):
        assert world.states() == {"a": "merged", "b": "merged"}
        assert ran == [THERE / "web"]
        tip = world.git.commits[world.git.refs["refs/heads/epicwave/e"]].files
        assert tip[FILE].startswith("made of")
        assert "junk" not in tip
        assert {"a.txt", "b.txt"} <= tip.keys()


async def test_what_is_proven_and_lands_is_the_tree_with_the_file_made_anew() -> None:
    async with _locked() as (world, _):
        last = [event for event in world.journal.replay() if isinstance(event, MergeProven)][-1]
        assert world.git.refs["refs/heads/epicwave/e"] == last.proven.head
        assert FILE in last.files


@pytest.mark.parametrize(("exit_code", "said"), [(127, "exited with code 127"), (None, "ran into its time limit")])
async def test_a_command_that_fails_is_a_conflict_in_its_file(exit_code: int | None, said: str) -> None:
    """Missing or slow, what it said goes to the next attempt."""
    async with _locked(exit_code=exit_code) as (world, _):
        refused = _refusals(world)[0]
        assert (refused.cause, refused.paths) == (Cause.CONFLICT, (FILE,))
        assert f"Both sides changed {FILE}, and `make lock`, which makes it anew, {said}" in refused.tail


async def test_a_conflict_in_another_file_comes_before_any_command() -> None:
    async with _locked(beside="shared.txt") as (world, ran):
        assert _refusals(world)[0].paths == ("shared.txt",)
        assert ran == []
