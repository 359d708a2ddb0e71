"""What init puts into a file it takes out again, byte for byte, whatever else is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings

from mcp_server.cli.init_files import IgnoreFile, JsonFile, Outcome, OwnEntry, ProjectFile, WholeFile
from mcp_server.errors import Code, Refused
from tests.cli.contents import Json, ignore_files, json_files

GUARD = {"matcher": "Bash", "hooks": [{"type": "command", "command": ".claude/hooks/guard.py", "timeout": 5}]}
SETTINGS = JsonFile(
    ".claude/settings.json",
    (
        OwnEntry("rule r", ("permissions", "allow"), None, "r"),
        OwnEntry("hook Start", ("hooks", "Start"), None, GUARD, "guard.py"),
        OwnEntry("hook End", ("hooks", "End"), None, {"hooks": []}),
    ),
)
SERVERS = JsonFile(".mcp.json", (OwnEntry("server e", ("mcpServers",), "e", {"command": "e", "args": ["serve"]}),))
VERSIONED = JsonFile("hooks.json", SETTINGS.entries[1:], ("version", 1))
IGNORE = IgnoreFile(".gitignore", "# ours: why", ".claude/worktrees/", ".claude/worktrees/a/b")
FILES = (SETTINGS, SERVERS, VERSIONED, IGNORE)

# --- any content -----------------------------------------------------------------------------------------------------
HOUSE = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def _there_and_back(file: ProjectFile, content: bytes | None) -> bytes | None:
    """What is left of a content after put and take; what put made is what it says it is."""
    put = file.put(content, force=False)
    assert put.left == ()
    assert put.content is not None
    assert file.put(put.content, force=False) == Outcome(put.content), "the second time there is nothing to do"
    taken = file.take(put.content, force=False)
    assert taken.left == ()
    return taken.content


@HOUSE
@given(json_files())
@example(b"{}")
@example(b"{}\n")
@example(b"{\n}\n")
@example(b'{"version": 1}')
@example(b'{\n  "version": 1,\n  "hooks": {}\n}\n')
@example(b'{"permissions": {"allow": []}, "hooks": {"Start": [], "End": [ ]}}')
def test_what_is_put_into_json_is_taken_out_byte_for_byte(content: bytes) -> None:
    for file in (SETTINGS, SERVERS, VERSIONED):
        assert _there_and_back(file, content) == content


def _keeps(now: Json, was: Json) -> bool:
    """True when all that was there is there, in its order."""
    match now, was:
        case dict(), dict():
            return [key for key in now if key in was] == list(was) and all(_keeps(now[key], was[key]) for key in was)
        case list(), list():
            return now[: len(was)] == was
        case _:
            return now == was


@HOUSE
@given(json_files())
def test_everything_that_was_in_the_json_is_still_there_in_its_order(content: bytes) -> None:
    before: Json = json.loads(content.decode("utf-8-sig"))
    for file in (SETTINGS, SERVERS):
        after = file.put(content, force=False).content
        assert after is not None
        value = json.loads(after.decode("utf-8-sig"))
        assert _keeps(value, before)
        for entry in file.entries:
            inside = value
            for name in entry.path:
                inside = inside[name]
            assert entry.value == (inside[-1] if entry.key is None else inside[entry.key])


@HOUSE
@given(ignore_files())
@example(b"")
@example(b"\n")
@example(b"a\r")
@example(b"a\r\nb")
@example(b"a\r\nb\r")
def test_lines_put_into_gitignore_are_taken_out_byte_for_byte(content: bytes) -> None:
    assert _there_and_back(IGNORE, content) == content


@pytest.mark.parametrize("file", [*FILES, WholeFile("a.md", b"ours\n")], ids=lambda file: file.path)
def test_a_file_that_was_made_is_gone_again(file: ProjectFile) -> None:
    assert _there_and_back(file, None) is None


# --- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("indent", "newline"), [("  ", "\n"), ("    ", "\n"), ("\t", "\n"), ("  ", "\r\n")])
def test_an_entry_is_written_as_the_file_is(indent: str, newline: str) -> None:
    """What a user sees in the diff is one more entry, and the comma before it."""

    def file(*servers: str) -> bytes:
        inside = ",\n".join(
            f'>>"{name}": {{\n>>>"command": "{name}",\n>>>"args": [\n>>>>"serve"\n>>>]\n>>}}' for name in servers
        )
        text = f'{{\n>"mcpServers": {{\n{inside}\n>}},\n>"other": ["a", "b"]\n}}\n'
        return text.replace(">", indent).replace("\n", newline).encode()

    assert SERVERS.put(file("x"), force=False).content == file("x", "e")


def test_a_list_on_one_line_stays_on_one_line() -> None:
    rule = JsonFile("s.json", SETTINGS.entries[:1])
    put = rule.put(b'{"permissions": {"allow": ["Bash(ls)"]}}', force=False)
    assert put.content == b'{"permissions": {"allow": ["Bash(ls)", "r"]}}'


def test_of_a_key_that_is_there_twice_the_one_that_counts_gets_the_entry() -> None:
    """Every reader of JSON takes the later one."""
    content = b'{"mcpServers": {"a": {}}, "mcpServers": {"b": {}}}'
    put = SERVERS.put(content, force=False)
    assert json.loads(put.content or b"")["mcpServers"].keys() == {"b", "e"}
    assert SERVERS.take(put.content, force=False) == Outcome(content)


# --- what is not ours ------------------------------------------------------------------------------------------------

OTHER_SERVER = b'{"mcpServers": {"e": {"command": "other"}}}'
OTHER_HOOK = b'{"hooks": {"Start": [{"hooks": [{"type": "command", "command": "my/guard.py"}]}]}}'


@pytest.mark.parametrize(
    ("file", "content"), [(SERVERS, OTHER_SERVER), (JsonFile("s", SETTINGS.entries[1:2]), OTHER_HOOK)]
)
def test_an_entry_in_our_place_is_left_alone_and_named_unless_forced(file: JsonFile, content: bytes) -> None:
    put, taken = file.put(content, force=False), file.take(content, force=False)
    assert put.content == taken.content == content
    assert len(put.left) == len(taken.left) == 1
    assert put.left[0].startswith(file.entries[0].name)
    forced = file.put(content, force=True)
    assert forced.left == ()
    assert file.take(forced.content, force=False).content != forced.content
    assert b"e" not in json.loads(file.take(content, force=True).content or b"{}")


def test_a_hook_of_the_users_own_is_no_rival() -> None:
    content = b'{"hooks": {"Start": [{"hooks": [{"type": "command", "command": "mine.sh"}]}]}}'
    put = SETTINGS.put(content, force=False)
    assert put.left == ()
    assert b"mine.sh" in (put.content or b"")
    assert b"guard.py" in (put.content or b"")


def test_what_was_added_beside_ours_stays() -> None:
    """Also when an editor has written the whole file anew, as editors lay JSON out."""
    made = SETTINGS.put(None, force=False).content
    assert made is not None
    value = json.loads(made)
    value["permissions"]["allow"].append("Bash(ls)")
    value["model"] = "opus"
    taken = SETTINGS.take(json.dumps(value, indent=2).encode(), force=False)
    assert json.loads(taken.content or b"") == {"permissions": {"allow": ["Bash(ls)"]}, "model": "opus"}


def test_an_edited_file_of_ours_is_left_alone_and_named_unless_forced() -> None:
    file = WholeFile("worker.md", b"ours\n")
    for change in (file.put, file.take):
        assert change(b"mine\n", force=False).content == b"mine\n"
        assert "--force" in change(b"mine\n", force=False).left[0]
    assert file.put(b"mine\n", force=True) == Outcome(b"ours\n")
    assert file.take(b"mine\n", force=True) == Outcome(None)


def test_line_ends_of_windows_are_no_edit() -> None:
    file = WholeFile("worker.md", b"ours\n")
    assert file.put(b"ours\r\n", force=False) == Outcome(b"ours\r\n")
    assert file.take(b"ours\r\n", force=False) == Outcome(None)


def test_a_pattern_that_ignores_it_already_is_enough() -> None:
    assert IGNORE.put(b".claude/\n", force=False) == Outcome(b".claude/\n")


def test_the_users_own_pattern_without_our_comment_stays_and_is_named() -> None:
    taken = IGNORE.take(b".claude/worktrees/\n", force=False)
    assert taken.content == b".claude/worktrees/\n"
    assert ".claude/worktrees/" in taken.left[0]


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b'{\n  // mine\n  "a": 1\n}', 2, "comment"),
        (b'{\n  "a": 1, /* mine */\n  "b": 2\n}', 2, "comment"),
        (b'{\n  "a": 1 // mine\n}', 2, "comment"),
        (b"// mine\n{}", 1, "comment"),
        (b'{\n  "url": "https://a"\n  "b": 1\n}', 3, "delimiter"),
        (b'{\n  "a": 1,\n}', 2, ""),
        (b"", 1, "expecting value"),
        (b'{\n"a": "\xff"}', 2, "UTF-8"),
        (b'{"a":\n NaN}', 2, "NaN"),
        (b"\n[]", 2, "object"),
        (b'{\n "permissions": []}', 2, "'permissions' is not an object"),
        (b'{"permissions": {\n"allow": {}}}', 2, "'permissions.allow' is not a list"),
        (b"[" * 100_000, 1, ""),
    ],
)
def test_what_is_no_plain_json_is_refused_with_its_line(content: bytes, line: int, why: str) -> None:
    for change in (SETTINGS.put, SETTINGS.take):
        with pytest.raises(Refused) as refused:
            change(content, force=True)
        assert refused.value.code is Code.BAD_CONFIG
        assert f".claude/settings.json, line {line}: " in refused.value.why or not why
        assert why in refused.value.why
        assert ".claude/settings.json" in refused.value.remedy
