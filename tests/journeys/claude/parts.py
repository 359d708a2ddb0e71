"""What the lead and the workers do when all goes well; each journey adds what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import dataclass

from tests.journeys.claude.fake_api import Meet, Say, Think, Turn, Use
from tests.journeys.claude.play import Playing, commands, one, ours, shell, spoken
from tests.journeys.claude.request import Json, Request, Told, found

NOT_THERE = "No such tool available"
"""The client's own words while our server is still starting."""
STARTING_TRIES = 20
SPAWN_TRIES = 3

NOTHING = "There was nothing to claim."

Step = Generator[Turn, Told, None]


@dataclass(frozen=True)
class Work:
    """What a worker has learned from its claim."""

    lease: str
    story: str
    attempt: int
    brief: str
    folder: str
    """Where it may write."""
    first_command: str
    done: Json
    """Arguments of the report in the end."""

    @property
    def note(self) -> str:
        """The file that the brief asks for."""
        return f"{self.folder}/{found(r'- (notes/[A-Za-z0-9]+[.]md)', self.brief)}"


def taken(request: Request) -> Generator[Turn, Told, Work | None]:
    """Claim what the prompt says. None: there was nothing to do."""
    reply = json.loads(one((yield [ours("claim_story", **spoken("claim_story", request.asked))])))
    if not reply["claimed"]:
        return None
    assert "report_story 'done'" in reply["next"], reply
    return Work(
        lease=reply["lease"],
        story=reply["story"],
        attempt=reply["attempt"],
        brief=reply["brief"],
        folder=reply.get("worktree") or request.working_directory,
        first_command=reply.get("first_command", ""),
        done={"lease": reply["lease"], "outcome": "done"},
    )


def claimed(request: Request) -> Generator[Turn, Told, Work | None]:
    """The same, and run the first command that the answer names."""
    work = yield from taken(request)
    if work is not None and work.first_command.startswith("git"):
        yield from run([work.first_command])
    return work


def run(lines: list[str]) -> Step:
    """Run commands one after the other, as they were told; each must be allowed and end well."""
    for line in lines:
        told = yield [shell(line)]
        assert not told.answers[0].failed, f"{line}: {told.answers[0].text}"


def written(work: Work, words: str | None = None) -> Step:
    """Write the note: the story's name around what the notes say that it builds on, read in its own worktree."""
    below: list[str] = []
    for name in re.findall(r"S\d", found(r"Build on: (.*)", work.brief)):
        path = found(rf"- {name} .*`(notes/[^`]+)`", work.brief)
        told = yield [Use("Read", {"file_path": f"{work.folder}/{path}"})]
        below.append(found(rf"({name}\(\S*\))", one(told)))
    yield [Use("Write", {"file_path": work.note, "content": words or f"{work.story}({'+'.join(below)})\n"})]


def committed(work: Work) -> Step:
    """Commit everything, with plain commands."""
    yield from run(["git add -A", f"git commit -q -m 'Do {work.story}'"])


def reported(work: Work) -> Generator[Turn, Told, Json]:
    """Report done, and again for as long as the answer is to do so; the answer that says something else."""
    ask = work.done
    while True:
        told = yield [ours("report_story", **ask)]
        if told.answers[0].failed:
            return {"answer": "refused", "next": one(told)}
        reply = json.loads(one(told))
        if reply["answer"] != "checking":
            return reply
        ask = spoken("report_story", reply["next"])


def ended(work: Work, reply: Json) -> Playing:
    """Do what the last answer says, and say how it ended."""
    yield from run(commands(reply["next"]))
    return f"Story {work.story}: {reply['answer']}."


def worker(request: Request) -> Playing:
    """Claim, write, commit, report: the whole of a story when nothing goes wrong."""
    work = yield from claimed(request)
    return (yield from done(work)) if work is not None else NOTHING


