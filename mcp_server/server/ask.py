"""The client at the other end of a call: who it is, and how a question reaches the human who sits there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import anyio
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import is_version_at_least

ASK_S = 40.0
"""How long a call waits for an answer itself, in seconds; hosts cut calls off after a minute."""
QUESTION_MAX = 2_000
"""Characters of a question that are shown."""

_ASKS_BY_RESULT = "2026-07-28"
"""From this protocol on a server may not call its client: a question is the result of the call, which is made again."""


def client_name(ctx: Context[Any]) -> str:
    """The client's own name (`claude-code`, `cursor-vscode`), as it introduces itself; empty when it does not."""
    params = ctx.session.client_params
    return params.client_info.name if params is not None else ""


def can_ask(ctx: Context[Any]) -> bool:
    """True when the client says that it can show its human a form. A bare `elicitation: {}` means forms."""
    capabilities = ctx.client_capabilities
    modes = capabilities.elicitation if capabilities is not None else None
    return modes is not None and (modes.form is not None or modes.url is None)


async def ask_human(ctx: Context[Any], question: str, choices: Sequence[str] = ()) -> str | InputRequiredResult | None:
    """The human's answer, one of the choices when there are some; None when there is none.

    That is: no way to ask, declined, cancelled, left open, not in `ASK_S`.

    An `InputRequiredResult` has to be returned by the tool as it is: the client asks, for as long as its human takes,
    and makes the same call again, in which this function has the answer. What the tool does before it asks is therefore
    done twice, and must be safe to repeat. The answer counts for these very words only.
    """
    if not can_ask(ctx):
        return None
    version = ctx.protocol_version
    if version is None or not is_version_at_least(version, _ASKS_BY_RESULT):
        return _chosen(await _ask_now(ctx, _form(question, choices)), choices)
    key = f"question-{hashlib.sha256(question.encode('utf-8', 'replace')).hexdigest()[:16]}"
    answers = ctx.input_responses or {}
    if key not in answers:
        return InputRequiredResult(input_requests={key: ElicitRequest(params=_form(question, choices))})
    answer = answers[key]
    return _chosen(_said(answer), choices) if isinstance(answer, ElicitResult) else None


async def _ask_now(ctx: Context[Any], form: ElicitRequestFormParams) -> str | None:
    """Ask in the middle of the call; a client that is late is told that the question is withdrawn."""
    try:
        with anyio.move_on_after(ASK_S):
            return _said(await ctx.session.elicit_form(form.message, form.requested_schema, ctx.request_id))
    except (MCPError, ValueError):  # no way back to the client, its own error, or no answer in the promised form
        return None
    return None


def _form(question: str, choices: Sequence[str]) -> ElicitRequestFormParams:
    shown = question if len(question) <= QUESTION_MAX else question[: QUESTION_MAX - 3] + "..."
    field = {"type": "string", "title": "Answer", **({"enum": list(choices)} if choices else {})}
    form: dict[str, Any] = {"type": "object", "properties": {"answer": field}, "required": ["answer"]}
    return ElicitRequestFormParams(message=shown, requested_schema=form)


def _chosen(answer: str | None, choices: Sequence[str]) -> str | None:
    return answer if not choices or answer in choices else None


def _said(result: ElicitResult) -> str | None:
    words = (result.content or {}).get("answer") if result.action == "accept" else None
    return words.strip() or None if isinstance(words, str) else None
