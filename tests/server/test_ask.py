"""A question on its way to the human, in both eras of the protocol, from a tool that asks only sometimes."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.client.session import ElicitationFnT
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import (
    ClientCapabilities,
    ElicitationCapability,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
    InputRequiredResult,
    InputResponses,
    UrlElicitationCapability,
)

from mcp_server.server import ask, paging
from mcp_server.server.ask import ask_human, can_ask, client_name
from mcp_server.server.expose import expose
from tests.server.lead import ERAS, Era, text_of

pytestmark = pytest.mark.anyio

Human = tuple[ElicitationFnT, list[str]]
"""Somebody who answers, and the questions."""
ASKED = "Which of the two tables?"


class Reply(paging.Reply):
    """What the example tool answers."""

    answer: str
    said: str | None = None


CALLS: list[str] = []
"""Questions in the order in which the tool came to its own: its body, not its client's view."""


async def report(
    ctx: Context[Any], outcome: Literal["progress", "blocked"], note: str = ASKED
) -> Reply | InputRequiredResult:
    """An example: a question is for the human, anything else is not."""
    if outcome == "progress":
        return Reply(answer="go_on")
    CALLS.append(note)
    said = await ask_human(ctx, note)
    if isinstance(said, InputRequiredResult):
        return said
    return Reply(answer="go_on" if said else "stop", said=said)


async def who(ctx: Context[Any]) -> Reply:
    """An example: the client's name."""
    return Reply(answer=client_name(ctx), said=str(can_ask(ctx)))


def _server() -> MCPServer[Any]:
    CALLS.clear()
    return MCPServer("example", tools=[expose(report, title="Report"), expose(who, title="Who")])


def human(action: Literal["accept", "decline", "cancel"], **content: str) -> Human:
    """A human who does the same with every question, and the questions."""
    heard: list[str] = []

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        assert list(params.requested_schema["properties"]) == ["answer"]
        heard.append(params.message)
        return ElicitResult(action=action, content=dict(content) or None)

    return answer, heard


async def _report(client: Client, outcome: str = "blocked", **more: str) -> Reply:
    result = await client.call_tool("report", {"outcome": outcome, **more})
    assert not result.is_error, text_of(result)
    return Reply.model_validate(result.structured_content)


@pytest.mark.parametrize("era", ERAS)
async def test_an_answer_reaches_the_tool_that_asked(era: Era) -> None:
    answer, heard = human("accept", answer=" The first. ")
    async with Client(_server(), mode=era, elicitation_callback=answer) as client:
        assert await _report(client) == Reply(answer="go_on", said="The first.")
        assert heard == [ASKED]
        assert ([ASKED, ASKED] if era == "auto" else [ASKED]) == CALLS, "in the new era the call is made twice"
        assert await _report(client, note="And now?") == Reply(answer="go_on", said="The first.")
        assert heard == [ASKED, "And now?"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_has_no_question_asks_nobody(era: Era) -> None:
    answer, heard = human("accept", answer="Never heard.")
    async with Client(_server(), mode=era, elicitation_callback=answer) as client:
        assert await _report(client, "progress") == Reply(answer="go_on")
    assert heard == []


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "human_",
    [human("decline", answer="No."), human("cancel"), human("accept", answer="  "), human("accept", other="x")],
)
async def test_a_human_who_does_not_answer_leaves_the_question_open(
    era: Era, human_: tuple[ElicitationFnT, list[str]]
) -> None:
    answer, heard = human_
    heard.clear()
    async with Client(_server(), mode=era, elicitation_callback=answer) as client:
        assert await _report(client) == Reply(answer="stop")
    assert heard == [ASKED]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_cannot_ask_is_not_asked(era: Era) -> None:
    """The SDK's own way ends such a call with a protocol error that no model sees."""
    async with Client(_server(), mode=era) as client:
        assert await _report(client) == Reply(answer="stop")
        assert CALLS == [ASKED]


