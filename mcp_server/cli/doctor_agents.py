"""What the doctor looks at of the agents: are they there, do they answer, and may they commit when nobody is asked."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mcp_server.adapters.agents.profiles import BUILT_IN, Profile, resolve
from mcp_server.adapters.agents.runner import ProcessRunner
from mcp_server.cli.findings import Finding, Level, Subject, ok
from mcp_server.cli.init_files import read
from mcp_server.cli.init_json import NotJsonError, checked, entries
from mcp_server.core.limits import Strategy
from mcp_server.core.model import SETTLED, Epic, Ledger
from mcp_server.core.spec import AttemptId
from mcp_server.errors import Fault, Refused
from mcp_server.server.settings import Settings

VERSION_BOUND_S = 10.0
"""How long a program may take to say its version."""
NEEDED = (
    ("Bash", "git add -A"),
    ("Bash", "git commit -m message"),
    ("Edit", "src/file.py"),
    ("Write", "src/file.py"),
)
"""What every story asks of an agent that works by Claude Code's rules: the tool, and what with."""
_RULE = re.compile(r"(?P<tool>\w+)(?:\((?P<spec>.*)\))?", re.DOTALL)
_ANY = frozenset({"*", "**", "/**", "./**", "//**", "**/*", "./**/*"})


def profiles_of(settings: Settings, ledger: Ledger) -> dict[str, Profile | Refused]:
    """Every agent that the configuration or an unfinished epic names, and what it is."""
    names = [settings.epic.agent, settings.epic.fallback_agent]
    for epic in ledger.epics.values():
        if not _finished(epic):
            names += [epic.spec.agent, epic.spec.fallback_agent]
            names += [story.spec.agent for story in epic.stories.values() if story.state not in SETTLED]
    found: dict[str, Profile | Refused] = {}
    for name in dict.fromkeys(name for name in names if name):
        try:
            found[name] = resolve(name, settings.agents)
        except Refused as refused:
            found[name] = refused
    return found


def _finished(epic: Epic) -> bool:
    return all(story.state in SETTLED for story in epic.stories.values())


async def agents(profiles: Mapping[str, Profile | Refused], top: Path, *, needed: bool) -> list[Finding]:
    """Each is installed and says its version in time. `needed` is false where the editor's sub-agents work."""
    found: list[Finding] = []
    for name, profile in profiles.items():
        try:
            if isinstance(profile, Refused):
                raise profile
            profile.check(top)
        except Refused as refused:
            level = Level.ERROR if needed else Level.NOTE
            found.append(Finding(Subject.AGENT, level, refused.why, "Its stories cannot be started.", refused.remedy))
        else:
            found.append(await _version(name, profile, top))
    return found


async def _version(name: str, profile: Profile, top: Path, bound_s: float | None = None) -> Finding:
    """Only of programs that are known to answer: another one might begin to work."""
    program = profile.argv(brief=Path(), worktree=top, git_dir=top, story="")[0]
    if kind_of(profile) is None or kind_of(profile) == "scripted":
        return ok(Subject.AGENT, f"{name}: {program} is there.")
    exit_code, said = await asked_version((program, "--version"), top, bound_s or VERSION_BOUND_S)
    if exit_code == 0:
        return ok(Subject.AGENT, f"{name}: {program} is there, version {said or '(nothing)'}.")
    how = f"ended with {exit_code}" if exit_code is not None else f"said nothing for {bound_s or VERSION_BOUND_S:.0f} s"
    return Finding(
        Subject.AGENT,
        Level.WARNING,
        f"{name}: `{program} --version` {how}{f': {said}' if said else ''}.",
        "An agent that cannot even say its version will not do a story.",
        f"{program} --version",
    )


async def asked_version(argv: tuple[str, ...], cwd: Path, bound_s: float) -> tuple[int | None, str]:
    """Exit code and last line of a program, all its processes ended in time; None when it took too long."""
    with tempfile.TemporaryDirectory() as folder:
        runner = ProcessRunner(Path(folder), cwd, grace_s=0.5)
        try:
            ran = await runner.run_check(AttemptId("doctor", "version", 1), argv, cwd, bound_s)
        except Fault as fault:
            return 127, fault.detail
    return ran.exit_code, ran.tail.strip().rpartition("\n")[2][:200]


def kind_of(profile: Profile) -> str | None:
    """The built-in agent whose program this is, wherever it lies."""
    program = Path(profile.command[0]).name.removesuffix(".cmd").removesuffix(".exe")
    for name, known in BUILT_IN.items():
        if profile.command == known.command or program in {known.command[0], *known.other_names}:
            return name
    return None


def unattended(profiles: Iterable[Profile], allowed: Iterable[str]) -> list[Finding]:
    """Whether each would ask before it edits or commits; `allowed` are the rules of Claude Code's settings."""
    found: list[Finding] = []
    for profile in profiles:
        lacking, remedy = _lacking(kind_of(profile), profile.command[1:], tuple(allowed))
        if lacking:
            why = "Nobody is there to answer: the agent is denied, and ends without a commit."
            what = f"{profile.name}: its command does not say {lacking}."
            found.append(Finding(Subject.UNATTENDED, Level.ERROR, what, why, f"Add to its command: {remedy}"))
    return found or [ok(Subject.UNATTENDED, "No agent would have to ask before it edits or commits.")]