def together(request: Request) -> Playing:
    """The same; the three that build on nothing have all claimed before the first of them writes."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    if "Build on" not in work.brief:
        yield [Meet(3), shell("git status")]
    return (yield from done(work))


def done(work: Work) -> Playing:
    """The rest of a story after its claim."""
    yield from written(work)
    yield from committed(work)
    return (yield from ended(work, (yield from reported(work))))


def forgetful(request: Request) -> Playing:
    """The same, but it ends its turn without a report; the client does not let it, and says what is missing."""
    work = yield from claimed(request)
    if work is None:
        return NOTHING
    yield from written(work)
    yield from committed(work)
    told = yield [Say("The note is written.")]
    assert spoken("report_story", told.text) == work.done, told
    reply = yield from reported(work)
    return (yield from ended(work, reply))


def headless(request: Request) -> Playing:
    """A story as an agent with a process of its own does it: the brief is its prompt, and its end is the report."""
    story, brief = found(r"# Story (\w+)", request.asked), request.asked
    work = Work("", story, 1, brief, request.working_directory, "", {})
    yield from written(work)
    yield from committed(work)
    return f"Story {story} is committed."


def spawned(instruction: str, *, background: bool = False) -> Turn:
    """The calls that an instruction asks for, in one turn."""
    call = {
        "description": found(r"description '([^']+)'", instruction),
        "prompt": found(r"prompt: (.+)", instruction),
        "subagent_type": found(r"subagent_type '([^']+)'", instruction),
        "isolation": found(r"isolation '([^']+)'", instruction),
        "run_in_background": background,
    }
    number = found(r"make (\d+) Agent call", instruction)
    assert all(value != "" for value in call.values()), f"the instruction does not say how: {instruction}"
    return [Use("Agent", call)] * int(number)


def enlisted(reply: Json, *, background: bool = False) -> Generator[Turn, Told, list[Told]]:
    """Spawn whom a reply asks for; a call that the client fails is made again, as the reply says."""
    calls = spawned(reply["instruction"], background=background)
    told: list[Told] = []
    while calls and len(told) < SPAWN_TRIES:
        told.append((yield calls))
        calls = calls[: sum(answer.failed for answer in told[-1].answers)]
    return told


def started(**wishes: object) -> Generator[Turn, Told, Json]:
    """Plan the epic and start it as the answer says; the reply of the start."""
    told = yield [ours("plan_epic", epic_file="epic.yaml")]
    for _ in range(STARTING_TRIES):
        if NOT_THERE in one(told):
            told = yield [Think(1.0), ours("plan_epic", epic_file="epic.yaml")]
    plan = json.loads(one(told))
    wave = spoken("start_wave", plan["next"]) | {"through": "all", "strategy": "agent-teams"} | wishes
    return json.loads(one((yield [ours("start_wave", **wave)])))


def conducted(reply: Json) -> Generator[Turn, Told, Json]:
    """Spawn whom each answer asks for, wait for them, ask for the status; the last one, when the epic is at rest."""
    while True:
        if reply.get("spawn"):
            yield from enlisted(reply)
        reply = yield from status(reply)
        if reply["epics"][0]["state"] != "active":
            return reply


def status(reply: Json) -> Generator[Turn, Told, Json]:
    """The next status, asked for as the last answer says."""
    return json.loads(one((yield [ours("story_status", **spoken("story_status", reply["next"]))])))


def directed(reply: Json) -> Generator[Turn, Told, Json]:
    """The same with sub-agents in the background: while any works, the lead's turn ends, and the client wakes it.

    The client says that one has ended wherever it can: at the end of a turn, or beside the result of a tool.
    """
    alive: frozenset[str] = frozenset()
    while True:
        if reply.get("spawn"):
            alive |= yield from busied(reply)
        if alive:
            alive -= gone((yield [Say("The workers work.")]))
        told = yield [ours("story_status", **spoken("story_status", reply["next"]))]
        alive -= gone(told)
        reply = json.loads(one(told))
        if reply["epics"][0]["state"] != "active":
            return reply


def busied(reply: Json) -> Generator[Turn, Told, frozenset[str]]:
    """Spawn whom a reply asks for in the background; ids of those that work."""
    told = yield from enlisted(reply, background=True)
    begun = [answer for each in told for answer in each.answers if not answer.failed]
    ids = frozenset(found(r"agentId: (\w+)", answer.text) for answer in begun)
    return ids.difference(*map(gone, told))


def gone(told: Told) -> frozenset[str]:
    """Ids of the sub-agents that the client says have ended."""
    return frozenset(re.findall(r"<task-id>(\w+)</task-id>", told.text))


def lead(request: Request) -> Playing:
    """Run the whole epic with sub-agents that are waited for."""
    reply = yield from started()
    last = yield from conducted(reply)
    return f"EPIC {last['epics'][0]['state']}"


def patient(request: Request) -> Playing:
    """The same with sub-agents in the background: the lead's turn ends, and the client wakes it."""
    reply = yield from started()
    last = yield from directed(reply)
    return f"EPIC {last['epics'][0]['state']}"
