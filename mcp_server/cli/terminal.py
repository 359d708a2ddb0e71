"""The console that every command prints to."""

from __future__ import annotations

import os

from rich.console import Console

LOG_WIDTH = 120
"""Columns where there is no terminal to ask: a CI log, a file, a pipe."""


def open_console(*, to_errors: bool = False) -> Console:
    """Plain text as it is written: no markup in titles, no colours where nobody sees them.

    `to_errors` is for what a user should read where standard output is for a program.
    """
    plain = Console(soft_wrap=True, highlight=False, markup=False, stderr=to_errors)
    if not plain.is_terminal and "COLUMNS" not in os.environ:
        plain.width = LOG_WIDTH
    return plain


def count(number: int, noun: str) -> str:
    """`1 wave`, `2 waves`, `1 dependency`, `3 dependencies`, `2 branches`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}es" if noun.endswith("ch") else f"{number} {noun}s"
