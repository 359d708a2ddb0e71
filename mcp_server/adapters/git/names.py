"""Where things are called what in the repository. Git allows no branch below another, hence the separate prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mcp_server.core.spec import AttemptId, EpicId, Sha

WORK = "refs/heads/epicwave-work/"
BASES = "refs/epicwave/base/"
RESCUED = "refs/epicwave/rescue/"
SETTLED = "refs/epicwave/settled/"
LANDED = "refs/epicwave/landed/"
ROLLED = "refs/epicwave/rolled/"
RECOVERY = "refs/epicwave/recovery/"
INTEGRATION_FOLDER = "_integration"
POOL_FOLDER = "_pool"
"""Among the epics' folders, where no epic can be called so: worktrees that wait for the next attempt."""
TRASH_FOLDER = "_trash"
"""There too: what is as good as deleted."""

_FOLDER = re.compile(r"(?P<epic>[^/]+)/(?P<story>[^/]+)-(?P<number>[0-9]+)")


def integration_branch(epic: EpicId) -> str:
    """The branch that proven work lands on, without `refs/heads/`."""
    return f"epicwave/{epic}"


def attempt_branch(attempt: AttemptId) -> str:
    """The branch that an attempt's agent commits to, without `refs/heads/`."""
    return f"epicwave-work/{attempt}"


def attempt_ref(attempt: AttemptId) -> str:
    """The same branch, as a full ref."""
    return f"{WORK}{attempt}"


def base_ref(attempt: AttemptId) -> str:
    """Holds the commit an attempt started from, as long as there is unsaved life in it."""
    return f"{BASES}{attempt}"


def rescue_ref(attempt: AttemptId) -> str:
    """Holds what was saved of an attempt."""
    return f"{RESCUED}{attempt}"


def settled_ref(attempt: AttemptId) -> str:
    """Holds the commit up to which a branch that outlives its attempt has landed or is saved; goes with the branch."""
    return f"{SETTLED}{attempt}"


def landed_ref(attempt: AttemptId) -> str:
    """Says that the attempt's work is on the integration branch, from the commit that it names on; never removed."""
    return f"{LANDED}{attempt}"


def rolled_refs(attempt: AttemptId) -> tuple[str, str]:
    """What the attempt had landed as before it was taken back, and the commit that did so; never removed."""
    return f"{ROLLED}{attempt}/head", f"{ROLLED}{attempt}/revert"


def recovery_refs(epic: EpicId) -> str:
    """Below it are the commits that the epic's integration branch was moved from, by number."""
    return f"{RECOVERY}{epic}/"


def next_recovery(epic: EpicId, old: Mapping[str, Sha], tip: Sha) -> dict[str, Sha]:
    """The ref to be made before the branch leaves `tip`; none when the last of the `old` ones has that commit.

    `refs/epicwave/recovery/<epic>/000001` and so on: whoever lists them has them in order.
    """
    numbers = {int(number): ref for ref in old if (number := ref.removeprefix(recovery_refs(epic))).isdecimal()}
    last = max(numbers, default=0)
    return {} if last and old[numbers[last]] == tip else {f"{recovery_refs(epic)}{last + 1:06}": tip}


def attempt_folder(attempt: AttemptId) -> str:
    """Name of an attempt's worktree in its epic's folder: short, for the sake of Windows."""
    return f"{attempt.story}-{attempt.number}"


def attempt_of_ref(ref: str) -> AttemptId | None:
    """The attempt that a ref below one of the prefixes above belongs to; None for a ref that is not ours."""
    for prefix in (WORK, BASES, RESCUED, SETTLED, LANDED):
        epic, _, rest = ref.removeprefix(prefix).partition("/")
        story, _, number = rest.partition("/")
        if ref.startswith(prefix) and story and number.isascii() and number.isdigit():
            return AttemptId(epic, story, int(number))
    return None


def attempt_of_folder(*parts: str) -> AttemptId | None:
    """The attempt that a path below the worktrees' root belongs to; None for one that is not ours."""
    match = _FOLDER.fullmatch("/".join(parts))
    return AttemptId(match["epic"], match["story"], int(match["number"])) if match else None
