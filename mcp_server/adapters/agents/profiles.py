"""Agents by name: how each command line program is run without a terminal, the brief on its standard input.

All built-in commands print while they work (event streams instead of one final text): the stall limit needs it.
A worktree's git folder lies outside the worktree, so a sandbox that only lets the worktree be written cannot commit.
"""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from mcp_server.adapters.agents.signs import NO_SIGNS, Format, Signs
from mcp_server.core import argv as command_line
from mcp_server.errors import Code, Refused

_NONE: Mapping[str, str] = MappingProxyType({})
_SCRIPTED_FILE = Path(__file__).parents[2] / "testing" / "scripted_agent.py"


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to run an agent. In its words `{brief}`, `{worktree}`, `{git_dir}` and `{story}` are filled in."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: _NONE)
    note: str = ""
    """What to know about it, and whether it was run or only read about."""
    install: str = ""
    """How to get the program."""
    other_names: tuple[str, ...] = ()
    """Names the program has elsewhere, tried when the first is not there."""
    signs: Signs = NO_SIGNS
    """By what its end is told to be its provider's doing, and how its events are read."""

    def argv(self, *, brief: Path, worktree: Path, git_dir: Path, story: str) -> tuple[str, ...]:
        """The words to run. `git_dir` is the common one, which all worktrees share."""
        values = {"{brief}": str(brief), "{worktree}": str(worktree), "{git_dir}": str(git_dir), "{story}": story}
        return tuple(_filled(word, values) for word in self._found().command)

    def check(self, top: Path | None = None) -> None:
        """Refuse (`unknown_agent`) when the program is not there. A path is looked up from `top`, the repository."""
        program = self._found().command[0]
        path = Path(program).expanduser()
        local = len(path.parts) > 1 and not path.is_absolute()
        if local and (top is None or (top / path).exists()):
            return
        if not local and shutil.which(str(path)):
            return
        ready = ", ".join(available()) or "none"
        raise Refused(
            Code.UNKNOWN_AGENT,
            f"The agent {self.name!r} needs the program {program!r}, which is not found.",
            f"{self.install or 'Install it or correct its path'}. Or choose another agent; ready here: {ready}.",
        )

    def _found(self) -> Profile:
        for name in (self.command[0], *self.other_names):
            if shutil.which(name):
                return replace(self, command=(name, *self.command[1:]))
        return self


