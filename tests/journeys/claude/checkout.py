"""The user's repository in the journeys: what is in it before, and what must be the same afterwards."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.server.scene import allow

NOTES_EPIC = """\
id: six
title: Six notes
checks:
  - python app.py
  - python look.py
stories:
  - {id: S1, title: First note, files: [notes/S1.md], description: "Write notes/S1.md."}
  - {id: S2, title: Second note, files: [notes/S2.md], description: "Write notes/S2.md."}
  - {id: S3, title: Third note, files: [notes/S3.md], description: "Write notes/S3.md."}
  - {id: S4, title: Fourth note, depends_on: [S1, S2], files: [notes/S4.md], description: "Build on: S1, S2."}
  - {id: S5, title: Fifth note, depends_on: [S3], files: [notes/S5.md], description: "Build on: S3."}
  - {id: S6, title: Last note, depends_on: [S4, S5], files: [notes/S6.md], description: "Build on: S4, S5."}
"""
"""Three waves: three stories, two that read what the first wave wrote, and one that reads what they wrote."""

PAIR = """\
id: pair
title: Two notes
checks: [python app.py, python look.py]
stories:
  - {id: S1, title: First note, files: [notes/S1.md]}
  - {id: S2, title: Second note, depends_on: [S1], files: [notes/S2.md], description: "Build on: S1."}
"""

WHOLE = {
    "S1": "S1()",
    "S2": "S2()",
    "S3": "S3()",
    "S4": "S4(S1()+S2())",
    "S5": "S5(S3())",
    "S6": "S6(S4(S1()+S2())+S5(S3()))",
}
"""What each note says when every story has read the notes that it builds on."""

LOOK = """\
import pathlib, sys

sys.exit(sum("RED" in note.read_text() for note in pathlib.Path("notes").glob("*.md")))
"""
"""A check that is red for a note that says so."""


def git(repository: Path, *command: str) -> str:
    """What a git command answers. Raises `CalledProcessError`."""
    return subprocess.run(
        ["git", "--no-optional-locks", *command],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout


def make(folder: Path, epic: str) -> Path:
    """A repository whose user is in the middle of something: a staged file, a changed file, an unknown file."""
    (folder / "app.py").write_text("print('hello')\n", "utf-8")
    (folder / "look.py").write_text(LOOK, "utf-8")
    (folder / "draft.txt").write_text("one\n", "utf-8")
    (folder / ".gitignore").write_text(".claude/worktrees/\n", "utf-8")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        git(folder, *command)
    (folder / "epic.yaml").write_text(epic, "utf-8")
    (folder / "draft.txt").write_text("one\ntwo\n", "utf-8")
    (folder / "staged.txt").write_text("staged\n", "utf-8")
    git(folder, "add", "staged.txt")
    allow(folder, ("python", "app.py"), ("python", "look.py"))  # the checks of all epics here
    git(folder, "status")  # the index is as fresh as it gets
    return folder


def configure(repository: Path, **settings: object) -> None:
    """Write the repository's configuration, which git is told to ignore."""
    (repository / ".epicwave").mkdir()
    lines = "".join(f"  {key}: {value}\n" for key, value in settings.items())
    (repository / ".epicwave" / "config.yaml").write_text(f"epic:\n{lines}", "utf-8")


@dataclass(frozen=True)
class Checkout:
    """All that is the user's, byte for byte. The host's own worktrees below `.claude/worktrees` are not."""

    files: dict[str, bytes]
    head: bytes
    index: bytes
    config: bytes
    branches: str
    """The user's own branches and where they are."""

    @classmethod
    def of(cls, repository: Path) -> Checkout:
        """As it is now."""
        paths = [p for p in repository.rglob("*") if p.is_file()]
        own = [p for p in paths if p.relative_to(repository).parts[0] != ".git" and not _of_host(repository, p)]
        found = git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/remotes")
        user = [line for line in found.splitlines() if not line.startswith(_NOT_THE_USERS)]
        inside = repository / ".git"
        return cls(
            files={str(p.relative_to(repository)): p.read_bytes() for p in own},
            head=(inside / "HEAD").read_bytes(),
            index=(inside / "index").read_bytes(),
            config=(inside / "config").read_bytes(),
            branches="\n".join(user),
        )

    def differs(self, before: Checkout) -> list[str]:
        """What is not the same, by name."""
        parts = [
            name for name in ("head", "index", "config", "branches") if getattr(self, name) != getattr(before, name)
        ]
        paths = self.files.keys() | before.files.keys()
        return parts + sorted(path for path in paths if self.files.get(path) != before.files.get(path))


_NOT_THE_USERS = ("refs/heads/epicwave/", "refs/heads/epicwave-work/", "refs/heads/worktree-agent-")


def _of_host(repository: Path, path: Path) -> bool:
    return path.relative_to(repository).parts[:2] == (".claude", "worktrees")


def notes(repository: Path, epic: str = "six") -> dict[str, str]:
    """The notes on the epic's branch, by story."""
    names = git(repository, "ls-tree", "--name-only", f"epicwave/{epic}", "notes/").split()
    return {Path(n).stem: git(repository, "show", f"epicwave/{epic}:{n}").strip() for n in names}


def left_behind(repository: Path) -> dict[str, str]:
    """What of ours must not be there when all is over: locks, worktrees, branches of attempts and their helper refs.

    A branch may stay as long as one of the host's worktrees has it checked out; `git worktree list` says so.
    """
    trees = git(repository, "worktree", "list", "--porcelain")
    host = [tree for tree in trees.split("\n\n") if "/.claude/worktrees/" in tree]
    found: dict[str, str] = {}
    for ref in git(repository, "for-each-ref", "--format=%(refname)", *_OURS).split():
        attempt = ref.removeprefix("refs/epicwave/settled/").removeprefix("refs/heads/epicwave-work/")
        if not any(f"branch refs/heads/epicwave-work/{attempt}\n" in f"{tree}\n" for tree in host):
            found[ref] = "a ref that nobody needs any more"
    for tree in trees.split("\n\n")[1:]:
        if tree.strip() and tree not in host:
            found[tree.splitlines()[0]] = "a worktree that is not the host's"
    holder = repository / ".git" / "epicwave" / "engine.json"
    return found | ({str(holder): "the engine's lock"} if holder.exists() else {})


_OURS = ("refs/heads/epicwave-work", "refs/epicwave/base", "refs/epicwave/settled")


def rescued(repository: Path) -> dict[str, list[str]]:
    """What was saved: attempt to the files that its rescue ref has and the user's branch has not."""
    refs = git(repository, "for-each-ref", "--format=%(refname)", "refs/epicwave/rescue").split()
    return {
        ref.removeprefix("refs/epicwave/rescue/"): git(repository, "diff", "--name-only", f"main...{ref}").split()
        for ref in refs
    }
