"""What a project gets: how its editor starts the server, and the files that the package brings."""

from __future__ import annotations

import json
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import BaseModel, ValidationError

import mcp_server
from mcp_server.cli.init_files import IgnoreFile, JsonFile, OwnEntry, ProjectFile, WholeFile
from mcp_server.core.argv import ShellSyntaxError, split
from mcp_server.errors import Code, Refused

NAME = "epicwave"
RULES = tuple(f"mcp__{NAME}__{tool}" for tool in ("story_status", "claim_story", "report_story"))
"""Tools that need no question. The hook decides on plan_epic and start_wave, which may be given commands to run;
cancel_epic and steer_epic are for a human to confirm."""
HOOKS = ".claude/hooks/epicwave"
"""A folder of its own: a user's hook may well have the name of one of ours."""
_TO_SERVER = f'"server": "{NAME}"'
_PROGRAM = rf"(^|[\s/\\])({NAME}(\.exe)?|-m mcp_server\.cli)\Z"
CURSOR_REPO = ("--repo", "${workspaceFolder}")
"""Cursor starts servers in the user's home, and puts the folder that is open in place of this."""


@dataclass(frozen=True, slots=True)
class Server:
    """The command that an editor starts the server with."""

    words: tuple[str, ...]
    place: str | None = None
    """A path of this machine among the words."""


@dataclass(frozen=True, slots=True)
class Installed:
    """How this epicwave came here."""

    origin: Mapping[str, Any] | None
    """The `direct_url.json` of its installer; None when it came from an index."""
    uvx: bool
    """There is `uvx` to start it."""
    on_path: bool
    """`epicwave` is found by whoever opens a terminal, not only inside an environment."""
    program: tuple[str, ...]
    """What runs it on this machine, whatever the PATH."""


def server_of(command: str | None) -> Server:
    """By the command line that was asked for, else by the way this epicwave is installed."""
    if command is None:
        return start_of(installed())
    try:
        return Server(split(command))
    except ShellSyntaxError as error:
        raise Refused(Code.BAD_ARGUMENT, f"--command: {error.why}", error.remedy) from error


def start_of(this: Installed) -> Server:
    """What works on other machines too comes first: by uvx from where it was fetched, or from the PATH."""
    source, place = _source(this.origin)
    if this.uvx and place is None:
        return Server(("uvx", *(("--from", source) if source != NAME else ()), NAME, "serve"))
    if this.on_path:
        return Server((NAME, "serve"))
    if this.uvx:
        return Server(("uvx", "--from", source, NAME, "serve"), place)
    return Server((*this.program, "serve"), this.program[0])


def _source(origin: Mapping[str, Any] | None) -> tuple[str, str | None]:
    """What `uvx --from` takes to fetch it again, and the path in it that only this machine has."""
    if origin is None:
        return NAME, None
    url = str(origin["url"])
    place = url2pathname(urlsplit(url).path) if url.startswith("file:") else None
    if vcs := origin.get("vcs_info"):
        revision = vcs.get("requested_revision")
        folder = origin.get("subdirectory")
        return f"{vcs['vcs']}+{url}{f'@{revision}' if revision else ''}" + (
            f"#subdirectory={folder}" if folder else ""
        ), place
    return place or url, place


def installed() -> Installed:
    """As it is on this machine."""
    scripts = Path(sysconfig.get_path("scripts"))
    found, script = shutil.which(NAME), shutil.which(NAME, path=str(scripts))
    own = found is not None and sys.prefix != sys.base_prefix and Path(found).parent.resolve() == scripts.resolve()
    return Installed(
        _origin(),
        uvx=shutil.which("uvx") is not None,
        on_path=found is not None and not own,
        program=(script,) if script else (sys.executable, "-m", "mcp_server.cli"),
    )


def _origin() -> Mapping[str, Any] | None:
    try:
        noted = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # run from a checkout, installed nowhere
        return {"url": _checkout().as_uri(), "dir_info": {}}
    return None if noted is None else json.loads(noted)


def _checkout() -> Path:
    return Path(mcp_server.__file__).resolve().parents[1]


def package_files() -> Path:
    """The folder that has the package's `.claude` and `.cursor`: the wheel carries them, a checkout has them on top."""
    carried = Path(__file__).resolve().parent / "project"
    return carried if carried.is_dir() else _checkout()


def project_files(server: Server) -> tuple[ProjectFile, ...]:
    """All that init writes, in the order in which it says so."""
    source = package_files()
    rules = tuple(OwnEntry(f"rule {rule}", ("permissions", "allow"), None, rule) for rule in RULES)
    return (
        JsonFile(".mcp.json", (_server_entry(server.words),)),
        JsonFile(".claude/settings.json", (*rules, *_hooks(source / ".claude/hooks/hooks.json"))),
        *_copies(source / ".claude/agents", ".claude/agents"),
        *_copies(source / ".claude/hooks", HOOKS),
        JsonFile(".cursor/mcp.json", (_server_entry(_cursor_words(server.words), type="stdio"),)),
        JsonFile(".cursor/hooks.json", _hooks(source / ".cursor/hooks.json"), ("version", 1)),
        *_copies(source / ".cursor/agents", ".cursor/agents"),
        IgnoreFile(
            ".gitignore",
            "# epicwave: the worktrees that Claude Code makes for its sub-agents",
            ".claude/worktrees/",
            ".claude/worktrees/agent/file",
        ),
    )


def _hooks(path: Path) -> tuple[OwnEntry, ...]:
    """The package's hooks, as a project has them: its own copy of the script, the server by its plain name."""
    text = path.read_text("utf-8").replace(f"plugin:{NAME}:{NAME}", NAME)
    text = text.replace("${CLAUDE_PLUGIN_ROOT}", "${CLAUDE_PROJECT_DIR}").replace(".claude/hooks/", f"{HOOKS}/")
    hooks: dict[str, list[dict[str, Any]]] = json.loads(text)["hooks"]
    return tuple(
        OwnEntry(f"hook {event}", ("hooks", event), None, hook, HOOKS if HOOKS in json.dumps(hook) else _TO_SERVER)
        for event, group in hooks.items()
        for hook in group
    )


def _copies(source: Path, folder: str) -> Iterator[WholeFile]:
    for path in sorted(source.iterdir()):
        if path.suffix in {".md", ".py"}:
            yield WholeFile(f"{folder}/{path.name}", path.read_bytes())


def _server_entry(words: tuple[str, ...], **more: str) -> OwnEntry:
    value = {**more, "command": words[0], "args": list(words[1:])}
    return OwnEntry(f"server {NAME}", ("mcpServers",), NAME, value, same=_is_start)


def _cursor_words(words: tuple[str, ...]) -> tuple[str, ...]:
    return (*words, *CURSOR_REPO) if words[-1] == "serve" else words


class _Start(BaseModel, extra="forbid", strict=True):
    """What an init writes for a server, and no more."""

    type: Literal["stdio"] = "stdio"
    command: str
    args: list[str]


def _is_start(value: object) -> bool:
    """True for `... epicwave serve` with nothing else said: an init wrote it, on whatever machine."""
    try:
        start = _Start.model_validate(value)
    except ValidationError:
        return False
    words = (start.command, *start.args)
    if words[-2:] == CURSOR_REPO:
        words = words[:-2]
    return words[-1] == "serve" and re.search(_PROGRAM, " ".join(words[:-1]), re.IGNORECASE) is not None
