"""What the server tells a worker to run, the worker may run: in the background there is nobody to be asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcp_server.adapters.git.names import attempt_branch, rescue_ref
from mcp_server.core.spec import AttemptId
from mcp_server.engine.leasing import not_done
from mcp_server.ports import Lent, NoBranch, Uncommitted, WrongBase, WrongPlace
from mcp_server.server import repair
from tests.plugin.test_hook import HOOK, SHA, TREE
from tests.plugin.texts import ROOT, read

ATTEMPT = AttemptId("search-2.0", "S1.1", 3)
BRANCH = attempt_branch(ATTEMPT)
READS = ("git diff ", "git log ", "git show ", "git status")
"""Claude Code runs these in every mode without asking."""


def _is_allowed(command: str) -> bool:
    call = {
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": command},
        "agent_id": "a1b2",
        "agent_type": "epicwave:story-worker",
        "cwd": TREE,
    }
    return command.startswith(READS) or bool(HOOK.claude(call))


def _commands(words: str) -> list[str]:
    return [found for found in re.findall(r"`([^`]+)`", words) if found.startswith("git ")]


@pytest.mark.parametrize(
    "outcome",
    [
        Uncommitted(("a.py",)),
        WrongBase(SHA, SHA[::-1]),
        WrongBase(SHA),
        NoBranch(),
        NoBranch(SHA, SHA),
        NoBranch(SHA, SHA[::-1]),
    ],
    ids=repr,
)
def test_the_remedy_of_a_refused_report_is_allowed(outcome: Lent) -> None:
    commands = _commands(not_done(outcome, "lease", BRANCH, SHA).remedy)
    assert commands
    assert [c for c in commands if not _is_allowed(c)] == []


def test_nobody_is_let_into_the_users_checkout() -> None:
    commands = _commands(not_done(WrongPlace(Path("/home/me/project")), "lease", BRANCH, SHA).remedy)
    assert commands
    assert not any(_is_allowed(c) for c in commands)


@pytest.mark.parametrize(
    "command",
    [
        f"git switch -c {BRANCH} {SHA}",
        "git switch -",
        f"git rebase {SHA[:12]}",
        "git -c core.editor=true rebase --continue",
        f"git cherry-pick HEAD..{rescue_ref(ATTEMPT)}",
    ],
)
def test_what_claims_repairs_and_briefs_say_is_allowed(command: str) -> None:
    """The commands of the handshake, word for word as the server writes them."""
    assert _is_allowed(command)


def test_a_repair_says_no_other_command_of_git() -> None:
    source = Path(repair.__file__).read_text("utf-8")
    assert set(re.findall(r'f?"(git [a-z-]+(?: core.editor=true [a-z]+)?)', source)) == {
        "git diff",
        "git rebase",
        "git -c core.editor=true rebase",
    }


def test_the_worker_is_told_of_no_command_that_it_is_refused() -> None:
    """What the text shows as a command to run; what it shows as forbidden is forbidden."""
    told = set(_commands(read(ROOT / ".claude" / "agents" / "story-worker.md").body))
    assert told == {"git add -A", 'git commit -m "What and why"', "git switch -", "git -C"}
    assert [c for c in told if not _is_allowed(c)] == ["git -C"]
