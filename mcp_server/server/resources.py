"""Resources: an epic, a story, a brief, to be read and mentioned. Reading changes nothing and opens no engine."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from mcp_server.core.limits import Strategy
from mcp_server.core.model import Ledger
from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.host import Host
from mcp_server.server.pages import ALL, BRIEF, EPIC, STORY, Place, newest_first, page, place_of
from mcp_server.server.session import Session
from mcp_server.server.wire import cut

MARKDOWN = "text/markdown"
LISTED_MAX = 100
"""Resources in a list: epics, then stories, then briefs, the newest epic's first. Every other one has its template."""
TITLE_MAX = 80
"""Characters of a title in a list."""
COMPLETED_MAX = 100
"""Values of one completion, by the protocol."""

Request = ServerRequestContext[Session, Any]


def text_of(host: Host, ledger: Ledger, place: Place, now_s: float) -> str:
    """The page of a place. Raises `Refused`."""
    return page(ledger, place, now_s, lambda: host.world.settings().policy())


def listed(ledger: Ledger) -> list[Resource]:
    """The resources that an editor offers to its user: titles and addresses, and no state, which would change.

    Claude Code lets its user mention only what is listed; templates are for programs.
    """
    epics = newest_first(ledger)
    found = [Resource(uri=ALL, name="epics", title="All epics", mime_type=MARKDOWN)]
    for epic in epics:
        uri, title = EPIC.format(epic=epic.spec.id), cut(epic.spec.title, TITLE_MAX)
        found.append(Resource(uri=uri, name=epic.spec.id, title=title, mime_type=MARKDOWN))
    for kind, what in ((STORY, "story"), (BRIEF, "brief")):
        for epic in epics:
            for story in epic.spec.stories[: max(0, LISTED_MAX - len(found))]:
                uri = kind.format(epic=epic.spec.id, story=story.id)
                name, title = f"{what} {epic.spec.id}/{story.id}", cut(story.title, TITLE_MAX)
                found.append(Resource(uri=uri, name=name, title=title, mime_type=MARKDOWN))
    return found[:LISTED_MAX]


async def list_resources(ctx: Request, _params: PaginatedRequestParams) -> ListResourcesResult:
    """The page of all epics, and those of each; only the first outside a repository."""
    try:
        ledger = (await ctx.lifespan_context.host()).ledger()
    except Refused:  # a host lists by itself, unasked; whoever reads or calls is told what is wrong
        ledger = Ledger()
    return ListResourcesResult(resources=listed(ledger))


async def list_templates(_ctx: Request, _params: PaginatedRequestParams) -> ListResourceTemplatesResult:
    """The three kinds of address."""
    kinds = {
        EPIC: ("epic", "Epic", "How far an epic is, and why"),
        STORY: ("story", "Story", "State, reason, last failure"),
        BRIEF: ("brief", "Brief", "What a story's agent gets"),
    }
    return ListResourceTemplatesResult(
        resource_templates=[
            ResourceTemplate(uri_template=uri, name=name, title=title, description=about, mime_type=MARKDOWN)
            for uri, (name, title, about) in kinds.items()
        ]
    )


async def read_resource(ctx: Request, params: ReadResourceRequestParams) -> ReadResourceResult:
    """The page of the URI. What cannot be shown is refused in words for whoever mentioned it."""
    try:
        place = _known_place(params.uri)
        host = await ctx.lifespan_context.host()
        text = text_of(host, host.ledger(), place, host.world.clock.now_s())
    except Refused as refused:
        raise MCPError(INVALID_PARAMS, str(refused), {"uri": params.uri}) from refused
    except Fault as fault:
        raise MCPError(INTERNAL_ERROR, str(fault), {"uri": params.uri}) from fault
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, text=text, mime_type=MARKDOWN)])


def _known_place(uri: str) -> Place:
    place = place_of(uri)
    if place is None:
        kinds = f"{ALL}, {EPIC}, {STORY}, {BRIEF}"
        raise Refused(Code.BAD_ARGUMENT, f"{uri[:200]!r} is no resource of epicwave.", f"There are {kinds}.")
    return place


async def complete(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
    """Ids of epics and stories, and the strategies, that begin with what was typed, in prompts and addresses alike."""
    try:
        ledger = (await ctx.lifespan_context.host()).ledger()
    except Refused:
        ledger = Ledger()
    given = (params.context.arguments if params.context is not None else None) or {}
    match params.argument.name:
        case "epic":
            values = [epic.spec.id for epic in newest_first(ledger)]
        case "story":
            epic = ledger.epics.get(given.get("epic", ""))
            values = list(epic.stories) if epic is not None else []
        case "strategy":
            values = [str(strategy) for strategy in Strategy]
        case _:
            values = []
    typed = params.argument.value.lower()
    chosen = [value for value in values if value.lower().startswith(typed)]
    more = len(chosen) > COMPLETED_MAX
    return CompleteResult(completion=Completion(values=chosen[:COMPLETED_MAX], total=len(chosen), has_more=more))


def attach(server: Server[Session]) -> None:
    """Answer what is asked about resources, and complete what is typed, instead of the SDK's static lists."""
    server.add_request_handler("resources/list", PaginatedRequestParams, list_resources)
    server.add_request_handler("resources/templates/list", PaginatedRequestParams, list_templates)
    server.add_request_handler("resources/read", ReadResourceRequestParams, read_resource)
    server.add_request_handler("completion/complete", CompleteRequestParams, complete)
