"""An engine that dies: the next one is told what it has to know, and the editor sees nothing of it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_server.front.pump import AGAIN
from tests.front.stage import Editor, Engine, Message, Wire, line_of, request, tool, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is a front where there are Unix sockets")

MODERN = "io.modelcontextprotocol/protocolVersion"


@contextmanager
def _another(repo: Path) -> Generator[Wire]:
    """The front's connection to the next engine."""
    with Engine(repo) as engine:
        yield engine.meets()


def _greet(editor: Editor, wire: Wire) -> list[Message]:
    """A handshake of the older protocols; what has to be said again."""
    said = [request(0, "initialize", capabilities={}), {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    editor.say(said[0])
    wire.answer(wire.hears(), who="first")
    assert editor.hears()["result"] == {"who": "first"}
    editor.say(said[1])
    assert wire.hears() == said[1]
    return said


def _text(answer: Message) -> str:
    return answer["result"]["content"][0]["text"]


def test_the_handshake_is_said_again_and_the_editor_hears_one_answer(
    repo: Path, editor: Editor, engine: Engine, wire: Wire
) -> None:
    said = _greet(editor, wire)
    engine.dies()
    with _another(repo) as second:
        assert second.hears() == said[0]
        second.answer(said[0], who="second")
        assert second.hears() == said[1]
        editor.ask(1, "tools/list")
        second.answer(second.hears(), tools=[])
        assert editor.hears()["id"] == 1, "nothing before it"


def test_a_handshake_without_an_answer_is_asked_once(repo: Path, editor: Editor, engine: Engine, wire: Wire) -> None:
    asked = request(0, "initialize")
    editor.say(asked)
    wire.hears()
    engine.dies()
    with _another(repo) as second:
        assert second.hears() == asked
        second.answer(asked, who="second")
        assert editor.hears()["result"] == {"who": "second"}
        assert second.hears_nothing()


def test_what_is_followed_is_followed_again(repo: Path, editor: Editor, engine: Engine, wire: Wire) -> None:
    said = _greet(editor, wire)
    for number, (what, uri) in enumerate([("", "epic://a"), ("", "epic://b"), ("un", "epic://a")], 1):
        editor.ask(number, f"resources/{what}subscribe", uri=uri)
        wire.answer(wire.hears())
        editor.hears()
    engine.dies()
    with _another(repo) as second:
        second.answer(second.hears())
        assert second.hears() == said[1]
        again = second.hears()
        assert (again["method"], again["params"]) == ("resources/subscribe", {"uri": "epic://b"})
        second.answer(again)
        assert editor.hears_nothing(), "it has had its answer"
        assert second.hears_nothing()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/list", {}),
        ("resources/read", {"uri": "epic://a"}),
        ("tools/call", tool("story_status")),
        ("tools/call", tool("plan_epic")),
        ("tools/call", tool("agent_event")),
        ("subscriptions/listen", {"notifications": {}}),
    ],
)
def test_what_may_be_asked_twice_is_asked_again_once(
    repo: Path, editor: Editor, engine: Engine, wire: Wire, method: str, params: dict[str, Any]
) -> None:
    answered, waiting = request(1, "tools/list"), request("two", method, **params)
    editor.say(answered)
    editor.say(waiting)
    wire.answer(wire.hears())
    editor.hears()
    assert wire.hears() == waiting
    engine.dies()
    with _another(repo) as second:
        assert second.hears() == waiting
        assert second.hears_nothing()
        second.answer(waiting, done=True)
        assert editor.hears() == {"jsonrpc": "2.0", "id": "two", "result": {"done": True}}


@pytest.mark.parametrize("name", ["start_wave", "cancel_epic", "steer_epic", "claim_story", "report_story", "unknown"])
@pytest.mark.parametrize("meta", [{}, {MODERN: "2026-07-28"}], ids=["older", "2026-07-28"])
def test_what_may_have_happened_is_answered_and_not_repeated(
    repo: Path, editor: Editor, engine: Engine, wire: Wire, name: str, meta: dict[str, str]
) -> None:
    editor.ask(7, "tools/call", **tool(name, **meta))
    wire.hears()
    engine.dies()
    with _another(repo) as second:
        answer = editor.hears()
        assert answer["id"] == 7
        assert answer["result"]["isError"] is True
        assert answer["result"].get("resultType") == ("complete" if meta else None)
        assert _text(answer).startswith("engine_restarted: ")
        assert name in _text(answer)
        assert "story_status" in _text(answer)
        assert second.hears_nothing()


def test_a_cancelled_request_is_not_asked_again(repo: Path, editor: Editor, engine: Engine, wire: Wire) -> None:
    editor.ask(1, "tools/call", **tool("story_status"))
    editor.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    wire.hears()
    assert wire.hears()["method"] == "notifications/cancelled"
    engine.dies()
    with _another(repo) as second:
        assert second.hears_nothing()
        assert editor.hears_nothing()


def test_what_comes_meanwhile_waits_for_the_next_engine(repo: Path, editor: Editor, engine: Engine, wire: Wire) -> None:
    said = _greet(editor, wire)
    engine.dies()
    until(editor.launched.exists)
    for number in range(1, 4):
        editor.ask(number, "tools/call", **tool("start_wave"))
    with _another(repo) as second:
        second.answer(second.hears())
        assert second.hears() == said[1]
        assert [second.hears()["id"] for _ in range(3)] == [1, 2, 3]


