"""The tool that looks: how far an epic is, and why a story is not running."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.core.breakers import holding_names
from mcp_server.core.landing import since_landing
from mcp_server.core.model import LIVE, SETTLED, Breaker, Epic, Ledger, Story, StoryState, is_team
from mcp_server.core.policy import jitter, poll_after_s
from mcp_server.core.steer import epic_of, story_of
from mcp_server.core.views import EpicState, counts, epic_state, is_at_rest, question
from mcp_server.errors import Code, Refused
from mcp_server.server.ask import client_name
from mcp_server.server.host import Host
from mcp_server.server.paging import (
    ENTRIES_MAX,
    REPLY_TOKENS,
    Entry,
    cost,
    cut_totals,
    go_on,
    lists,
    named,
    page,
    totals,
)
from mcp_server.server.session import Session
from mcp_server.server.wire import EpicStatus, StatusReply, StoryDetail, StoryLine, detail_entries

WAIT_MAX_S = 3600.0
"""A host that runs long calls in the background wakes its lead when one ends; for all others 45 s is advised."""
ADVISED_S = 45
"""Some hosts cut tool calls off after a minute."""
PROGRESS_S = 30.0
"""A client that asked for progress is told so often that its call is alive, in seconds."""
FULL, SHORT, SHORTEST = (24, 160), (10, 40), (0, 30)
"""Tokens of a title and of a reason: what fits is told in full, else the titles go first."""

_Pair = tuple[Epic, Story]

_MOVES = LIVE | {StoryState.MERGING}
_REST = (
    StoryState.FAILED,
    StoryState.QUEUED,
    StoryState.PENDING,
    StoryState.CANCELLED,
    StoryState.SKIPPED,
    StoryState.MERGED,
)


async def story_status(
    ctx: Context[Session],
    epic: Annotated[str | None, Field(description="Leave out for all epics.")] = None,
    story: Annotated[str | None, Field(description="One story, with its log and last failure.")] = None,
    since: Annotated[int | None, Field(description="Cursor of an earlier reply: only what changed after it.")] = None,
    wait_s: Annotated[float, Field(ge=0, le=WAIT_MAX_S, description="Wait so long for news.")] = 0,
    offset: Annotated[int, Field(ge=0, description="more_offset of the last reply.")] = 0,
) -> StatusReply:
    """How far an epic is, and why each story that is not running is not.

    With wait_s it returns when a story has ended or needs you, or at once when nothing moves: never poll.
    """
    session = ctx.request_context.lifespan_context
    host = await session.host()
    await host.wake()
    if story is not None and epic is None:
        raise Refused(Code.BAD_ARGUMENT, f"The story {story!r} was named without its epic.", "Pass epic=... with it.")
    ledger = host.ledger()
    if epic is not None:
        chosen = epic_of(ledger, epic)
        if story is not None:
            story_of(chosen, story)
    asked = _Asked(epic, story, since, wait_s, offset)
    if wait_s > 0:
        ledger = await _wait(ctx, host, asked, ledger.seq if since is None else since)
    words = session.words(ledger, ledger.epics[epic], client_name(ctx)) if epic is not None else {}
    return await _reply(host, ledger, asked, words)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call's arguments."""

    epic: str | None
    story: str | None
    since: int | None
    wait_s: float
    offset: int

    def scope(self, ledger: Ledger) -> list[_Pair]:
        """The stories that are asked about."""
        epics = [ledger.epics[self.epic]] if self.epic is not None else list(ledger.epics.values())
        return [(e, s) for e in epics for s in e.stories.values() if self.story in (None, s.spec.id)]


async def _wait(ctx: Context[Session], host: Host, asked: _Asked, cursor: int) -> Ledger:
    """The state when there is news, or when the time is up."""
    news = _news(asked, cursor)
    began_s = anyio.current_time()
    while True:
        left_s = began_s + asked.wait_s - anyio.current_time()
        ledger = await host.wait_for(news, max(0.0, min(left_s, PROGRESS_S)))
        if left_s <= PROGRESS_S or news(ledger):
            return ledger
        said = ", ".join(f"{n} {state}" for e in ledger.epics.values() for state, n in counts(e).items())
        await ctx.report_progress(anyio.current_time() - began_s, asked.wait_s, said[:200])


def _news(asked: _Asked, cursor: int) -> Callable[[Ledger], bool]:
    """True when a lead would do something now. A healthy story that moves on is no news: each waking costs a turn."""

    def happened(ledger: Ledger) -> bool:
        scope = asked.scope(ledger)
        if any(story.changed > cursor and _concerns_the_lead(epic, story) for epic, story in scope):
            return True
        if any(b.changed > cursor and (b.opened or b.parked_until_s) for b in _breakers(ledger, scope)):
            return True
        is_over = asked.story is not None and all(story.state in SETTLED for _, story in scope)
        return is_over or all(is_at_rest(ledger, epic) for epic, _ in scope)

    return happened


def _breakers(ledger: Ledger, scope: Iterable[_Pair]) -> list[Breaker]:
    """Those that hold back stories that are asked about."""
    names = frozenset[str]().union(*(holding_names(epic) for epic in {e.spec.id: e for e, _ in scope}.values()))
    return [breaker for name, breaker in ledger.breakers.items() if name in names]


