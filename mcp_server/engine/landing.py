"""Landing an epic on the user's branch: what lands is what was checked, or is checked first; else nothing moves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from mcp_server.core.events import EpicLanded
from mcp_server.core.landing import is_proven, landable
from mcp_server.core.limits import Policy
from mcp_server.core.model import CheckRun, Epic, StoryState
from mcp_server.core.spec import EpicId, Sha
from mcp_server.engine.context import PATHS_SHOWN
from mcp_server.engine.engine import Engine
from mcp_server.engine.proving import prove
from mcp_server.errors import Code, Fault, FaultCause, Refused
from mcp_server.land_port import Candidate, Clash, Desk, How, Target
from mcp_server.ports import Ports


@dataclass(frozen=True, slots=True)
class Land:
    """What is asked for."""

    epic: EpicId
    top: Path
    """The checkout of whoever asks."""
    how: str = "auto"
    """`auto`: fast-forward when possible, else a merge; `ff`, `merge`, `squash`, `pr`."""
    into: str | None = None
    """None for the branch that the checkout is on."""
    partial: bool = False


async def land(engine: Engine, asked: Land, policy: Policy) -> EpicLanded:
    """Bring the epic's branch to the user's, or offer it as a pull request. `policy` has the checks.

    Raises `Refused` and `Fault`; the user's branch and checkout are as they were then.
    """
    epic = landable(engine.ledger, asked.epic, partial=asked.partial)
    ports, name = engine.ports, asked.epic
    tip = await ports.merge.tip(name)
    async with desks(ports, name):
        if asked.how == "pr":
            return await _offered(engine, epic, asked, tip, policy)
        target = await ports.land.target(asked.into, asked.top)
        how = None if asked.how == "auto" else How(asked.how)
        candidate = await ports.land.compose(name, target, tip, how, message(epic))
        if isinstance(candidate, Clash):
            raise _clash(name, target, candidate)
        if candidate.sha == candidate.onto:
            return _there_already(engine, epic, target, candidate)
        runs = await _proven(engine, epic, tip, candidate, policy)
        landable(engine.ledger, name, partial=asked.partial)  # somebody may have started something meanwhile
        shape, saved = how or (How.FF if candidate.sha == tip else How.MERGE), ""
        with anyio.CancelScope(shield=True):  # once git moves, the fact must follow
            saved = await ports.land.move(name, target, candidate)
        fact = EpicLanded(
            name,
            target.branch,
            str(shape),
            candidate.sha,
            candidate.tree,
            engine.now_s(),
            before=target.head,
            saved_ref=saved,
            checks=runs,
        )
        engine.submit(fact)
        return fact


@asynccontextmanager
async def desks(ports: Ports, name: EpicId) -> AsyncGenerator[None]:
    """The worktrees of a landing or a rollback are gone afterwards. When even that fails, the next one does it."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True), suppress(Fault):
            await ports.land.close(name)


async def _proven(engine: Engine, epic: Epic, tip: Sha, candidate: Candidate, policy: Policy) -> tuple[CheckRun, ...]:
    """Nothing is run again on the very tree whose checks were green: trees are told apart by their names.

    Verified besides: the commit that is to land has the tree that was composed.
    """
    tree = await engine.ports.land.tree(candidate.sha)
    if tree != candidate.tree:
        raise Fault(FaultCause.GIT, f"{candidate.sha} has the tree {tree} and not {candidate.tree}, as it was made")
    if is_proven(epic, tip) and tree == await engine.ports.land.tree(tip):
        return ()
    return await prove(engine.ports, epic, policy, Desk.LANDING, candidate.sha)


async def _offered(engine: Engine, epic: Epic, asked: Land, tip: Sha, policy: Policy) -> EpicLanded:
    """As a pull request: the branch that it goes to is moved by whoever merges it, and not by us."""
    ports, name = engine.ports, asked.epic
    into = asked.into or (await ports.land.target(None, asked.top)).branch
    tree = await ports.land.tree(tip)
    runs = await _proven(engine, epic, tip, Candidate(tip, tip, tree), policy)
    title, _, body = message(epic).partition("\n\n")
    url = ""
    with anyio.CancelScope(shield=True):  # a request that is open is told of
        url = await ports.land.offer(name, tip, into, title, body)
    fact = EpicLanded(name, into, "pr", tip, tree, engine.now_s(), url=url, checks=runs)
    engine.submit(fact)
    return fact


def _there_already(engine: Engine, epic: Epic, target: Target, candidate: Candidate) -> EpicLanded:
    """Git has it. Told as a fact when the journal did not know: the user merged it, or a crash came in between."""
    known = epic.landed
    if known is not None and (known.into, known.tip) == (target.branch, candidate.sha):
        raise Refused(
            Code.NOTHING_TO_LAND,
            f"Epic {epic.spec.id!r} has landed on {target.branch} already, as {known.tip[:12]}; nothing came since.",
            "Nothing is left to do.",
        )
    fact = EpicLanded(epic.spec.id, target.branch, "found", candidate.sha, candidate.tree, engine.now_s())
    engine.submit(fact)
    return fact


def _clash(name: EpicId, target: Target, clash: Clash) -> Refused:
    paths = ", ".join(clash.paths[:PATHS_SHOWN])
    branch = f"epicwave/{name}"
    return Refused(
        Code.CONFLICT,
        f"{target.branch} and {branch} conflict in: {paths}. Nothing was changed.",
        f"Settle it by hand: `git switch {target.branch} && git merge {branch}`, and run the checks; then land again.",
    )


def message(epic: Epic) -> str:
    """Of a commit for the user's branch, and of a pull request: its first line is the title."""
    merged = [s.spec for s in epic.stories.in_state(StoryState.MERGED)]
    lines = "\n".join(f"- {spec.id}: {spec.title}" for spec in merged)
    goal = f"{epic.spec.goal.strip()}\n\n" if epic.spec.goal.strip() else ""
    return f"{epic.spec.title or epic.spec.id}\n\n{goal}{lines}\n\nEpicwave-Epic: {epic.spec.id}\n"
