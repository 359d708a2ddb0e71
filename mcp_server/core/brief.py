"""Story to the agent's text: what to do, what must hold, what earlier stories changed, why the last attempt failed."""

from __future__ import annotations

import shlex

from mcp_server.core.checks import guard_of, spoken
from mcp_server.core.model import Cause, Epic, Failure, Story, StoryState, is_team
from mcp_server.core.spec import Argv, AttemptId

FILES_SHOWN = 40
"""Paths of one earlier story that are listed before the rest is counted."""
RIVALS_SHOWN = 3
RIVAL_WORDS = 600
"""Characters of the description of a story that was in conflict with this one."""
STORIES_SHOWN = 15
"""Earlier stories that are listed, the story's own dependencies first."""


def brief(epic: Epic, story: Story, attempt: AttemptId, checks: tuple[Argv, ...]) -> str:
    """The whole text that an agent gets, on its standard input or when it claims the story, in Markdown."""
    spec = story.spec
    parts = [
        f"# Story {spec.id}: {spec.title}\n\nEpic: {epic.spec.title} ({attempt.epic}). Attempt {attempt.number}.",
        _section("Goal of the epic", epic.spec.goal),
        _section("What to do", spec.description),
        _section("Acceptance criteria", "\n".join(f"- {a}" for a in spec.acceptance)),
        _section("Files", _files(spec.files)),
        _section("Earlier stories, already in your worktree", _earlier(epic, story)),
        _section("Why the last attempt did not land", _failure(story.failure)),
        _section("Whom it conflicted with", _rivals(epic, story)),
        _section("What the lead says", story.advice),
        _section("Checks", _checks(epic, story, checks)),
        _section("Ports", _ports(story.ports) if is_team(epic) else ""),
        _section("How your work is taken", _TEAM_RULES if is_team(epic) else _RULES),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


_RULES = """\
- You are in a git worktree of your own, on a branch of your own. Work only inside it.
- Commit everything you want kept, with a message that says why (`git add`, `git commit`). Uncommitted changes and
  untracked files at the end count as unfinished, and the attempt is refused.
- Do not merge, rebase, push or switch branches: your commits are rebased, checked and merged for you.
- When you cannot finish, say why in your last words and exit with a code other than 0."""


_TEAM_RULES = """\
- Work only in your worktree, on the branch that the claim named. Do not merge, push, or touch other branches.
- Commit everything you want kept, then report_story(lease, "done"): your commits are rebased, checked and merged.
- A conflict or a red check comes back to you as the answer: mend it in the same worktree, commit, report done again.
- When you cannot finish: report "failed" and say why, or "blocked" with the one question that a human must answer."""


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body.strip()}" if body.strip() else ""


def _files(files: tuple[str, ...]) -> str:
    if not files:
        return ""
    lines = "\n".join(f"- {f}" for f in files)
    return f"{lines}\n\nOther stories may be at work on other files: stay within these unless the story needs more."


def _earlier(epic: Epic, story: Story) -> str:
    merged = [s for s in epic.stories.values() if s.state is StoryState.MERGED and s.merged_as is not None]
    merged.sort(key=lambda s: (s.spec.id not in story.spec.depends_on, -s.merge_rank))
    lines: list[str] = []
    for other in merged[:STORIES_SHOWN]:
        shown = ", ".join(f"`{f}`" for f in other.files_changed[:FILES_SHOWN]) or "no files"
        more = len(other.files_changed) - FILES_SHOWN
        lines.append(f"- {other.spec.id} {other.spec.title}: {shown}{f' and {more} more' if more > 0 else ''}")
    if len(merged) > STORIES_SHOWN:
        lines.append(f"- and {len(merged) - STORIES_SHOWN} more")
    return "\n".join(lines)


def _failure(failure: Failure | None) -> str:
    if failure is None:
        return ""
    asked = failure.cause is Cause.QUESTION
    text = f"Attempt {failure.attempt} {'asked' if asked else f'ended as `{failure.cause}`'}: {failure.detail}"
    if failure.tail:
        fence = "```"
        while fence in failure.tail:
            fence += "`"
        text += f"\n\n{fence}text\n{failure.tail}\n{fence}"
    if failure.saved_ref:
        text += (
            f"\n\nIts work is kept at `{failure.saved_ref}`. Look at it with `git diff HEAD...{failure.saved_ref}`; "
            f"bring its commits here with `git cherry-pick HEAD..{failure.saved_ref}` if they are worth keeping."
        )
    return text


def rivals(epic: Epic, story: Story) -> list[Story]:
    """Merged stories that changed files in which the story's last attempt conflicted, the last one first."""
    failure = story.failure
    paths = set(failure.paths) if failure is not None and failure.cause is Cause.CONFLICT else set[str]()
    merged = (s for s in epic.stories.in_state(StoryState.MERGED) if s.merged_as is not None)
    return sorted((s for s in merged if not paths.isdisjoint(s.files_changed)), key=lambda s: -s.merge_rank)


def _rivals(epic: Epic, story: Story) -> str:
    """What those wanted, and how both sides of the conflict are seen: whoever mends it must keep both."""
    failure, found = story.failure, rivals(epic, story)
    if failure is None or not found:
        return ""
    told: list[str] = []
    for other in found[:RIVALS_SHOWN]:
        wanted = " ".join(other.spec.description.split())
        told.append(f"- {other.spec.id} {other.spec.title}: {wanted[:RIVAL_WORDS] or 'no description'}")
    paths = shlex.join(failure.paths[:FILES_SHOWN])
    saved = failure.saved_ref
    if saved:
        told += [
            f"\nTheir side: `git diff {saved}...HEAD -- {paths}`. Yours: `git diff HEAD...{saved} -- {paths}`.",
            f"Start with `git cherry-pick HEAD..{saved}`, settle these files so that both intents hold, and go on.",
        ]
    return "\n".join(told)


def _ports(own: range) -> str:
    """For whom no environment of ours reaches; a process has it as EPICWAVE_PORT_BASE."""
    return f"Serve only on ports {own[0]} to {own[-1]}: other stories have others." if own else ""


def _checks(epic: Epic, story: Story, checks: tuple[Argv, ...]) -> str:
    if not checks:
        return ""
    lines = "\n".join(f"- `{spoken(c)}`{_whose(epic, story, c)}" for c in checks)
    return f"These must pass on the merged tree; run them before you finish:\n\n{lines}"


def _whose(epic: Epic, story: Story, command: Argv) -> str:
    """Whose guard a check is, if it is one."""
    owner = guard_of(epic, command)
    if owner is not None:
        return f" (the guard of {owner.spec.id}, which is merged: keep it green)"
    return " (your story's guard: all later stories will have to keep it green)" * (command in story.spec.guards)
