"""Submodules that their repository would rather not hear of."""

from __future__ import annotations

from mcp_server.adapters.git.repository import Repository
from mcp_server.core.spec import Sha

NOT_THERE = (0, 1, 128)


async def heeded(repository: Repository, head: Sha) -> tuple[str, ...]:
    """Options for git, so that it compares the submodules' pointers even where `ignore` in `.gitmodules` says not to.

    Without them a rebase takes two commits that only move pointers for one and the same, and drops the second.
    """
    argv = ("config", "-z", "--blob", f"{head}:.gitmodules", "--name-only", "--get-regexp", r"^submodule\..*\.ignore$")
    said = await repository.git.read(*argv, ok=NOT_THERE)
    return tuple(word for key in said.names if "=" not in key for word in ("-c", f"{key}=none"))