def _concerns_the_lead(epic: Epic, story: Story) -> bool:
    """It has ended; or it waits, for an answer or for a sub-agent, and only a lead can give it either.

    What is blocked by a failure is told with that failure.
    """
    if story.state in SETTLED:
        return True
    put_back = story.state in (StoryState.QUEUED, StoryState.PENDING) and story.failure is not None
    return is_team(epic) and (put_back or story.state is StoryState.OFFERED)


async def _reply(host: Host, ledger: Ledger, asked: _Asked, words: Mapping[str, Any]) -> StatusReply:
    now_s = host.world.clock.now_s()
    scope = asked.scope(ledger)
    epics = [ledger.epics[name] for name in dict.fromkeys(e.spec.id for e, _ in scope)]
    summaries = named("epics", (EpicStatus.of(ledger, e, title=asked.since is None) for e in epics))
    stories = [] if asked.epic is None else scope
    if asked.since is not None:
        stories = [(e, s) for e, s in scope if s.changed > asked.since]
    polls = asked.wait_s == 0 and any(not is_at_rest(ledger, e) for e in epics)
    last_change_s = max((s.since_s for _, s in scope), default=now_s)
    rest = StatusReply(
        cursor=ledger.seq,
        changed=asked.since is None or bool(stories),
        poll_after_s=round(poll_after_s(now_s - last_change_s, share=jitter(ledger.seq)), 1) if polls else 0,
        next=_next(ledger, epics),
    ).model_copy(update=words)
    if asked.story is None:
        return _listed(ledger, asked, now_s, rest, summaries, stories)
    [(epic, story)] = scope
    line = StoryLine.of(ledger, epic, story, now_s, title=FULL[0], text=FULL[1])
    detail = detail_entries(epic, story, line.why, *await host.world.log_tail(epic.spec.id, story))
    return _page(rest, [*summaries, ("stories", line), *detail], asked.offset)


def _listed(
    ledger: Ledger, asked: _Asked, now_s: float, rest: StatusReply, summaries: list[Entry], stories: list[_Pair]
) -> StatusReply:
    """All stories in the order of the epic when they fit, in full if possible; else by interest, a page at a time."""

    def lines(pairs: Iterable[_Pair], room: tuple[int, int]) -> list[Entry]:
        made = (
            StoryLine.of(ledger, epic, story, now_s, title=room[0], text=room[1], named=asked.epic is None)
            for epic, story in pairs
        )
        return named("stories", made)

    if asked.offset == 0 and len(summaries) + len(stories) <= ENTRIES_MAX:
        for room in (FULL, SHORT, SHORTEST):
            whole = _filled(rest, [*summaries, *lines(stories, room)], None)
            if cost(whole) <= REPLY_TOKENS:
                return whole
    stories = sorted(stories, key=_interest)
    skipped = max(0, asked.offset - len(summaries))
    near = stories[skipped : skipped + ENTRIES_MAX]  # only what may be on the page is put into words
    entries = [*summaries, *named("stories", stories)]
    entries[len(summaries) + skipped : len(summaries) + skipped + len(near)] = lines(near, SHORTEST)
    return _page(rest, entries, asked.offset)


def _page(rest: StatusReply, entries: Sequence[Entry], offset: int) -> StatusReply:
    """The page that begins at `offset`; the first says how long each list is."""
    whole = totals(entries) if offset == 0 else {}
    return page(entries, offset, lambda shown, more: _filled(rest, shown, more, cut_totals(whole, shown)))


def _filled(
    rest: StatusReply, shown: Sequence[Entry], more: int | None, longer: Mapping[str, int] | None = None
) -> StatusReply:
    """The reply with these entries."""
    found = lists(shown)
    epics, stories = found.pop("epics", []), found.pop("stories", [])
    return rest.model_copy(
        update={
            "epics": epics,
            "stories": stories,
            "detail": StoryDetail.of(found) if found else None,
            "totals": dict(longer or {}),
            "more_offset": more,
            "next": go_on(more) + rest.next,
        }
    )


def _interest(pair: _Pair) -> int:
    """Place in a list that has to be cut: who asks something comes first, then what moves, then what failed."""
    story = pair[1]
    if question(story):
        return -2
    return -1 if story.state in _MOVES else _REST.index(story.state)


def _next(ledger: Ledger, epics: list[Epic]) -> str:
    """The next move for a lead that has just this reply."""
    if not epics:
        return "No epic is planned here: call plan_epic."
    if len(epics) > 1:
        return "Ask with epic=... for one epic's stories."
    epic, name = epics[0], epics[0].spec.id
    wait = f"story_status(epic={name!r}, since={ledger.seq}, wait_s={ADVISED_S})"
    match epic_state(ledger, epic):
        case EpicState.ACTIVE:
            return f"{wait} returns when a story has ended."
        case EpicState.PAUSED if epic.paused:
            return f"steer_epic(epic={name!r}, action='resume') lets stories start again."
        case EpicState.PAUSED:
            return f"It goes on by itself when what `alerts` tells of is over: {wait}. steer_epic resumes it at once."
        case EpicState.DONE:
            if epic.landed is not None and not since_landing(epic):
                return "All of it has landed: nothing is left to do."
            return f"All stories are merged on epicwave/{name}. When the user says so: land_epic(epic={name!r})."
        case EpicState.PLANNED | EpicState.READY:
            return f"start_wave(epic={name!r}) starts the ready stories; through='all' runs to the end."
        case EpicState.BLOCKED | EpicState.CANCELLED:
            return f"Read why, mend it, then start_wave(epic={name!r}, retry=true)."