def _filled(word: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


_LIMITED = (r"too many requests", r"rate.?limit", r"\b429\b", r"usage limit", r"limit reached", r"hit your .*limit")
"""For agents whose last words are events: there, nothing that a tool printed can be taken for them."""
_NO_ANSWER = (
    r"\b5\d\d (?:internal|bad gateway|service|gateway|overloaded)",
    r"internal server error|service unavailable|overloaded|high demand",
    r"fetch failed|socket hang up|connection (?:refused|reset|error)",
    r"\b(?:ECONN\w+|ENOTFOUND|ETIMEDOUT|EAI_AGAIN)\b",
    r"unauthori[sz]ed|authenticat\w+ (?:error|failed|required)|not logged in",
    r"(?:invalid|incorrect) api key|api key not valid",
    r"credit balance|out of credits",
)
"""What those say whose provider does not answer, does not know them, or wants to be paid first."""


def _by_name(*profiles: Profile) -> Mapping[str, Profile]:
    return MappingProxyType({p.name: p for p in profiles})


BUILT_IN = _by_name(
    Profile(
        "claude",
        (
            *("claude", "-p", "--output-format", "stream-json", "--verbose"),
            *("--permission-mode", "acceptEdits", "--allowedTools", "Bash,Skill", "--strict-mcp-config"),
        ),
        note="Edits are accepted and Bash is allowed (acceptEdits alone denies it, and with it git). MCP servers are"
        " left out, so that an agent does not start the epic again from inside. Its flags are those of 2.1.330.",
        install="Install Claude Code ('npm install -g @anthropic-ai/claude-code') and log in once",
        # Mostly it says the provider's status in its last event; the words are for older versions and for stderr.
        signs=Signs(Format.CLAUDE, _LIMITED, (r"^API Error\b", r"please run /login", r"failed to auth", *_NO_ANSWER)),
    ),
    Profile(
        "cursor",
        ("cursor-agent", "-p", "--force", "--trust", "--output-format", "stream-json"),
        note="From the documentation only, never run here. Needs a login or CURSOR_API_KEY. --force runs commands"
        " without asking.",
        install="Install the Cursor CLI (see cursor.com/docs/cli) and log in once",
        other_names=("agent",),
        signs=Signs(Format.CURSOR, (*_LIMITED, r"requests limit", "resource_exhausted"), _NO_ANSWER),
    ),
    Profile(
        "codex",
        ("codex", "exec", "--json", "--sandbox", "workspace-write", "--add-dir", "{git_dir}", "-"),
        note="From the documentation only, never run here. The shared git folder is made writable so that it can"
        " commit; several versions on Linux keep a worktree's git folder read-only all the same (openai/codex issue"
        " 23661). If its stories end with uncommitted changes, define an agent of your own with"
        " [codex, exec, --sandbox, danger-full-access, '-'].",
        install="Install the Codex CLI ('npm install -g @openai/codex') and log in once",
        signs=Signs(
            Format.CODEX,
            (*_LIMITED, r"usage_limit_reached", r"spend cap"),
            (
                r"stream disconnected",
                r"unexpected status [1-9]",
                r"last status: 5",
                r"could not be refreshed",
                *_NO_ANSWER,
            ),
        ),
    ),
    Profile(
        "gemini",
        (
            *("gemini", "--approval-mode", "yolo", "--skip-trust", "--output-format", "stream-json"),
            *("--prompt", "Carry out the brief above to its end."),
        ),
        note="From the documentation only, never run here. Without --skip-trust a new folder forces the approval mode"
        " back to asking, which nobody could answer.",
        install="Install the Gemini CLI ('npm install -g @google/gemini-cli') and log in once",
        signs=Signs(
            Format.GEMINI,
            (*_LIMITED, r"QuotaError", r"RESOURCE_EXHAUSTED", r"quota (?:exceeded|will reset)", r"exhausted your"),
            (r"\[API Error\b", r"got status: 5", r"PERMISSION_DENIED", r"set an auth method", *_NO_ANSWER),
        ),
    ),
    Profile(
        "opencode",
        ("opencode", "run", "--auto", "--format", "json"),
        note="From the documentation only, never run here. --auto approves what its configuration does not deny;"
        " versions before it call that --dangerously-skip-permissions.",
        install="Install opencode ('npm install -g opencode-ai') and log in once",
        signs=Signs(Format.OPENCODE, _LIMITED, (r"^(?:APIError|ProviderAuthError)\b", *_NO_ANSWER)),
    ),
    Profile(
        "scripted",
        (sys.executable, "-I", str(_SCRIPTED_FILE)),
        note="Ours, for demos and tests: makes a small real change in each file of the story and commits it, or does"
        " what the JSON file in EPICWAVE_SCRIPT says. Run by the tests.",
        signs=Signs(Format.CLAUDE, (r"^scripted: rate limit",), (r"^scripted: API error",)),
    ),
)


def available(custom: Mapping[str, Profile] = MappingProxyType({})) -> list[str]:
    """Names of the profiles whose program is on this machine, the user's own first."""
    found: list[str] = []
    for name, profile in {**custom, **{n: p for n, p in BUILT_IN.items() if n not in custom}}.items():
        if shutil.which(profile._found().command[0]):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - our own class
            found.append(name)
    return found


def resolve(name_or_command: str, custom: Mapping[str, Profile]) -> Profile:
    """A profile of the user's, a built-in one, or any command line. Refuses (`unknown_agent`) what is none of them."""
    name = name_or_command.strip()
    if name in custom:
        return custom[name]
    if name in BUILT_IN:
        return BUILT_IN[name]
    try:
        words = command_line.split(name)
    except command_line.ShellSyntaxError as error:
        raise Refused(Code.UNKNOWN_AGENT, error.why, error.remedy) from error
    if len(words) == 1 and not shutil.which(words[0]) and len(Path(words[0]).parts) == 1:
        names = [*custom, *(n for n in BUILT_IN if n not in custom)]
        near = difflib.get_close_matches(name, names, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise Refused(
            Code.UNKNOWN_AGENT,
            f"{name!r} is neither an agent profile nor a program on this machine.{meant}",
            f"Choose one of {', '.join(names)}, or give a whole command line.",
        )
    return Profile(name, words, note="A command line as it was given.", signs=signs_of(words))


def signs_of(command: Sequence[str], rate_limit: tuple[str, ...] = (), api_error: tuple[str, ...] = ()) -> Signs:
    """The signs of a program that a built-in agent has too, wherever it lies, and those that the user adds."""
    program = Path(command[0]).name.removesuffix(".cmd").removesuffix(".exe")
    same = (p for p in BUILT_IN.values() if p.command[0] == program or p.command == (*command,)[: len(p.command)])
    known = next((p.signs for p in same), NO_SIGNS)
    return replace(known, rate_limit=(*rate_limit, *known.rate_limit), api_error=(*api_error, *known.api_error))
