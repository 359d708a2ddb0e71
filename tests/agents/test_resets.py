"""The moment at which a rate limit is over is read from the words of the agents and of their providers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.adapters.agents.resets import MAX_WAIT_S, believed, reset_at_s

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
"""A Sunday afternoon, 3 o'clock in Berlin."""
NOW_S = NOW.timestamp()
HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize(
    ("text", "in_s"),
    [
        # Claude Code: 2.1.330 as run here, 2.1.187 to 2.1.215 from its issues 77978 and 79136, 1.0.x from 2490 and 6119
        ("You've hit your limit · resets 3:40pm (UTC)", 100 * 60),
        ("You've hit your session limit · resets 12:50am (America/Los_Angeles)", 18 * HOUR + 50 * 60),
        ("You've hit your limit - resets Nov 27, 11am (Asia/Seoul)/login to switch", 4 * DAY + 12 * HOUR),
        ("5-hour limit reached ∙ resets 6pm", 3 * HOUR),
        ("Claude usage limit reached. Your limit will reset at 5pm (Europe/Warsaw).", 2 * HOUR),
        (f"Claude AI usage limit reached|{int(NOW_S) + 1234}", 1234),
        # Codex: its error.rs, and its issue 3899 for the older wording
        ("You've hit your usage limit. Try again at 5:05 PM.", 2 * HOUR + 5 * 60),
        (
            "Upgrade to Pro (https://x/pro), visit https://x/usage or try again at Nov 26th, 2026 3:05 PM.",
            4 * DAY + 300,
        ),
        ("or try again in 2 days 17 hours 14 minutes.", 2 * DAY + 17 * HOUR + 14 * 60),
        (f'{{"type":"usage_limit_reached","plan_type":"plus","resets_at":{NOW_S + 99:.0f}}}', 99),
        ('{\\"resets_in_seconds\\":13872}', 13_872),
        # the OpenAI API, as in Codex's issue 88
        ("Limit 200000, Used 162960. Please try again in 1.574s. Visit https://platform.openai.com", 1.574),
        ("Please try again in 450ms.", 0.45),
        ("Please try again in 1h2m.", 3720),
        ("Please try again in 20s.", 20),
        ("try again in less than a minute", 60),
        # Gemini
        ("You have exhausted your capacity on this model. Your quota will reset after 13h20m8s.", 48_008),
        ("Please retry in 39.2s.", 39.2),
        ('"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "51820.6s"', 51_820.6),
        ("Usage limit reached for all Pro models.\nAccess resets at 11:00 PM GMT+2.", 7 * HOUR),
        # headers and others
        ("retry-after: 30", 30),
        ("retry-after: 30.", 30),
        ("{'retry-after': '120', 'x': '1'}", 120),
        ("Retry after 15 seconds", 15),
        (f"anthropic-ratelimit-unified-reset: {int(NOW_S) + 7200}", 7200),
        ("Quota will reset at 2026-11-23T00:00:00Z", 10 * HOUR),
        ("retry not before 2026-11-22T16:30:00+01:00", 1.5 * HOUR),
        ("limited until 2026-11-22 16:30", 1.5 * HOUR),
        ("try again in 2 days, 17 hours and 14 minutes", 2 * DAY + 17 * HOUR + 14 * 60),
        ("resets Nov 28 at 3pm", 6 * DAY),
        ("available again at 15:30", 30 * 60),
    ],
)
def test_the_moment_is_read(text: str, in_s: float) -> None:
    moment = reset_at_s(text, NOW_S, BERLIN)
    assert moment is not None
    assert moment - NOW_S == pytest.approx(in_s, abs=0.001)


