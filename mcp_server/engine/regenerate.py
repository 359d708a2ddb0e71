"""A branch on top of the tip, with the files made anew that a merge rule leaves to a command."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from mcp_server.core.model import CheckRun
from mcp_server.core.spec import AttemptId, Sha
from mcp_server.engine.context import Context
from mcp_server.ports import Conflicted, Landing


async def rebased(context: Context, attempt: AttemptId, onto: Sha | None = None) -> Landing | Conflicted:
    """Rebase an attempt of the epic's by the wave's rules, ready to be checked. Raises `Fault`.

    A command that fails is a conflict in its file, with what it said: to know better takes an agent. The worktree is
    not set up for it: what sets it up (`npm ci`) may want the very file that is not there yet.
    """
    story, merge, rules = context.epic.stories[attempt.story], context.ports.merge, context.policy.merge_rules
    landing = await merge.rebase(attempt, story.base or "", story.head or "", onto, rules)
    if isinstance(landing, Conflicted) or not landing.regenerate:
        return landing
    worktree = await merge.checkout(attempt.epic, landing.head)
    limit_s = context.policy.check_timeout_s
    for path, command in landing.regenerate:
        folder = worktree / PurePosixPath(path).parent
        run = await context.ports.runner.run_check(attempt, command, folder, limit_s, story.ports)
        if run.exit_code != 0:
            return Conflicted(landing.onto, (path,), _told(path, run))
    return await merge.amend(attempt, landing, [path for path, _ in landing.regenerate])


def _told(path: str, run: CheckRun) -> str:
    ended = f"exited with code {run.exit_code}" if run.exit_code is not None else "ran into its time limit"
    return f"Both sides changed {path}, and `{shlex.join(run.command)}`, which makes it anew, {ended}:\n{run.tail}"
