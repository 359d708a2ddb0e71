"""An agent without a model: does what a JSON script says, or makes a small real change in each file of its story.

Run as a program in a worktree, the brief on its standard input. Stdlib only, and it imports nothing of the project: it
is started by its path, with `-I`, in repositories that may have a package of the same name.

The script is the file in `EPICWAVE_SCRIPT`: an object with a list of steps a story (`"S1": [...]`), or an object of
such lists by attempt number (`"S1": {"1": [...], "2": [...]}`). A step is an object with one key: `write {path, text}`,
`append {path, text}`, `replace {path, old, new}`, `delete path`, `run [argv]` (a failure ends the agent with its exit
code), `print text`, `sleep_s seconds`, `commit message` (everything), `exit code`. What has no entry gets the default.
Any path will do, declared by the story or not.

What is none of an agent's own doing, in words that its profile knows: `rate_limit seconds` (null when it does not say
for how long) and `api_error text` end it with exit code 1, `crash number` by that signal. `usage {usd, tokens}` reports
all that it has used so far, as the last line of Claude Code does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_HASH = "# {}"
_COMMENTS = {
    **dict.fromkeys(
        (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".go", ".rs", ".java", ".kt", ".swift", ".scala"), "// {}"
    ),
    **dict.fromkeys(
        (".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".m", ".dart", ".php", ".proto", ".zig", ".jsonc"), "// {}"
    ),
    **dict.fromkeys((".css", ".scss", ".less"), "/* {} */"),
    **dict.fromkeys((".html", ".htm", ".xml", ".svg", ".vue", ".svelte", ".md", ".mdx", ".mdc"), "<!-- {} -->"),
    **dict.fromkeys((".sql", ".lua", ".hs", ".elm", ".adb"), "-- {}"),
    **dict.fromkeys((".lisp", ".el", ".clj", ".scm", ".asm", ".ini"), "; {}"),
    **dict.fromkeys((".tex", ".erl"), "% {}"),
    ".bat": "REM {}",
    ".rst": ".. {}",
    ".txt": "{}",
}


class Agent:
    """One attempt at one story. Stores who it is and what the brief says."""

    def __init__(self, story: str, attempt: str, brief: str) -> None:
        self.story = story
        self.attempt = attempt
        self.title = next((line[2:].strip() for line in brief.splitlines() if line.startswith("# ")), story)
        self.files = declared(brief)

    def steps(self) -> list[dict[str, Any]]:
        """The script's for this story and attempt, or the default ones."""
        path = os.environ.get("EPICWAVE_SCRIPT")
        script: Any = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        entry: Any = script.get(self.story)
        if hasattr(entry, "keys"):
            entry = entry.get(self.attempt)
        return [*self.changes(), {"commit": self.title}] if entry is None else entry

    def changes(self) -> list[dict[str, Any]]:
        """A line that names the story in each of its files, or in a note of its own when none can take one."""
        paths = [self.concrete(path) for path in self.files]
        found = [step for path in dict.fromkeys(paths) if (step := self.change(path))]
        return found or [{"append": {"path": f"docs/stories/{slug(self.story, '-')}.md", "text": f"{self.title}\n"}}]

    def change(self, path: str) -> dict[str, Any] | None:
        """None for what has no place for a line: binaries, ignored files, and what leads out of the worktree."""
        top = Path.cwd().resolve()
        target = (top / path).resolve()
        if not target.is_relative_to(top) or target.is_dir() or git("check-ignore", "--", path, check=False):
            return None
        raw = target.read_bytes() if target.is_file() else b""
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if target.suffix in {".json", ".ipynb", ".webmanifest"}:
            return self.json_change(path, text)
        end = "\r\n" if "\r\n" in text else "\n"
        gap = end if text and not text.endswith("\n") else ""
        line = _COMMENTS.get(target.suffix.lower(), _HASH).format(f"{self.story}, attempt {self.attempt}")
        return {"append": {"path": path, "text": f"{gap}{line}{end}"}}

    def json_change(self, path: str, text: str) -> dict[str, Any] | None:
        try:
            document: Any = json.loads(text or "{}")
        except ValueError:
            return None
        if not hasattr(document, "keys"):
            return None
        document.setdefault("x-stories", {})[self.story] = self.attempt
        return {"write": {"path": path, "text": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}}

    def concrete(self, path: str) -> str:
        """A name for a glob or a folder: the story's own, so that no two stories meet in it."""
        if path.endswith("/") or Path(path).is_dir():
            return f"{path.rstrip('/')}/{slug(self.story, '_')}.md"
        parts = [p for p in path.split("/") if p != "**"] or ["*.md"]
        name = re.sub(r"\{([^,}]*)[^}]*\}", r"\1", parts.pop())
        name = re.sub(r"\[!?(.)[^\]]*\]", r"\1", name)
        folders = [re.sub(r"[*?\[\]{},]+", slug(self.story, "_"), part) for part in parts]
        return "/".join([*folders, re.sub(r"\*+", slug(self.story, "_"), name).replace("?", "x")])


