"""Work that cannot be taken comes back with the reason and the very commands, in order, that make it so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.engine.leasing import PATHS_SHOWN, not_done
from mcp_server.errors import Code
from mcp_server.ports import Lent, NoBranch, NoCommits, Uncommitted, WrongBase, WrongPlace
from mcp_server.testing.team import commands_in

BASE, FORK, HEAD = "b" * 40, "f" * 40, "c" * 40
BRANCH = "epicwave-work/e/a/1"
COMMITS = ["git add -A", 'git commit -m "WHAT AND WHY"']

CASES: dict[str, tuple[Lent, str, list[str]]] = {
    "changes": (Uncommitted(("a.py", "b.py")), "not committed: a.py, b.py.", COMMITS),
    "a rebase": (
        Uncommitted(("(unfinished rebase)", "a.py")),
        "(unfinished rebase), a.py",
        ["git add -A", "git -c core.editor=true rebase --continue"],
    ),
    "nothing": (NoCommits(), "There is no commit on the branch", []),
    "another base": (
        WrongBase(HEAD, FORK),
        f"HEAD {HEAD[:10]} does not descend from the base {BASE[:10]}.",
        [f"git rebase --onto {BASE} {FORK} {BRANCH}"],
    ),
    "no common base": (WrongBase(HEAD), "does not descend", [f"git rebase --onto {BASE} --root {BRANCH}"]),
    "no branch": (NoBranch(), f"The branch {BRANCH} does not exist.", [f"git switch -c {BRANCH} {BASE}"]),
    "work on another branch": (NoBranch(HEAD, BASE), "does not exist", [f"git switch -c {BRANCH}"]),
    "work on another branch and base": (
        NoBranch(HEAD, FORK),
        "does not exist",
        [f"git switch -c {BRANCH} {BASE}", f"git cherry-pick {FORK}..{HEAD}"],
    ),
    "no work on an older base": (NoBranch(FORK, FORK), "does not exist", [f"git switch -c {BRANCH} {BASE}"]),
    "work with no common base": (NoBranch(HEAD), "does not exist", [f"git switch -c {BRANCH} {BASE}"]),
    "the user's checkout": (
        WrongPlace(Path("/home/me/project")),
        "checked out in the user's own checkout /home/me/project, which is not yours.",
        ["git -C /home/me/project switch -"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whoever_hands_in_too_early_is_told_why_and_what_to_run(case: str) -> None:
    outcome, why, commands = CASES[case]
    refused = not_done(outcome, "e/a/1/t1", BRANCH, BASE)
    assert (refused.code, why in refused.why) == (Code.NOT_DONE, True), refused.why
    assert commands_in(refused) == commands
    assert refused.remedy.endswith("call report_story('e/a/1/t1', 'done') again.")


def test_of_many_changed_files_the_first_are_named_and_the_rest_counted() -> None:
    paths = tuple(f"f{n}" for n in range(PATHS_SHOWN + 3))
    why = not_done(Uncommitted(paths), "lease", BRANCH, BASE).why
    assert f"f{PATHS_SHOWN - 1} and 3 more." in why
    assert f"f{PATHS_SHOWN}" not in why
