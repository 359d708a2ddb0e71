"""Hook before a tool call: says who calls our tools and from where, and lets unattended story workers commit.

It reads the host's JSON on standard input and answers in that host's words: Claude Code (`PreToolUse`) or Cursor
(`preToolUse`). Silence means no opinion: the host asks its user as ever. It refuses nothing, and ends with 0 whatever
comes in. It runs before each matching call, so it imports little and starts at once.
"""
# ruff: noqa: INP001 - a script, run by its path

import json
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACED = {"claim_story", "report_story"}
"""Tools that are told their caller: an MCP server cannot see which sub-agent calls, nor where that one works."""
READ_ONLY = {"story_status"}
ALLOWED = PLACED | READ_ONLY | {"plan_epic", "start_wave"}
"""Tools that need no question. `cancel_epic`, `steer_epic` and `land_epic` are for a human to confirm."""
AGENTS = {"claude", "cursor", "codex", "gemini", "opencode"}
"""What `start_wave(agent=...)` may name without a question; anything else may be a command line."""
WORKERS = {"story-worker", "epicwave:story-worker"}

CLAUDE_TOOL = r"mcp__(?:plugin_epicwave_)?epicwave__(\w+)"
CURSOR_TOOL = r"MCP:(\w+)"

WORD = r"""[ \t]*(?:'([^']*)'|"([^"$`\\]*)"|([\w./@:+,-][\w./@:=^+,~-]*))(?=[ \t]|\Z)"""
"""A word that means the same to every shell: nothing in it expands, substitutes, chains or redirects."""
NAMES = r"[\w.-]+(?:/[\w.-]+)*"
BRANCH = rf"epicwave-work/{NAMES}"
REVISION = rf"(?:[0-9a-f]{{7,64}}|HEAD(?:[~^]\d*)*|(?:epicwave|refs/epicwave/rescue)/{NAMES}|{BRANCH})"
PATHS = r"(?:\0--)?(?:\0(?![-/:])(?!(?:[^\0]*/)?\.\.(?:[/\0]|\Z))[^\0]+)"
STEP = "--(?:continue|abort|skip)"
GIT = (
    r"git\0(?:-c\0core\.editor=true\0)?(?:"
    rf"switch\0(?:-c\0{BRANCH}(?:\0{REVISION})?|{BRANCH}|-)"
    rf"|add(?:\0(?:-A|--all|-u|--update))?{PATHS}*"
    rf"|(?:mv|rm(?:\0-r)?|restore(?:\0--staged)?){PATHS}+"
    r"|commit(?:\0(?:-q|--quiet|-a|--all|--amend|--no-edit|-a?m\0[^\0]+))+"
    rf"|reset\0--soft\0{REVISION}"
    rf"|rebase\0(?:{STEP}|{REVISION}|--onto\0{REVISION}\0(?:{REVISION}|--root)(?:\0{BRANCH})?)"
    rf"|cherry-pick\0(?:{STEP}|{REVISION}(?:\.\.{REVISION})?)"
    ")"
)
"""What a story takes: its branch, its commits, a move to another base. The words of a command, joined by NUL.

Patterns are compiled where they are used: this one takes longer than all the rest of the script."""


def words(command: str) -> list[str]:
    """The words that a shell would make of a command; none when that is not plain to see."""
    word = re.compile(WORD, re.ASCII)
    found: list[str] = []
    place = 0
    while match := word.match(command, place):
        found.append(match[match.lastindex or 0])
        place = match.end()
    return found if not command[place:].strip(" \t") and "\0" not in command else []


def is_own_git(call: "dict[str, Any]") -> bool:
    """True for a plain git command of a story worker, in the worktree that Claude Code made for it alone."""
    own, given = f"/.claude/worktrees/agent-{call['agent_id']}/", call["tool_input"]
    return (
        call["agent_type"] in WORKERS
        and own in call["cwd"].replace("\\", "/") + "/"
        and not given.get("dangerouslyDisableSandbox")
        and re.fullmatch(GIT, "\0".join(words(given["command"])), re.ASCII) is not None
    )


def is_allowed(tool: str, call: "dict[str, Any]") -> bool:
    """True when this call of our tool can do nothing that its user has not asked for."""
    if call.get("permission_mode") == "plan":
        return tool in READ_ONLY
    given = call["tool_input"]
    unread = tool == "plan_epic" and given.get("epic_text")  # commands for its checks that are in no file to read
    unknown = tool == "start_wave" and (given.get("agent") or "claude") not in AGENTS
    return tool in ALLOWED and not unread and not unknown


def placed(tool: str, call: "dict[str, Any]") -> "dict[str, Any]":
    """The arguments with the caller's id and working directory; empty when there is nothing to add."""
    given = call["tool_input"]
    known = {"agent": call.get("agent_id"), "cwd": call.get("cwd")} if tool in PLACED else {}
    full = {**given, **{name: value for name, value in known.items() if value}}
    return full if full != given else {}


def claude(call: "dict[str, Any]") -> "dict[str, Any]":
    """What Claude Code is told."""
    ours = re.fullmatch(CLAUDE_TOOL, call["tool_name"], re.ASCII)
    if ours is None:
        allowed, arguments = call["tool_name"] == "Bash" and is_own_git(call), {}
    else:
        allowed, arguments = is_allowed(ours[1], call), placed(ours[1], call)
    said: dict[str, Any] = {}
    if allowed:
        said |= {"permissionDecision": "allow", "permissionDecisionReason": "epicwave's own, and within its worktree"}
    if arguments:
        said["updatedInput"] = arguments
    return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **said}} if said else {}


def cursor(call: "dict[str, Any]") -> "dict[str, Any]":
    """What Cursor is told. It does not say whose a tool is, so that only tools which start nothing are allowed."""
    ours = re.fullmatch(CURSOR_TOOL, call["tool_name"], re.ASCII)
    if ours is None:
        return {}
    arguments = placed(ours[1], call)
    said: dict[str, Any] = {"permission": "allow"} if ours[1] in PLACED | READ_ONLY else {}
    return {**said, "updated_input": arguments} if arguments else said


def main() -> None:
    """Read one call, answer it, and never fail."""
    try:
        call = json.load(sys.stdin.buffer)
        said = {"PreToolUse": claude, "preToolUse": cursor}[call["hook_event_name"]](call)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return
    if said:
        sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
