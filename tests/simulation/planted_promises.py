"""Bugs of the policies, planted on purpose: each breaks a promise that somebody outside of the engine can see."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_server.core import breakers, leases, outcomes, settle, spending, steer
from mcp_server.engine import jobs, lifecycle, merging
from mcp_server.engine.engine import Engine
from mcp_server.testing.breach import Promise
from tests.simulation.test_planted_bugs import Bug


@dataclass(frozen=True, slots=True)
class Seen:
    """A bug, and the promise that lives see broken by it."""

    bug: Bug
    promise: Promise


BUGS = [
    Seen(
        Bug("a half open breaker lets everybody through", breakers.held, "breaker.probe is not None", "False"),
        Promise.BREAKER,
    ),
    Seen(
        Bug("an open breaker holds nothing", breakers.held, "breaker.until_s > ledger.as_of_s", "False"),
        Promise.BREAKER,
    ),
    Seen(
        Bug("a parked profile goes on", breakers.held, "breaker.parked_until_s > ledger.as_of_s", "False"),
        Promise.HELD,
    ),
    Seen(
        Bug(
            "a cool-down is over at once",
            breakers._faulted,  # pyright: ignore[reportPrivateUsage] - bugs may be anywhere
            "until_s = at_s + cooldown_s(",
            "until_s = at_s + 0.0 * cooldown_s(",
        ),
        Promise.BREAKER,
    ),
    Seen(
        Bug("a named reset is not believed", breakers._parked, "fact.resumes_at_s", "None"),  # pyright: ignore[reportPrivateUsage]
        Promise.HELD,
    ),
    Seen(
        Bug(
            "what waited to be claimed has worked",
            outcomes._running,  # pyright: ignore[reportPrivateUsage]
            "since_s=event.at_s, ",
            "",
        ),
        Promise.BREAKER,
    ),
    Seen(
        Bug(
            "the world's doing costs attempts",
            outcomes._is_free,  # pyright: ignore[reportPrivateUsage]
            "event.cause in WORLDS_DOING or",
            "",
        ),
        Promise.BREAKER,
    ),
    Seen(
        Bug(
            "a rate limit costs an attempt",
            outcomes._is_free,  # pyright: ignore[reportPrivateUsage]
            "event.cause is Cause.RATE_LIMIT",
            "False",
        ),
        Promise.BREAKER,
    ),
    Seen(Bug("trouble is not recognised", jobs._verdict, "end.trouble is not None", "False"), Promise.TOLD),  # pyright: ignore[reportPrivateUsage]
    # --- what the lead says
    Seen(
        Bug("a paused epic starts stories", settle._next, "epic.paused or ", ""),  # pyright: ignore[reportPrivateUsage]
        Promise.HELD,
    ),
    Seen(Bug("a paused epic is claimed from", leases.claimable, "epic.paused or", ""), Promise.HELD),
    Seen(
        Bug("a skipped story comes back under those at work", steer._retry, "if built_on:", "if False:"),  # pyright: ignore[reportPrivateUsage]
        Promise.STATE,
    ),
    # --- budgets and time
    Seen(
        Bug(
            "a wave has no end",
            settle._on_time,  # pyright: ignore[reportPrivateUsage]
            "deadline is not None and deadline <= now_s",
            "False",
        ),
        Promise.HELD,
    ),
    Seen(
        Bug(
            "a story that has spent its budget is tried again",
            outcomes._ended,  # pyright: ignore[reportPrivateUsage]
            "story_share(story, policy.budget) >= 1.0",
            "False",
        ),
        Promise.BUDGET,
    ),
    Seen(
        Bug("what an epic has used is not counted", spending.told, "used=epic.used.plus(more)", "used=epic.used"),
        Promise.BUDGET,
    ),
    # --- the engine
    Seen(
        Bug(
            "some facts are never stored",
            Engine.submit,
            "self.ports.journal.append([event])",
            "self.ports.journal.append([event] if int(event.at_s) % 7 else [])",
        ),
        Promise.REPLAY,
    ),
    Seen(
        Bug(
            "a refused merge throws the work away",
            merging._kept,  # pyright: ignore[reportPrivateUsage]
            "await saved_work(context.ports, attempt)",
            "await context.ports.merge.forget(attempt)",
        ),
        Promise.LOST,
    ),
    Seen(
        Bug(
            "recovery runs an attempt again that git has",
            lifecycle.is_over,
            "story.state not in LIVE | {StoryState.MERGING}",
            "True",
        ),
        Promise.LOST,
    ),
]