def declared(brief: str) -> list[str]:
    """The paths in the list under the last `## Files`: a description before it may have such a heading of its own."""
    _, found, section = brief.rpartition("\n## Files\n")
    if not found:
        return []
    lines = section.partition("\n## ")[0].splitlines()
    return [line[2:].strip().strip("`") for line in lines if line.startswith("- ")]


def slug(text: str, joint: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9]+", joint, text).strip(joint).lower() or "story"


def commit(message: str) -> None:
    """Everything that is not ignored, past any hooks: a hook that needs an installed tool would stop every demo."""
    identity: list[str] = []
    if not git("config", "user.email", check=False) and "GIT_AUTHOR_EMAIL" not in os.environ:
        identity = ["-c", "user.name=Scripted agent", "-c", "user.email=scripted@localhost"]
    git("add", "--all")
    git(*identity, "-c", "commit.gpgSign=false", "commit", "--quiet", "--no-verify", "--message", message)


def say(text: str) -> None:
    """Print at once: silence is what the stall limit measures."""
    sys.stdout.buffer.write(f"{text}\n".encode())
    sys.stdout.flush()


def git(*words: str, check: bool = True) -> str:
    """Run git here. A failure ends the agent."""
    done = subprocess.run(["git", *words], stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    if check and done.returncode != 0:
        say(f"git {words[0]} failed: {done.stdout}")
        sys.exit(done.returncode)
    return done.stdout.strip()


def perform(step: dict[str, Any]) -> None:
    """Do one step. Raises `SystemExit` for `exit` and for what went wrong."""
    [(name, value)] = step.items()
    match name:
        case "write" | "append" | "replace":
            edit(name, value)
        case "delete":
            Path(value).unlink()
        case "run":
            code = subprocess.run(value, check=False).returncode
            if code != 0:
                sys.exit(code)
        case "print":
            say(value)
        case "sleep_s":
            time.sleep(value)
        case "commit":
            commit(value)
        case "exit":
            sys.exit(value)
        case "usage":
            used = {"input_tokens": value.get("tokens", 0)}
            say(json.dumps({"type": "result", "total_cost_usd": value.get("usd", 0), "usage": used}))
        case _:
            fail(name, value)


def fail(name: str, value: Any) -> None:
    """End as an agent does that can do nothing for it."""
    match name:
        case "rate_limit":
            sys.exit("scripted: rate limit" + ("" if value is None else f", try again in {value} seconds"))
        case "api_error":
            sys.exit(f"scripted: API error: {value}")
        case "crash":
            os.kill(os.getpid(), value)
        case _:
            sys.exit(f"There is no step {name!r}.")


def edit(name: str, value: dict[str, str]) -> None:
    """Write, append to or replace in a file, line ends as they are given."""
    path = Path(value["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes().decode("utf-8") if path.is_file() and name != "write" else ""
    if name == "replace":
        if value["old"] not in old:
            sys.exit(f"{path} has no {value['old']!r}.")
        new = old.replace(value["old"], value["new"])
    else:
        new = old + value["text"]
    path.write_bytes(new.encode("utf-8"))


def main() -> None:
    """Read the brief, take the steps."""
    brief = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    agent = Agent(os.environ.get("EPICWAVE_STORY", "story"), os.environ.get("EPICWAVE_ATTEMPT", "1"), brief)
    for step in agent.steps():
        say(json.dumps(step, ensure_ascii=False)[:200])
        perform(step)


if __name__ == "__main__":
    main()
