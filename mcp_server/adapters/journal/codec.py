"""Facts to rows and back. Each kind has a version; a body that is not known is refused, never guessed at."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from mcp_server.core import events
from mcp_server.core.spec import Sharing
from mcp_server.errors import Code, Refused

FIRST = 1
VERSIONS = {"EpicPlanned": 2, "WaveStarted": 2, "MergeProven": 2, "MergeRefused": 2}
"""Kinds that are not in their first version: fields came to them, and an older epicwave would drop these in silence.

A row of an older version is read with the defaults of what came later, and by `_as_now`.
"""


def _flat(union: Any) -> list[type]:
    return [member for arg in get_args(union) for member in (_flat(arg) or [arg])]


KINDS: dict[str, type] = {kind.__name__: kind for kind in _flat(events.Event)}


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])


def _as_now(kind: str, body: str | bytes) -> str | bytes:
    """The body in the words of today: before there was `overlap`, `conflict_detection` was off or on."""
    text = body if isinstance(body, str) else body.decode()
    if kind != "WaveStarted" or '"conflict_detection"' not in text:
        return body
    try:
        fields: dict[str, Any] = json.loads(text)
        careful = fields["policy"].pop("conflict_detection")
    except (ValueError, TypeError, KeyError):  # damaged: the reader says so
        return body
    fields["policy"].setdefault("overlap", Sharing.EXCLUSIVE if careful else Sharing.OPTIMISTIC)
    return json.dumps(fields)


def encode(event: events.Event) -> tuple[float, str, int, str]:
    """A fact as `(at_s, kind, version, body)`."""
    kind = type(event).__name__
    return event.at_s, kind, VERSIONS.get(kind, FIRST), _adapter(kind).dump_json(event).decode()


def decode(seq: int, kind: str, version: int, body: str | bytes) -> events.Event:
    """The fact of a row. Raises `Refused`: `journal_newer` for a kind or a version to come, `journal_unreadable`."""
    newest = VERSIONS.get(kind, FIRST)
    if kind not in KINDS or version > newest:
        known = f"knows up to {newest}" if kind in KINDS else "does not know that kind"
        raise Refused(
            Code.JOURNAL_NEWER,
            f"Record {seq} of the journal is a {kind!r} of version {version}; this epicwave {known}.",
            "Nothing was changed. A newer epicwave wrote it: run that one (for example `uvx epicwave@latest`).",
        )
    try:
        return _adapter(kind).validate_json(_as_now(kind, body))
    except ValidationError as error:
        raise Refused(
            Code.JOURNAL_UNREADABLE,
            f"Record {seq} of the journal ({kind}) cannot be read: {error.error_count()} fields are wrong.",
            "Nothing was changed. Keep a copy of the journal file and report this.",
        ) from error
