"""An agent is found by its name or is a command line; what is missing is said before anything is made."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from mcp_server.adapters.agents.profiles import BUILT_IN, Profile, available, resolve
from mcp_server.adapters.agents.signs import Format
from mcp_server.errors import Code, Refused

NAMES = ["claude", "cursor", "codex", "gemini", "opencode", "scripted"]


def argv(profile: Profile) -> tuple[str, ...]:
    return profile.argv(brief=Path("/l/b.md"), worktree=Path("/w t"), git_dir=Path("/r/.git"), story="S1")


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with nothing on it; returns its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str) -> Path:
    path = folder / (f"{name}.bat" if os.name == "nt" else name)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_built_in_agents_are_these() -> None:
    assert list(BUILT_IN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_agent_says_how_sure_we_are_of_it(name: str) -> None:
    note = resolve(name, {}).note
    assert ("never run here" in note) == (name not in {"claude", "scripted"})


def test_the_users_own_agent_comes_before_a_built_in_one() -> None:
    own = Profile("codex", ("mine",))
    assert resolve(" codex ", {"codex": own}) is own


@pytest.mark.skipif(os.name != "posix", reason="quoting is the POSIX shell's")
def test_placeholders_are_filled_in_and_other_braces_left() -> None:
    profile = resolve("tool --at {worktree} --x={story}:{brief} '{\"json\": 1}' {unknown}", {})
    assert argv(profile) == ("tool", "--at", "/w t", "--x=S1:/l/b.md", '{"json": 1}', "{unknown}")


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_agents_end_can_be_judged(name: str) -> None:
    signs = BUILT_IN[name].signs
    assert signs.format is not Format.PLAIN
    assert signs.rate_limit
    assert signs.api_error
    for pattern in (*signs.rate_limit, *signs.api_error):
        assert not re.compile(pattern).search("")


def test_codex_may_write_the_git_folder_that_lies_outside_the_worktree(empty_path: Path) -> None:
    words = argv(resolve("codex", {}))
    assert words[words.index("--add-dir") + 1] == str(Path("/r/.git"))


def test_one_word_that_is_nothing_is_refused_with_the_nearest_name(empty_path: Path) -> None:
    with pytest.raises(Refused, match=r"'cluade' is neither.*Did you mean 'claude'\?.*mine, claude, cursor") as caught:
        resolve("cluade", {"mine": Profile("mine", ("x",))})
    assert caught.value.code is Code.UNKNOWN_AGENT


def test_one_word_that_is_a_program_is_a_command_line(empty_path: Path) -> None:
    program(empty_path, "my-agent")
    profile = resolve("my-agent", {})
    profile.check()
    assert profile.command == ("my-agent",)


@pytest.mark.parametrize("line", ["a && b", "'unclosed", ""])
def test_a_line_that_needs_a_shell_is_refused(line: str) -> None:
    with pytest.raises(Refused) as caught:
        resolve(line, {})
    assert caught.value.code is Code.UNKNOWN_AGENT


def test_a_missing_program_is_refused_with_how_to_get_it_and_what_else_there_is(empty_path: Path) -> None:
    with pytest.raises(Refused, match=r"'claude'.*npm install.*another agent; ready here: scripted\.") as caught:
        resolve("claude", {}).check()
    assert caught.value.code is Code.UNKNOWN_AGENT


def test_a_missing_program_of_a_command_line_is_refused(empty_path: Path) -> None:
    with pytest.raises(Refused, match="the program 'nothing', which is not found"):
        resolve("nothing --at all", {}).check()


def test_a_program_in_the_repository_is_looked_for_there(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    program(tmp_path / "tools", "agent")
    profile = Profile("own", (f"tools/{program(tmp_path / 'tools', 'agent').name}",))
    profile.check(tmp_path)
    with pytest.raises(Refused):
        profile.check(tmp_path / "tools")


def test_a_program_goes_by_its_other_name_when_only_that_is_there(empty_path: Path) -> None:
    program(empty_path, "agent")
    profile = resolve("cursor", {})
    profile.check()
    assert argv(profile)[0] == "agent"


def test_what_is_ready_is_listed(empty_path: Path) -> None:
    program(empty_path, "gemini")
    assert available({"mine": Profile("mine", (sys.executable,))}) == ["mine", "gemini", "scripted"]
