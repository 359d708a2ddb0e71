"""What the model says in each journey. A script looks at the request only; see `fake_api.py`."""

from __future__ import annotations

import time

from tests.journeys.claude import parts, troubled
from tests.journeys.claude.fake_api import Fail, Say, Script, Turn, Use
from tests.journeys.claude.play import acted, played
from tests.journeys.claude.request import Request, found

TOOLS = "mcp__epicwave__"
ENOUGH_TURNS = 60
LIMIT_S = 7200


def greeter(request: Request) -> Turn:
    """Look at the checkout, then say what was seen; a trial of the box itself."""
    if request.turn == 0:
        return [Use("Bash", {"command": "git log --oneline", "description": "Look at the log"})]
    return [Say(f"SEEN {request.told}")]


def lead(request: Request) -> Turn:
    """Plan, start, and wait with the cursor until the epic is done; say how it ended."""
    epic, cursor = found(r'"epic":\s*"([^"]+)"', request.told), found(r'"cursor":\s*(\d+)', request.told)
    match request.turn:
        case 0:
            return [Use(f"{TOOLS}plan_epic", {"epic_file": "trio.yaml"})]
        case 1:
            wave = {"epic": epic, "through": "all", "strategy": "asyncio", "slots": 2, "agent": "scripted"}
            return [Use(f"{TOOLS}start_wave", wave)]
        case _:
            state = found(r'"state":\s*"([^"]+)"', request.told)
            if not cursor or state not in {"", "active"} or request.turn > ENOUGH_TURNS:
                return [Say(f"EPIC {state or request.told}")]
            return [Use(f"{TOOLS}story_status", {"epic": epic, "since": int(cursor), "wait_s": 20})]


def starter(request: Request) -> Turn:
    """Plan and start, and end at once."""
    return lead(request) if request.turn < 2 else [Say("STARTED")]


def planner(request: Request) -> Turn:
    """Plan the epic with the tools as a plugin has them, and show the answer."""
    if request.turn == 0:
        return [Use("mcp__plugin_epicwave_epicwave__plan_epic", {"epic_file": "trio.yaml"})]
    return [Say(f"PLANNED {request.told}")]


def worker(request: Request) -> Turn:
    """Do a story as a headless agent: write its file, edit it, commit it; the brief names the story."""
    story, folder = found(r"# Story (\w+)", request.asked), request.working_directory
    note = f"{folder}/notes/{story}.md"
    turns: list[Turn] = [
        [Use("Write", {"file_path": note, "content": "To be done.\n"})],
        [Use("Edit", {"file_path": note, "old_string": "To be done", "new_string": f"Done by the client: {story}"})],
        [Use("Bash", {"command": "git add -A", "description": "Stage the work"})],
        [Use("Bash", {"command": f"git commit -q -m 'Do {story}'", "description": "Commit the work"})],
    ]
    return turns[request.turn] if request.turn < len(turns) else [Say(f"{story} is done.")]


def limited(_: Request) -> Turn:
    """The limit of a subscription is reached, and is over in two hours: in the headers as the API has them."""
    reset = str(int(time.time()) + LIMIT_S)
    names = {"status": "rejected", "reset": reset, "representative-claim": "five_hour", "5h-reset": reset}
    headers = tuple((f"anthropic-ratelimit-unified-{name}", value) for name, value in names.items())
    return [Fail(429, "rate_limit_error", (*headers, ("retry-after", str(LIMIT_S)), ("x-should-retry", "false")))]


def overloaded(_: Request) -> Turn:
    """The API has too much to do."""
    return [Fail(529, "overloaded_error")]


def stranger(_: Request) -> Turn:
    """The API does not know the key."""
    return [Fail(401, "authentication_error")]


BY_NAME: dict[str, Script] = {
    **{script.__name__: script for script in (greeter, lead, starter, planner, worker, limited, overloaded, stranger)},
    "team": acted(parts.lead, parts.together),
    "background": acted(parts.patient, parts.together),
    "quiet": acted(parts.lead, parts.worker),
    "forgetful": acted(parts.lead, parts.forgetful),
    "headless": played(parts.headless),
    "mortal": acted(troubled.undertaker, troubled.mortal),
    "careless": acted(parts.lead, troubled.careless),
    "neighbour": acted(parts.lead, troubled.neighbour),
    "puzzled": acted(troubled.asked, troubled.puzzled),
    "cancelled": acted(troubled.repentant, troubled.tireless),
}
