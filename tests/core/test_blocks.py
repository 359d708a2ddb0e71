"""Blocks of ports: no two attempts in flight share one, whatever the configurations say."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from mcp_server.core.blocks import PORTS_END, free_block, taken
from mcp_server.core.limits import Environment, Strategy
from mcp_server.core.model import NO_PORTS, StoryState
from tests.core.build import Life, replayed, story


def blocks(life: Life, *names: str) -> list[tuple[int, int]]:
    return [(life.of(name).ports.start, life.of(name).ports.stop) for name in names]


def test_an_attempt_gets_the_lowest_free_block_when_it_is_admitted() -> None:
    life = Life(*(story(name) for name in "abc"))
    life.start(slots=2)
    assert blocks(life, "a", "b") == [(20_000, 20_010), (20_010, 20_020)]
    assert not life.of("c").ports
    life.claim("a", "b")
    life.cancel("a")
    life.stopped("a")
    assert blocks(life, "b", "c") == [(20_010, 20_020), (20_000, 20_010)]


def test_in_the_merge_queue_it_keeps_its_block_for_the_checks() -> None:
    life = Life(*(story(name) for name in "abc"))
    life.start(slots=1)
    life.succeed("a")
    assert blocks(life, "a", "b") == [(20_000, 20_010), (20_010, 20_020)]
    life.merge("a")
    life.succeed("b")
    assert blocks(life, "c") == [(20_000, 20_010)]


def test_epics_with_other_blocks_never_share_a_port_either() -> None:
    life = Life(*(story(name) for name in "abc"))
    life.plan(*(story(name) for name in "xyz"), epic="f")
    life.plan(story("q"), epic="g")
    life.start(slots=9, environment=Environment(port_base=20_000, port_block=10))
    life.start(slots=9, epic="f", environment=Environment(port_base=20_004, port_block=7))
    assert blocks(life, "f/x", "f/y", "f/z") == [(20_032, 20_039), (20_039, 20_046), (20_046, 20_053)]
    life.start(slots=9, epic="g", environment=Environment(port_base=19_995, port_block=10))
    assert blocks(life, "g/q") == [(20_055, 20_065)]


def test_sub_agents_have_theirs_and_an_offer_has_it_already() -> None:
    life = Life(story("a"), story("b"))
    life.team()
    assert blocks(life, "a", "b") == [(20_000, 20_010), (20_010, 20_020)]
    assert str(life.of("a").state) == "offered"


def test_without_blocks_nobody_has_any_and_past_the_last_port_there_are_none() -> None:
    life = Life(*(story(name) for name in "abc"))
    life.start(slots=3, environment=Environment(port_block=0))
    assert life.of("a").ports == NO_PORTS
    life = Life(*(story(name) for name in "abc"))
    life.start(slots=3, environment=Environment(port_base=PORTS_END - 20, port_block=10))
    assert blocks(life, "a", "b") == [(65_516, 65_526), (65_526, 65_536)]
    assert life.of("c").ports == NO_PORTS
    assert life.of("c").state is StoryState.OFFERED, "it runs all the same"


def test_replay_gives_the_same_blocks() -> None:
    life = Life(*(story(name) for name in "abcd"))
    life.start(slots=3, strategy=Strategy.ASYNCIO)
    life.merge("b", "a")
    assert replayed(life.log) == life.ledger
    assert taken(replayed(life.log)) == taken(life.ledger) != []


@given(
    some.lists(some.tuples(some.integers(0, 60), some.integers(1, 9)), max_size=8), some.integers(0, 70), some.data()
)
def test_whatever_is_taken_the_block_is_free_in_line_and_the_lowest(
    others: list[tuple[int, int]], base: int, data: some.DataObject
) -> None:
    size = data.draw(some.integers(1, 9))
    names = [f"s{n}" for n in range(len(others))]
    life = Life(*(story(name) for name in names), story("new"))
    for name, (first, length) in zip(names, others, strict=True):
        life.plan(story("only"), epic=name)
        life.start(slots=99, epic=name, environment=Environment(port_base=first, port_block=length))
    used = taken(life.ledger)
    assert all(a[1] <= b[0] for a, b in pairwise(used))
    found = free_block(life.ledger, Environment(port_base=base, port_block=size))
    free = [n for n in range(base, base + 300, size) if all(n + size <= a or b <= n for a, b in used)]
    assert found == range(free[0], free[0] + size)
