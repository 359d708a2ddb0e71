"""What a worktree is furnished with before its agent comes: set-up commands, ports, room on the disk, a quota."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_server.adapters.git.names import INTEGRATION_FOLDER
from mcp_server.core.limits import Environment
from mcp_server.core.model import Cause, Failure, Usage
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, FaultCause
from mcp_server.ports import AgentCall
from mcp_server.testing.fake_git import folder
from mcp_server.testing.fake_runner import Judge, Play
from mcp_server.testing.world import World, a_world, story

pytestmark = pytest.mark.anyio
INSTALL, BUILD = ("npm", "ci"), ("make", "assets")
BOTH = Environment(setup=(INSTALL, BUILD))


def failure(world: World, name: str = "a") -> Failure:
    found = world.of(name).failure
    assert found is not None
    return found


def red(*commands: tuple[str, ...]) -> Judge:
    """These set-up commands fail."""

    def judge(_attempt: AttemptId, argv: tuple[str, ...], _cwd: Path) -> int:
        return 7 if argv in commands else 0

    return judge


def _never(_attempt: AttemptId, _argv: tuple[str, ...], _cwd: Path) -> None:
    """A command that does not end."""


async def being_set_up(world: World) -> None:
    """Let everybody go on until the first attempt's worktree is being set up."""
    await world.settle()
    assert folder(AttemptId("e", "a", 1)) in world.git.desks
    assert str(world.of("a").state) == "offered"


def setups(world: World) -> list[tuple[str, int, tuple[str, ...], bool]]:
    """Story, attempt, command, and whether it was for the integration worktree."""
    return [(a.story, a.number, r.command, cwd.name == INTEGRATION_FOLDER) for a, r, cwd in world.runner.setups]


# --- set-up ----------------------------------------------------------------------------------------------------------


async def test_the_commands_run_once_a_worktree_in_order_before_the_agent_and_before_the_checks() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b"))
        world.start(slots=1, environment=BOTH)
        await world.rest()
        assert world.truth.landed("e") == {"a": [1], "b": [1]}
        own = [(name, 1, command, False) for name in "ab" for command in (INSTALL, BUILD)]
        once = [("a", 1, INSTALL, True), ("a", 1, BUILD, True)]
        assert sorted(setups(world)) == sorted(own + once)
        assert world.runner.spans[0].from_s >= 2 * world.runner.setup_s


async def test_without_commands_nothing_is_run_and_nothing_is_asked() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start()
        await world.rest()
        assert (world.runner.setups, world.git.calls["set_up_by"], world.git.calls["weight_mb"]) == ([], 0, 0)


async def test_a_failing_command_ends_the_attempt_as_setup_costs_nothing_and_starts_no_agent() -> None:
    async with a_world() as world:
        world.runner.furnish = red(INSTALL)
        world.plan(story("a"))
        world.start(attempts=1, breaker_faults=0, environment=BOTH)
        await world.when(lambda: world.of("a").attempt == 3)
        told = failure(world)
        assert (told.cause, told.tail, world.of("a").faults) == (Cause.SETUP, "npm: 7", 2)
        assert told.detail == "The set-up command `npm ci` exited with code 7: npm: 7"
        assert {command for _, _, command, _ in setups(world)} == {INSTALL}, "what comes after it is not run"
        assert world.runner.spans == []
        world.runner.furnish = red()
        await world.rest()
        assert world.truth.landed("e") == {"a": [3]}


async def test_it_fails_for_good_only_when_all_free_tries_and_then_its_attempts_are_used_up() -> None:
    async with a_world() as world:
        world.runner.furnish = red(INSTALL)
        world.plan(story("a"))
        world.start(attempts=1, breaker_faults=0, fault_tries=2, environment=BOTH)
        await world.rest()
        assert (str(world.of("a").state), failure(world).attempt, failure(world).cause) == ("failed", 3, Cause.SETUP)


async def test_failing_set_ups_open_the_breaker_of_the_repository_and_say_so() -> None:
    """Not one story after the other: whichever comes next would meet the same."""
    async with a_world() as world:
        world.runner.furnish = red(BUILD)
        world.plan(*(story(name) for name in "abcdef"))
        world.start(slots=2, breaker_faults=3, cooldown_s=100.0, cooldown_cap_s=100.0, environment=BOTH)
        await world.when(lambda: "*" in world.ledger.breakers and world.ledger.breakers["*"].opened == 1)
        breaker = world.ledger.breakers["*"]
        assert "setup: The set-up command `make assets` exited with code 7" in breaker.because
        assert "scripted" not in world.ledger.breakers, "no agent is to blame"
        world.runner.furnish = red()
        await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert world.ledger.breakers["*"].opened == 0


