"""When a rate limit is over, as agents and their providers put it in words. Pure: the present is an argument.

The wordings are those of the tools themselves: Claude Code ("You've hit your limit · resets 3:40pm (UTC)", seen here
with 2.1.330; "Claude AI usage limit reached|1755615600" in older ones), Codex ("try again at Sep 26th, 2026 3:05 PM",
`codex-rs` error.rs; "try again in 2 days 17 hours 14 minutes" before it), the OpenAI API ("Please try again in
1.574s"), Gemini ("Your quota will reset after 12h22m45s", "Please retry in 39.2s", `"retryDelay": "51820.6s"`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_WAIT_S = 8 * 86_400
"""A weekly limit and a day. What is named beyond that is not believed."""
JUST_NOW_S = 900
"""A time of day that was so long ago is that of today, and over; agents round it to the minute."""
HALF_A_YEAR = timedelta(days=183)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNIT = r"(?:ms|millis(?:econds?)?|d(?:ays?)?|h(?:ours?|rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)(?![a-z])"
_PART = rf"\d{{1,9}}(?:\.\d+)?\s{{0,3}}{_UNIT}"
_COMES_BACK = r"(?:try(?:ing)?[ ]again|retry(?:ing)?|resets?|available(?:[ ]again)?|resume|wait)"
_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_CLOCK = r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s{0,3}(?P<half>[ap]\.?m\b\.?)?"
_DATE = r"(?P<month>[a-z]{3})[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(?P<year>\d{4}))?,?\s+(?:at\s+)?"
_ZONE = r"(?:\s*\((?P<zone>[A-Za-z0-9_+/:-]+)\)|\s+(?P<offset>(?:UTC|GMT)(?:[+-]\d{1,2}(?::\d\d)?)?)\b)?"

_IS = r"[\\\"']{0,3}\s{0,3}[:=]?\s{0,3}[\\\"']{0,3}"
"""Between a name and its value, in a header, in JSON, and in JSON within JSON."""

_EPOCH = re.compile(rf"(?:limit reached\||reset(?:s|_at|s_at|sAt)?{_IS})(\d{{10}}(?:\d{{3}})?)\b", re.IGNORECASE)
_ISO = re.compile(rf"(?:reset|again|until|retry|resume|available)[^\n]{{0,40}}?({_STAMP})", re.IGNORECASE)
_LASTS = re.compile(
    rf"(?:{_COMES_BACK}|retry[-_ ]?delay)[-_\s]{{0,3}}(?:in|after|for)?{_IS}"
    rf"({_PART}(?:(?:,|\s|and){{0,4}}{_PART}){{0,5}})",
    re.IGNORECASE,
)
_SECONDS = re.compile(
    rf"(?:retry[-_ ]?after|resets?[-_ ]in[-_ ]seconds){_IS}(\d+(?:\.\d+)?)(?!\d|\.\d|[ ]*[a-z])", re.IGNORECASE
)
_MOMENT = re.compile(rf"{_COMES_BACK}(?:\s{{1,3}}(?:at|on|until))?\s{{1,3}}(?:{_DATE})?{_CLOCK}{_ZONE}", re.IGNORECASE)
_UNDER_A_MINUTE = re.compile(rf"{_COMES_BACK}\s+in\s+less\s+than\s+a\s+minute", re.IGNORECASE)


def reset_at_s(text: str, now_s: float, local: tzinfo | None = None) -> float | None:
    """The moment that the text names, in seconds since the epoch; None when it names none that can be believed.

    Of several the last one counts. `local` is the zone of a time that comes without one, the machine's own when None.
    """
    for pattern, read in _READERS:
        found = [_read(read, match, now_s, local) for match in pattern.finditer(text)]
        moments = [moment for moment in found if moment is not None]
        if moments:
            return believed(moments[-1], now_s)
    return None


def believed(moment_s: float, now_s: float) -> float | None:
    """The moment, or None when it is past, or so far ahead that it must be a mistake."""
    return moment_s if now_s < moment_s <= now_s + MAX_WAIT_S else None


_Reader = Callable[[re.Match[str], float, tzinfo | None], float | None]


def _read(read: _Reader, match: re.Match[str], now_s: float, local: tzinfo | None) -> float | None:
    try:
        return read(match, now_s, local)
    except (ValueError, OverflowError, OSError):  # 30 February, 25 o'clock, the year 9999
        return None


def _epoch(match: re.Match[str], _now_s: float, _local: tzinfo | None) -> float:
    digits = match[1]
    return int(digits) / (1000 if len(digits) > 10 else 1)  # noqa: PLR2004 - ten digits of seconds last until 2286


def _iso(match: re.Match[str], _now_s: float, local: tzinfo | None) -> float:
    return _stamp(datetime.fromisoformat(match[1].upper()), local)


def _lasts(match: re.Match[str], now_s: float, _local: tzinfo | None) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|mil|[dhms])", match[1], re.IGNORECASE)
    return now_s + sum(
        float(number) * _UNITS_S["ms" if unit.lower() == "mil" else unit.lower()] for number, unit in parts
    )


def _seconds(match: re.Match[str], now_s: float, _local: tzinfo | None) -> float:
    return now_s + float(match[1])


def _a_minute(_match: re.Match[str], now_s: float, _local: tzinfo | None) -> float:
    return now_s + 60


def _moment(match: re.Match[str], now_s: float, local: tzinfo | None) -> float | None:
    """A time of day, perhaps with a date: without one the next such time, without a year the nearest such day."""
    if match["minute"] is None and match["half"] is None:
        return None  # "resets 3" is no time
    zone = _zone(match["zone"] or match["offset"], local)
    now = datetime.fromtimestamp(now_s, zone).replace(tzinfo=None)
    hour, half = int(match["hour"]), (match["half"] or "").lower()[:1]
    if half:
        if not 1 <= hour <= 12:  # noqa: PLR2004 - a clock with am and pm
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    clock = now.replace(hour=hour, minute=int(match["minute"] or 0), second=0, microsecond=0)
    if match["month"] is None:
        over = clock <= now - timedelta(seconds=JUST_NOW_S)
        return _stamp(clock + timedelta(days=1) if over else clock, zone)
    month = _MONTHS.index(match["month"].lower()) + 1
    named = clock.replace(year=int(match["year"] or now.year), month=month, day=int(match["day"]))
    if match["year"] is None and named < now - HALF_A_YEAR:
        named = named.replace(year=now.year + 1)
    return _stamp(named, zone)


def _zone(name: str | None, local: tzinfo | None) -> tzinfo | None:
    """Raises `ValueError` for a zone that we do not know: hours off is worse than not knowing."""
    if name is None:
        return local
    if fixed := re.fullmatch(r"(?:UTC|GMT)(?:([+-])(\d{1,2})(?::(\d\d))?)?", name, re.IGNORECASE):
        sign = -1 if fixed[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(fixed[2] or 0), minutes=int(fixed[3] or 0)))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:  # OSError: the name of a folder
        raise ValueError(name) from error


def _stamp(moment: datetime, zone: tzinfo | None) -> float:
    """Seconds since the epoch; a moment without a zone is in the given one, the machine's own when None."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


_READERS: tuple[tuple[re.Pattern[str], _Reader], ...] = (
    (_EPOCH, _epoch),
    (_ISO, _iso),
    (_SECONDS, _seconds),
    (_LASTS, _lasts),
    (_UNDER_A_MINUTE, _a_minute),
    (_MOMENT, _moment),
)
"""The precise ones first."""
