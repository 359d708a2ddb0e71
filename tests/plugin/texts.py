"""The plugin's files as a host reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SKILLS = tuple(sorted(ROOT.glob("skills/*/SKILL.md")))
CLAUDE_AGENTS = tuple(sorted(ROOT.glob(".claude/agents/*.md")))
CURSOR_AGENTS = tuple(sorted(ROOT.glob(".cursor/agents/*.md")))
HOOKS = ROOT / ".claude" / "hooks" / "hooks.json"
CURSOR_HOOKS = (ROOT / ".cursor" / "hooks.json", ROOT / ".cursor-plugin" / "hooks.json")
SCRIPT = ROOT / ".claude" / "hooks" / "pre_tool_use.py"


def relative(path: Path) -> str:
    """A test's id."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Text:
    """A Markdown file with a head."""

    head: dict[str, Any]
    body: str

    @property
    def prose(self) -> str:
        """The body without fenced blocks."""
        return re.sub(r"^```.*?^```$", "", self.body, flags=re.MULTILINE | re.DOTALL)

    def words(self) -> set[str]:
        """What stands alone in backquotes and is written as a name: a tool, an argument, a field, a value."""
        return set(re.findall(r"`([a-z]+(?:_[a-z]+)*)(?:: \w+)?`", self.prose))

    def arguments(self) -> set[str]:
        """What is shown as `name=value`."""
        return set(re.findall(r"`(?:\w+\()?([a-z_]+)=[^`]+`", self.prose))


def read(path: Path) -> Text:
    """Raises when the file has no head."""
    empty, head, body = path.read_text("utf-8").split("---\n", 2)
    assert not empty, path
    return Text(yaml.safe_load(head), body)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def claude_hooks(event: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each hook of an event, with its matcher."""
    for group in read_json(HOOKS)["hooks"][event]:
        for hook in group["hooks"]:
            yield group.get("matcher", ""), hook


def tools_of(head: dict[str, Any], key: str) -> set[str]:
    """Names of a head's list of tools, whether written with commas or with spaces."""
    return set(re.split(r"[,\s]+", head[key]))