async def test_a_command_at_its_time_limit_is_ended_and_told_so() -> None:
    async with a_world() as world:
        world.runner.furnish = _never
        world.plan(story("a"))
        world.start(breaker_faults=0, environment=Environment((INSTALL,), setup_timeout_s=40.0))
        await world.when(lambda: world.of("a").failure is not None)
        assert "`npm ci` ran into its time limit of 40 s" in failure(world).detail
        world.runner.furnish = red()
        await world.rest()


async def test_a_set_up_that_leaves_what_git_sees_is_stopped_before_an_agent_is_blamed_for_it() -> None:
    async with a_world() as world:
        locks = [f"lock-{n}" for n in range(7)]

        def rewrite(attempt: AttemptId, _argv: tuple[str, ...], cwd: Path) -> int:
            if attempt.number == 1:
                for name in locks:
                    world.git.write(cwd, name, "new\n")
            return 0

        world.runner.furnish = rewrite
        world.plan(story("a"))
        world.start(environment=Environment((INSTALL,)))
        await world.when(lambda: world.of("a").failure is not None)
        told = failure(world)
        assert told.cause is Cause.SETUP
        assert "changes that git sees: lock-0, lock-1, lock-2, lock-3, lock-4 and 2 more. Have git" in told.detail
        await world.rest()
        assert world.truth.landed("e") == {"a": [2]}


async def test_a_set_up_that_commits_is_stopped_too() -> None:
    async with a_world() as world:

        def commits(attempt: AttemptId, _argv: tuple[str, ...], cwd: Path) -> int:
            if attempt.number == 1:
                world.git.write(cwd, "x", "x")
                world.git.commit(cwd)
            return 0

        world.runner.furnish = commits
        world.plan(story("a"))
        world.start(environment=Environment((INSTALL,)))
        await world.when(lambda: world.of("a").failure is not None)
        assert (failure(world).cause, "git sees: commits." in failure(world).detail) == (Cause.SETUP, True)
        await world.rest()


async def test_cancel_while_a_worktree_is_being_set_up_leaves_nothing_and_starts_no_agent() -> None:
    async with a_world() as world:
        world.runner.setup_s = 300.0
        world.plan(story("a"))
        world.start(environment=BOTH)
        await being_set_up(world)
        world.cancel("a")
        await world.rest()
        assert (str(world.of("a").state), world.runner.spans) == ("cancelled", [])
        assert anyio.current_time() < 300


@pytest.mark.parametrize("end", ["kill", "close"])
async def test_an_engine_that_ends_while_it_sets_up_begins_anew_in_the_next_one(end: str) -> None:
    async with a_world() as world:
        world.runner.setup_s = 300.0
        world.plan(story("a"))
        world.start(environment=BOTH)
        await being_set_up(world)
        await (world.kill() if end == "kill" else world.close())
        await world.open()
        world.start(environment=BOTH)
        await world.rest()
        assert world.truth.landed("e") == {"a": [2]}


async def test_a_set_up_that_fails_in_the_integration_worktree_is_no_verdict_on_the_work() -> None:
    async with a_world() as world:
        broken = [True]
        world.runner.furnish = lambda _attempt, _argv, cwd: int(cwd.name == INTEGRATION_FOLDER and broken[0])
        world.plan(story("a"))
        world.start(breaker_faults=1, environment=BOTH)
        await world.when(lambda: world.of("a").merge_faults == 2)
        assert failure(world).detail == "setup: The set-up command `npm ci` exited with code 1: npm: 1"
        assert world.ledger.breakers["*"].opened > 0
        broken[0] = False
        await world.rest()
        assert world.truth.landed("e") == {"a": [1]}, "by its first attempt"


async def test_other_commands_set_the_integration_worktree_up_again_and_the_same_ones_do_not() -> None:
    async with a_world() as world:
        world.plan(story("a"), story("b", "a"), story("c", "b"))
        for setup in ((INSTALL,), (INSTALL,), (BUILD,)):
            world.start("ready", environment=Environment(setup))
            await world.rest()
        assert set(world.states().values()) == {"merged"}
        assert [(name, command) for name, _, command, there in setups(world) if there] == [("a", INSTALL), ("c", BUILD)]


# --- ports -----------------------------------------------------------------------------------------------------------


def calls(world: World) -> dict[str, AgentCall]:
    return {call.attempt.story: call for call in world.runner.calls}


async def test_attempts_that_are_alive_together_have_ports_of_their_own_and_the_next_one_gets_the_free_ones() -> None:
    async with a_world() as world:
        world.does(a=world.good(seconds=500.0), b=world.good(seconds=50.0))
        world.plan(story("a"), story("b"), story("c", "b"), story("d", "a", "c"))
        world.start(slots=2, environment=Environment((INSTALL,), port_base=30_000, port_block=4))
        await world.rest()
        own = {name: call.ports for name, call in calls(world).items()}
        assert own == {
            "a": range(30_004, 30_008),
            "b": range(30_000, 30_004),
            "c": range(30_000, 30_004),
            "d": range(30_000, 30_004),
        }
        assert {a.story: ports for a, ports in world.runner.ports.items()} == own, "its checks and its set-up have them"