def test_the_editor_never_gets_half_a_message(repo: Path, editor: Editor, engine: Engine, wire: Wire) -> None:
    asked = request(1, "tools/list")
    editor.say(asked)
    whole = line_of({"jsonrpc": "2.0", "id": 1, "result": {"tools": ["x" * 200_000]}})
    wire.hears()
    wire.socket.sendall(whole[:150_000])
    engine.dies()
    with _another(repo) as second:
        second.answer(second.hears(), tools=[])
        assert editor.line() == b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}\n'


def test_an_engine_that_dies_while_it_is_being_told_is_replaced_as_well(
    repo: Path, editor: Editor, engine: Engine, wire: Wire
) -> None:
    said = _greet(editor, wire)
    waiting = request(1, "tools/call", **tool("story_status"))
    editor.say(waiting)
    wire.hears()
    engine.dies()
    with _another(repo) as second:
        assert second.hears() == said[0], "and dies before it answers"
    with _another(repo) as third:
        third.answer(third.hears())
        assert [third.hears(), third.hears()] == [said[1], waiting]
    with _another(repo) as fourth:
        fourth.answer(fourth.hears())
        assert [fourth.hears(), fourth.hears()] == [said[1], waiting]
        fourth.answer(waiting)
        assert editor.hears()["id"] == 1


@pytest.mark.parametrize("method", ["tools/call", "resources/list"])
def test_a_request_that_kills_every_engine_is_given_up(
    repo: Path, editor: Editor, engine: Engine, wire: Wire, method: str
) -> None:
    editor.ask(1, method, **tool("plan_epic"))
    wire.hears()
    engine.dies()
    for _ in range(AGAIN):
        with _another(repo) as next_one:
            assert next_one.hears()["id"] == 1
    with _another(repo) as last:
        answer = editor.hears()
        said = _text(answer) if method == "tools/call" else answer["error"]["message"]
        assert said.startswith("engine_restarted: ")
        assert last.hears_nothing()


def test_the_answer_to_a_dead_engines_question_reaches_nobody(
    repo: Path, editor: Editor, engine: Engine, wire: Wire
) -> None:
    """The next engine counts its questions from the start: it must not take that answer for one of its own."""
    said = _greet(editor, wire)
    wire.say(request(1, "elicitation/create", message="Which one?"))
    assert editor.hears()["method"] == "elicitation/create"
    engine.dies()
    with _another(repo) as second:
        second.answer(second.hears())
        assert second.hears() == said[1]
        withdrawn = editor.hears()
        assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", 1)
        editor.say({"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}})
        assert second.hears_nothing()
        second.say(request(1, "elicitation/create", message="And now?"))
        assert editor.hears()["params"]["message"] == "And now?"
        editor.say({"jsonrpc": "2.0", "id": 1, "result": {"action": "decline"}})
        assert second.hears()["result"] == {"action": "decline"}


def test_many_large_requests_are_asked_again_while_answers_flow(
    repo: Path, editor: Editor, engine: Engine, wire: Wire
) -> None:
    """The next engine answers each before it reads on: neither waits for the other for ever."""
    asked = [request(n, "tools/call", **tool("plan_epic"), pad="x" * 200_000) for n in range(20)]
    for message in asked:
        editor.say(message)
        assert wire.hears() == message
    engine.dies()
    with _another(repo) as second:
        for message in asked:
            heard = second.hears()
            assert heard == message
            second.answer(heard, pad="y" * 200_000)
            assert editor.hears()["id"] == heard["id"]


REFUSING = """
import sys
from mcp_server.front import start
from mcp_server.front.place import Refusal
sys.argv.pop(1)
met = []
real = start.launch
def launch(folder):
    raise Refusal("git_missing", "There is no git.", "Install it.")
start.launch = launch
from mcp_server.cli.entry import main
main()
"""


@pytest.mark.parametrize("has_met_one", [True, False])
def test_an_engine_that_cannot_be_started_is_told_to_everybody_who_waits(repo: Path, has_met_one: bool) -> None:
    """On standard error, by the exit code, and to each request that has been asked or is in the pipe."""
    with Editor(repo, REFUSING) if not has_met_one else _met(repo) as editor:
        editor.ask(2, "tools/list")
        editor.ask(3, "tools/call", **tool("story_status"))
        answers = {answer["id"]: answer for answer in (editor.hears(), editor.hears())}
        assert answers[2]["error"]["message"] == "git_missing: There is no git. Install it."
        assert _text(answers[3]) == "git_missing: There is no git. Install it."
        assert editor.ends(5) == 2
        assert editor.err.read() == b"git_missing: There is no git.\nInstall it.\n"


@contextmanager
def _met(repo: Path) -> Generator[Editor]:
    """A front whose engine has died while it was asked something."""
    with Engine(repo) as engine, Editor(repo, REFUSING) as editor:
        wire = engine.meets()
        editor.ask(1, "tools/list")
        wire.hears()
        engine.dies()
        assert editor.hears()["id"] == 1
        yield editor


def test_engines_that_die_as_soon_as_they_are_met_are_not_met_for_ever(repo: Path, editor: Editor) -> None:
    code: int | None = None
    while code is None:
        with Engine(repo, patience_s=1.5) as engine:
            try:
                engine.meets()
            except TimeoutError:
                code = editor.ends(10)
    assert code == 2
    assert editor.err.read().startswith(b"engine_silent: ")
