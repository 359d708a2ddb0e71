"""Parts: what one agent does, written down as it happens, and played from the beginning at each request.

A part is a generator. It yields a turn of the model and is sent what came back. The scripted model keeps no state:
for each request the part is begun anew and told all that has come back so far, up to the turn that is asked for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Generator

from tests.journeys.claude.fake_api import Say, Script, Turn, Use
from tests.journeys.claude.request import Json, Request, Told, found

Playing = Generator[Turn, Told, str]
"""Turns out, what came back in; its value are the last words."""
Part = Callable[[Request], Playing]

OURS = "epicwave__"
"""Our server's part of a tool's name; what comes before it depends on how the server is installed."""
_POSITIONS = {"report_story": ("lease", "outcome", "note")}
"""Names of arguments that a reply may give by place, as in `report_story('...', 'done')`."""


def played(part: Part) -> Script:
    """The script that plays a part; after its end it says its last words to whatever comes."""

    def script(request: Request) -> Turn:
        playing = part(request)
        try:
            turn = next(playing)
            for told in request.history:
                turn = playing.send(told)
        except StopIteration as end:
            return [Say(end.value or "I have ended.")]
        prefix = _prefix(request)
        return [_named(said, prefix) if isinstance(said, Use) else said for said in turn]

    return script


def _prefix(request: Request) -> str:
    """What stands before our tools' names in the client's lists; it names none while the server is still starting."""
    names = "\n".join([*request.tools, request.all])
    return found(rf"(?m)^(mcp__(?:\w+_)?){OURS}\w+$", names) or "mcp__plugin_epicwave_"


def _named(use: Use, prefix: str) -> Use:
    """The call under the name that the tool has in this session."""
    return Use(prefix + use.tool, use.arguments) if use.tool.startswith(OURS) else use


def acted(lead: Part, worker: Part) -> Script:
    """The script of a session: one conversation is the lead's, all others are its workers'."""
    first, others = played(lead), played(worker)
    return lambda request: first(request) if request.is_lead else others(request)


def ours(tool: str, **arguments: object) -> Use:
    """A call of one of our tools, by its own name."""
    return Use(OURS + tool, arguments)


def shell(command: str) -> Use:
    """A call of the shell."""
    return Use("Bash", {"command": command, "description": command[:40]})


def spoken(tool: str, text: str) -> Json:
    """Arguments of the first call of a tool that a text names in words: `tool(a='b', c=true)`.

    Raises `LookupError` when the text does not say how to call it: then a model would not know either.
    """
    match = re.search(rf"\b{tool}\(([^()]*)\)", text)
    if match is None:
        raise LookupError(f"the text names no call of {tool}: {text[:2000]}")
    words = re.sub(r"\b(true|false)\b", lambda word: word[0].capitalize(), match[1])
    call = ast.parse(f"f({words})", mode="eval").body
    assert isinstance(call, ast.Call)
    given = {key.arg or "": ast.literal_eval(key.value) for key in call.keywords}
    places = zip(_POSITIONS.get(tool, ()), call.args, strict=False)
    return {name: ast.literal_eval(value) for name, value in places} | given


def commands(text: str) -> list[str]:
    """The commands that a text names between backticks, in order."""
    return re.findall(r"`(git [^`]+)`", text)


def one(told: Told) -> str:
    """The answer to the only call of a turn."""
    assert len(told.answers) == 1, told
    return told.answers[0].text