async def test_without_blocks_nobody_has_ports() -> None:
    async with a_world() as world:
        world.plan(story("a"))
        world.start(environment=Environment(port_block=0))
        await world.rest()
        assert not calls(world)["a"].ports


# --- room on the disk, and the quota ---------------------------------------------------------------------------------


async def test_nothing_starts_on_a_disk_that_is_nearly_full_and_the_reason_is_told() -> None:
    async with a_world() as world:
        world.git.free_mb = 312.4
        world.plan(story("a"), story("b"))
        world.start(breaker_faults=2, cooldown_s=100.0, environment=Environment(min_free_mb=500))
        await world.when(lambda: "*" in world.ledger.breakers and world.ledger.breakers["*"].opened > 0)
        words = "disk: 312 MB are free where worktrees are made; 500 MB (min_free_mb) are the least."
        assert (failure(world).cause, failure(world).detail) == (Cause.FAULT, words)
        assert (world.runner.calls, world.git.calls["hold"]) == ([], 0)
        world.git.free_mb = 500
        await world.rest()
        assert world.truth.landed("e").keys() == {"a", "b"}


async def test_with_no_least_room_a_full_disk_is_not_looked_at() -> None:
    async with a_world() as world:
        world.git.free_mb = 0
        world.plan(story("a"))
        world.start(environment=Environment(min_free_mb=0))
        await world.rest()
        assert str(world.of("a").state) == "merged"


async def test_an_attempt_whose_worktree_outgrows_its_quota_is_ended_and_the_next_one_is_told() -> None:
    async with a_world() as world:
        filled = AttemptId("e", "a", 1)
        world.does(a=[world.good(seconds=900.0, usage=Usage(3.0), tells=8), world.good()])
        world.plan(story("a"))
        world.start(environment=Environment(quota_mb=2))
        await world.until("a", "running")
        world.git.write(folder(filled), "big", "x" * 2_500_000)
        await world.when(lambda: world.of("a").attempt == 2)
        told = failure(world)
        assert told.cause is Cause.QUOTA
        assert told.detail == "It was ended because its worktree grew beyond 2 MB (worktree_quota_mb)."
        assert told.tail.endswith("a-1 has 3 MB.")
        assert world.runner.spans[0].until_s is not None
        assert world.runner.spans[0].until_s <= 20, "it is looked at every 10 s"
        assert told.saved_ref is not None
        await world.rest()
        assert world.truth.landed("e") == {"a": [2]}
        assert "grew beyond 2 MB" in world.runner.calls[1].brief


async def test_what_it_had_cost_by_then_counts() -> None:
    async with a_world() as world:
        world.does(a=[world.good(seconds=99.0, usage=Usage(10.0), tells=10), world.good()])
        world.plan(story("a"))
        world.start(environment=Environment(quota_mb=2))
        await world.until("a", "running")
        await world.engine.wait_for(lambda _: False, 35.0)
        world.git.write(folder(AttemptId("e", "a", 1)), "big", "x" * 2_500_000)
        await world.when(lambda: world.of("a").attempt == 2)
        assert world.of("a").used == Usage(4.0)
        await world.rest()


async def test_within_the_quota_an_attempt_ends_as_without_one() -> None:
    async with a_world() as world:
        world.does(b=Play(fault="no such program"), c=world.good(breaks="log"))
        world.plan(story("a"), story("b"), story("c"))
        world.start(slots=3, attempts=1, fault_tries=0, breaker_faults=0, environment=Environment(quota_mb=2))
        await world.rest()
        causes = [failure(world, name).cause for name in "bc"]
        assert (world.truth.landed("e"), causes) == ({"a": [1]}, [Cause.SPAWN, Cause.FAULT])


async def test_a_stop_comes_through_while_the_worktree_is_watched() -> None:
    async with a_world() as world:
        world.does(a=world.good(seconds=900.0))
        world.plan(story("a"))
        world.start(environment=Environment(quota_mb=2))
        await world.until("a", "running")
        world.cancel("a")
        await world.rest()
        assert str(world.of("a").state) == "cancelled"


async def test_weighing_takes_no_more_than_a_hundredth_of_the_time_and_may_fail() -> None:
    async with a_world() as world:
        world.git.delay_s["weight_mb"] = 2.0
        world.git.fail_next("weight_mb", Fault(FaultCause.DISK, "hm"))
        world.does(a=world.good(seconds=1700.0))
        world.plan(story("a"))
        world.start(environment=Environment(quota_mb=2))
        await world.rest()
        assert world.truth.landed("e") == {"a": [1]}
        assert 7 <= world.git.calls["weight_mb"] <= 10, "one at 10 s, then one each 200 s"
