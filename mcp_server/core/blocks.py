"""Blocks of ports: which attempt has which, so that no two that are in flight share one."""

from __future__ import annotations

from mcp_server.core.limits import Environment
from mcp_server.core.model import NO_PORTS, Ledger

PORTS_END = 65_536


def free_block(ledger: Ledger, environment: Environment) -> range:
    """The lowest block that no story in flight has a port of; empty when blocks are off, or none is left.

    Blocks begin at `port_base + n * port_block`. Waves of different configurations may live together, so what is taken
    is looked at port by port. A story in the merge queue keeps its own: its checks may serve something.
    """
    size, base = environment.port_block, environment.port_base
    if not size:
        return NO_PORTS
    first = base
    for start, stop in taken(ledger):
        if first + size <= start:
            break
        if stop > first:
            first = base + -(-(stop - base) // size) * size
    return range(first, first + size) if first + size <= PORTS_END else NO_PORTS


def taken(ledger: Ledger) -> list[tuple[int, int]]:
    """First port, and the one after the last, of each block that is in use, in order."""
    holding = (story.ports for epic in ledger.epics.values() for story in epic.stories.holding())
    return sorted((ports.start, ports.stop) for ports in holding if ports)
