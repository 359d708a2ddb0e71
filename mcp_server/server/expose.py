"""The one place where a function becomes a tool: strict arguments, a small schema, refusals a model can act on."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from mcp_server.core.draft import BadEpic
from mcp_server.errors import Fault, JournalError, Refused
from mcp_server.server.paging import ENTRIES_MAX, REPLY_TOKENS, Reply, clip, compact, cost, fitting

TRY_AGAIN = "Nothing is lost: mend what it names, if it is not gone by itself, and call again."
MESSAGE_TOKENS = 80
"""Of one error among many."""


class StrictTool(Tool):
    """A tool that refuses unknown arguments; the SDK's own would drop them without a word."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Run it. Raises `ToolError` with what is wrong, what is allowed and the next move."""
        allowed = list(self.parameters.get("properties", {}))
        unknown = [name for name in arguments if name not in allowed]
        if unknown:
            near = difflib.get_close_matches(unknown[0], allowed, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ToolError(
                f"bad_argument: {self.name} has no argument {unknown[0]!r:.80}.{hint} It takes: {', '.join(allowed)}."
            )
        try:
            result = await super().run(arguments, context)
        except ToolError as error:
            raise ToolError(_in_our_words(self.name, error)) from error
        if isinstance(result, Reply):
            return _on_one_line(result)
        return self.fn_metadata.convert_result(result) if convert_result else result


def _on_one_line(reply: Reply) -> CallToolResult:
    """The reply without the SDK's indentation, which is a third of the bytes: a model pays for each."""
    said = reply.model_dump(mode="json")
    return CallToolResult(content=[TextContent(type="text", text=compact(said))], structured_content=said)


def _in_our_words(tool: str, error: ToolError) -> str:
    """The same refusal without the SDK's prefix, argument errors one after the other, as long as a reply may be."""
    cause = error.__cause__
    match cause:
        case ValidationError():
            wrong = "; ".join(
                f"{'.'.join(str(p) for p in e['loc']) or 'arguments'}: {e['msg']} (got {e['input']!r:.80})"
                for e in cause.errors(include_url=False)
            )
            return _bounded(f"bad_argument: {tool} was called with {wrong}.", "Correct it and call again.")
        case BadEpic():
            return _bad_epic(cause)
        case Refused():
            return _bounded(f"{cause.code}: {cause.why}", cause.remedy)
        case Fault():
            return _bounded(f"{cause}.", TRY_AGAIN)
        case JournalError():
            ended = "The engine has stopped; nothing unsaved took effect. Free the disk, call again."
            return _bounded(f"journal_error: {cause}", ended)
        case ToolError():
            return _bounded(str(cause), "")
        case _:
            return _bounded(str(error), "")


def _bounded(why: str, remedy: str) -> str:
    """Both, the remedy in a line of its own, cut to a reply's budget; of what is to be done as little as possible."""
    remedy = clip(remedy, REPLY_TOKENS - min(cost(why), MESSAGE_TOKENS))
    return f"{clip(why, REPLY_TOKENS - cost(remedy))}\n{remedy}".strip()


def _bad_epic(refused: BadEpic) -> str:
    """Its errors by line, the first that fit, and where the others are named."""
    head = f"{refused.code}: {clip(refused.head, MESSAGE_TOKENS)}"
    lines = [clip(error.bullet, MESSAGE_TOKENS) for error in refused.errors[:ENTRIES_MAX]]

    def build(count: int) -> str:
        more = len(refused.errors) - count
        rest = [f"- and {more} more; `epicwave plan FILE` in a terminal names them all."] if more else []
        return "\n".join([head, *lines[:count], *rest, refused.remedy])

    return fitting(build, len(lines))


def expose(
    function: Callable[..., Awaitable[Any]], *, title: str, read_only: bool = False, destructive: bool = False
) -> Tool:
    """A tool out of an async function whose annotations are its schema and whose docstring is its description."""
    tool = StrictTool.from_function(
        function,
        title=title,
        description=_description(function),
        annotations=ToolAnnotations(
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=read_only,
            open_world_hint=False,
        ),
    )
    slim(tool.parameters)
    for name, schema in tool.parameters.get("properties", {}).items():
        tool.parameters["properties"][name] = _plain(schema)
    tool.parameters["additionalProperties"] = False
    if tool.fn_metadata.output_schema is not None:
        slim(tool.fn_metadata.output_schema)
        _bare(tool.fn_metadata.output_schema)
    return tool


def _description(function: Callable[..., Any]) -> str:
    """The docstring, a paragraph a line."""
    paragraphs = (function.__doc__ or "").strip().split("\n\n")
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """An argument's schema without what goes without saying: leaving it out is how it is null, false or 0."""
    choices: list[dict[str, Any]] = schema.get("anyOf", [])
    if {"type": "null"} in choices:
        [only, *others] = [choice for choice in choices if choice != {"type": "null"}]
        kept = {"anyOf": [only, *others]} if others else only
        schema = {**kept, **{key: value for key, value in schema.items() if key != "anyOf"}}
    return {key: value for key, value in schema.items() if key != "default" or value}


def slim(schema: Any) -> None:
    """Take generated titles out of a JSON schema, in place; they are a fifth of its bytes and say nothing."""
    if isinstance(schema, dict):
        schema = cast("dict[str, Any]", schema)
        if isinstance(schema.get("title"), str):  # a property named "title" is a dict, not a text
            del schema["title"]
        for value in schema.values():
            slim(value)
    elif isinstance(schema, list):
        for value in cast("list[Any]", schema):
            slim(value)


def _bare(reply: dict[str, Any]) -> None:
    """Take out of a reply's schema what only its authors need: words about it, and what is never sent: defaults, null.

    No model is shown it: what a reply means is said in the reply.
    """
    for model in (reply, *reply.get("$defs", {}).values()):
        model.pop("description", None)
        for name, field in model.get("properties", {}).items():
            model["properties"][name] = {
                key: value for key, value in _plain(field).items() if key not in ("description", "default")
            }
