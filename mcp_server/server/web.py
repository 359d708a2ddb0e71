"""MCP over Streamable HTTP: the SDK's own application, on this machine, for whoever has the bearer token.

A web page that the user has open can reach this port too: the token keeps it out, and so do the checks of Host and
Origin, should it ever learn the token. There are no CORS headers.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from mcp_server.errors import Code, Fault, Refused
from mcp_server.server.app import build
from mcp_server.server.following import Following
from mcp_server.server.resources import listed
from mcp_server.server.session import Hosting, Session

TOKEN_FILE = "http.token"  # noqa: S105
TOKEN_VARIABLE = "EPICWAVE_HTTP_TOKEN"  # noqa: S105
TOKEN_LENGTH = 16
"""Characters that a token of the user's has at least."""
BODY_BYTES = 16 * 2**20
"""A larger request is refused (413)."""
SESSIONS = 100
"""Clients of the older protocols at once."""
END_S = 1
"""Answers that are under way at the end have so long, in seconds."""

log = logging.getLogger("epicwave")


@dataclass(frozen=True, slots=True)
class Address:
    """Where it listens, and for whom."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"http://{_bracketed(self.host)}:{self.port}/mcp"


def is_loopback(host: str) -> bool:
    """True when nobody outside this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any that is free. Raises `Refused(bad_argument)`."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise Refused(
            Code.BAD_ARGUMENT,
            f"Nothing can listen on {host}, port {port}: {error}.",
            "Name another one with --port (0 is any that is free) or --host.",
        ) from error


@asynccontextmanager
async def token_in(state: Path, given: str = "") -> AsyncGenerator[tuple[str, str]]:
    """The token, and where the user finds it, for as long as the block lasts.

    It is the given one, else that of the environment, from which it is taken so that no child of ours inherits it,
    else a new one in a file that only the user can read.
    """
    from_environment = os.environ.pop(TOKEN_VARIABLE, "")
    if given or from_environment:
        yield given or checked(from_environment, TOKEN_VARIABLE), "the one that you have given"
        return
    path, token = state / TOKEN_FILE, secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(token)
    try:
        yield token, f"in {path}"
    finally:
        path.unlink(missing_ok=True)


def checked(token: str, source: str) -> str:
    """The token if it can be one. Raises `Refused(bad_argument)`, without telling it."""
    if len(token) >= TOKEN_LENGTH and token.isascii() and token.isprintable() and " " not in token:
        return token
    raise Refused(
        Code.BAD_ARGUMENT,
        f"The token in {source} is none: it needs {TOKEN_LENGTH} printable ASCII characters at least, and no space.",
        "Make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`.",
    )


async def serve(start: Path, hosting: Hosting, listener: socket.socket, address: Address) -> None:
    """Serve clients until cancelled; then end in order, within `END_S` and a moment."""
    async with anyio.create_task_group() as clients:
        server = build(start)._lowlevel_server  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as in stdio.py

        @asynccontextmanager
        async def lifespan(_server: object) -> AsyncGenerator[Session]:
            yield Session(start, hosting, Following(clients))  # of nobody: see `_Apart`

        server.lifespan = lifespan
        server.middleware.insert(0, _Apart(start, hosting, clients))
        app = server.streamable_http_app(
            transport_security=_security(address),
            max_request_body_size=BODY_BYTES,
            max_sessions=SESSIONS,
            auth=AuthSettings(issuer_url=AnyHttpUrl(address.url), resource_server_url=None),
            token_verifier=_Verifier(address.token),
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=END_S,
        )
        await _run(_Server(config), listener)
        clients.cancel_scope.cancel()


def _security(address: Address) -> TransportSecuritySettings:
    names = {_bracketed(address.host), "127.0.0.1", "localhost", "[::1]"}
    if not is_loopback(address.host):
        names |= {socket.gethostname(), socket.getfqdn()}
    places = [f"{name}:{address.port}" for name in sorted(names)]
    return TransportSecuritySettings(allowed_hosts=places, allowed_origins=[f"http://{place}" for place in places])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """One that leaves signals to whoever runs it."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until `should_exit`."""
        await self._serve(sockets)


async def _run(server: _Server, listener: socket.socket) -> None:
    """Until cancelled. Its own end is shielded, and bounded by itself."""

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await server.serve([listener])

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)
        try:
            await anyio.sleep_forever()
        finally:
            server.should_exit = True


class _Verifier:
    """Knows one token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who it is; None for a stranger."""
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return None
        return AccessToken(token="", client_id="the user", scopes=[])


class _Apart:
    """Gives each client a `Session` of its own: the SDK has one for all of a process.

    A client is a session of the older protocols, or one request of 2026-07-28, which has no sessions; a stream of
    `subscriptions/listen` is one request too.
    """

    def __init__(self, start: Path, hosting: Hosting, clients: anyio.abc.TaskGroup) -> None:
        self._start = start
        self._hosting = hosting
        self._clients = clients

    async def __call__(self, ctx: ServerRequestContext[Session, Any], call_next: CallNext) -> HandlerResult:
        connection = ctx.session._connection  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - 2.3 shows no other key
        session = connection.state.get(_Apart.__name__)
        if session is None:
            gone = anyio.Event()
            group: anyio.abc.TaskGroup = await self._clients.start(_stay, gone)
            session = Session(self._start, self._hosting, Following(group))
            connection.state[_Apart.__name__] = session
            connection.exit_stack.callback(gone.set)
        if ctx.method == "subscriptions/listen":  # nobody has asked this session for the list before
            with suppress(Refused, Fault):
                ledger = (await session.host()).ledger()
                session.following.names = [resource.uri for resource in listed(ledger)]
        return await call_next(replace(ctx, lifespan_context=session))


async def _stay(gone: anyio.Event, *, task_status: anyio.abc.TaskStatus[anyio.abc.TaskGroup]) -> None:
    """What runs for one client, as long as it is there; an error in it is nobody else's."""
    try:
        async with anyio.create_task_group() as group:
            task_status.started(group)
            await gone.wait()
            group.cancel_scope.cancel()
    except ExceptionGroup:
        log.exception("what a client follows was ended by an error")
