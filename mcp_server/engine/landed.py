"""What git knows to have landed and the journal does not: it was moved away, restored from a copy, or lost its end."""

from __future__ import annotations

from mcp_server.core.commands import PlanEpic
from mcp_server.core.events import MergeFound
from mcp_server.core.model import HOLDS_FILES, LIVE, Epic, Ledger, Story, StoryState, is_alive
from mcp_server.core.planning import Plan
from mcp_server.core.spec import AttemptId, EpicId, EpicSpec
from mcp_server.engine.context import saved_work
from mcp_server.engine.engine import Engine
from mcp_server.engine.merging import forget
from mcp_server.ports import Ports


async def adopt(engine: Engine, planned: Plan) -> None:
    """Take a planned epic into the ledger, and what git has of it already; an epic in the same words is left alone.

    While it is under way new predictions do not count as new words.

    Git is asked first: nobody can start a story between its plan and the fact that it is merged. Raises `Refused`,
    and `Fault` when git cannot say what it has.
    """
    known = engine.ledger.epics.get(planned.spec.id)
    if known is not None and _is_same(known, planned.spec):
        return
    facts = await _found(engine.ports, planned.spec.id, known, engine.now_s())
    engine.handle(PlanEpic(planned))
    for fact in facts:
        if _is_news(engine.ledger.epics[planned.spec.id], fact):
            engine.submit(fact)


def _is_same(known: Epic, spec: EpicSpec) -> bool:
    if known.spec == spec:
        return True
    under_way = is_alive(known.wave) or known.stories.any_in(*HOLDS_FILES)
    return under_way and known.spec.as_written() == spec.as_written()


async def found_merges(ledger: Ledger, ports: Ports, now_s: float) -> list[MergeFound]:
    """One fact for each story that git has and the journal lacks. Raises `Fault`.

    Whatever its story still holds is cleared away before: done work that has landed is forgotten, all else saved.
    """
    facts: list[MergeFound] = []
    for name, epic in ledger.epics.items():
        if all(story.state is StoryState.MERGED for story in epic.stories.values()):
            continue
        for fact in await _found(ports, name, epic, now_s):
            if _is_news(epic, fact) and not _finds_itself(epic, fact):
                await _clear(ports, epic.stories[fact.attempt.story], fact.attempt)
                facts.append(fact)
    return facts


async def _found(ports: Ports, name: EpicId, epic: Epic | None, now_s: float) -> list[MergeFound]:
    known = [s.spec.id for s in epic.stories.values() if s.merged_as is not None] if epic is not None else []
    return [
        MergeFound(at.attempt, at.landing.onto, at.landing.head, at.landing.files, now_s)
        for at in await ports.merge.landed(name, known)
    ]


def _is_news(epic: Epic, fact: MergeFound) -> bool:
    story = epic.stories.get(fact.attempt.story)
    return story is not None and story.state is not StoryState.MERGED


def _finds_itself(epic: Epic, fact: MergeFound) -> bool:
    """The journal has the proof of this very merge: whoever ends the attempt looks for it in git."""
    proven = epic.stories[fact.attempt.story].proven
    return proven is not None and proven.head == fact.tip


async def _clear(ports: Ports, story: Story, landed: AttemptId) -> None:
    if story.process is not None:
        await ports.runner.end_leftover(landed._replace(number=story.attempt), story.process)
    current = landed._replace(number=story.attempt)
    if story.attempt == landed.number and story.head is not None:
        await forget(ports, current, story.lease)
    elif story.state in LIVE | {StoryState.MERGING}:
        await saved_work(ports, current)