@pytest.mark.parametrize(
    "text",
    [
        "Rate limit exceeded. Please try again later.",
        "You've hit your limit",
        "resets 3",
        "resets 13pm",
        "resets at 25:99",
        "resets Feb 30 at 3pm",
        "resets Foo 3 at 3pm",
        "resets 5pm (Mars/Base)",  # hours off would be worse than not knowing
        "resets 5pm (Europe)",
        "5 stories in 3 minutes",
        "12:30 started, 14:30 done",
        "2026-11-22T16:00:00Z ERROR too many requests",
        f"usage limit reached|{'9' * 13}",
        "try again at 10 de jul. de 2026, 11:52",
    ],
)
def test_what_names_no_moment_gives_none(text: str) -> None:
    assert reset_at_s(text, NOW_S, BERLIN) is None


@pytest.mark.parametrize(
    "text",
    [
        f"usage limit reached|{int(NOW_S) - 1}",
        "resets Nov 21 at 3pm",
        "resets 2:58pm",  # two minutes ago: not tomorrow's
        "resets 3pm",
        "resets Dec 5 at 3pm",
        "Your limit will reset after 9 days",
        "resets Jan 3 at 1am",
    ],
)
def test_what_is_past_or_too_far_ahead_is_not_believed(text: str) -> None:
    assert reset_at_s(text, NOW_S, BERLIN) is None


def test_a_date_without_a_year_is_the_nearest_one() -> None:
    eve = datetime(2026, 12, 31, 22, 0, tzinfo=BERLIN).timestamp()
    assert reset_at_s("resets Jan 2 at 10pm", eve, BERLIN) == eve + 2 * DAY


def test_a_time_of_day_is_that_of_its_zone_across_the_change_of_the_clocks() -> None:
    evening = datetime(2026, 10, 24, 20, 0, tzinfo=BERLIN).timestamp()
    assert reset_at_s("resets 8am", evening, BERLIN) == evening + 13 * HOUR


def test_of_several_moments_the_last_counts() -> None:
    assert reset_at_s("try again in 20s\ntry again in 3m", NOW_S) == NOW_S + 180


def test_of_two_kinds_the_more_precise_counts() -> None:
    assert reset_at_s(f"resets_at: {int(NOW_S) + 6042}, resets 3:40pm (UTC)", NOW_S) == NOW_S + 6042
    assert reset_at_s("try again at 4:30 PM\nretry-after: 5405", NOW_S, BERLIN) == NOW_S + 5405


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the machine's zone cannot be set here")
def test_a_time_without_a_zone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert reset_at_s("resets 11:30pm", NOW_S) == NOW_S + 1800
        assert reset_at_s("resets at 2026-11-22T23:30:00", NOW_S) == NOW_S + 1800
    finally:
        monkeypatch.undo()
        time.tzset()


def test_eight_days_are_the_most() -> None:
    assert believed(NOW_S + MAX_WAIT_S, NOW_S) == NOW_S + MAX_WAIT_S
    assert believed(NOW_S + MAX_WAIT_S + 1, NOW_S) is None
    assert believed(NOW_S, NOW_S) is None


_WORDS = st.sampled_from(
    [
        "resets ",
        "try again in ",
        "retry-after: ",
        "at ",
        "Dec 5",
        " 2026",
        "3pm",
        "12:30",
        "99",
        "1e9",
        " (UTC)",
        "|",
        "h",
        "m ",
    ]
)


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(_WORDS | st.text(max_size=5), max_size=12).map("".join))
def test_no_text_raises_and_no_answer_is_beyond_belief(text: str) -> None:
    moment = reset_at_s(text, NOW_S, BERLIN)
    assert moment is None or NOW_S < moment <= NOW_S + MAX_WAIT_S


def test_a_long_text_takes_no_time() -> None:
    """No pattern tries everything with everything: this would take hours."""
    began = time.monotonic()
    pieces = ["resets 1 day ", "1 day ", "try again in 1", "1", "reset" + " " * 50, "available again "]
    for text in [piece * (20_000 // len(piece)) for piece in pieces] + ["retry" + c * 20_000 for c in ' \\"1']:
        reset_at_s(text, NOW_S)
    assert time.monotonic() - began < 5
