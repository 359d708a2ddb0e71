"""What one client follows: the list of resources, and single ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc

Told = dict[str, str]
"""URI to its page as it was when its follower heard of it last, without times."""


@dataclass(slots=True)
class Following:
    """Stores who wants to hear of a changed list, and what a client of the older protocols follows."""

    group: anyio.abc.TaskGroup
    """Followers run in it, as long as the client is there."""
    list_tells: set[Callable[[], Awaitable[None]]] = field(default_factory=set[Callable[[], Awaitable[None]]])
    names: list[str] | None = None
    """The listed URIs that the client knows of; None until it could know any."""
    told: Told = field(default_factory=Told)
    scope: anyio.CancelScope | None = None
    """Of the follower for what is in `told`, while there is one."""
