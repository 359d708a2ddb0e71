"""The one place where a function becomes a tool: strict arguments, a small schema, refusals a model can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from mcp_server.errors import Fault, JournalError, Refused

TRY_AGAIN = "Nothing is lost: mend what it names, if it is not gone by itself, and call again."


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
                f"bad_argument: {self.name} has no argument {unknown[0]!r}.{hint} It takes: {', '.join(allowed)}."
            )
        try:
            return _compact(await super().run(arguments, context, convert_result))
        except ToolError as error:
            raise _in_our_words(self.name, error) from error


def _compact(result: Any) -> Any:
    """The same reply with its text on one line: indentation is a third of the bytes, and a model pays for each."""
    if isinstance(result, CallToolResult) and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
        result.content = [TextContent(type="text", text=text)]
    return result


def _in_our_words(tool: str, error: ToolError) -> ToolError:
    """The same refusal without the SDK's prefix, and argument errors one a line."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        lines = [
            f"{'.'.join(str(p) for p in e['loc']) or 'arguments'}: {e['msg']} (got {e['input']!r:.80})"
            for e in cause.errors(include_url=False)
        ]
        return ToolError(f"bad_argument: {tool} was called with {'; '.join(lines)}. Correct it and call again.")
    if isinstance(cause, Refused):
        return ToolError(str(cause))
    if isinstance(cause, ToolError):
        return ToolError(str(cause))
    if isinstance(cause, Fault):
        return ToolError(f"{cause}. {TRY_AGAIN}")
    if isinstance(cause, JournalError):
        return ToolError(
            f"journal_error: {cause} The engine has stopped; nothing unsaved took effect. Free the disk, call again."
        )
    return error


def expose(
    function: Callable[..., Awaitable[Any]], *, title: str, read_only: bool = False, destructive: bool = False
) -> Tool:
    """A tool out of an async function whose annotations are its schema and whose docstring is its description."""
    tool = StrictTool.from_function(
        function,
        title=title,
        description=_description(function),
        annotations=ToolAnnotations(
            title=title,
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=read_only,
            open_world_hint=False,
        ),
    )
    slim(tool.parameters)
    tool.parameters["additionalProperties"] = False
    if tool.fn_metadata.output_schema is not None:
        slim(tool.fn_metadata.output_schema)
    return tool


def _description(function: Callable[..., Any]) -> str:
    lines = (function.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines)


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
