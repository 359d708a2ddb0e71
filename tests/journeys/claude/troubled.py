"""Leads and workers to whom something happens; `parts.py` has what they do when nothing does."""

from __future__ import annotations

import json
import re

from tests.journeys.claude.fake_api import Fail, Meet, Say, Think, Use
from tests.journeys.claude.parts import (
    NOTHING,
    Step,
    busied,
    claimed,
    committed,
    conducted,
    directed,
    ended,
    enlisted,
    gone,
    reported,
    run,
    started,
    status,
    taken,
    written,
)
from tests.journeys.claude.play import Playing, commands, one, ours, shell, spoken
from tests.journeys.claude.request import Json, Request, found

ENOUGH_TURNS = 400
LONG_S = 120.0


def mortal(request: Request) -> Playing:
    """The first attempts at S1, S2 and S3 come to nothing: an API error, the limit of turns, a stop by the lead."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    yield from written(work)
    if work.attempt == 1 and work.story == "S1":
        yield from committed(work)
        yield [Fail()]
    if work.attempt == 1 and work.story == "S2":
        for _ in range(ENOUGH_TURNS):
            yield [Use("Read", {"file_path": work.note})]
    if work.attempt == 1 and work.story == "S3":
        yield [Think(LONG_S), Say("I was not stopped.")]
    yield from committed(work)
    return (yield from ended(work, (yield from reported(work))))


def undertaker(request: Request) -> Playing:
    """A lead two of whose workers end by themselves, and who stops the third."""
    reply = yield from started()
    alive = yield from busied(reply)
    while len(alive) > 1:
        alive -= gone((yield [Say("The workers work.")]))
    yield [Use("TaskStop", {"task_id": next(iter(alive))})]
    last = yield from directed((yield from status(reply)))
    return f"EPIC {last['epics'][0]['state']}"


def careless(request: Request) -> Playing:
    """S1 is reported before it is committed, S2 is done on no branch of its own, S3 on an older commit, S4 is red."""
    work = yield from taken(request)
    if work is None:
        return NOTHING
    switch = {"S2": "git status", "S3": re.sub(r"\w+$", "HEAD", work.first_command)}
    yield from run([switch.get(work.story, work.first_command)])
    yield from written(work, "RED\n" if work.story == "S4" else None)
    if work.story != "S1":
        yield from committed(work)
    reply = yield from reported(work)
    if work.story == "S4":
        assert reply["answer"] == "repair", reply
        yield from run(reply["commands"])
        yield [Use("Read", {"file_path": work.note})]
        yield from written(work)
        yield from committed(work)
    else:
        assert reply["answer"] == "refused", reply
        yield from run(commands(reply["next"]))
    return (yield from ended(work, (yield from reported(work))))


def neighbour(request: Request) -> Playing:
    """A worker that changes the line that another one changes too, and mends the conflict as it is told."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    shared = f"{work.folder}/draft.txt"
    yield [Use("Read", {"file_path": shared})]
    yield [Use("Write", {"file_path": shared, "content": f"one\n{work.story} was here\n"})]
    yield [Meet(2), shell("git add -A")]  # the other one has claimed, too
    yield from run([f"git commit -q -m 'Do {work.story}'"])
    reply = yield from reported(work)
    if reply["answer"] == "repair":
        yield from mended(reply, shared)
        reply = yield from reported(work)
    return (yield from ended(work, reply))


def mended(reply: Json, shared: str) -> Step:
    """Run the commands of the answer; where the rebase stops, keep both sides and go on with the rest of them."""
    for command in reply["commands"]:
        told = yield [shell(command)]
        if told.answers[0].failed:
            assert "rebase" in command, told
            text = one((yield [Use("Read", {"file_path": shared})]))
            yield [Use("Write", {"file_path": shared, "content": both(text)})]
            yield from run(["git add -A"])


def both(shown: str) -> str:
    """Both sides of each conflict in a file, which is shown with its lines numbered."""
    lines = [re.sub(r"^\s*\d+\t", "", line) for line in shown.splitlines() if re.match(r"\s*\d+\t.", line)]
    return "".join(f"{line}\n" for line in lines if not line.startswith(("<<<<<<<", "=======", ">>>>>>>")))


def tireless(request: Request) -> Playing:
    """A worker that goes on until it is told to stop. S1 has committed, S2 has not; S3 hears nothing any more."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    yield from written(work)
    if work.story == "S1":
        yield from committed(work)
    for _ in range(ENOUGH_TURNS):
        told = yield [Think(0.3), ours("report_story", lease=work.lease, outcome="progress", note="still at it")]
        if told.answers[0].failed:
            return f"Story {work.story}: {one(told)}"
        reply = json.loads(one(told))
        if reply["answer"] != "go_on":
            return (yield from ended(work, reply))
        if work.story == "S3":  # at once: a quick lead cancels as soon as it has seen all three at work
            yield [Think(LONG_S), Say("I was not stopped.")]
    return "I was never told to stop."


def repentant(request: Request) -> Playing:
    """A lead that cancels the epic when all its workers have written, and stops who does not end by itself."""
    reply = yield from started()
    yield from busied(reply)
    at_work = 0
    while at_work < 3:
        told = yield [Think(1.0), ours("story_status", epic=reply["epic"])]
        at_work = sum("still at it" in story.get("why", "") for story in json.loads(one(told))["stories"])
    told = yield [ours("cancel_epic", epic=reply["epic"], reason="the user has changed his mind")]
    reply, alive = json.loads(one(told)), frozenset[str]()
    alive = frozenset(reply["stop_agents"]) - gone(told)
    while len(alive) > 1:
        alive -= gone((yield [Say("The workers end.")]))
    yield [Use("TaskStop", {"task_id": agent}) for agent in alive]
    return f"CANCELLED {reply['state']}"


def puzzled(request: Request) -> Playing:
    """A worker that cannot go on before somebody has answered, and one that was told the answer."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    answer = found(r"What the lead says\n\n(\w+)", work.brief)
    if not answer:
        reply = json.loads(
            one((yield [ours("report_story", lease=work.lease, outcome="blocked", note="Which colour?")]))
        )
        return (yield from ended(work, reply))
    yield from written(work, f"{work.story}({answer})\n")
    yield from committed(work)
    return (yield from ended(work, (yield from reported(work))))


def asked(request: Request) -> Playing:
    """A lead that finds a question in the status, and hands on the answer."""
    reply = yield from started()
    yield from enlisted(reply)
    reply = yield from status(reply)
    asking = next(story for story in reply["stories"] if "Which colour?" in story["why"])
    notes = {asking["story"]: "blue"}
    again = spoken("start_wave", f"{asking['why']} {reply['next']}") | {"notes": notes}
    reply = json.loads(one((yield [ours("start_wave", **again)])))
    last = yield from conducted(reply)
    return f"EPIC {last['epics'][0]['state']}"
