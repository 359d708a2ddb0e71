"""The checks on a tree that no attempt has made: what lands on the user's branch, what is left after a rollback."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from mcp_server.core.checks import limit_s, tree_checks
from mcp_server.core.limits import Policy
from mcp_server.core.model import NO_PORTS, CheckRun, Epic
from mcp_server.core.spec import AttemptId, Sha, StoryId
from mcp_server.engine.environment import run_setup
from mcp_server.errors import Code, Refused
from mcp_server.land_port import Desk
from mcp_server.ports import Ports

LINE_SHOWN = 200


async def prove(
    ports: Ports, epic: Epic, policy: Policy, desk: Desk, sha: Sha, without: Collection[StoryId] = ()
) -> tuple[CheckRun, ...]:
    """Run the checks of the whole epic, `without` some stories, on a commit, in a worktree of ours.

    Nothing runs where none are configured.

    Raises `Refused(checks_red)`, and `Fault` (setup among them).
    """
    checks = tree_checks(epic, policy, without)
    if not checks:
        return ()
    cwd = await ports.land.desk(epic.spec.id, desk, sha)
    attempt = AttemptId(epic.spec.id, desk, 1)  # nobody's: it names their log
    await run_setup(ports, policy.environment, attempt, cwd, NO_PORTS)
    runs: list[CheckRun] = []
    for command in checks:
        run = await ports.runner.run_check(attempt, command, cwd, limit_s(epic, (), policy, command), NO_PORTS)
        if run.exit_code != 0:
            raise _red(run, desk, sha)
        runs.append(run)
    return tuple(runs)


def _red(run: CheckRun, desk: Desk, sha: Sha) -> Refused:
    ended = f"exited with code {run.exit_code}" if run.exit_code is not None else "ran into its time limit"
    said = run.tail.strip().rpartition("\n")[2][:LINE_SHOWN] or "it printed nothing"
    what = "what would land" if desk is Desk.LANDING else "what would be left"
    why = f"The check `{shlex.join(run.command)}` {ended} on {what} ({sha[:12]}): {said}"
    return Refused(
        Code.CHECKS_RED, why, "Nothing was moved. Mend it with a story of its own, or on your branch; again."
    )
