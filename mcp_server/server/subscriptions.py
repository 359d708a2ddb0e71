"""Telling those who asked for it: a resource has changed, or there are new ones.

In protocol 2026-07-28 a client opens a stream (`subscriptions/listen`) that names what it wants to hear of; before it,
`resources/subscribe` names one resource, and changes of the list are told to everybody. Nothing is watched for nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp_types import (
    EmptyResult,
    NotificationParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from mcp_server.core.model import Ledger
from mcp_server.errors import Fault, Refused
from mcp_server.server.following import Told
from mcp_server.server.host import Host
from mcp_server.server.pages import place_of
from mcp_server.server.resources import listed, text_of
from mcp_server.server.session import Session

CALM_S = 0.2
"""Between two looks, in seconds: a burst of facts is told once."""
LIST_S = 2.0
"""Between two looks for new epics, in seconds; those that the client plans itself are told at once."""
AGAIN_S = 5.0
"""A look in any case, in seconds: an engine that ends tells nobody."""
LATER_S = 60.0
"""Until the next look where nothing can be read, in seconds: an editor may be open all day in no repository."""

PLANS = "plan_epic"
"""The tool that makes new resources."""

Request = ServerRequestContext[Session, Any]
Tell = Callable[[str], Awaitable[None]]


def attach(server: Server[Session]) -> None:
    """Answer what is asked about subscriptions, in every protocol."""
    server.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, listen)
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    server.add_notification_handler("notifications/initialized", NotificationParams, greeted)


# --- 2026-07-28 -------------------------------------------------------------------------------------------------------


async def listen(ctx: Request, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
    """One stream, from its opening to its end; what it follows is looked at for as long."""
    wanted, session = params.notifications, ctx.lifespan_context
    bus = InMemorySubscriptionBus()
    stream = ListenHandler(bus)

    async def updated(uri: str) -> None:
        await bus.publish(ResourceUpdated(uri=uri))

    async def list_changed() -> None:
        await bus.publish(ResourcesListChanged())

    uris = wanted.resource_subscriptions or []
    if not uris and not wanted.resources_list_changed:
        return await stream(ctx, params)
    if wanted.resources_list_changed:
        session.following.list_tells.add(list_changed)
    follower = _start(session, await _pages(session, uris) if uris else {}, updated)
    try:
        return await stream(ctx, params)
    finally:
        follower.cancel()
        session.following.list_tells.discard(list_changed)


# --- before it --------------------------------------------------------------------------------------------------------


async def greeted(ctx: Request, _params: NotificationParams) -> None:
    """A client of an older protocol is there: it hears of a changed list without asking."""
    ctx.lifespan_context.following.list_tells.add(ctx.session.send_resource_list_changed)


async def subscribe(ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
    """Follow one resource, planned or not, for the client of an older protocol."""
    session = ctx.lifespan_context
    following = session.following
    following.told |= await _pages(session, [params.uri])
    if following.scope is None:
        following.scope = _start(session, following.told, ctx.session.send_resource_updated)
    return EmptyResult()


async def unsubscribe(ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
    """Follow it no more; with the last one the watch ends."""
    following = ctx.lifespan_context.following
    following.told.pop(params.uri, None)
    if not following.told and following.scope is not None:
        following.scope.cancel()
        following.scope = None
    return EmptyResult()


# --- both -------------------------------------------------------------------------------------------------------------


async def overhear(ctx: Request, call_next: CallNext) -> HandlerResult:
    """Tell of an epic that a call has just planned; and promise the older protocols, in `initialize`, to do so."""
    plans = ctx.method == "tools/call" and (ctx.params or {}).get("name") == PLANS
    if plans:
        await _look_at_list(ctx.lifespan_context)
    result = await call_next(ctx)
    if plans:
        await _look_at_list(ctx.lifespan_context)
    elif isinstance(result, dict) and ctx.method == "initialize":
        result["capabilities"]["resources"]["listChanged"] = True
    elif isinstance(result, dict) and ctx.method == "resources/list":
        ctx.lifespan_context.following.names = [resource["uri"] for resource in result["resources"]]
    return result


def _start(session: Session, told: Told, tell: Tell) -> anyio.CancelScope:
    """A follower, and the scope that ends it."""
    scope = anyio.CancelScope()

    async def follow() -> None:
        with scope:
            await _follow(session, told, tell)

    session.following.group.start_soon(follow, name="follower")
    return scope


async def _follow(session: Session, told: Told, tell: Tell) -> None:
    """Tell of each page that has changed, until cancelled. What cannot be read now is looked at again later."""
    seq = -1
    while True:
        if not told:  # only the list: nothing is opened while the server starts
            await anyio.sleep(LIST_S)
        try:
            host = await session.host()
            ledger = host.ledger()
            if ledger.seq != seq:
                seq = ledger.seq
                await _tell_list(session, ledger)
                await _tell_pages(host, ledger, told, tell)
            if told:
                await anyio.sleep(CALM_S)
                await host.wait_for(lambda now, seen=seq: now.seq != seen, AGAIN_S)
        except (Refused, Fault):
            await anyio.sleep(LATER_S)


async def _look_at_list(session: Session) -> None:
    if not session.following.list_tells:
        return
    try:
        await _tell_list(session, (await session.host()).ledger())
    except (Refused, Fault):
        return  # the call itself says what is wrong


async def _tell_list(session: Session, ledger: Ledger) -> None:
    following, names = session.following, [resource.uri for resource in listed(ledger)]
    known, following.names = following.names, names
    if known is not None and known != names:
        for tell in list(following.list_tells):
            await tell()


async def _pages(session: Session, uris: Iterable[str]) -> Told:
    """The pages that a follower starts from; empty ones where nothing can be read."""
    try:
        host = await session.host()
        ledger = host.ledger()
    except (Refused, Fault):
        return dict.fromkeys(uris, "")
    return {uri: _page(host, ledger, uri) for uri in uris}


async def _tell_pages(host: Host, ledger: Ledger, told: Told, tell: Tell) -> None:
    for uri in list(told):
        page = _page(host, ledger, uri)
        if told.get(uri, page) != page:
            told[uri] = page
            await tell(uri)


def _page(host: Host, ledger: Ledger, uri: str) -> str:
    """The page without times, which always change; empty when there is none."""
    place = place_of(uri)
    if place is None:
        return ""
    try:
        return text_of(host, ledger, place, 0.0)
    except Refused:
        return ""