async def test_before_2026_a_client_that_fails_to_ask_leaves_the_question_open() -> None:
    """Since then its failure is between the client and its own user: it has the question, we have no open call."""

    async def broken(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        raise RuntimeError("the window is gone")

    async with Client(_server(), mode="legacy", elicitation_callback=broken) as client:
        assert await _report(client) == Reply(answer="stop")


async def test_before_2026_a_human_who_takes_too_long_is_told_so_and_the_call_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hosts cut a call that is open for a minute; the question is withdrawn from the screen."""
    withdrawn = anyio.Event()

    async def slow(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        try:
            await anyio.sleep_forever()
        finally:
            withdrawn.set()
        raise AssertionError

    monkeypatch.setattr(ask, "ASK_S", 0.05)
    async with Client(_server(), mode="legacy", elicitation_callback=slow) as client:
        with anyio.fail_after(5):
            assert await _report(client) == Reply(answer="stop")
            await withdrawn.wait()


async def test_since_2026_a_human_may_take_all_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is open meanwhile, and nothing in the question runs out: the SDK's own state would, after 10 minutes."""
    monkeypatch.setattr(ask, "ASK_S", 0.0)
    async with Client(_server(), elicitation_callback=human("accept", answer="x")[0]) as client:
        first = await client.session.call_tool("report", {"outcome": "blocked"}, allow_input_required=True)
        assert isinstance(first, InputRequiredResult)
        assert first.request_state is None
        [(key, request)] = (first.input_requests or {}).items()
        assert isinstance(request, ElicitRequest)
        given: InputResponses = {key: ElicitResult(action="accept", content={"answer": "At last."})}
        later = await client.call_tool("report", {"outcome": "blocked"}, input_responses=given)
        assert later.structured_content == {"answer": "go_on", "said": "At last."}


async def test_an_answer_counts_for_its_own_question_only() -> None:
    async with Client(_server(), elicitation_callback=human("accept", answer="x")[0]) as client:
        first = await client.session.call_tool("report", {"outcome": "blocked"}, allow_input_required=True)
        assert isinstance(first, InputRequiredResult)
        yes = ElicitResult(action="accept", content={"answer": "Yes."})
        given: InputResponses = dict.fromkeys(first.input_requests or {}, yes)
        other = await client.session.call_tool(
            "report", {"outcome": "blocked", "note": "Drop it?"}, input_responses=given, allow_input_required=True
        )
        assert isinstance(other, InputRequiredResult)


@pytest.mark.parametrize("era", ERAS)
async def test_a_long_question_is_cut_for_the_screen(era: Era) -> None:
    answer, heard = human("accept", answer="Yes.")
    async with Client(_server(), mode=era, elicitation_callback=answer) as client:
        assert (await _report(client, note="Why? " * 2_000)).said == "Yes."
    assert len(heard[0]) == ask.QUESTION_MAX
    assert heard[0].endswith("...")


async def test_the_example_promises_its_reply_and_not_the_question() -> None:
    """The schema that a client checks replies against knows nothing of the detour."""
    async with Client(_server()) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = tools["report"].output_schema or {}
    assert set(schema["properties"]) == {"answer", "said"}
    assert set(tools["report"].input_schema["properties"]) == {"outcome", "note"}


@pytest.mark.parametrize("era", ERAS)
async def test_the_tool_knows_its_client_by_name(era: Era) -> None:
    for name in ("claude-code", "cursor-vscode"):
        async with Client(_server(), mode=era, client_info=Implementation(name=name, version="1")) as client:
            result = await client.call_tool("who", {})
            assert result.structured_content == {"answer": name, "said": "False"}


class _Connected:
    """A context with nothing but what the client said of itself."""

    def __init__(self, elicitation: ElicitationCapability | None) -> None:
        self.client_capabilities = ClientCapabilities(elicitation=elicitation)


@pytest.mark.parametrize(
    ("said", "can"),
    [
        (None, False),
        (ElicitationCapability(), True),
        (ElicitationCapability.model_validate({"form": {}}), True),
        (ElicitationCapability.model_validate({"form": {}, "url": {}}), True),
        (ElicitationCapability(url=UrlElicitationCapability()), False),
    ],
)
def test_forms_are_what_a_client_must_show(said: ElicitationCapability | None, can: bool) -> None:
    context: Any = _Connected(said)
    assert can_ask(context) is can
