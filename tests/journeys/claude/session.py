"""A session of the real client with the plugin: run it, and hold what is true of every one of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.claude.box import Ran, run_in_box
from tests.journeys.claude.checkout import Checkout, left_behind
from tests.journeys.claude.cost import Cost, answers, of_lead
from tests.journeys.claude.fake_api import ALONE

TIMEOUT_S = 150
COST = "cost"
"""Name of the property of a test that says what its journey has cost."""
Record = Callable[[str, object], None]
"""The fixture `record_property`."""


def run_session(script: str, repository: Path, scratch: Path, *options: str, first: Sequence[str] = ()) -> Ran:
    """`claude -p` as a user with accepted edits runs it, held to what must be true at the end; `first` starts it."""
    command = [*first, "claude", "-p", "Run the epic in epic.yaml with sub-agents.", "--permission-mode", "acceptEdits"]
    with held_to(repository) as ran:
        ran += [run_in_box(script, [*command, *options], cwd=repository, scratch=scratch, timeout_s=TIMEOUT_S)]
    return ran[0]


@contextmanager
def held_to(repository: Path) -> Generator[list[Ran]]:
    """What is run in the block and put into the list has ended well, and has kept its hands off what is not its own.

    The user's checkout is as it was, byte for byte; no process, worktree, lock or branch of an attempt is left. To a
    meeting all came but those whom the client, as it told the lead itself, could not start.
    """
    before = Checkout.of(repository)
    all_ran: list[Ran] = []
    yield all_ran
    for ran in all_ran:
        unstarted = [
            answer.text for answer in answers(ran.requests, lead=True) if answer.failed and answer.tool == "Agent"
        ]
        lost = [line for line in dict.fromkeys(ran.lost) if not excused(line, len(unstarted))]
        assert not lost, "\n".join(lost + unstarted)
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        assert not ran.left, ran.left
    after, left = Checkout.of(repository), left_behind(repository)
    assert after == before, after.differs(before)
    assert not left, left


def excused(line: str, unstarted: int) -> bool:
    """True for a meeting to which everybody came whom the client had started."""
    alone = ALONE.search(line)
    return alone is not None and int(alone[1]) + unstarted >= int(alone[2])


def cost_of(ran: Ran, record: Record) -> Cost:
    """What the lead paid; shown at the end of the test run."""
    cost = of_lead(ran.requests)
    record(COST, f"{cost}; {ran.seconds:.0f} s")
    return cost
