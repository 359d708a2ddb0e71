"""Files that no agent has to merge: which rule settles a path that both sides have changed.

A glob without any `/` matches at any depth, others from the repository's top; `*` and `?` stay inside one part, `**`
spans parts, `[ab]` is one of these characters and `{a,b}` is either. Of several rules the first that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class Way(StrEnum):
    """How a file is settled that the tip and the branch have both changed."""

    UNION = "union"  # the lines of both, where neither side has taken any away
    OURS = "ours"  # the tip's side
    REGENERATE = "regenerate"  # the tip's side first, then a command makes the file anew
    AGENT = "agent"  # as any other file: a conflict goes back to the story


@dataclass(frozen=True, slots=True)
class MergeRule:
    """One line of `merge_rules`."""

    glob: str
    way: Way
    command: tuple[str, ...] = ()
    """Of REGENERATE: argv, run in the folder of the file."""


DEFAULTS = (
    MergeRule("{CHANGELOG,CHANGES,HISTORY,NEWS}*.{md,rst,txt}", Way.UNION),
    MergeRule("uv.lock", Way.REGENERATE, ("uv", "lock")),
    MergeRule("poetry.lock", Way.REGENERATE, ("poetry", "lock")),
    MergeRule("package-lock.json", Way.REGENERATE, ("npm", "install", "--package-lock-only", "--ignore-scripts")),
    MergeRule("yarn.lock", Way.REGENERATE, ("yarn", "install", "--mode=update-lockfile")),
    MergeRule("pnpm-lock.yaml", Way.REGENERATE, ("pnpm", "install", "--lockfile-only", "--ignore-scripts")),
    MergeRule("Cargo.lock", Way.REGENERATE, ("cargo", "update", "--workspace")),
)
"""What holds where the configuration says nothing else."""


def rule_of(rules: Sequence[MergeRule], path: str) -> MergeRule | None:
    """The rule that settles a path; None when its conflicts go to the agent."""
    found = next((rule for rule in rules if matches(rule.glob, path)), None)
    return None if found is None or found.way is Way.AGENT else found


def matches(glob: str, path: str) -> bool:
    """True when the glob means this very path."""
    return _pattern(glob).fullmatch(path) is not None


_SPECIAL = re.compile(r"[\\^\[&~|]")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^]/]+\]|\{[^{}/]*,[^{}/]*\}|.", re.DOTALL)


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    text = glob if "/" in glob else f"**/{glob}"
    return re.compile(_translated(text.removeprefix("/")), re.DOTALL)


def _translated(glob: str) -> str:
    return "".join(map(_expression, _TOKEN.findall(glob)))


def _expression(token: str) -> str:
    match token:
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case _ if len(token) > 1 and token[0] == "[":
            return _choice(token[1:-1])
        case _ if len(token) > 1:
            return f"(?:{'|'.join(map(_translated, token[1:-1].split(',')))})"
        case _:
            return re.escape(token)


def _choice(inside: str) -> str:
    """One of these characters; what is no such choice (`[z-a]`) is meant as it stands there."""
    negated = "^/" if inside[0] == "!" and len(inside) > 1 else ""
    choice = f"[{negated}{_SPECIAL.sub(_escaped, inside[bool(negated) :])}]"
    try:
        re.compile(choice)
    except re.error:
        return re.escape(f"[{inside}]")
    return choice


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"