def _lacking(kind: str | None, words: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, str]:
    """What a command has to say and does not, and the words for it; empty when it is all there, or nothing is known."""
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    match kind:
        case "claude" if not flags & {"-p", "--print"}:
            return "-p, so it waits at a terminal", "-p"
        case "claude" if not _may_commit(words, flags, allowed):
            return "that Bash is allowed", "--permission-mode acceptEdits --allowedTools Bash"
        case "cursor" if not flags & {"-p", "--print"}:
            return "-p, so it waits at a terminal", "-p"
        case "cursor" if not flags & {"--force", "--yolo", "-f"}:
            return "--force, so commands are refused", "--force --trust"
        case "codex" if "exec" not in words and "e" not in words:
            return "exec, so it waits at a terminal", "exec (as its first word)"
        case "codex" if not _codex_writes(words, flags):
            return "that it may write, and reads only", "--sandbox workspace-write --add-dir {git_dir}"
        case "gemini" if not flags & {"-y", "--yolo"} and "yolo" not in _values(words, "--approval-mode"):
            return "--approval-mode yolo, so commands are refused", "--approval-mode yolo --skip-trust"
        case _:
            return "", ""


def _may_commit(words: tuple[str, ...], flags: set[str], allowed: tuple[str, ...]) -> bool:
    if flags & {"--dangerously-skip-permissions", "--settings"}:  # what those settings say is their owner's
        return True
    if "bypassPermissions" in _values(words, "--permission-mode"):
        return True
    rules = (*_values(words, "--allowedTools"), *_values(words, "--allowed-tools"), *allowed)
    return all(any(stands_for(rule, *need) for rule in rules) for need in NEEDED if need[0] == "Bash")


def _codex_writes(words: tuple[str, ...], flags: set[str]) -> bool:
    modes = {*_values(words, "--sandbox"), *_values(words, "-s")}
    free = {"--full-auto", "--yolo", "--dangerously-bypass-approvals-and-sandbox"}
    return bool(flags & free or modes & {"workspace-write", "danger-full-access"})


def _values(words: tuple[str, ...], flag: str) -> list[str]:
    """Values of a flag: behind `=`, or the words up to the next flag; several in one word are parted by commas."""
    found: list[str] = []
    taking = False
    for word in words:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            taking = name == flag
            found += [value] if taking and value else []
        elif taking:
            found.append(word)
    return [rule for each in found for rule in re.split(r"[,\s](?![^(]*\))", each) if rule]


def permissions(folders: Mapping[str, Path]) -> tuple[list[Finding], list[str]]:
    """Rules of Claude Code's settings that deny what every story needs, and all that allow something.

    `folders` are the places of `.claude/settings.json`, by what they are called. A rule to ask denies where nobody is.
    """
    found: list[Finding] = []
    allowed: list[str] = []
    for name, folder in folders.items():
        path = folder / "settings.json"
        try:
            content = read(path, str(path))
            text = "{}" if content is None else checked(content)
            rules = {kind: _rules(text, kind) for kind in ("deny", "ask", "allow")}
        except (NotJsonError, Refused, Fault) as error:
            what = f"{path} cannot be read: {error}."
            why = "Claude Code leaves out settings that it cannot read, and all rules in them."
            found.append(Finding(Subject.PERMISSIONS, Level.WARNING, what, why, f"Correct {path}"))
            continue
        allowed += rules["allow"]
        for kind in ("deny", "ask"):
            bad = [rule for rule in rules[kind] if any(stands_for(rule, *need) for need in NEEDED)]
            found += [_in_the_way(kind, rule, name, path) for rule in bad]
    return found or [ok(Subject.PERMISSIONS, "No rule of Claude Code's settings denies edits or commits.")], allowed


def _in_the_way(kind: str, rule: str, name: str, path: Path) -> Finding:
    return Finding(
        Subject.PERMISSIONS,
        Level.ERROR,
        f"{name} {'deny' if kind == 'deny' else 'ask about'} {rule!r} ({path}, permissions.{kind}).",
        "Agents must edit files and commit by themselves; where nobody is asked, a rule to ask denies.",
        f"Take {rule!r} out of permissions.{kind} in {path}",
    )


def _rules(text: str, kind: str) -> list[str]:
    return [entry.value for entry in entries(text, ("permissions", kind), listed=True) if isinstance(entry.value, str)]


def stands_for(rule: str, tool: str, what: str) -> bool:
    """True when a rule of Claude Code's, `Bash(git commit:*)`, is about this use of a tool."""
    match = _RULE.fullmatch(rule.strip())
    if match is None or match["tool"] != tool:
        return False
    spec = match["spec"]
    if spec is None or spec in _ANY:
        return True
    if tool != "Bash":
        return False  # a rule about some files, as secrets are
    if spec.endswith(":*"):
        return what == spec[:-2] or what.startswith(f"{spec[:-2]} ")
    if spec.endswith(" *") and what == spec[:-2]:
        return True
    return re.fullmatch(".*".join(map(re.escape, spec.split("*"))), what) is not None


def settings_folders(top: Path) -> dict[str, Path]:
    """Where Claude Code's settings are that agents in a worktree have: the project's, and the user's own."""
    home = os.environ.get("CLAUDE_CONFIG_DIR")
    return {
        "The project's settings": top / ".claude",
        "Your settings": Path(home) if home else Path.home() / ".claude",
    }


def asks_claude(profiles: Iterable[Profile], strategy: Strategy) -> bool:
    """True when anybody works by Claude Code's rules: its command line, or the editor's sub-agents."""
    return strategy is Strategy.AGENT_TEAMS or any(kind_of(profile) == "claude" for profile in profiles)
